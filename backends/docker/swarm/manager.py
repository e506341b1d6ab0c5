"""A manager's part of the Engine's API: services, tasks, nodes, secrets; blocking calls.

Refuses to know instances and owners, other managers, and what an answer means for an agent.
"""

import base64
import contextlib
import json
import secrets
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from attrs import field, frozen

from backends import api
from backends.docker.engine import answers, bodies, client, wire
from backends.docker.swarm import refusals, service, states
from outside import quotes, text, typed

_JSON = {"Content-Type": "application/json"}
_INSPECT_MAX = 4 << 20
_OUTPUT_MAX = 32 << 20
_OUTPUT_KEPT = 64 << 10
_CONFIGS_MAX = 32 << 20  # a list of them has their contents
_NAME_MAX = 64


@frozen(kw_only=True)
class Service:
    """A service in a listing."""

    id: str
    name: str
    labels: Mapping[str, str]
    created_at: float | None
    ports: tuple[api.Port, ...] = ()  # of every node
    configs: frozenset[str] = frozenset()  # names of those that it has
    flawed: bool = False  # there are labels that cannot be read, or none that can


@frozen(kw_only=True)
class SwarmSecret:
    """A secret of the swarm, which nobody can read back."""

    id: str
    labels: Mapping[str, str]
    created_at: float | None


@frozen(kw_only=True)
class SwarmConfig:
    """A config of the swarm."""

    id: str
    name: str
    labels: Mapping[str, str]
    data: str = field(repr=False)  # base64


@frozen(kw_only=True)
class Errand:
    """A service that does one thing on each node, and that is ours."""

    id: str
    name: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]  # as the API has it
    version: int
    run: int  # how often it was begun anew

    @property
    def image(self) -> str:
        """What the nodes are told for its image."""
        task = bodies.section(self.spec, "TaskTemplate")
        return typed.words(bodies.section(task, "ContainerSpec").get("Image"), 4096)


@frozen(kw_only=True)
class SwarmView:
    """What one manager shows at one time."""

    tasks: Sequence[states.SwarmTask]
    services: Sequence[Service]
    nodes: Mapping[str, states.SwarmNode]  # by id
    odd: Mapping[str, typed.Odd]  # what of a listing is none, by what it lists
    swarm: str  # its id


