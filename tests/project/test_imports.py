"""A broker pays for what it uses: one sidecar for each of some thousand controllers."""

import json
import subprocess
import sys

from backends import registry
from tests import patience

SDKS = ("docker", "kubernetes", "jenkins", "requests", "urllib3", "pymesos", "pytest")
IMPORT_S = 3.0


def python(code, *arguments):
    """Run code in a fresh interpreter; return what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        timeout=patience.seconds(50),
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
from broker.cli import main as cli
cli.parser()
done = time.perf_counter()
print(json.dumps({"base_s": base - began, "own_s": done - base, "modules": sorted(sys.modules)}))
"""


def test_the_command_line_imports_no_sdk_and_no_demo():
    """In a time that a person does not notice."""
    found = python(COMMANDS)
    modules = set(found["modules"])
    assert modules.isdisjoint(SDKS)
    assert not [name for name in modules if name.startswith(("broker.demo", "broker.simulator"))]
    assert found["own_s"] < patience.seconds(IMPORT_S)


PURE = """
import json, pkgutil, sys, importlib
import broker.core
for one in pkgutil.walk_packages(broker.core.__path__, "broker.core."):
    importlib.import_module(one.name)
print(json.dumps(sorted(sys.modules)))
"""


def test_the_core_is_pure():
    """What decides neither waits nor talks: its modules load without any I/O library."""
    assert set(python(PURE)).isdisjoint(
        {*SDKS, "asyncio", "aiohttp", "yaml", "prometheus_client", "cattrs"}
    )
