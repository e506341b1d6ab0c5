"""A backend made for reading, beside one at work: what it sees is true, what it touches is nothing."""

import json
import pathlib
import time

import pytest

from backends import api, registry
from tests.contract import checks
from tests.process.conftest import WITHIN_S, Workshop


def reader(shop: Workshop, **changes: object) -> api.Backend:
    told = registry.settings_class("process")(directory=str(shop.root), **changes)
    made = registry.create(
        "process",
        told,
        owner="ours",
        store=None,
        state_dir=shop.root,
        now=time.time,
        reads_only=True,
    )
    shop.opened.append(made)
    return made


def tree(root: pathlib.Path) -> dict[str, object]:
    """Return every file, what it holds and when it was written."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(root.rglob("*"))
    }


async def test_what_others_left_stays_and_what_was_never_claimed_is_only_called_lost(
    shop: Workshop, made: api.Backend
) -> None:
    """The broker at work clears away, and gives up what nobody started; a reader does neither."""
    await shop.started(made, "a1", "")
    home = shop.home("a1").parent
    for folder in (".staging", ".trash"):
        (home / folder / "left").mkdir(parents=True)
    unclaimed = home / "a2"
    unclaimed.mkdir()
    about = json.loads((home / "a1" / "instance.json").read_text())
    (unclaimed / "instance.json").write_text(json.dumps({**about, "uptime": -1e6, "token": "t"}))
    before = tree(shop.root)
    looking = reader(shop)
    seen = {one.name: one for one in await looking.list()}
    assert (seen["a1"].state, seen["a2"].state) == (
        api.InstanceState.RUNNING,
        api.InstanceState.EXITED,
    )
    assert seen["a2"].exit is not None
    assert seen["a2"].exit.slug == "platform-lost"
    assert "ready" in await looking.logs("a1", tail=10)
    await looking.capacity()
    assert not (unclaimed / "supervisor").exists()
    assert tree(shop.root) == before
    await checks.running(made, "a1", within_s=WITHIN_S)


async def test_where_nothing_is_nothing_is_made(tmp_path: pathlib.Path, shop: Workshop) -> None:
    """Not even the directory."""
    looking = reader(shop)
    assert list(await looking.list()) == []
    assert not (shop.root / "owners").exists()


async def test_the_verbs_that_change_something_are_refused(
    shop: Workshop, made: api.Backend
) -> None:
    """Whoever calls them by mistake learns it, and nothing has happened."""
    await shop.started(made, "a1", "")
    looking = reader(shop)
    with pytest.raises(api.Rejected, match="reading only"):
        await looking.launch(shop.spec("a2"))
    with pytest.raises(api.Rejected, match="reading only"):
        await looking.terminate("a1", grace_s=0)
    assert [None async for _ in looking.watch()] == []
    assert ["a1"] == list(await checks.listed(made))