class Manager(client.Engine):
    """One engine that manages a swarm."""

    def view(self, labels: Mapping[str, str]) -> SwarmView:
        """Look at everything with these labels.

        Tasks come first: a task without its service is then one whose service has gone, and never
        one whose service has just been made. Which swarm it is comes last: a manager may have left
        one and begun another between two looks.
        """
        tasks, odd_tasks = self.tasks(labels)
        services, odd = self.services(labels)
        nodes = {node.id: node for node in self.nodes()}
        return SwarmView(
            tasks=tasks,
            services=services,
            nodes=nodes,
            odd={"service": odd, "task": odd_tasks},
            swarm=self.swarm(),
        )

    def swarm(self) -> str:
        """Return the id of the swarm that it manages.

        Raises Unauthorized for a worker, and OddAnswerError.
        """
        with self._managed("cannot ask which swarm it is") as session:
            info = session.ask_json(dict, "GET", "/info", limit=_INSPECT_MAX)
        told = bodies.section(info, "Swarm")
        if told.get("ControlAvailable") is not True:
            state = typed.words(told.get("LocalNodeState"), 32)
            words = {
                "active": "is a worker, or was demoted to one",
                "locked": "is locked; hint: docker swarm unlock there",
            }.get(state, f"is in no swarm ({text.clean(state) or 'it does not say'})")
            raise api.Unauthorized(
                f"{self.url} {words}; hint: `managers` of the backend", reach=api.Reach.PLACE
            )
        swarm = answers.plain_id(bodies.section(told, "Cluster").get("ID"))
        if not swarm:  # one without a quorum answers all the same, with words in place of the id
            words = text.clean(typed.words(told.get("Error"), 1024))
            if words:
                raise refusals.refused(HTTPStatus.SERVICE_UNAVAILABLE, words)
            raise client.OddAnswerError(f"{self.url} does not say which swarm it manages")
        return swarm

    # --- services ---

    def services(self, labels: Mapping[str, str]) -> tuple[list[Service], typed.Odd]:
        """Every service with these labels, and what of the list is none."""
        with self._managed("cannot list services") as session:
            found = session.ask_json(list, "GET", "/services", query=_labelled(labels))
            return typed.each(found, _service)

    def find_service(self, name: str) -> Service:
        """Look at the service of exactly that name; raises NotFound."""
        with self._managed(f"cannot look at {quotes.shown(name)}", name) as session:
            found = _service(
                session.ask_json(dict, "GET", f"/services/{_quoted(name)}", limit=_INSPECT_MAX)
            )
        if found.name != name:  # managers take the beginning of an id, too
            raise api.NotFound(f"no service {quotes.shown(name)}")
        return found

    def launch(self, plan: service.ServicePlan, image: str) -> None:
        """Create a service with its secrets; leaves none if it fails.

        Raises client.NameTakenError.
        """
        lent = service.LentIds(
            secrets={one.name: self._id_of("secret", one.name) for one in plan.borrowed},
            configs={
                **{one.name: self._id_of("config", one.name) for one in plan.configs},
                **{one.name: self._given(one) for one in plan.given},
            },
        )
        made: dict[str, tuple[str, str]] = {}
        try:
            for file, content in plan.secrets.items():
                called = service.secret_name(plan.service, file, secrets.token_hex(8))
                made[file] = (self._secret(called, content, plan.labels), called)
            self._create(plan.complete(image, made, lent), plan.service, plan.image)
        except BaseException:
            for secret, _ in made.values():
                with contextlib.suppress(api.BackendError):
                    self.remove_secret(secret)
            raise

    def _create(self, body: Mapping[str, Any], name: str, image: str) -> None:
        """Create a service of that name; ``image`` is as somebody has configured it."""
        login = self._login(image)
        with self._answers("cannot create a service") as session:
            try:
                session.ask(
                    "POST",
                    "/services/create",
                    body=json.dumps(dict(body)).encode(),
                    headers={**_JSON, **login},
                )
            except wire.RefusedError as error:
                if error.status == HTTPStatus.CONFLICT:
                    raise client.NameTakenError(error.words) from error
                raise refusals.refused_creation(
                    error.status, error.words, named=(name, image)
                ) from error

    def errands(self, labels: Mapping[str, str]) -> list[Errand]:
        """Return the jobs with these labels; one that cannot be read is left out."""
        with self._managed("cannot list services") as session:
            entries = session.ask_json(list, "GET", "/services", query=_labelled(labels))
            found, _ = typed.each(entries, _errand)
            return found

    def begin_errand(self, body: Mapping[str, Any], image: str) -> None:
        """Create a service as the API describes it. Raises client.NameTakenError."""
        self._create(body, str(body.get("Name")), image)

    def change_errand(self, there: Errand, body: Mapping[str, Any]) -> None:
        """Have a job do something else, or the same anew.

        Raises Unavailable if somebody else has changed it meanwhile.
        """
        with self._managed("cannot change a service") as session:
            session.ask(
                "POST",
                f"/services/{_quoted(there.id)}/update",
                query={"version": there.version},
                body=json.dumps(dict(body)).encode(),
                headers={**_JSON, **self._login(there.image)},
            )

    def remove_service(self, service_id: str) -> None:
        """Remove a service by its id; its task ends on its own; raises NotFound."""
        with self._managed("cannot remove a service") as session:
            session.ask("DELETE", f"/services/{_quoted(service_id)}")

    # --- tasks and nodes ---

    def tasks(self, labels: Mapping[str, str]) -> tuple[list[states.SwarmTask], typed.Odd]:
        """Every task of a service with these labels, also of one that is gone."""
        with self._managed("cannot list tasks") as session:
            found = session.ask_json(list, "GET", "/tasks", query=_labelled(labels))
            return typed.each(found, states.task)

    def tasks_of(self, service_id: str) -> list[states.SwarmTask]:
        """Every task of a service that is there; one that cannot be read is left out."""
        with self._managed("cannot list tasks") as session:
            query = {"filters": json.dumps({"service": [service_id]})}
            found, _ = typed.each(
                session.ask_json(list, "GET", "/tasks", query=query), states.task
            )
            return found

    def nodes(self) -> list[states.SwarmNode]:
        """Every node; one that cannot be read is left out."""
        with self._managed("cannot list nodes") as session:
            found, _ = typed.each(session.ask_json(list, "GET", "/nodes"), states.node)
            return found

    def output(self, task: str, tail: int) -> str:
        """Return the last lines of a task's output, of whatever node: of much the end."""
        with (
            self._managed("cannot read the output") as session,
            session.stream(
                "GET",
                f"/tasks/{_quoted(task)}/logs",
                query={"stdout": 1, "stderr": 1, "tail": tail},
                waits=self._waits(),
            ) as answer,
        ):
            raw, whole = answer.output(multiplexed=True, kept=_OUTPUT_KEPT, limit=_OUTPUT_MAX)
        return (raw if whole else raw.partition(b"\n")[2]).decode("utf-8", "replace")

    # --- secrets, configs, images ---

    def own_secrets(self, labels: Mapping[str, str]) -> list[SwarmSecret]:
        """Every secret with these labels."""
        with self._managed("cannot list secrets") as session:
            entries = session.ask_json(list, "GET", "/secrets", query=_labelled(labels))
            found, _ = typed.each(entries, _as_secret)
            return found

    def remove_secret(self, secret: str) -> None:
        """Remove one by its id; raises NotFound, and Rejected while a service has it."""
        with self._managed("cannot remove a secret") as session:
            session.ask("DELETE", f"/secrets/{_quoted(secret)}")

    def own_configs(self, labels: Mapping[str, str]) -> list[SwarmConfig]:
        """Every config with these labels that brings files of ours; their content comes along."""
        with self._managed("cannot list configs") as session:
            entries = session.ask_json(
                list, "GET", "/configs", query=_labelled(labels), limit=_CONFIGS_MAX
            )
            found, _ = typed.each(entries, _as_config)
            return [one for one in found if service.GIVEN in one.labels]

    def remove_config(self, config: str) -> None:
        """Remove one by its id; raises NotFound, and Rejected while a service has it."""
        with self._managed("cannot remove a config") as session:
            session.ask("DELETE", f"/configs/{_quoted(config)}")

    def _given(self, wanted: service.GivenFile) -> str:
        """Return the id of the config with a file of ours; it is made if it is not there.

        Raises Rejected for another's of that name.
        """
        with contextlib.suppress(api.NotFound):
            return self._known(wanted)
        data = base64.b64encode(wanted.content).decode()
        body = {"Name": wanted.name, "Labels": dict(wanted.labels), "Data": data}
        try:
            with self._managed("cannot create a config", wanted.name) as session:
                answer = session.ask_json(
                    dict,
                    "POST",
                    "/configs/create",
                    body=json.dumps(body).encode(),
                    headers=_JSON,
                )
        except api.Rejected as error:  # somebody may have made it just now
            try:
                return self._known(wanted)
            except api.NotFound:
                raise error from None
        return answers.created_id({"Id": answer.get("ID")})

    def _known(self, wanted: service.GivenFile) -> str:
        """Return the id of the config that is there. Raises NotFound, Rejected, OddAnswerError."""
        with self._managed(f"cannot look at the config {wanted.name}", wanted.name) as session:
            path = f"/configs/{_quoted(wanted.name)}"
            entry = session.ask_json(dict, "GET", path, limit=_INSPECT_MAX)
        try:
            found = _as_config(entry)
        except ValueError as error:
            raise client.OddAnswerError(f"{self.url} shows no config: {error}") from error
        is_it = found.data == base64.b64encode(wanted.content).decode()
        if found.name != wanted.name or not is_it or not _has(found.labels, wanted.labels):
            raise api.Rejected(
                f"the config {wanted.name} of the swarm is not ours, or of another content; "
                "hint: docker config rm, if nobody needs it"
            )
        return found.id

    def _secret(self, name: str, content: str, labels: Mapping[str, str]) -> str:
        if not content:
            raise api.Rejected("a swarm takes no empty secret")
        data = base64.b64encode(content.encode("utf-8", "surrogateescape")).decode()
        body = {"Name": name, "Labels": dict(labels), "Data": data}
        with self._managed("cannot create a secret", name) as session:
            answer = session.ask_json(
                dict,
                "POST",
                "/secrets/create",
                body=json.dumps(body).encode(),
                headers=_JSON,
            )
        return answers.created_id({"Id": answer.get("ID")})

    def _id_of(self, kind: str, name: str) -> str:
        """Return the id of a ``config`` or ``secret`` of the swarm. Raises Rejected for none."""
        with self._managed(f"cannot look at the {kind} {quotes.shown(name)}", name) as session:
            query = {"filters": json.dumps({"name": [name]})}  # of all that begin so
            entries = session.ask_json(list, "GET", f"/{kind}s", query=query)
        for entry in entries:
            if isinstance(entry, Mapping) and bodies.section(entry, "Spec").get("Name") == name:
                return answers.plain_id(entry.get("ID"))
        raise api.Rejected(f"the swarm has no {kind} {quotes.shown(name)}; hint: `{kind}s`")

    def image_id(self, image: str) -> str:
        """Return the id of an image that the manager's own engine has. Raises Rejected."""
        with self._answers("cannot look for an image") as session:
            try:
                told = session.ask_json(
                    dict, "GET", f"/images/{client.image_path(image)}/json", limit=_INSPECT_MAX
                )
            except wire.RefusedError as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    raise api.Rejected(
                        f"the manager has no image {image[:120]}; hint: load it there, or another "
                        "`resolve` of the template"
                    ) from error
                raise
        return typed.words(told.get("Id"), 256) or image

    @contextlib.contextmanager
    def _managed(self, doing: str, *named: str) -> Iterator[wire.Connections]:
        """Give the session; judge refusals by a manager's words, but for what was named."""
        with self._answers(doing) as session:
            try:
                yield session
            except wire.RefusedError as error:
                if "client version" in error.words:
                    raise
                raise refusals.refused(
                    error.status, error.words, named=named, retry_after=error.retry_after
                ) from error


