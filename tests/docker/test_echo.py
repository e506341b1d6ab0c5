"""An engine or a registry that tells back what it was sent: no secret comes to anybody's eyes."""

import asyncio
import base64
import functools
import io
import json

import pytest

from backends import api
from backends.docker import backend, settings
from backends.docker.containers import container
from backends.docker.engine import client
from broker import log
from tests import echo
from tests.docker import scripted_engine
from tests.docker.test_wire import BYTES_VERBS, JSON_VERBS, SECRET, _caught

PASSWORD = 'p4ss/w"ord+of=the&registry'
TOKEN = "identity-token-0123456789"
AUTH = base64.b64encode(f"bob:{PASSWORD}".encode()).decode()
VERBS = {**JSON_VERBS, **BYTES_VERBS}
LOGINS = {
    "settings": (PASSWORD, None),
    "auth": (PASSWORD, {"auth": AUTH}),
    "identity token": (TOKEN, {"auth": AUTH, "identitytoken": TOKEN}),
}


def configured(tmp_path, entry: object) -> dict[str, object]:
    (tmp_path / "password").write_text(PASSWORD)
    if entry is None:
        login = settings.Registry(user="bob", password_file=str(tmp_path / "password"))
        return {"registries": {"registry.example:5000": login}}
    told = {"auths": {"registry.example:5000": entry}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    return {"docker_config": str(tmp_path)}


def version(request: echo.Request) -> bytes | None:
    return echo.reply(scripted_engine.VERSION) if request.target == "/version" else None


@pytest.mark.parametrize(
    ("way", "login"),
    [
        pytest.param(way, login, marks=[pytest.mark.soak] * ((row + column) % 3 != 0))
        for row, way in enumerate(echo.WAYS)
        for column, login in enumerate(LOGINS)
    ],
)
async def test_no_secret_comes_back(way, login, tmp_path):
    """Of all verbs: in errors, in what was read, in progress, in the log."""
    secret, entry = LOGINS[login]
    outputs: list[str] = []
    lines = io.StringIO()
    log.configure(form="json", level="debug", stream=lines)
    with echo.serving(way, first=version) as server:
        one = client.Engine(
            settings.Host(url=f"tcp://127.0.0.1:{server.port}"),
            settings.DockerSettings(timeout_s=10.0, **configured(tmp_path, entry)),
        )
        # a password is known from the moment on in which it is read
        for verb in ("pull", *(name for name in VERBS if name != "pull")):
            error = await asyncio.to_thread(_caught, VERBS[verb], one)
            outputs.append(str(error))
            outputs.append(getattr(error, "reason", ""))
        pull = functools.partial(one.pull, "registry.example:5000/x", None, outputs.append)
        outputs.append(str(await asyncio.to_thread(_caught, lambda _: pull(), one)))
        await asyncio.to_thread(one.close)
    outputs.append(lines.getvalue())
    for hidden in (secret, SECRET):
        assert server.was_sent(hidden), "or nothing is shown"
        for output in outputs:
            assert [] == echo.found(hidden, output)


async def test_a_stream_that_tells_the_login_back(tmp_path):
    """A registry's words come in the progress of a pull, and in its error."""
    secret, entry = LOGINS["auth"]
    progress: list[str] = []

    def tell(request: echo.Request, sock) -> None:
        said = request.everything()
        line = {"status": said, "id": said, "progressDetail": {"x": said}}
        sock.sendall(scripted_engine.lines(line, {"error": f"denied: {said}"}))

    with scripted_engine.engine() as made:
        made.answer("POST", "/images/create", tell)
        one = client.Engine(
            settings.Host(url=made.url),
            settings.DockerSettings(timeout_s=10.0, **configured(tmp_path, entry)),
        )
        with pytest.raises(api.BackendError) as refused:
            await asyncio.to_thread(one.pull, "registry.example:5000/x", None, progress.append)
        await asyncio.to_thread(one.close)
        assert echo.found(secret, made.requests[-1].head), "it was sent"
    assert [] == echo.found(secret, refused.value.reason)
    assert [] == echo.found(secret, "\n".join(progress))


async def test_an_agent_that_prints_its_secret(tmp_path):
    """Into its output, its last words and the engine's error: what is shown has none."""
    spec = api.InstanceSpec(name="a1", metadata={"owner": "ours"}, image="x")
    plan = container.plan(spec, owner="ours")
    entry = {"Id": "c" * 64, "Names": ["/a1"], "State": "exited", "Labels": plan.body["Labels"]}
    said = f"java -secret {SECRET} -url x\n{base64.b64encode(SECRET.encode()).decode()}\n".encode()
    frames = b"\x01\0\0\0" + len(said).to_bytes(4, "big") + said
    looked = {
        "Id": "c" * 64, "Config": {"Labels": plan.body["Labels"]},
        "State": {"Status": "exited", "ExitCode": 127, "Error": said.decode(),
                  "StartedAt": "2026-01-01T00:00:00Z", "FinishedAt": "2026-01-01T00:00:01Z"},
    }  # fmt: skip
    with scripted_engine.engine() as made:
        made.answer("GET", "/containers/json", [entry])
        made.answer("GET", "/json", looked)
        made.answer("GET", "/logs", scripted_engine.TO_THE_END + frames)
        made.answer("GET", "/archive", scripted_engine.refusal(404, "Could not find the file /x"))
        one = backend.create(
            settings.DockerSettings(hosts=(settings.Host(url=made.url),)),
            owner="ours", store=None, state_dir=None, now=lambda: 2e9,
        )  # fmt: skip
        (seen,) = await one.list()
        outputs = [repr(seen), await one.logs("a1", tail=20)]
        await one.aclose()
    for output in outputs:
        assert [] == echo.found(SECRET, output)
    assert "java" in outputs[1]
