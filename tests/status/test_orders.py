"""Orders over HTTP: each without a token, with one that may only look, from another site, and given."""

import json

import attrs
import pytest

from broker.control import guard, orders
from broker.core import model
from broker.core.model import StandingKind, StandingOrder
from broker.status import Server, documents, page, terminal
from tests.status import status_source
from tests.status.test_hook import status
from tests.status.test_page_door import said

ALICE, GRAFANA = "a" * 32, "g" * 32
NOW = status_source.NOW


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No key is looked for in what the tests print."""
    monkeypatch.setattr("tests.status.test_page_door.GUESTS", [])


class Taking:
    """Takes whatever it is ordered."""

    def __init__(self):
        self.taken = []

    def take(self, name, told, *, who):
        if told.get("note") == "no":
            raise orders.OrderDenied("not just now")
        self.taken.append((name, dict(told), who))
        return "done as told"


@pytest.fixture
async def served(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"alice operate {ALICE}\ngrafana view {GRAFANA}\n")
    path.chmod(0o600)
    taking = Taking()
    server = Server(
        status_source.full(),
        metrics=lambda: (b"", "text/plain"),
        gate=guard.Guard(lambda: path),
        orders=taking,
    )
    url = await server.start(host="127.0.0.1", port=0)
    taking.port = int(url.rstrip("/").rpartition(":")[2])
    yield taking
    await server.aclose()


def told_of(form):
    """Return what an order says that says all that it has to."""
    return {name: {"agents": "2"}.get(name, "x") for name in form.wanted}


def request(name, told, *, token=ALICE, more="", kind="application/json"):
    body = json.dumps(told).encode()
    key = f"Authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST /api/v1/{name} HTTP/1.1\r\nHost: localhost\r\n{key}Content-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


@pytest.mark.parametrize("name", orders.FORMS)
async def test_an_order_is_taken_of_whoever_may(served, caplog, name):
    """And of nobody else; who ordered what stands in the log."""
    told = told_of(orders.FORMS[name])
    for sent, answered in (
        (request(name, told, token=None), 401),
        (request(name, told, token="x" * 32), 401),
        (request(name, told, token=GRAFANA), 403),
        (request(name, told, more="Origin: http://evil.example\r\n"), 403),
        (request(name, told, more="Sec-Fetch-Site: cross-site\r\n"), 403),
        (request(name, told, kind="text/plain"), 415),
        (request(name, {**told, "rm": "all"}), 400),
        (request(name, {**told, "note": 7}), 400),
        (request(name, []), 400),
        (f"GET /api/v1/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 405),
    ):
        assert status(await said(served.port, sent)) == answered, sent
    assert served.taken == []
    with caplog.at_level("INFO", logger="broker.control"):
        answer = await said(served.port, request(name, told))
    assert status(answer) == 200
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert document["said"] == "done as told"
    assert {"owner", "orders"} <= document.keys()
    assert served.taken == [(name, told, "alice")]
    (record,) = [one for one in caplog.records if one.getMessage() == "ordered"]
    assert record.who == "alice"
    assert record.order.startswith(name)


async def test_what_is_missing_or_refused_is_said(served):
    """400 for what makes no sense, 409 for what cannot be."""
    answer = await said(served.port, request("pause", {}))
    assert status(answer) == 400
    assert b"missing: note" in answer
    answer = await said(served.port, request("pause", {"note": "no"}))
    assert status(answer) == 409
    assert b"not just now" in answer


def test_what_stands_is_shown_to_all():
    """In the JSON, on the page, in a terminal; a hostile note is only text."""
    source = status_source.full()
    order = StandingOrder(
        kind=StandingKind.PAUSE, who="alice", note="<b>kernel</b>", since_at=NOW - 60,
        until_at=NOW + 7200, template=model.TemplateName("release"),
    )  # fmt: skip
    source.policy = attrs.evolve(source.policy, standing=(order,))
    (row,) = documents.orders(source)["orders"]
    assert (row["kind"], row["about"], row["who"]) == ("pause", "template release", "alice")
    assert row["until_in_s"] == 7200
    assert documents.plan(source)["orders"] == [row]
    shown = page.render(source)
    assert "template release is paused by alice: &lt;b&gt;kernel" in shown
    assert "<b>kernel" not in shown
    told = {
        "plan": documents.plan(source),
        "queue": documents.queue(source),
        "agents": documents.agents(source),
        "templates": documents.templates(source),
    }
    assert "template release is paused by alice" in terminal.render(told)
    source.policy = attrs.evolve(source.policy, standing=())
    assert "Ordered by people" not in page.render(source)
