"""Runs every case of the suite on every platform; ``harness.py`` tells how to add one."""

import importlib
import pathlib
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from backends import api, registry
from tests.contract.harness import CAPABILITIES, Harness

HARNESSES = {
    "docker": "tests.contract.docker",
    "kubernetes": "tests.contract.kubernetes",
    "memory": "tests.contract.memory",
    "mesos": "tests.contract.mesos",
    "process": "tests.contract.process",
    "swarm": "tests.contract.swarm",
}
"""Kind to the module with its ``open_harness``; imported only when its cases run."""

SLOW = {
    "swarm": {
        "test_a_launched_instance_is_listed_and_comes_to_run",
        "test_an_ended_instance_tells_how_and_keeps_its_last_words",
        "test_what_cannot_run_is_told_with_the_platforms_words",
        "test_terminate_removes_everything",
        "test_a_restarted_broker_adopts_what_runs",
        "test_the_program_gets_its_words_and_places",
        "test_published_ports_are_told_while_it_runs",
    },
}
"""Kinds that take three seconds and more for each end, to the cases that are no soak there."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per kind, and one more per ``--live KIND[=ADDRESS]``."""
    if "harness" not in metafunc.fixturenames:
        return
    name = metafunc.function.__name__
    params = [
        pytest.param(
            (kind, None),
            id=kind,
            marks=[pytest.mark.soak] if name not in SLOW.get(kind, {name}) else [],
        )
        for kind in HARNESSES
    ]
    for wish in metafunc.config.getoption("live"):
        kind, _, address = wish.partition("=")
        if kind in HARNESSES:
            # a real platform is rarely on the loopback, where the sockets of tests are held
            mark = pytest.mark.enable_socket
            params.append(pytest.param((kind, address), id=f"{kind}[live]", marks=mark))
    metafunc.parametrize("harness", params, indirect=True)


@pytest_asyncio.fixture
async def harness(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> AsyncIterator[Harness]:
    """Give a fresh platform; a case marked ``needs(...)`` is skipped where it lacks something."""
    kind, address = request.param
    module = importlib.import_module(HARNESSES[kind])
    async with module.open_harness(tmp_path, address) as opened:
        assert set(opened.lacks) <= set(CAPABILITIES)
        for mark in request.node.iter_markers("needs"):
            skip_where_lacking(opened, *mark.args)
        yield opened


def skip_where_lacking(harness: Harness, *needed: str) -> None:
    """Skip by the name of what the platform cannot do, with the reason."""
    assert set(needed) <= set(CAPABILITIES)
    refusal = registry.kind(harness.kind).run_refusal
    if refusal and any(name.partition(" ")[0] == "run" for name in needed):
        pytest.skip(f"{harness.kind}: {refusal}")
    for name in needed:
        if name in harness.lacks:
            pytest.skip(
                f"{harness.kind} lacks {name!r} ({CAPABILITIES[name]}): {harness.lacks[name]}"
            )


@pytest_asyncio.fixture
async def open_backend(harness: Harness) -> AsyncIterator[Callable[..., api.Backend]]:
    """Give a maker of backend objects; they are closed at the end, their instances removed."""
    made: list[tuple[str, api.Backend]] = []

    def make(owner: str = "ours") -> api.Backend:
        made.append((owner, harness.backend(owner=owner)))
        return made[-1][1]

    yield make
    for owner in {owner for owner, _ in made}:
        made.append((owner, harness.backend(owner=owner)))
        for instance in await made[-1][1].list():
            await made[-1][1].terminate(instance.name, grace_s=0)
    for _, backend in made:
        await backend.aclose()


@pytest.fixture
def backend(open_backend: Callable[..., api.Backend]) -> api.Backend:
    """Give the backend of the owner "ours"."""
    return open_backend()
