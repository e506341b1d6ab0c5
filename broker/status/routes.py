"""Every address that the broker serves, as one table: the server and its OpenAPI document.

The server adds a route for each row that it can answer, and nothing else, so the document cannot
say anything that is not served. Refuses to know how an answer is made.
"""

import enum
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from broker.control import orders, tokens

API = "/api/v1/"
_TEXT_MAX = 256  # characters of a text in an order


class AnswerBody(enum.Enum):
    """What an answer is; the value is its content type."""

    JSON = "application/json"
    TEXT = "text/plain"
    HTML = "text/html"
    SCRIPT = "text/javascript"
    EVENTS = "text/event-stream"


@frozen(kw_only=True)
class ServedRoute:
    """One address and method; ``name`` is also the operation's id."""

    name: str
    path: str
    words: str  # a sentence
    method: str = "GET"  # which answers HEAD as well
    body: AnswerBody = AnswerBody.JSON
    role: tokens.Role | None = None  # None: for whoever reaches it
    keyed: bool = False  # with the key of the push hook
    wanted: tuple[str, ...] = ()  # texts of an order
    may_have: tuple[str, ...] = ()
    success: int = 200
    failures: tuple[int, ...] = ()


_ORDER_FAILURES = (400, 401, 403, 404, 409, 415, 503)

ROUTES: tuple[ServedRoute, ...] = (
    ServedRoute(name="page", path="/", words="The status page.", body=AnswerBody.HTML),
    ServedRoute(
        name="agent_page",
        path="/agents/{name}",
        words="The page of one agent.",
        body=AnswerBody.HTML,
        failures=(404,),
    ),
    ServedRoute(
        name="live",
        path="/live",
        words="Events that say that the page has changed.",
        body=AnswerBody.EVENTS,
        failures=(503,),
    ),
    ServedRoute(
        name="script",
        path="/live.js",
        words="What keeps the page fresh.",
        body=AnswerBody.SCRIPT,
    ),
    ServedRoute(
        name="alive",
        path="/healthz",
        words="Whether the loop turns.",
        body=AnswerBody.TEXT,
        failures=(503,),
    ),
    ServedRoute(
        name="ready",
        path="/readyz",
        words="Whether it may work, or could take over.",
        body=AnswerBody.TEXT,
        failures=(503,),
    ),
    ServedRoute(
        name="metrics", path="/metrics", words="Metrics for Prometheus.", body=AnswerBody.TEXT
    ),
    ServedRoute(name="queue", path=f"{API}queue", words="Who waits, the longest first, and why."),
    ServedRoute(name="agents", path=f"{API}agents", words="The agents, and the last deaths."),
    ServedRoute(
        name="agent",
        path=f"{API}agents/{{name}}",
        words="All that is known of one agent.",
        failures=(404,),
    ),
    ServedRoute(name="templates", path=f"{API}templates", words="The templates, by preference."),
    ServedRoute(
        name="plan",
        path=f"{API}plan",
        words="What is done, what is held back and why, what people have ordered.",
    ),
    ServedRoute(name="orders", path=f"{API}orders", words="What people have ordered, and stands."),
    ServedRoute(
        name="events", path=f"{API}events", words="What happened of late, the oldest first."
    ),
    ServedRoute(
        name="history",
        path=f"{API}history",
        words="The last items that started or left, and what they waited for.",
    ),
    ServedRoute(
        name="configuration",
        path=f"{API}configuration",
        words="What is in force, setting by setting, as digests.",
    ),
    ServedRoute(name="leftovers", path=f"{API}leftovers", words="What is left over."),
    ServedRoute(
        name="leftovers_all",
        path=f"{API}leftovers/all",
        words="What is left over, and the agents that have nothing to do.",
    ),
    ServedRoute(name="openapi", path=f"{API}openapi.json", words="This document."),
    ServedRoute(
        name="hook",
        path=f"{API}hook",
        words="What the controller's push hook tells.",
        method="POST",
        keyed=True,
        failures=(400, 401, 408, 409, 415, 429, 503),
    ),
    ServedRoute(
        name="tried",
        path=f"{API}try",
        words="What is being tried, or was tried last.",
        role=tokens.Role.VIEW,
        failures=(401, 403, 404, 503),
    ),
    ServedRoute(
        name="try",
        path=f"{API}try",
        words="Start an agent of a template to see how it fares; it takes no build.",
        method="POST",
        role=tokens.Role.OPERATE,
        wanted=("template",),
        may_have=("backend", "why"),
        success=202,
        failures=_ORDER_FAILURES,
    ),
    *(
        ServedRoute(
            name=form.name,
            path=f"{API}{form.name}",
            words=form.words,
            method="POST",
            role=tokens.Role.OPERATE,
            wanted=form.wanted,
            may_have=form.may_have,
            failures=_ORDER_FAILURES,
        )
        for form in orders.FORMS.values()
    ),
)

_FIELDS: Mapping[str, str] = {**orders.FIELDS, "why": "Why, for the log."}
_FAILED: Mapping[int, str] = {
    400: "What is sent makes no sense.",
    401: "A token or key is missing, or nobody has it.",
    403: "The role is too small, or a page of another site asks.",
    404: "There is no such thing, or nothing can be ordered here.",
    408: "What is sent did not come to its end.",
    409: "It is not done, and why.",
    415: "What is sent is to be JSON.",
    429: "Too often.",
    503: "Not just now, and why.",
}


def document(routes: Iterable[ServedRoute], *, version: str) -> dict[str, Any]:
    """Return what is served as an OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Jenkins Agent Broker",
            "version": version,
            "description": "Fields are added, and not taken away or changed, within v1.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "hookKey": {"type": "http", "scheme": "bearer"},
            },
            "schemas": {
                "Document": {
                    "type": "object",
                    "description": "Times are ISO 8601 in UTC (_at), with seconds beside them "
                    "(_age_s, _in_s); null means unknown.",
                },
            },
        },
    }


def _operation(route: ServedRoute) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.words,
        "responses": {
            str(route.success): {
                "description": "As asked for.",
                "content": {route.body.value: {"schema": _schema(route.body)}},
            },
            **{
                str(status): {
                    "description": _FAILED[status],
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                }
                for status in route.failures
            },
        },
    }
    if "{name}" in route.path:
        schema = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,255}$"}
        operation["parameters"] = [
            {"name": "name", "in": "path", "required": True, "schema": schema}
        ]
    if route.keyed:
        operation["security"] = [{"hookKey": []}]
        operation["requestBody"] = _sent({"type": "object"})
    elif route.role is not None:
        operation["security"] = [{"token": []}]
        operation["description"] = f"For who may {route.role.value}."
        if route.method != "GET":
            operation["requestBody"] = _sent(_order_schema(route))
    return operation


def _schema(body: AnswerBody) -> dict[str, Any]:
    if body is AnswerBody.JSON:
        return {"$ref": "#/components/schemas/Document"}
    return {"type": "string"}


def _sent(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _order_schema(route: ServedRoute) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(route.wanted),
        "properties": {
            name: {"type": "string", "maxLength": _TEXT_MAX, "description": _FIELDS[name]}
            for name in (*route.wanted, *route.may_have)
        },
    }
