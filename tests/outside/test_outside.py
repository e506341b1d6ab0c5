"""The door to the outside: text, secrets, bodies, files, single values."""

import asyncio
import base64
import functools
import gzip
import html
import json
import os
import re
import socket
import stat
import urllib.parse

import aiohttp
import hypothesis
import pytest
from aiohttp import test_utils, web
from hypothesis import strategies as st

from outside import bodies, connect_errors, files, odd_json, secrets, text, tls, typed
from tests.each import each

TOKEN = "11b4a9f3-Ü+/ö?\"<'&c0ffee"
AGENT = "0123456789abcdef" * 4
IN_ALL_FORMS = {
    "plain": TOKEN,
    "repr": repr(TOKEN),
    "json": json.dumps(TOKEN),
    "json, not ascii": json.dumps(TOKEN, ensure_ascii=False),
    "url": urllib.parse.quote(TOKEN),
    "url, nothing safe": urllib.parse.quote(TOKEN, safe=""),
    "form": urllib.parse.urlencode({"token": TOKEN}),
    "html": html.escape(TOKEN),
    "basic": "Basic " + base64.b64encode(f"agent-broker:{TOKEN}".encode()).decode(),
    "basic of a longer user": "Basic "
    + base64.b64encode(f"agent-brokers:{TOKEN}".encode()).decode(),
    "registry": base64.urlsafe_b64encode(
        json.dumps({"username": "u", "password": TOKEN}).encode()
    ).decode(),
    "kubernetes": base64.b64encode(TOKEN.encode()).decode(),
    "in a query": urllib.parse.quote(base64.b64encode(f"x{TOKEN}".encode()).decode(), safe=""),
    "hex": TOKEN.encode().hex(),
}


# how many characters at the beginning are not the secret's
OTHERS = {"form": 6, "basic": 24, "basic of a longer user": 26, "registry": 43, "in a query": 2}


@each("form", IN_ALL_FORMS)
def test_every_form_of_a_secret_is_blanked(form):
    """Whatever the remote makes of what it was sent before it sends it back."""
    secrets.register(TOKEN)
    shown = text.clean(f"cannot: {IN_ALL_FORMS[form]} is wrong", 2000)
    assert secrets.HIDDEN in shown
    told = IN_ALL_FORMS[form]
    own = told[OTHERS.get(form, 0) : len(told) - 4]  # the end may be another's
    assert not any(own[n : n + 10] in shown for n in range(len(own) - 10))


@pytest.mark.parametrize("lead", ["", "x", "xy", '{"JENKINS_SECRET":"'])
def test_agents_secrets_are_known_by_their_looks(lead):
    """In clear and in base64, wherever in the encoded text they stand; an image's digest stays."""
    encoded = base64.b64encode(f'{lead}{AGENT}"}}'.encode()).decode()
    assert text.clean(f"data: {encoded}") == "data: (hidden)" or encoded[8:80] not in text.clean(
        encoded
    )
    assert AGENT not in text.clean(f"-secret {AGENT}, -secret {AGENT.upper()}")
    assert f"sha256:{AGENT}" in text.clean(f"image sha256:{AGENT}")


@hypothesis.given(st.text(max_size=60), st.integers(0, 200), st.integers(8, 40))
def test_a_cut_leaves_no_half_of_a_secret(lead, repeated, limit):
    """However much shorter the text gets by blanking, and wherever the limit falls."""
    secrets.register("hunter2-hunter2")
    shown = text.clean(lead + "hunter2-hunter2," * repeated + " end", limit)
    assert "hunter2" not in shown.replace(lead, "")
    assert len(shown) <= limit


def test_cleaned_text_is_one_line_that_turns_nothing():
    """ESC, BEL, C1, right-to-left overrides, line separators, halves of pairs."""
    assert text.clean("a\x1b[31mb\x07\x9bc\u202ed\u2066e\ud800f") == "a�[31mb��c�d�e�f"
    assert text.clean("one\r\ntwo\u2028three\x85four\tfive  six") == "one two three four five six"
    json.dumps(text.clean("\udcff\udc00")).encode("utf-8")
    text.clean("\udcff").encode("utf-8")


def test_long_text_is_cut_and_says_so():
    """The cost does not depend on the size: a megabyte is as quick as a page."""
    assert text.clean("x y " * 1_000_000, 10) == "x y x y x…"
    assert text.clean("short", 10) == "short"
    assert len(text.clean("a" * 5000, 100)) == 100


def test_last_lines_are_few_and_short():
    """What a dead agent said last, not the megabyte before it."""
    said = "x" * 3_000_000 + "\nlast but one\n\n\x1b[1mlast\n"
    assert text.last_lines(said, 20) == ("last but one", "�[1mlast")
    assert text.last_lines("a\nb\nc", 2) == ("b", "c")
    assert text.last_lines("x" * 1_000_000, 3) == ("…",)
    assert text.last_lines("", 3) == ()


def test_a_registry_holds_only_so_many():
    """Tokens are renewed for months; the newest are known."""
    for number in range(1000):
        secrets.register(f"token-number-{number:04}")
    assert "token-number-0999" not in secrets.blanked("token-number-0999")
    assert len(secrets._pools[""]) <= 256


