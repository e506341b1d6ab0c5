"""What the broker is made of comes by its hash, and runs with no more rights than it needs."""

import pathlib
import re
import shutil
import subprocess
import tomllib

import pytest
from packaging import requirements, version

ROOT = pathlib.Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))


def locked(path):
    """Return version and number of hashes by name."""
    text = re.sub(r"(?m)^\s*#.*\n", "", path.read_text()).replace("\\\n", " ")
    found = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        told = re.match(r"([A-Za-z0-9._-]+)==(\S+)", line)
        assert told, line
        assert all(
            re.fullmatch("sha256:[0-9a-f]{64}", h) for h in re.findall(r"--hash=(\S+)", line)
        )
        found[told[1].lower()] = (told[2], line.count("--hash=sha256:"))
    return found


def wanted(extras):
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    parsed = (requirements.Requirement(line) for line in lines)
    return [one for one in parsed if one.name != PROJECT["name"]]


@pytest.mark.parametrize(
    ("name", "extras"),
    [("run.txt", ("kubernetes",)), ("dev.txt", ("kubernetes", "doctor", "dev"))],
)
def test_every_library_is_locked_within_its_range(name, extras):
    """With hashes; a range that was moved asks for `make lock`."""
    found = locked(ROOT / "locks" / name)
    assert all(count for _, count in found.values())
    for one in wanted(extras):
        assert one.name.lower() in found, f"{one.name}: make lock"
        assert one.specifier.contains(found[one.name.lower()][0]), f"{one}: make lock"
    assert version.parse(found["setuptools"][0]) >= version.parse("77")


def test_both_locks_agree():
    """What is tested is what is shipped."""
    run, dev = (locked(ROOT / "locks" / name) for name in ("run.txt", "dev.txt"))
    assert {name: dev[name] for name in run} == run


def test_a_lock_says_nothing_of_where_it_was_made():
    """No index, no host, no path of a machine."""
    assert len(LOCKS) == 2
    for path in LOCKS:
        assert not re.search(
            r"https?://|--index|--find-links|file:|/home/|/work/", path.read_text()
        )


def test_the_image_takes_its_libraries_by_their_hashes():
    """And its base by an argument, for whoever builds it by digest; never as root."""
    lines = (ROOT / "examples/kubernetes/Dockerfile").read_text()
    installs = re.findall(r"(?m)^RUN pip install (.*)$", lines)
    assert "--require-hashes" in installs[0]
    assert "--only-binary :all:" in installs[0], "what is built would fetch what builds it"
    assert all("--no-index" in line and "--no-deps" in line for line in installs[1:])
    assert re.search(r"(?m)^FROM \$\{PYTHON\}$", lines)
    assert "@sha256:" in lines
    assert re.search(r"(?m)^USER [1-9]", lines)


UNITS = ROOT / "examples" / "systemd"


def settings_of(path):
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if "=" in line and line[:1] not in "#[")
    return [(key, value) for key, _, value in pairs]


def test_the_service_has_no_right_that_it_does_not_need():
    """As few as systemd can give, and secrets that only it sees."""
    told = dict(settings_of(UNITS / "agent-broker.service"))
    for key in (
        *("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateUsers"),
        *("ProtectKernelModules", "ProtectKernelTunables", "ProtectControlGroups", "ProtectClock"),
        *("RestrictNamespaces", "RestrictSUIDSGID", "MemoryDenyWriteExecute", "LockPersonality"),
    ):
        assert told[key] == "yes", key
    assert (told["CapabilityBoundingSet"], told["AmbientCapabilities"]) == ("", "")
    assert told["ProtectSystem"] == "strict"
    assert (told["StateDirectoryMode"], told["UMask"]) == ("0700", "0077")
    assert told["User"] not in {"", "root"}
    assert "LoadCredential" in told
    assert "3" in told["RestartPreventExitStatus"].split()


def test_agents_as_processes_outlive_the_service():
    """A stop of the broker ends no build."""
    told = settings_of(UNITS / "processes.conf")
    assert ("KillMode", "process") in told
    assert ("SendSIGKILL", "no") in told


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze: systemd")
def test_systemd_understands_the_unit(tmp_path):
    """Every line of it, with the drop-in, too."""
    unit = tmp_path / "agent-broker.service"
    text = (
        (UNITS / unit.name).read_text().replace("/opt/agent-broker/bin/agent-broker", "/bin/true")
    )
    unit.write_text(text)
    (tmp_path / f"{unit.name}.d").mkdir()
    shutil.copy(UNITS / "processes.conf", tmp_path / f"{unit.name}.d")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    ours = [line for line in done.stderr.splitlines() if "agent-broker" in line]
    assert not ours, done.stderr