def _labelled(labels: Mapping[str, str]) -> dict[str, str]:
    return {"filters": json.dumps({"label": [f"{key}={text}" for key, text in labels.items()]})}


def _service(entry: Any) -> Service:
    """Read one. Raises ValueError for what is none."""
    if not isinstance(entry, Mapping):
        raise ValueError("an entry that is not a service")  # noqa: TRY004 -- the caller's one kind
    spec = bodies.section(entry, "Spec")
    told = bodies.section(spec, "Labels")
    labels = answers.texts(told)
    found = Service(
        id=answers.plain_id(entry.get("ID")),
        name=typed.words(spec.get("Name"), 64),
        labels=labels,
        created_at=answers.stamp(entry.get("CreatedAt")),
        ports=states.ports(_ingress(entry)),
        configs=_configs(spec),
        flawed=not labels or len(labels) < len(told),
    )
    if not found.id or not found.name:
        raise ValueError("a service without an id, or without a name")
    return found


def _ingress(entry: Mapping[str, Any]) -> list[Any]:
    """Return the ports that are published on every node."""
    told = bodies.section(entry, "Endpoint").get("Ports")
    return [
        one
        for one in (told if isinstance(told, list) else ())
        if isinstance(one, Mapping) and one.get("PublishMode") == "ingress"
    ]


