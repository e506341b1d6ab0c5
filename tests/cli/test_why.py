"""``why``: what an item or a job waits for, asked of a broker at work."""

import json

import attrs
import pytest

from broker.cli import main as cli
from broker.core import model
from broker.status import documents, page, terminal
from tests.status import status_source

RELEASE = status_source.RELEASE.name


def in_line(*, many=3):
    """Three wait for one cap, the newest told first."""
    source = status_source.full()
    now = status_source.NOW
    numbers = range(20, 20 + many)
    items = tuple(
        model.QueueItem(
            id=model.ItemId(n),
            stage=model.Stage.BUILDABLE,
            task_url="https://c/job/folder/job/app/",
            in_queue_since_at=now - 200 + n,
            buildable_since_at=now - 195 + n,
        )
        for n in reversed(numbers)
    )
    unmet = tuple(
        model.Unmet(
            item=one.id,
            reason=model.WaitReason.CAP_TEMPLATE,
            text="template release is at its cap of 2",
            template=RELEASE,
            since_at=one.buildable_since_at,
        )
        for one in items
    )
    accounts = {
        one.id: model.Account(
            one.id,
            one.in_queue_since_at,
            model.WaitReason.CAP_TEMPLATE,
            one.buildable_since_at,
            RELEASE,
            {model.WaitReason.QUIET_PERIOD: 5.0},
        )
        for one in items
    }
    view = attrs.evolve(source.world.controller, items=items)
    source.world = attrs.evolve(source.world, controller=view)
    source.plan = attrs.evolve(source.plan, unmet=unmet)
    source.waits = attrs.evolve(source.waits, open=accounts)
    return source


def test_the_oldest_of_a_template_is_the_first():
    rows = documents.queue(in_line())["items"]
    assert [(20, 1, 3), (21, 2, 3), (22, 3, 3)] == [
        (row["id"], row["place"], row["place_of"]) for row in rows
    ]
    assert "3rd of 3 that wait for release" == terminal.place_words(rows[2])


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, "1st"),
        (2, "2nd"),
        (3, "3rd"),
        (4, "4th"),
        (11, "11th"),
        (12, "12th"),
        (21, "21st"),
        (113, "113th"),
    ],
)
def test_places_are_told_as_people_do(number, words):
    assert words == terminal.ordinal(number)


def test_the_page_says_what_was_waited_for_so_far():
    assert "so far: quiet-period 5.0 s, cap-template" in page.render(in_line())


def ask(monkeypatch, capsys, source, *arguments):
    """Run it on documents as a broker gives them."""

    async def asked(_, names):
        return {name: getattr(documents, name)(source) for name in names}, "http://there"

    monkeypatch.setattr("broker.cli.inspection.asked", asked)
    code = cli.main(["why", *arguments])
    return code, *capsys.readouterr()


def test_of_an_item_it_says_now_its_place_and_each_spell(monkeypatch, capsys):
    code, said, _ = ask(monkeypatch, capsys, in_line(), "21")
    assert 0 == code
    assert said.splitlines() == [
        "item 21 of folder/app has waited 3 min",
        "now: cap-template: template release is at its cap of 2",
        "place: 2nd of 3 that wait for release",
        "goes on when an agent of the template goes",
        "  quiet-period  5.0 s    its quiet period",
        "  cap-template  174.0 s  the template's cap",
    ]


@pytest.mark.parametrize("name", ["folder/app", "/folder/app/", "https://c/job/folder/job/app/"])
def test_of_a_job_it_says_each_item_and_the_last_that_are_over(monkeypatch, capsys, name):
    code, said, _ = ask(monkeypatch, capsys, in_line(), name)
    assert 0 == code
    assert all(f"item {number} of folder/app has waited" in said for number in (20, 21, 22))
    assert "started on o-release-aaaaaa: cap-template 12 s, image 41 s, connecting 6.2 s" in said


def test_of_an_item_that_started_it_says_what_it_had_waited_for(monkeypatch, capsys):
    code, said, _ = ask(monkeypatch, capsys, in_line(), "6")
    assert 0 == code
    assert said.splitlines() == [
        "item 6 of folder/app started on o-release-aaaaaa 40 s ago; it had waited 60 s",
        "  cap-template  12.5 s  the template's cap",
        "  image         41.2 s  the agent's image was fetched",
        "  connecting    6.2 s   the agent connected",
    ]


def test_of_many_only_some_are_told(monkeypatch, capsys):
    _, said, _ = ask(monkeypatch, capsys, in_line(many=50), "folder/app")
    assert 20 == said.count("has waited")
    assert "and 30 more, see --json" in said


def test_for_programs_it_is_the_rows_themselves(monkeypatch, capsys):
    code, said, _ = ask(monkeypatch, capsys, in_line(), "20", "--json")
    told = json.loads(said)
    assert 0 == code
    assert {"quiet-period": 5.0, "cap-template": 175.0} == told["waiting"][0]["so_far_s"]
    assert "cap-template" == told["waiting"][0]["spell"]
    assert [] == told["over"]


def test_what_does_not_wait_is_said_so(monkeypatch, capsys):
    code, said, error = ask(monkeypatch, capsys, in_line(), "nobody/knows")
    assert (1, "") == (code, said)
    assert "nothing of nobody/knows waits, or was among the last 1 that did; hint:" in error


def test_hostile_words_do_not_steer_the_terminal(monkeypatch, capsys):
    source = status_source.full("\x1b[2J" + status_source.HOSTILE)
    for what in ("7", "6", "folder/app"):
        _, said, _ = ask(monkeypatch, capsys, source, what)
        assert "\x1b" not in said
