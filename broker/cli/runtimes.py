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
from backends.kit import connection
from broker import config, exits
from broker.cli import shared
from broker.runtime import build, tree
from outside import bodies, connect_errors, paths, waits

_FETCH_S = 60.0
_JAR_MAX = 64 << 20


def runtime(options: argparse.Namespace) -> None:
    """Write the archive of a runtime, or an image of it; say what it holds."""
    output: pathlib.Path = options.output
    if paths.exists(output):
        raise exits.Refused(f"{output} exists; hint: name another file")
    if not paths.is_directory(output.absolute().parent):
        raise exits.BadInput(f"{output}: there is no folder {output.parent}; hint: make it")
    try:
        with _jar(options) as jar:
            made_of = build.Ingredients(
                jdk=options.jdk or build.jdk_here(),
                jar=jar,
                busybox=build.busybox_here(),
                platform=options.platform or build.platform_here(),
            )
            built = build.build(made_of, output)
        if options.image is not None:
            _pack(output, options.image)
    except build.BuildError as error:
        raise exits.Failed(str(error)) from error
    except OSError as error:
        raise exits.Failed(f"{output}: cannot be written: {error.strerror or error}") from error
    manifest = built.manifest
    if options.json:
        shared.print_json(
            {
                "path": str(output),
                "digest": manifest.digest,
                "platform": manifest.platform,
                "java": manifest.java,
                "remoting": manifest.remoting,
                "varies": built.varies or None,
            }
        )
        return
    print(
        f"{output} written: Java {manifest.java}, agent.jar {manifest.remoting}, "
        f"{manifest.platform}, content {manifest.short}"
    )
    if built.varies:
        print(f"the same again would have another content: {built.varies}")
    if options.image is not None:
        print(f"next: docker load --input {output}, then `image: {options.image}` of a runtime")


def _pack(output: pathlib.Path, name: str) -> None:
    """Make an image of an archive, in its place."""
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            tree.write_image(output, name, file)
        part.replace(output)
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    finally:
        part.unlink(missing_ok=True)


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