async def served(handle, **options):
    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, site._server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("packing", ["", "gzip"])
@pytest.mark.parametrize(("size", "good"), [(1000, True), (1001, False), (50_000_000, False)])
async def test_a_body_is_read_to_its_limit(packing, size, good):
    """Unpacked: fifty megabytes fit into fifty kilobytes of gzip."""
    body = gzip.compress(bytes(size), 9) if packing else bytes(min(size, 5_000_000))

    async def handle(_):
        return web.Response(body=body, headers={"Content-Encoding": packing} if packing else {})

    runner, port = await served(handle)
    try:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.get(f"http://127.0.0.1:{port}/") as response,
        ):
            if good:
                assert await bodies.read(response, 1000) == bytes(size)
            else:
                with pytest.raises(bodies.TooLarge, match="1000 bytes"):
                    await bodies.read(response, 1000)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("packing", "body"), [("br", b"x"), ("gzip", b"no gzip at all")])
async def test_a_body_that_cannot_be_unpacked(packing, body):
    """Says so, as an error that its caller knows."""

    async def handle(_):
        return web.Response(body=body, headers={"Content-Encoding": packing})

    runner, port = await served(handle)
    try:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.get(f"http://127.0.0.1:{port}/") as response,
        ):
            with pytest.raises(bodies.Unreadable, match=packing):
                await bodies.read(response, 1000)
    finally:
        await runner.cleanup()


def test_only_regular_files_are_read(tmp_path):
    """A FIFO would hold us up, a device would never end, half a secret is worse than none."""
    (tmp_path / "good").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("good")
    os.mkfifo(tmp_path / "fifo")
    assert files.read(tmp_path / "good", limit=6) == b"secret"
    assert files.read(tmp_path / "link", limit=100) == b"secret"
    with pytest.raises(OSError, match="larger than 5 bytes"):
        files.read(tmp_path / "good", limit=5)
    for path in (tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            files.read(path, limit=100)
    with pytest.raises(OSError, match="a directory"):
        files.read(tmp_path, limit=100)
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "nothing", limit=100)


def test_a_file_is_replaced_and_nothing_else_is_written_to(tmp_path):
    """In a folder of many, somebody may have put a link where he expects us to write."""
    precious, path = tmp_path / "precious", tmp_path / "out.tar"
    precious.write_bytes(b"mine")
    for name in ("out.tar", "out.tar.part", ".out.tar.part"):
        (tmp_path / name).symlink_to(precious)
    with files.replaced(path) as file:
        file.write(b"new")
        assert path.is_symlink(), "until it is whole"
    assert (path.read_bytes(), path.is_symlink()) == (b"new", False)
    assert precious.read_bytes() == b"mine"
    before = sorted(tmp_path.iterdir())

    def half():
        with files.replaced(path) as file:
            file.write(b"half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        half()
    assert path.read_bytes() == b"new"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_directories_are_made_for_their_owner_alone(tmp_path, umask):
    """The missing ones above as well, whatever the umask; those that are there stay as they are."""
    tmp_path.chmod(0o755)
    before = os.umask(umask)
    try:
        files.make_private(tmp_path / "a" / "b" / "c")
        files.make_private(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / p).stat().st_mode) for p in ("a", "a/b", "a/b/c")}
    assert modes == {0o700}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@each(
    ("value", "number", "integer"),
    [
        (5, 5.0, 5),
        (10**400, 100.0, 100),
        (-1, 0.0, 0),
        (2.9, 2.9, 2),
        (True, None, None),
        (float("nan"), None, None),
        (float("inf"), 100.0, None),
        ("5", None, None),
        (None, None, None),
    ],
)
def test_numbers_are_clamped(value, number, integer):
    """A number of four hundred digits is a number; a truth value, a text and NaN are none."""
    assert typed.number(value, 0, 100) == number
    assert typed.integer(value, 0, 100) == integer


def test_a_whole_number_beyond_every_float_has_the_limit_too():
    """Also where there is none on that side."""
    inf = float("inf")
    assert (inf, 0.0) == (typed.number(10**400, 0, inf), typed.number(-(10**400), 0.0, inf))


def test_one_odd_entry_costs_that_entry():
    """Whatever goes wrong with it; how many, and why, is told."""
    good, odd = typed.each([1, 0, "x", 2, 0, None], lambda n: 2 / n)
    assert good == [2.0, 1.0]
    assert odd.count == 4
    assert odd.words("thing").startswith("4 things cannot be read: of another form")
    assert typed.each([], int) == ([], typed.Odd())
    assert not typed.Odd()
    assert typed.Odd().words("thing") == ""


