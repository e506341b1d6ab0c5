"""How far a refusal of the machine reaches: a template's folder or file server is its own matter."""

import socket

import attrs
import pytest

from backends import api
from backends.process import settings


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def refused(shop, made, **changes) -> api.BackendError:
    with pytest.raises(api.BackendError) as caught:
        await made.launch(shop.spec("a1", **changes))
    return caught.value


async def others_start(shop, made) -> None:
    await shop.started(made, "a2", ":")


async def test_a_file_server_that_is_away(shop):
    """Its agent.jar, or a program of its own."""
    made = shop.open()
    file = api.RemoteFile(url=f"http://127.0.0.1:{free_port()}/agent.jar", name="agent.jar")
    error = await refused(shop, made, files=(file,))
    assert (api.Unavailable, api.Reach.TEMPLATE) == (type(error), error.reach)
    await others_start(shop, made)


async def test_a_folder_that_cannot_be_made(shop, tmp_path):
    """A working directory below a file."""
    made = shop.open()
    (tmp_path / "file").write_text("")
    spec = shop.spec("a1")
    options = attrs.evolve(
        spec.options or settings.ProcessTemplate(), working_directory=str(tmp_path / "file")
    )
    error = await refused(shop, made, options=options)
    assert error.reach is api.Reach.TEMPLATE
    await others_start(shop, made)


async def test_our_own_folder_is_everybodys(shop, tmp_path):
    """Where it is a file nothing can be started."""
    (tmp_path / "ours").write_text("")
    made = shop.open(root=tmp_path / "ours")
    error = await refused(shop, made)
    assert error.reach is api.Reach.BACKEND
    shop.opened.remove(made)
    await made.aclose()
