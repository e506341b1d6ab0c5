"""``runtime``: makes the Java that agents in images without Java are started with.

Refuses to know what is in it (``broker.runtime``), and how it comes to an agent.
"""

import argparse
import asyncio
import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

import aiohttp

from backends import api as backends_api
from backends import registry
from backends.kit import connection
from backends.kit import runtime as runtimes
from broker import clock, config, exits
from broker.cli import shared
from broker.runtime import build, tree
from broker.status import terminal
from outside import bodies, connect_errors, files, paths, quotes, waits

_FETCH_S = 60.0
_JAR_MAX = 64 << 20


def runtime(options: argparse.Namespace) -> None:
    """Make a runtime; write it as an archive or image, or bring it to engines."""
    output: pathlib.Path | None = options.output
    if output is None and not options.engine and options.backend is None:
        raise exits.BadInput("where to? hint: --output FILE, --engine URL or --backend NAME")
    if output is not None and paths.exists(output):
        raise exits.Refused(f"{output} exists; hint: name another file")
    if output is not None and not paths.is_directory(output.absolute().parent):
        raise exits.BadInput(f"{output}: there is no folder {output.parent}; hint: make it")
    platform = options.platform or build.platform_here()
    with contextlib.ExitStack() as stack:
        ways = _ways(options)
        for way in ways:
            stack.callback(way.close)
            with _asking(way):
                way.check(platform)  # it takes a minute until there is something to bring
        if output is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="agent-runtime-"))
            output = pathlib.Path(folder, "runtime.tar")
        built = _built(options, output, platform)
        places = [_delivered(way, output, options.image) for way in ways]
    if options.json:
        _print_document(options, built, places)
    else:
        _print(options, built, places)


def _built(options: argparse.Namespace, output: pathlib.Path, platform: str) -> build.Built:
    try:
        with _jar(options) as jar:
            made_of = build.Ingredients(
                jdk=options.jdk or build.jdk_here(),
                jar=jar,
                busybox=build.busybox_here(),
                platform=platform,
                docker=options.docker,
            )
            built = build.build(made_of, output, tell=shared.note)
        if options.image is not None:
            _pack(output, options.image)
    except build.BuildError as error:
        raise exits.Failed(str(error)) from error
    except OSError as error:
        raise exits.Failed(f"{output}: cannot be written: {error.strerror or error}") from error
    return built


# --- to engines ---


def _ways(options: argparse.Namespace) -> list[runtimes.Delivery]:
    """Return the way to each engine that is named; Docker's modules are imported for it only."""
    ways: list[runtimes.Delivery] = []
    for url in options.engine:
        try:
            ways += registry.deliveries("docker", None, url=url)
        except ValueError as error:
            raise exits.BadInput(f"--engine: {error}") from error
    if (name := options.backend) is not None:
        settings = shared.settings_of(options)
        told = settings.backends.get(name)
        if told is None:
            known = ", ".join(sorted(settings.backends))
            raise exits.BadInput(f"--backend: no backend {quotes.shown(name)}; there are: {known}")
        try:
            ways += registry.deliveries(told.kind, told.settings)
        except ValueError as error:
            raise exits.BadInput(f"--backend {name}: {error}") from error
    return ways


@contextlib.contextmanager
def _asking(way: runtimes.Delivery) -> Iterator[None]:
    try:
        yield
    except backends_api.BackendError as error:
        where = "" if way.where in error.reason else f"engine {way.where}: "
        raise exits.Failed(f"{where}{error.reason}") from error


def _delivered(way: runtimes.Delivery, archive: pathlib.Path, image: str | None) -> dict[str, str]:
    """Bring what was made to an engine, and say what it is there."""
    tell = _Progress(f"engine {way.where}").tell
    with _asking(way):
        if image is not None:
            way.load(archive, image, tell=tell)
            return {"engine": way.where, "image": image}
        return {
            "engine": way.where,
            "volume": way.fill(str(archive), now=clock.Clock().now(), tell=tell),
        }


class _Progress:
    """Says each quarter of what is sent."""

    def __init__(self, what: str) -> None:
        self._what, self._quarter = what, -1

    def tell(self, sent: int, size: int) -> None:
        quarter = 4 * sent // max(size, 1)
        if quarter != self._quarter:
            self._quarter = quarter
            shared.note(f"{self._what}: {sent >> 20} of {size >> 20} MiB sent")


# --- what is said of it ---


def _print_document(
    options: argparse.Namespace, built: build.Built, places: list[dict[str, str]]
) -> None:
    manifest = built.manifest
    shared.print_json(
        {
            "path": str(options.output) if options.output is not None else None,
            "content": manifest.short,
            "platform": manifest.platform,
            "java": manifest.java,
            "remoting": manifest.remoting,
            "varies": built.varies or None,
            "delivered": places,
        }
    )


def _print(options: argparse.Namespace, built: build.Built, places: list[dict[str, str]]) -> None:
    manifest, output = built.manifest, options.output
    made = f"{output} written" if output is not None else "made"
    print(
        f"{made}: Java {manifest.java}, agent.jar {manifest.remoting}, "
        f"{manifest.platform}, content {manifest.short}"
    )
    if built.varies:
        print(f"the same again would have another content: {built.varies}")
    for place in places:
        where = terminal.plain(place["engine"])
        if "image" in place:
            print(f"{where} has image {place['image']}")
        else:
            print(f"{where} has volume {place['volume']}")
    if options.image is not None:
        load = "" if places else f"docker load --input {output}, then "
        print(f"next: {load}`image: {options.image}` of a runtime")


def _pack(output: pathlib.Path, name: str) -> None:
    """Make an image of an archive, in its place."""
    try:
        with files.replaced(output) as file:
            tree.write_image(output, name, file)
    except BaseException:
        output.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _jar(options: argparse.Namespace) -> Iterator[pathlib.Path]:
    """Give the file of agent.jar: the one that is named, or the configured controller's."""
    if options.jar is not None:
        yield options.jar
        return
    settings = shared.settings_of(options, secrets=config.Secrets.UNREAD)
    controller = settings.controller
    url = f"{controller.url.rstrip('/')}/jnlpJars/agent.jar"
    content = asyncio.run(_fetched(url, controller.route()))
    with tempfile.TemporaryDirectory(prefix="agent-jar-") as folder:
        path = pathlib.Path(folder, "agent.jar")
        path.write_bytes(content)
        yield path


async def _fetched(url: str, route: backends_api.Route) -> bytes:
    """Return a file of the controller, which it gives to everybody."""
    try:
        connector = aiohttp.TCPConnector(ssl=connection.context(route))
        async with (
            waits.timeout(_FETCH_S),
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.get(url, allow_redirects=False, proxy=route.proxy) as answer,
        ):
            if answer.status != 200:
                raise exits.Failed(f"{url} answered {answer.status}; hint: --jar FILE")
            return await bodies.read(answer, _JAR_MAX)
    except (bodies.TooLarge, bodies.Unreadable, backends_api.Rejected) as error:
        raise exits.Failed(f"cannot fetch {url}: {error}") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise exits.Failed(f"cannot fetch {url}: {connect_errors.words(error)}") from error
