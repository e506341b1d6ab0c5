"""Lines in the log of a run whose step waits."""

from broker.core import model
from broker.core.model import ItemId, Stage, WaitReason
from broker.hook import reasons
from outside import secrets

STEP = "org.jenkinsci.plugins.workflow.support.steps.ExecutorStepExecution$PlaceholderTask"
SINCE = 100.0


def step(number=1, task_class=STEP, stage=Stage.BUILDABLE):
    return model.QueueItem(
        id=ItemId(number), stage=stage, task_class=task_class, buildable_since_at=SINCE
    )


def unmet(text, number=1):
    return model.Unmet(item=ItemId(number), reason=WaitReason.NOT_ACTING, text=text)


def due(told, now, *texts, items=None):
    items = (step(),) if items is None else items
    return reasons.lines(items, [unmet(text) for text in texts], told, now)


def test_a_step_that_waits_is_told_why_and_once():
    """Not in its first seconds: most agents come by then."""
    assert due({}, SINCE + 1, "full") == ((), {})
    lines, told = due({}, SINCE + 10, "full")
    assert lines == ((1, "full"),)
    assert due(told, SINCE + 500, "full")[0] == ()


def test_another_reason_comes_after_a_minute():
    """However often it changes."""
    _, told = due({}, SINCE + 10, "full")
    for later in (11, 40, 69):
        lines, told = due(told, SINCE + later, f"full {later}")
        assert lines == ()
    lines, told = due(told, SINCE + 71, "another")
    assert lines == ((1, "another"),)
    assert due(told, SINCE + 100, "full")[0] == ()


def test_a_line_is_one_line_and_holds_no_secret():
    """Whatever the reason quotes: it is printed into a log that others read."""
    secrets.register("hunter2-hunter2")
    ((_, line),), _ = due({}, SINCE + 10, "a\nb \x1b[8mha:\u202e hunter2-hunter2 " + "x" * 5000)
    assert line.isprintable()
    assert "hunter2" not in line
    assert len(line) <= 500


def test_only_steps_have_a_log_before_they_run():
    """A freestyle item has none, nor has who is served by now."""
    for other in (step(task_class="hudson.model.FreeStyleProject"), step(stage=Stage.PENDING)):
        assert due({}, SINCE + 10, "full", items=(other,)) == ((), {})


def test_whoever_is_gone_is_forgotten_and_an_answer_is_bounded():
    """The others come with the next one."""
    _, told = due({}, SINCE + 10, "full")
    assert due(told, SINCE + 20, items=())[1] == {}
    many = [step(number) for number in range(250)]
    waiting = [unmet("full", number) for number in range(250)]
    seen = []
    told = {}
    for _ in range(3):
        lines, told = reasons.lines(many, waiting, told, SINCE + 10)
        assert len(lines) <= reasons.MOST
        seen += [number for number, _ in lines]
    assert sorted(seen) == list(range(250))
