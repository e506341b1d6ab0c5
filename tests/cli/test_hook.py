"""``hook print``, ``hook install`` and ``hook remove``."""

import contextlib

import pytest
from aiohttp import web

from broker.hook import script
from tests.cli.test_cli import ran

KEY = "k" * 32
CONFIG = """\
owner: o
controller: {{url: "{url}", user: u, token: env:HOOK_TOKEN}}
listen: {listen}
control: {{hook: {{key: file:key{more}}}}}
templates: {{t: {{labels: t}}}}
"""


@contextlib.asynccontextmanager
async def console(
    tmp_path, monkeypatch, answer, *, status=200, listen='"127.0.0.1:8087"', more=""
):
    """A controller that has a script console and nothing else."""
    monkeypatch.setenv("HOOK_TOKEN", "a-token-of-eleven")
    scripts = []

    async def take(request):
        scripts.append((await request.post())["script"])
        return web.Response(text=answer, status=status, headers={"X-Jenkins": "2.541.3"})

    app = web.Application()
    app.router.add_post("/scriptText", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = site._server.sockets[0].getsockname()
    path = tmp_path / "broker.yaml"
    path.write_text(CONFIG.format(url=f"http://{host}:{port}/", listen=listen, more=more))
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)
    try:
        yield path, scripts
    finally:
        await runner.cleanup()


async def test_printed_it_has_no_secret_unless_that_is_asked_for(tmp_path, monkeypatch):
    """It is the very text for ``init.groovy.d``; nothing is asked."""
    async with console(tmp_path, monkeypatch, "") as (path, scripts):
        code, out, _ = await ran("hook", "print", "--config", str(path))
        assert (code, out) == (0, script.install("o", "http://127.0.0.1:8087/"))
        assert KEY not in out
        code, out, _ = await ran("hook", "print", "--with-key", "--config", str(path))
        assert code == 0
        assert KEY in out
        assert not scripts


async def test_installed_it_has_the_key(tmp_path, monkeypatch):
    """And only the controller sees it."""
    said = "Result: agent-broker hook 1 of o is installed\n"
    async with console(tmp_path, monkeypatch, said) as (path, scripts):
        code, out, err = await ran("hook", "install", "--config", str(path))
        assert code == 0, err
        assert "http://127.0.0.1:8087/" in out
        assert KEY not in out + err
        assert scripts == [script.install("o", "http://127.0.0.1:8087/", key=KEY)]


@pytest.mark.parametrize(("count", "said"), [(1, "is removed"), (0, "no hook of o is installed")])
async def test_removed_it_is_gone(tmp_path, monkeypatch, count, said):
    """Or was not there."""
    answer = f"Result: agent-broker hooks removed: {count}\n"
    async with console(tmp_path, monkeypatch, answer) as (path, scripts):
        code, out, err = await ran("hook", "remove", "--config", str(path))
        assert code == 0, err
        assert said in out
        assert scripts == [script.remove("o")]


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ("u is missing the Overall/Administer permission", 403, "init.groovy.d"),
        ("groovy.lang.MissingPropertyException: no such property", 200, "MissingProperty"),
        ("", 500, "500"),
    ],
)
async def test_what_stands_in_the_way_is_said(tmp_path, monkeypatch, answer, status, said):
    """In one line, which quotes the controller, and what else would do."""
    async with console(tmp_path, monkeypatch, answer, status=status) as (path, _):
        for way in ("install", "remove"):
            code, out, err = await ran("hook", way, "--config", str(path))
            assert (code, out) == (1, "")
            assert said in err
            assert KEY not in err


async def test_where_it_is_to_tell_has_to_be_known(tmp_path, monkeypatch):
    """Without a page, or with one whose port nobody knows yet."""
    for listen, said in (('"off"', "listen is off"), ('"127.0.0.1:0"', "port 0")):
        async with console(tmp_path, monkeypatch, "", listen=listen) as (path, scripts):
            code, _, err = await ran("hook", "print", "--config", str(path))
            assert code == 2
            assert said in err
            assert not scripts
    more = ', url: "https://broker.example.com/x"'
    async with console(tmp_path, monkeypatch, "", more=more) as (path, _):
        _, out, _ = await ran("hook", "print", "--config", str(path))
        assert "'https://broker.example.com/x/api/v1/hook'" in out


async def test_without_the_setting_there_is_none(tmp_path, monkeypatch):
    """And the message says what to write."""
    async with console(tmp_path, monkeypatch, "") as (path, scripts):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith("control:")))
        for way in (("print", "--with-key"), ("install",)):
            code, _, err = await ran("hook", *way, "--config", str(path))
            assert code == 2
            assert "control.hook is not set" in err
        assert not scripts
