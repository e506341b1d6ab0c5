import os
import pathlib
import subprocess
import sys

import attrs
import pytest

from broker import store
from broker.core import model
from broker.core.fleet import places

NAME = model.NodeName("o-t-1")


def test_what_is_saved_is_loaded(tmp_path):
    """By any later process with the same directory."""
    store.FileStore(tmp_path / "state").save("framework", "id-1 größe")
    again = store.FileStore(tmp_path / "state")
    assert again.load("framework") == "id-1 größe"
    assert again.load("other") is None


def test_a_failed_write_keeps_the_old_value(tmp_path, monkeypatch):
    """A full disk loses nothing that was there, and leaves no half file."""
    files = store.FileStore(tmp_path)
    files.save("k", "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.save("k", "new")
    assert files.load("k") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["k"]


def test_a_file_that_a_power_loss_damaged_counts_as_none(tmp_path):
    """No start fails for it: the broker begins with what it can observe."""
    files = store.FileStore(tmp_path)
    for damaged in (b"\xff\xfe\x00", b"", b'{"o-t-1": {"seen"', b"[1]", b'{"o-t-1": 7}'):
        (tmp_path / "builds.json").write_bytes(damaged)
        assert model.Ledger() == store.Builds(files).restore()


def test_keys_cannot_leave_the_directory(tmp_path):
    """A key is a plain name."""
    for key in ("../x", "/x", "", "A", ".x"):
        with pytest.raises(ValueError):
            store.FileStore(tmp_path).save(key, "x")


def test_one_broker_at_a_time(tmp_path):
    """The second is told; a killed one leaves no lock behind."""
    code = (
        "import pathlib, sys, time; from broker import store\n"
        f"with store.FileStore(pathlib.Path({str(tmp_path)!r})).locked():\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(store.StateDirTaken, match="state_dir of its own"):
            with store.FileStore(tmp_path).locked():
                pass
        other.kill()
    with store.FileStore(tmp_path).locked():
        pass


def test_builds_survive_a_restart(tmp_path):
    """Counts and running builds come back; nobody is called witnessed."""
    files = store.FileStore(tmp_path)
    memory = model.Memory(
        first_seen_at=1.0,
        online_at=2.0,
        online_witnessed=True,
        builds=3,
        executable_urls=("http://c/job/x/3/",),
        busy_session="s1",
    )
    store.Builds(files).keep(model.Ledger(memories={NAME: memory}))
    (restored,) = store.Builds(files).restore().memories.values()
    assert (restored.builds, restored.executable_urls, restored.busy_session) == (
        3, ("http://c/job/x/3/",), "s1",
    )  # fmt: skip
    assert not restored.online_witnessed


def test_builds_are_written_only_when_they_change(tmp_path):
    """A cycle in which nothing happened writes nothing."""
    files = store.FileStore(tmp_path)
    builds = store.Builds(files)
    ledger = model.Ledger(memories={NAME: model.Memory(first_seen_at=1.0, online_at=2.0)})
    builds.keep(ledger)
    before = (tmp_path / "builds.json").stat().st_ino
    builds.keep(ledger)
    assert (tmp_path / "builds.json").stat().st_ino == before


@pytest.mark.parametrize(
    ("session", "expected"), [("s1", ("s1", 5.0)), ("", ("", None))], ids=["named", "unnamed"]
)
def test_a_controller_that_went_on_is_recognised(tmp_path, session, expected):
    """No pipeline resumes then; one that does not name its sessions counts as started anew."""
    files = store.FileStore(tmp_path)
    store.Builds(files).keep(model.Ledger(session=session, session_at=5.0))
    restored = store.Builds(files).restore()
    assert expected == (restored.session, restored.session_at)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"session": "s1", "since": 1.0}',
        '{"session": "s1", "since": "x", "agents": {}}',
        '{"session": "s1", "since": 1.0, "agents": {"o-t-1": {}}}',
        '{"session": "s1", "since": 1.0, "agents": {"o-t-1": 5}}',
        '{"session": "s1", "since": 1.0, "agents": {}, "avoided": [["b", "p", NaN, "r"]]}',
        '{"session": "s1", "since": 1.0, "agents": {}, "avoided": [["b", "p", Infinity, "r"]]}',
    ],
)
def test_a_damaged_file_counts_as_none(tmp_path, text):
    """A fresh ledger is always a correct start."""
    pathlib.Path(tmp_path / "builds.json").write_text(text)
    assert store.Builds(store.FileStore(tmp_path)).restore() == model.Ledger()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_directory_and_what_is_above_it_are_for_the_broker_alone(tmp_path, umask):
    """Whatever the umask says; what was there already stays as it is."""
    before = os.umask(umask)
    try:
        files = store.FileStore(tmp_path / "a" / "b" / "state")
        files.save("k", "v")
    finally:
        os.umask(before)
    for path in (tmp_path / "a", tmp_path / "a" / "b", files.directory):
        assert path.stat().st_mode & 0o777 == 0o700
    assert files.load("k") == "v"