@each("before", ["", "a", "ab", "abc", '{"s": "'])
@each("after", ["", "x", "xy", '"}'])
def test_an_agents_secret_is_known_in_base64_with_and_without_anything_around(before, after):
    """At each place in a group, and at the very end, where a group is not full."""
    secret = "0123456789abcdef" * 4
    packed = base64.b64encode(f"{before}{secret}{after}".encode()).decode()
    for text_ in (packed, packed.rstrip("="), f"it said {packed} and more"):
        assert "MDEyMz" not in secrets.blanked(text_)
        assert packed[20:60] not in secrets.blanked(text_)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:{closed}/", "cannot connect to 127.0.0.1:{closed}: Connection refused"),
        ("http://nowhere.invalid/", "cannot connect to nowhere.invalid:80: "),
        ("https://127.0.0.1:{open}/", "127.0.0.1:{open} does not speak TLS as we do: "),
    ],
)
async def test_who_was_not_reached_is_told_in_our_words(url, expected):
    """Where and why; nothing of a library's own, least of all of TLS where there is none."""
    ports = {}
    async with test_utils.TestServer(web.Application()) as server:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            ports = {"open": server.port, "closed": listening.getsockname()[1]}
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError) as caught:
                await session.get(url.format(**ports))
    words = connect_errors.words(caught.value)
    assert words.startswith(expected.format(**ports))
    assert "ssl:" not in words
    assert "_ssl.c" not in words


def test_other_errors_keep_their_words():
    """Cleaned, without numbers; one without words is called by its name."""
    assert connect_errors.words(OSError(5, "broken\nline")) == "broken line"
    assert connect_errors.words(OSError("odd")) == "odd"
    assert connect_errors.words(FileNotFoundError(2, "gone", "x")) == "[Errno 2] gone: 'x'"
    assert connect_errors.words(ValueError()) == "ValueError"


async def test_an_answer_that_is_none_is_told_in_our_words():
    """Of a program that speaks something else, closes, or says nothing."""

    async def answer(reader, writer, data):
        await reader.readline()
        writer.write(data)
        writer.close()

    for data, expected in (
        (b"SSH-2.0-x\r\n\r\n", "the answer is not HTTP"),
        (b"", "the connection was closed without an answer"),
    ):
        server = await asyncio.start_server(functools.partial(answer, data=data), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError) as caught:
                await session.get(f"http://127.0.0.1:{port}/")
        assert expected == connect_errors.words(caught.value)
    assert connect_errors.words(TimeoutError()) == "no answer in time"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("{'a': 1}", "not JSON at character 2"),
        ('{\n"a":\n}', "not JSON at line 3, character 1"),
        (" \n", "not JSON, but empty"),
        (b"\xff\xfe{", "not JSON"),
        ("[" * 100_000, "not JSON that can be read: nested too deeply"),
    ],
)
def test_what_is_not_json_is_told_with_where(data, expected):
    """Not in the library's words."""
    with pytest.raises((ValueError, RecursionError)) as caught:
        json.loads(data)
    assert expected == odd_json.words(caught.value)


# --- whom we trust ------------------------------------------------------------------------------


def test_an_authority_is_read_whatever_lies_there(tmp_path):
    """A pipe is not waited for; a file without a certificate does not mean the system's."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text(
        "-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n"
    )
    for name, words in (
        ("pipe", "not a regular file"),
        ("empty", "no certificate"),
        ("text", r"[a-z]"),
    ):
        with pytest.raises(OSError, match=words):
            tls.trusting(tmp_path / name)


def test_a_secret_in_a_file_is_its_text(tmp_path):
    """Without blanks and marks; an empty one is none."""
    path = tmp_path / "secret"
    for content in (b"abc", b" abc\r\n", b"\xef\xbb\xbfabc\n"):
        path.write_bytes(content)
        assert files.secret(path) == "abc"
    for content in (b"", b"\n", b"\xff\xfe", b"a" * 20_000):
        path.write_bytes(content)
        with pytest.raises(OSError, match=r"."):
            files.secret(path)


@each("secret", ["11aB+c/d=ef?g&h\"kl'mn<op>q", "Pässwörd ü 9%41", "11f3c9a77b2e"])
@each(
    "spelled",
    [
        lambda s: (
            json.dumps(s).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
        ),
        lambda s: html.escape(s, quote=False).replace('"', "&#34;").replace("'", "&#39;"),
        lambda s: html.escape(s, quote=False).replace('"', "&quot;").replace("'", "&#039;"),
        lambda s: s.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&apos;"),
        lambda s: html.escape(json.dumps(s)),
        lambda s: json.dumps(json.dumps({"message": s})),
        lambda s: urllib.parse.quote(urllib.parse.quote(s, safe=""), safe=""),
        lambda s: re.sub("%..", lambda found: found[0].lower(), urllib.parse.quote(s, safe="")),
        lambda s: urllib.parse.quote(s.encode("latin-1"), safe=""),
        lambda s: s.encode().decode("latin-1"),
        lambda s: repr(s.encode()),
    ],
)
def test_a_secret_as_other_languages_write_it(secret, spelled):
    """Go, Java, XML, a proxy that quotes an address again, a body whose charset is not told."""
    secrets.register(secret)
    told = text.clean(f"no: [{spelled(secret)}]", 1000)
    assert secrets.HIDDEN in told
    assert not any(secret[at : at + 4] in told for at in range(len(secret) - 3))
    assert not any(piece in told for piece in ("mn", "ssw", "c9a7"))
