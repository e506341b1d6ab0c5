"""What an image lacks, seen by a shell in it on a real engine: images of a static busybox alone."""

import contextlib
import io
import pathlib
import secrets
import shutil
import tarfile

import attrs
import pytest

from backends.kit import finding
from broker import trying
from broker.core import model
from broker.loop import execute
from tests import patience
from tests.core import worlds
from tests.docker import conftest, engines

FAR = model.BackendName("far")
WHOLE = ("bin/sh", "bin/nohup", "tmp/", "home/", "usr/lib/locale/C.utf8/")
NO_NOHUP = ("bin/sh", "sbin/nohup", *WHOLE[2:])  # as Debian's busybox, which lacks that applet
SCRIPTS = {"bin/nohup": b'#!/bin/sh\nexec "$@"\n'}
HOME = {"HOME": "/home"}
MAY = "that it may write"


def packed(entries: tuple[str, ...]) -> bytes:
    """Return the root file system of an image: names of busybox, and folders that end with '/'."""
    busybox = shutil.which("busybox")
    if busybox is None:
        engines.absent("no busybox")
    content = pathlib.Path(busybox).read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry in entries:
            member = tarfile.TarInfo(entry.rstrip("/"))
            if entry.endswith("/"):
                member.type, member.mode = tarfile.DIRTYPE, 0o1777
                tar.addfile(member)
            else:
                told = SCRIPTS.get(entry, content)
                member.mode, member.size = 0o755, len(told)
                tar.addfile(member, io.BytesIO(told))
        if not entries:
            tar.addfile(tarfile.TarInfo("nothing"))
    return buffer.getvalue()


@contextlib.contextmanager
def imported(url: str, entries: tuple[str, ...]):
    """Give the name of an image with just that in it; it is gone afterwards."""
    name = f"agent-broker-lacks-{secrets.token_hex(4)}"
    with contextlib.closing(engines.connected(url)) as client:
        client.import_image_from_data(packed(entries), repository=name, tag="1")
        try:
            yield f"{name}:1"
        finally:
            client.remove_image(f"{name}:1")


async def looked_at(rig: conftest.Rig, image: str, env: dict[str, str]) -> finding.Finding:
    """Return what is found of an image; no controller is needed for it."""
    template = worlds.template("t", backends=(FAR,), connect_deadline_s=patience.seconds(60))
    template = attrs.evolve(template, launch=attrs.evolve(template.launch, image=image))

    def order(action: model.LaunchAgent) -> execute.Order:
        spec = attrs.evolve(rig.spec(action.name, image=image), env=env)
        return execute.Order(definition=None, spec_with=lambda _: spec)

    trier = trying.Trier(
        owner="o", nodes=None, backends={FAR: rig.backend}, order=order, now=lambda: 0.0
    )
    return await trier._image(template, FAR)


@pytest.mark.parametrize(
    ("entries", "env", "expected"),
    [
        (WHOLE, HOME, "it has sh, nohup, /tmp, HOME and a locale"),
        pytest.param(("bin/sh", *WHOLE[2:]), HOME, "it lacks nohup", marks=pytest.mark.soak),
        (NO_NOHUP, HOME, "it lacks a nohup that works (/sbin/nohup fails, and hides any other)"),
        pytest.param(
            WHOLE[:2] + WHOLE[3:], HOME, f"it lacks a /tmp {MAY}", marks=pytest.mark.soak
        ),
        pytest.param(
            WHOLE[:4], HOME, "it lacks a locale for names beyond ASCII", marks=pytest.mark.soak
        ),
        pytest.param(WHOLE, {"HOME": "/"}, f"it lacks a HOME {MAY}", marks=pytest.mark.soak),
        (
            ("bin/sh",),
            {"HOME": "/"},
            f"it lacks nohup, a /tmp {MAY}, a HOME {MAY}, a locale for names beyond ASCII",
        ),
    ],
)
async def test_what_an_image_lacks_is_named(rig, engine_url, entries, env, expected):
    """Each by itself, as another user than root; the container is gone."""
    with imported(engine_url, entries) as image:
        found = await looked_at(rig, image, env)
        assert found.text == expected
        whole = expected.startswith("it has")
        assert found.verdict is (finding.Grade.OK if whole else finding.Grade.WARN)
        assert await rig.backend.list() == []


async def test_an_image_without_a_shell_says_that(rig, engine_url):
    """And what brings one."""
    with imported(engine_url, ()) as image:
        found = await looked_at(rig, image, {})
        assert found.verdict is finding.Grade.WARN
        assert found.text.startswith("no /bin/sh that runs")
        assert "inject: true" in found.hint
        assert await rig.backend.list() == []