def test_what_is_no_file_holds_up_nothing(tmp_path):
    """A pipe, a device or a link in the place of a value, of the lock or of all builds."""
    files = store.FileStore(tmp_path)
    os.mkfifo(tmp_path / "builds.json")
    os.mkfifo(tmp_path / "lock")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for key in ("builds.json", "zero"):
        with pytest.raises(OSError, match="not a regular file"):
            files.load(key)
    with pytest.raises(OSError, match="not a regular file"):
        store.Builds(files).restore()
    with files.locked():
        pass
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"), files.locked():
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_too_large_is_refused_not_cut(tmp_path):
    """Half of what was remembered would be believed."""
    files = store.FileStore(tmp_path)
    with (tmp_path / "builds.json").open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(OSError, match="larger than"):
        files.load("builds.json")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"agents": {"a": {"seen": 1e999}}}', "9" * 5000])
def test_odd_numbers_and_depths_count_as_none(tmp_path, text):
    """As any damaged file."""
    files = store.FileStore(tmp_path)
    files.save("builds.json", text)
    assert store.Builds(files).restore() == model.Ledger()


def test_what_proved_itself_is_remembered(tmp_path):
    """A restart of ours costs no template its trust; what a file of before did not tell is none."""
    files = store.FileStore(tmp_path)
    pair = model.BackoffKey(
        scope=model.Scope.TEMPLATE,
        backend=model.BackendName("local"),
        template=model.TemplateName("t"),
    )
    ledger = model.Ledger(trials={pair: model.Trial(revision="r1", online=3)})
    store.Builds(files).keep(ledger)
    assert ledger.trials == store.Builds(files).restore().trials
    files.save("builds.json", '{"session": "s", "since": 1, "agents": {}}')
    assert {} == store.Builds(files).restore().trials


def test_a_place_that_is_avoided_stays_so_over_a_restart(tmp_path):
    """To learn it again would cost builds; other back-offs begin anew, a damaged one is none."""
    files = store.FileStore(tmp_path)
    key = model.BackoffKey(
        scope=model.Scope.PLACE, backend=model.BackendName("pool"), place="tcp://h1"
    )
    avoided = model.Backoff(
        failures=4,
        until_at=2000.0,
        reason="they die",
        cause=model.Cause.BLACK_HOLE,
        blame=model.Blame.STARTS,
    )
    other = model.BackoffKey(scope=model.Scope.BACKEND, backend=model.BackendName("pool"))
    failed = attrs.evolve(avoided, cause=model.Failure.UNAVAILABLE)
    store.Builds(files).keep(model.Ledger(backoffs={key: avoided, other: failed}))
    restored = store.Builds(files).restore()
    assert {("pool", "tcp://h1")} == set(places.avoided(restored, now=1999.0))
    assert {} == places.avoided(restored, now=2000.0)
    assert {key: model.Blame.STARTS} == {k: b.blame for k, b in restored.backoffs.items()}
    older = files.load("builds.json").replace(',"starts"', "")
    files.save("builds.json", older)
    assert model.Blame.AGENTS is store.Builds(files).restore().backoffs[key].blame
    text = files.load("builds.json").replace("2000.0", "Infinity")
    files.save("builds.json", text)
    assert {} == places.avoided(store.Builds(files).restore(), now=1.0)


def test_no_definition_has_proved_less_than_nothing(tmp_path):
    """What a damaged file says of it is taken for nothing, or it would start none at all."""
    files = store.FileStore(tmp_path)
    files.save(
        "builds.json",
        '{"session": "s", "since": 1, "agents": {}, "trials": [["t", "b", "r", -5]]}',
    )
    (trial,) = store.Builds(files).restore().trials.values()
    assert model.Trial(revision="r", online=0) == trial
