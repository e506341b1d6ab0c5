"""A broker pays for what it uses: one sidecar for each of some thousand controllers."""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from backends import registry
from tests.e2e import stage

SDKS = ("docker", "kubernetes", "jenkins", "requests", "urllib3", "pymesos", "pytest")
ONCE = (  # what is needed to read a configuration, to show the demo or to answer a person
    *(
        "yaml",
        "cattrs",
        "difflib",
        "frozenlist._frozenlist",
        "broker.demo",
        "broker.doctor",
        "broker.rendering",
    ),
    *("broker.config.loading", "broker.config.building", "broker.config.describing"),
    *("backends.docker", "backends.kubernetes", "backends.mesos", "backends.memory"),
)
RSS_MIB = 48
IMPORT_S = 3.0  # generous: a loaded machine of two processors


def python(code, *arguments):
    """Run code in a fresh interpreter; return what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        timeout=50,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


SETTINGS = """
import json, sys
from backends import registry
for name in registry.KINDS:
    registry.settings_class(name), registry.template_settings_class(name)
print(json.dumps(sorted(sys.modules)))
"""


def test_the_settings_of_every_kind_load_without_its_sdk():
    """check-config, schema and init work where no SDK is installed."""
    assert len(registry.KINDS) >= 2
    assert set(python(SETTINGS)).isdisjoint(SDKS)


COMMANDS = """
import json, sys, time
began = time.perf_counter()
import asyncio, logging, argparse, aiohttp.web, attrs
base = time.perf_counter()
from broker import cli
cli.parser()
done = time.perf_counter()
print(json.dumps({"base_s": base - began, "own_s": done - base, "modules": sorted(sys.modules)}))
"""


def test_the_command_line_imports_no_sdk_and_no_demo():
    """In a time that a person does not notice."""
    found = python(COMMANDS)
    modules = set(found["modules"])
    assert modules.isdisjoint(SDKS)
    assert not [name for name in modules if name.startswith("broker.demo")]
    assert found["own_s"] < IMPORT_S


PURE = """
import json, pkgutil, sys, importlib
import broker.core
for one in pkgutil.iter_modules(broker.core.__path__):
    importlib.import_module(f"broker.core.{one.name}")
print(json.dumps(sorted(sys.modules)))
"""


def test_the_core_is_pure():
    """What decides neither waits nor talks: its modules load without any I/O library."""
    assert set(python(PURE)).isdisjoint(
        {*SDKS, "asyncio", "aiohttp", "yaml", "prometheus_client", "cattrs"}
    )


RUN = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules))))
from broker import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_a_running_broker_is_small_and_has_no_sdk(tmp_path):
    """At rest, with the process backend: the whole process, as the kernel counts it."""
    async with stage.Stage(tmp_path) as made:
        made.write_config(listen="127.0.0.1:0")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            RUN,
            "run",
            "--config",
            str(made.config),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TOKEN": stage.TOKEN},
        )
        try:
            await made.until(
                lambda: made.server.requests.count(("GET", "queue/api/json")) >= 3,
                "it looks again",
            )
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            process.send_signal(signal.SIGTERM)
            out, _ = await asyncio.wait_for(process.communicate(), 20)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0
    assert set(json.loads(out)).isdisjoint({*SDKS, *ONCE})
    (rss,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert rss < RSS_MIB * 1024
