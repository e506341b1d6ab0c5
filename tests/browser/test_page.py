"""The page in a real browser: nothing overlaps or is cut off, it stays fresh, and anybody can use it.

``make browser``; ``PICTURES=DIR`` keeps what was seen.
"""

import contextlib
import importlib.resources
import importlib.util
import os
import pathlib

import attrs
import pytest

from broker.core import model
from broker.core.model import Phase, WaitReason
from broker.status import Server
from tests.browser import chromium
from tests.status import status_source
from tests.status.status_source import NOW
from tests.status.test_page import agent, hour_of, source_of, waiting

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]
LONG = "feature%2Fa-branch-with-a-name-that-goes-on-" + "and-on-" * 12
SERIOUS = {"serious", "critical"}


def crowd(builds, agents):
    """Return a source with so many of each, of all kinds, some with long names."""
    reasons = list(WaitReason)
    pairs = [
        waiting(
            number,
            reason=reasons[number % len(reasons)],
            label=f"maven && jdk{number % 9}" if number % 7 else f"image=reg.example.com/{LONG}",
            job=LONG if number % 11 == 0 else f"app-{number % 13}",
            age_s=5.0 + number % 900,
        )
        for number in range(builds)
    ]
    phases = [phase for phase in Phase if phase is not Phase.GONE]
    there = [
        agent(number, phases[number % len(phases)], place=f"node-{number % 9}")
        for number in range(agents)
    ]
    source = source_of(pairs, there)
    counts = {status_source.RELEASE.name: model.TemplateCount(demand=builds, busy=3, idle=1)}
    source.plan = attrs.evolve(source.plan, counts=counts)
    figures = [(back, back % 17, back % 5) for back in range(59, -1, -1)]
    source.hour = hour_of(figures, waits=range(1, 90)) if builds else source.hour
    return source


@contextlib.asynccontextmanager
async def seen(tmp_path, source):
    server = Server(source, metrics=lambda: (b"", "text/plain"))
    url = await server.start(host="127.0.0.1", port=0)
    try:
        async with chromium.tab(tmp_path) as tab:
            yield tab, url, source
    finally:
        await server.aclose()


async def keep(tab, name):
    """Keep a picture where somebody wants to see it."""
    folder = os.environ.get("PICTURES")
    if folder:
        await tab.picture(pathlib.Path(folder, f"{name}.png"))


WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth + 1"
CUT_OFF = """[...document.querySelectorAll('h1, h2, b, dt, dd, li, td, p, label, summary')]
  .filter(e => e.offsetParent && getComputedStyle(e).position !== 'absolute')
  .filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline'
    && !e.closest('.scroll'))
  .map(e => e.tagName + ': ' + e.textContent.slice(0, 60))"""
