"""An engine over TCP with TLS, and whose fault it is when they do not come together."""

import asyncio
import contextlib
import pathlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator

import attrs
import pytest

from backends import api
from backends.docker import settings
from tests import patience, tls_front
from tests.contract import checks
from tests.docker import certificates, engines
from tests.docker.conftest import Rig, backend_on, cleaned


@attrs.frozen
class Secured:
    """A real engine that asks for certificates, and who signs them."""

    engine: engines.OwnEngine
    port: int
    ours: certificates.Authority
    client: certificates.Pair
    other: certificates.Authority

    def host(self, port: int | None = None, **changes: object) -> settings.Host:
        told = {"tls": True, "ca_file": self.ours.file, "cert_file": self.client.cert,
                "key_file": self.client.key}  # fmt: skip
        return settings.Host(url=f"tcp://127.0.0.1:{port or self.port}", **{**told, **changes})


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    ours, other = (certificates.Authority(folder, name) for name in ("ours", "other"))
    pair = ours.signed("engine", "IP:127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with engines.own_engine(
        "-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", ours.file,
        "--tlscert", pair.cert, "--tlskey", pair.key,
    ) as engine:  # fmt: skip
        asyncio.run(engines.with_image(engine.url))
        yield Secured(engine, port, ours, ours.signed("broker"), other)


@contextlib.asynccontextmanager
async def with_certificate(secured: Secured, pair: certificates.Pair) -> AsyncIterator[int]:
    """Give a port where the same engine answers with another certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(secured.engine.url[7:]))

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while part := await source.read(65536):
                    sink.write(part)
            sink.close()

        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def refusal(host: settings.Host) -> api.BackendError:
    """Return what a listing says, and a launch too."""
    rig = Rig("", backend_on(host))
    try:
        with pytest.raises(api.BackendError) as listed:
            await rig.backend.list()
        with pytest.raises(api.BackendError) as launched:
            await rig.backend.launch(rig.spec("a1"))
    finally:
        await rig.backend.aclose()
    assert type(listed.value) is type(launched.value)
    return listed.value


async def test_an_agent_lives_and_dies_over_tls(secured):
    """Events included: the watch wakes, the certificate of death is complete."""
    rig = Rig(secured.engine.url, backend_on(secured.host()))
    async with cleaned(rig):
        spec = attrs.evolve(
            rig.spec("a1", "wc -c < /agent-broker/secrets/s; read x < /dev/zero"),
            secret_files={"s": "12345678"},
        )
        await rig.backend.launch(spec)
        await rig.running("a1")
        command = ("/bin/sh", "-c", "echo checked; exit 3")
        ran = await api.run(rig.backend, "a1", command, within_s=patience.seconds(10))
        assert api.Ran(code=3, output="checked") == ran
        watch = rig.backend.watch()
        wake = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        await rig.sdk("kill", rig.container("a1"), "SIGKILL")
        async with patience.limit(20):
            await wake
        await watch.aclose()
        end = await rig.exited("a1")
        assert ("killed", -9) == (end.slug, end.code)
        assert "through the engine" in end.message
        assert "8" == (await rig.backend.logs("a1", tail=1)).strip()
        await rig.backend.terminate("a1", grace_s=0)
        assert {} == await checks.listed(rig.backend)


async def test_an_engine_whose_authority_is_not_ours(secured):
    """Nothing is sent to it; the certificate authority is what to look at."""
    told = await refusal(secured.host(ca_file=secured.other.file))
    assert isinstance(told, api.Unauthorized)
    assert "signed by somebody else; hint: `ca_file`" in str(told)


@pytest.mark.parametrize("flaw", ["none", "of another authority", "expired"])
async def test_an_engine_that_does_not_accept_us(secured, flaw):
    """Our certificate is what to look at."""
    pair = certificates.Pair(None, None)
    if flaw == "expired":
        pair = secured.ours.signed("late", days=-1)
    elif flaw != "none":
        pair = secured.other.signed("stranger")
    told = await refusal(secured.host(cert_file=pair.cert, key_file=pair.key))
    assert isinstance(told, api.Unauthorized | api.Unavailable), told
    assert "does not accept our certificate" in str(told)


@pytest.mark.parametrize(
    ("name", "days", "words"),
    [("IP:127.0.0.1", -1, "its certificate has expired"),
     ("DNS:elsewhere", 2, "is for another name; hint: a name of the certificate in `url`")],
)  # fmt: skip
async def test_an_engine_with_a_wrong_certificate(secured, name, days, words):
    """The other side is what to look at."""
    pair = secured.ours.signed("wrong", name, days=days)
    async with with_certificate(secured, pair) as port:
        told = await refusal(secured.host(port))
    assert isinstance(told, api.Unauthorized)
    assert words in str(told)


async def test_tls_where_none_is_spoken_and_the_other_way_round(secured):
    """Told as such, not as a broken answer."""
    plain = settings.Host(url=f"tcp://127.0.0.1:{secured.port}")
    assert "HTTPS server.; hint: `tls: true` of the host" in str(await refusal(plain))

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    told = await refusal(secured.host(server.sockets[0].getsockname()[1]))
    server.close()
    assert "it does not speak TLS there" in str(told)


@pytest.mark.parametrize("field", ["ca_file", "key_file"])
async def test_files_that_are_missing_or_do_not_fit(secured, field):
    """Our configuration is what to look at."""
    if field == "ca_file":
        told = await refusal(secured.host(ca_file="/nonexistent/ca.pem"))
        assert isinstance(told, api.Unauthorized)
        assert "/nonexistent/ca.pem: No such file" in str(told)
    else:
        other = secured.ours.signed("another")
        told = await refusal(secured.host(key_file=other.key))
        assert "our key is not that of our certificate; hint: `key_file`" in str(told)


async def test_a_host_with_a_wrong_certificate_is_passed_over(secured, engine_url):
    """Another one serves meanwhile, and the list says what is not seen, and why."""
    wrong = secured.host(ca_file=secured.other.file)
    rig = Rig(engine_url, backend_on(wrong, settings.Host(url=engine_url)))
    async with cleaned(rig):
        await rig.backend.launch(rig.spec("a1"))
        with pytest.raises(api.Partial, match="signed by somebody else") as told:
            await rig.backend.list()
        assert ["a1"] == [one.name for one in told.value.seen]


async def test_a_new_authority_in_the_same_file_needs_no_restart(secured, tmp_path):
    """The engine's authority is changed: refused at first, and trusted once the file says so."""
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(pathlib.Path(secured.ours.file).read_bytes())
    front = tls_front.Front(lambda: asyncio.open_unix_connection(secured.engine.url[7:]))
    await front.show(secured.ours.signed("before", "IP:127.0.0.1"))
    host = secured.host(front.port, ca_file=str(trusted))
    rig = Rig(secured.engine.url, backend_on(host))
    try:
        async with cleaned(rig):
            assert list(await rig.backend.list()) == []
            await front.show(secured.other.signed("after", "IP:127.0.0.1"))
            for _ in range(2):
                with pytest.raises(api.BackendError):
                    await rig.backend.list()
            trusted.write_bytes(pathlib.Path(secured.other.file).read_bytes())
            async with patience.limit(20):
                while True:
                    with contextlib.suppress(api.BackendError):
                        assert list(await rig.backend.list()) == []
                        break
                    await asyncio.sleep(0.1)
    finally:
        await front.aclose()
