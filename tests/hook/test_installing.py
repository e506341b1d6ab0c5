"""The hook is put in where it is missing, once for each start of the controller."""

import pytest

from broker.hook import installing, script
from jnlp import errors

GOOD = "Result: agent-broker hook 1 of o is installed\n"


class Console:
    """A script console that answers what a test wants."""

    def __init__(self, *answers):
        self.answers, self.scripts = list(answers), []

    async def post_text(self, path, form):
        assert path == "scriptText"
        self.scripts.append(form["script"])
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def keeper(*answers):
    made = installing.HookKeeper(console=Console(*answers), owner="o", now=lambda: clock[0])
    clock = [1000.0]
    return made, clock


async def put_in(made, session="s1"):
    await made.put_in(session=session, url="http://b/", key="k" * 32)


async def test_it_is_due_where_nothing_is_heard():
    """After each start of the controller, which forgets it."""
    made, _ = keeper(GOOD, GOOD)
    assert made.is_due(session="s1", heard=False)
    assert not made.is_due(session="s1", heard=True)  # a file has put it in
    assert not made.is_due(session="", heard=False)  # the controller was not read yet
    await put_in(made)
    assert made.console.scripts == [script.install("o", "http://b/", key="k" * 32)]
    assert not made.is_due(session="s1", heard=False)
    assert made.is_due(session="s2", heard=False)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (errors.Forbidden("u is missing Overall/Administer", status=403), "Overall/Administer"),
        (errors.Unreachable("no answer"), "no answer"),
        ("java.lang.LinkageError: what", "LinkageError"),
    ],
)
async def test_what_stands_in_the_way_is_kept_and_tried_again(answer, said):
    """Not at every look: the script console is a dear place."""
    made, clock = keeper(answer, GOOD)
    await put_in(made)
    assert said in made.trouble
    assert not made.is_due(session="s1", heard=False)
    clock[0] += installing.AGAIN_S
    assert made.is_due(session="s1", heard=False)
    await put_in(made)
    assert made.trouble == ""
