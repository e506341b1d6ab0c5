"""The table of routes: all of it is served, nothing else is, and the document says just that."""

import json
import re

from broker.control import guard, orders
from broker.status import Server, routes
from tests.status import status_source
from tests.status.test_hook import KEY, status
from tests.status.test_page_door import said


def server(**more):
    return Server(status_source.full(), metrics=lambda: (b"", "text/plain"), **more)


FULL = {"gate": guard.Guard(lambda: None), "tries": object(), "orders": object(), "hook": object()}


def served(made):
    """Return what a server's application answers, HEAD aside."""
    found = set()
    for route in made._application().router.routes():
        if route.method != "HEAD":
            found.add((route.method, route.resource.canonical))
    return found


def test_every_route_of_the_table_is_served_and_no_other():
    """Where there is a guard, a hook, and who takes orders."""
    made = server(**FULL)
    assert served(made) == {(route.method, route.path) for route in routes.ROUTES}
    document = routes.document(made.routes, version="1")
    told = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert told == served(server(**FULL))


def test_what_is_not_served_is_not_told():
    """Nobody is sent to an address that answers 404."""
    made = server()
    assert ("POST", f"{routes.API}pause") not in served(made)
    document = routes.document(made.routes, version="1")
    assert f"{routes.API}pause" not in document["paths"]
    assert f"{routes.API}hook" not in document["paths"]


def test_the_document_is_whole():
    """Ids are unique; every reference leads somewhere; every parameter of a path is told."""
    document = routes.document(routes.ROUTES, version="1")
    operations = [one for path in document["paths"].values() for one in path.values()]
    ids = [one["operationId"] for one in operations]
    assert len(ids) == len({*ids})
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        found = document
        for part in reference.split("/"):
            found = found[part]
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            named = {parameter["name"] for parameter in one.get("parameters", ())}
            assert named == {*re.findall(r"{(\w+)}", path)}
            assert all(re.fullmatch("[1-5][0-9]{2}", code) for code in one["responses"])
            assert ("requestBody" in one) is (method == "post")
            schemes = document["components"]["securitySchemes"]
            assert all({*need} <= schemes.keys() for need in one.get("security", ()))
            assert ("security" in one) or method == "get", path


def test_what_an_order_takes_is_what_the_table_says():
    """Its fields are those that the orders themselves read."""
    document = routes.document(routes.ROUTES, version="1")
    for form in orders.FORMS.values():
        body = document["paths"][f"{routes.API}{form.name}"]["post"]["requestBody"]
        schema = body["content"]["application/json"]["schema"]
        assert tuple(schema["properties"]) == form.wanted + form.may_have
        assert tuple(schema["required"]) == form.wanted


async def test_anybody_may_read_it(monkeypatch):
    """And it says what this very server serves."""
    monkeypatch.setattr("tests.status.test_page_door.GUESTS", [])
    made = server()
    url = await made.start(host="127.0.0.1", port=0)
    port = int(url.rstrip("/").rpartition(":")[2])
    try:
        head = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = await said(port, head)
    finally:
        await made.aclose()
    assert status(answer) == 200
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert document["openapi"].startswith("3.1")
    assert KEY not in json.dumps(document)
    assert "/api/v1/plan" in document["paths"]