OVERLAPS = """(() => {
  const all = [...document.querySelectorAll('header, main > *, .tile, tr')]
    .filter(e => e.offsetParent && e.getBoundingClientRect().height);
  const found = [];
  for (let i = 0; i + 1 < all.length; i++) {
    const a = all[i].getBoundingClientRect(), b = all[i + 1].getBoundingClientRect();
    if (all[i].contains(all[i + 1]) || all[i].closest('thead') || all[i + 1].closest('thead')) continue;
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && down > 1) found.push(all[i].outerHTML.slice(0, 80));
  }
  return found;
})()"""
EMPTY = """[...document.querySelectorAll('tr, li, section, dd')].filter(e => !e.textContent.trim())
  .map(e => e.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("builds_and_agents", [(0, 0), (95, 30), (5000, 5000)])
@pytest.mark.parametrize(
    "look",
    [
        {"width": 1280},
        {"width": 1280, "dark": True},
        {"width": 1280, "zoom": 2.0},
        {"width": 390, "height": 844},
        {"width": 320, "height": 640, "dark": True},
    ],
    ids=["desk", "dark", "zoomed", "phone", "small"],
)
async def test_everything_is_seen(tmp_path, builds_and_agents, look):
    """However much there is, and whatever it is seen on."""
    async with seen(tmp_path, crowd(*builds_and_agents)) as (tab, url, source):
        await tab.looks(**look)
        name = "-".join(map(str, (*builds_and_agents, *look.values())))
        for path in (
            "",
            f"agents/{source.plan.agents[0].name}" if source.plan.agents else "agents/x",
        ):
            await tab.go(f"{url}{path}")
            await keep(tab, f"{name}{'-agent' if path else ''}")
            assert not await tab.run(WIDER)
            assert await tab.run(CUT_OFF) == []
            assert await tab.run(OVERLAPS) == []
            assert await tab.run(EMPTY) == []
            assert not tab.errors


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("path", ["", "agents/o-release-000000", "?q=app"])
async def test_axe_finds_nothing_serious(tmp_path, path, dark):
    """Contrasts, names, headings, landmarks: what assistive technology goes by."""
    if importlib.util.find_spec("axe_core_python") is None:
        pytest.skip("no axe-core here; pip install axe-core-python")
    script = importlib.resources.files("axe_core_python") / "axe.min.js"
    async with seen(tmp_path, crowd(95, 30)) as (tab, url, _):
        await tab.looks(dark=dark)
        await tab.call("Page.setBypassCSP", enabled=True)
        await tab.go(f"{url}{path}")
        await tab.run(script.read_text("utf-8") + "; true")
        told = await tab.run("axe.run().then(r => r.violations)")
        bad = [
            (one["id"], [node["html"][:90] for node in one["nodes"]][:3])
            for one in told
            if one["impact"] in SERIOUS
        ]
        assert bad == []


async def test_it_stays_fresh_and_leaves_people_alone(tmp_path):
    """What is open stays open, what is typed stays typed, where one is one stays."""
    alike = source_of([waiting(number) for number in range(95)], [agent(n) for n in range(60)])
    async with seen(tmp_path, alike) as (tab, url, source):
        await tab.go(url)
        await tab.until("document.documentElement.classList.contains('live')")
        await tab.run(
            "document.querySelector('details').open = true; document.querySelector('#q').focus()"
        )
        await tab.run("document.querySelector('#q').value = 'mav'; scrollTo(0, 300)")
        before = await tab.run("document.querySelector('details').id")
        assert "95 waiting" in await tab.run("document.body.innerText")
        fresh = source_of([waiting(number) for number in range(94)], [agent(n) for n in range(60)])
        source.plan, source.world = fresh.plan, attrs.evolve(fresh.world, now=NOW + 1)
        await tab.until("document.body.innerText.includes('94 waiting')")
        assert (await tab.run("document.title")).startswith("94 waiting")
        assert await tab.run(f"document.getElementById('{before}').open")
        assert await tab.run("document.activeElement.id") == "q"
        assert await tab.run("document.querySelector('#q').value") == "mav"
        assert await tab.run("scrollY") == 300
        assert not tab.errors


async def test_a_person_finds_a_build_by_typing(tmp_path):
    """And what they look for stands in the address, to be sent to somebody else."""
    async with seen(tmp_path, crowd(95, 30)) as (tab, url, _):
        await tab.go(url)
        await tab.run(
            "document.querySelector('#q').value = 'jdk3 app-5'; document.forms[0].submit()"
        )
        await tab.until(
            "location.search === '?q=jdk3+app-5' && document.readyState === 'complete'"
        )
        shown = await tab.run("document.querySelector('#waiting').innerText")
        assert "jdk3" in shown
        assert "jdk4" not in shown
        assert await tab.run("document.querySelector('#q').value") == "jdk3 app-5"


async def test_a_broker_that_is_gone_is_said_to_be(tmp_path):
    """The page stays, and says that it is old."""
    source = crowd(3, 3)
    server = Server(source, metrics=lambda: (b"", "text/plain"))
    url = await server.start(host="127.0.0.1", port=0)
    async with chromium.tab(tmp_path) as tab:
        await tab.go(url)
        await tab.until("document.documentElement.classList.contains('live')")
        await server.aclose()
        await tab.until("document.documentElement.classList.contains('away')", within_s=60)
        assert "3 waiting" in await tab.run("document.body.innerText")