def _configs(spec: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the configs that the container of a service has."""
    inner = bodies.section(bodies.section(spec, "TaskTemplate"), "ContainerSpec")
    listed = inner.get("Configs")
    told = listed if isinstance(listed, list) else ()
    return frozenset(
        name
        for one in told
        if isinstance(one, Mapping) and (name := typed.words(one.get("ConfigName"), _NAME_MAX))
    )


def _as_config(entry: Any) -> SwarmConfig:
    """Read one. Raises ValueError for what is none."""
    if not isinstance(entry, Mapping):
        raise ValueError("an entry that is not a config")  # noqa: TRY004 -- the caller's one kind
    spec = bodies.section(entry, "Spec")
    found = SwarmConfig(
        id=answers.plain_id(entry.get("ID")),
        name=typed.words(spec.get("Name"), _NAME_MAX),
        labels=answers.texts(spec.get("Labels")),
        data=typed.words(spec.get("Data"), _INSPECT_MAX),
    )
    if not found.id or not found.name:
        raise ValueError("a config without an id, or without a name")
    return found


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return wanted.items() <= labels.items()


def _errand(entry: Any) -> Errand:
    """Read one. Raises ValueError for what is none."""
    if not isinstance(entry, Mapping):
        raise ValueError("an entry that is not a service")  # noqa: TRY004 -- the caller's one kind
    spec, status = bodies.section(entry, "Spec"), bodies.section(entry, "JobStatus")
    version = typed.integer(bodies.section(entry, "Version").get("Index"), 0, 1 << 62)
    found = answers.plain_id(entry.get("ID"))
    if not found or version is None:
        raise ValueError("a service without an id, or without a version")
    return Errand(
        id=found,
        name=typed.words(spec.get("Name"), 64),
        labels=answers.texts(spec.get("Labels")),
        spec=spec,
        version=version,
        run=typed.integer(bodies.section(status, "JobIteration").get("Index"), 0, 1 << 62) or 0,
    )


def _as_secret(entry: Any) -> SwarmSecret:
    if not isinstance(entry, Mapping):
        raise ValueError("an entry that is not a secret")  # noqa: TRY004 -- as above
    return SwarmSecret(
        id=answers.created_id({"Id": entry.get("ID")}),
        labels=answers.texts(bodies.section(entry, "Spec").get("Labels")),
        created_at=answers.stamp(entry.get("CreatedAt")),
    )


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")
