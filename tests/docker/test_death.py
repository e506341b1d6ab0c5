"""The truth table: each cell has its case, from a recording where the engine gave one."""

import attrs
import pytest

from backends import api
from backends.docker.containers import death
from tests.docker import recorded

AT = 1000.0


def end(code: int, **more: object) -> tuple[str, int | None]:
    told = death.certificate(death.Ended(exit_code=code, finished_at=AT, **more))
    return told.slug, told.code


@pytest.mark.parametrize(
    ("name", "slug", "code", "words"),
    [
        ("exit0", "exited", 0, ""),
        ("exit3", "exited", 3, ""),
        ("oom-pid1", "out-of-memory", -9, "for memory"),
        ("oom-child-exit0", "exited", 0, "killed for memory 1 s before"),
        ("killed-137", "killed", -9, "somebody ended it through the engine (SIGKILL)"),
        ("stopped-143", "killed", -15, "somebody ended it through the engine (SIGTERM)"),
        ("stop-grace-expired-137", "killed", -9, "through the engine (SIGKILL)"),
    ],
)
def test_what_a_real_engine_showed(name, slug, code, words):
    """Every recorded life ends as the one who made the recording knows it ended."""
    told = death.certificate(recorded.ended(name))
    assert (slug, code) == (told.slug, told.code)
    assert words in told.message
    assert told.at is not None


def test_how_long_before_is_said_as_people_say_it():
    """A child may have been killed hours before."""
    for ago, said in ((60, "60 s"), (500, "8 min"), (7300, "2 h")):
        seen = death.EventTrace(oom_at=(AT - ago,))
        told = death.certificate(death.Ended(exit_code=1, finished_at=AT, seen=seen))
        assert f"killed for memory {said} before" in told.message


def test_a_kill_long_after_the_oom_of_a_child_is_a_kill():
    """OOMKilled is true then, and the kill was the cause."""
    seen = death.EventTrace(oom_at=(AT - 60,))
    assert ("killed", -9) == end(137, oom_killed=True, seen=seen)


def test_the_kernel_kills_the_main_process_soon_after_the_event():
    """The event and the end lie together."""
    assert ("out-of-memory", -9) == end(137, seen=death.EventTrace(oom_at=(AT - 1,)))


def test_a_sigkill_by_the_engine_is_no_oom_though_one_was_just_before():
    """Whoever sent the signal is the cause."""
    seen = death.EventTrace(oom_at=(AT - 1,), signals=((AT - 0.1, 9),))
    assert ("killed", -9) == end(137, oom_killed=True, seen=seen)


def test_without_any_event_the_flag_has_to_do():
    """A broker that was not there has only the engine's flag."""
    assert ("out-of-memory", -9) == end(137, oom_killed=True)
    assert ("killed", -9) == end(137)


def test_a_true_exit_code_beats_the_flag():
    """A child was killed for memory, the main process ended by itself."""
    told = death.certificate(death.Ended(exit_code=3, oom_killed=True, finished_at=AT))
    assert ("exited", 3) == (told.slug, told.code)
    assert "had been killed for memory" in told.message


@pytest.mark.parametrize("code", [0, 1, 137, 143])
def test_an_end_while_the_engine_was_away_is_the_engines(code):
    """A stop or a restart of the engine ends its containers with any code."""
    assert "platform-lost" == end(code, away=((AT - 5, AT + 5),))[0]
    assert "platform-lost" != end(code, away=((AT - 50, AT - 40),))[0]


def test_ended_by_us_is_said_so():
    """Even while the engine was restarted."""
    told = death.certificate(
        death.Ended(exit_code=143, finished_at=AT, by_us=True, away=((AT, AT),))
    )
    assert "killed" == told.slug
    assert told.message.startswith("the broker ended it")


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        ('exec: "nosuchcmd": executable file not found in $PATH: unknown', "command"),
        ("exec /x: no such file or directory", "command"),
        ("exec /x: exec format error", "command"),
        ("network nonet not found", "network"),
        ("something else", "unknown"),
    ],
)
def test_what_never_started_says_why(words, slug):
    """The engine's own words decide and are quoted."""
    told = death.certificate(death.Ended(exit_code=127, started=False, error=words))
    assert (slug, None, words) == (told.slug, told.code, told.message)


def test_the_words_of_the_init_tell_a_missing_command():
    """With an init the engine cannot know; a plain 127 of a shell is no such case."""
    words = "hello\n[FATAL tini (8)] exec /no/such failed: No such file or directory\n"
    told = death.certificate(death.Ended(exit_code=127, last_words=words))
    assert ("command", 127) == (told.slug, told.code)
    assert "exec /no/such failed: No such file or directory" == told.message
    assert ("exited", 127) == end(127, last_words="sh: mvn: not found")


@pytest.mark.parametrize(
    ("engine", "heard", "container", "code"),
    [
        # it stops, and we hear how it ends each container through itself
        ("engine-stopped", "heard_before", "trap", 0),
        ("engine-stopped", "heard_before", "ign", -9),
        ("engine-stopped", "heard_before", "self", -15),
        # we were away: only what it was ended with tells
        ("engine-stopped", "events_after", "ign", -9),
        ("engine-stopped", "events_after", "self", -15),
        # it is killed, and ends them at its next start, before anybody may call
        ("engine-killed", "events_after", "trap", 0),
        ("engine-killed", "events_after", "ign", -9),
        ("engine-killed", "events_after", "self", -15),
    ],
)
def test_what_ends_with_its_engine_says_so(engine, heard, container, code):
    """Whatever its code is, and whether we were there or not; without the engine's start: not."""
    ended = recorded.ended_with_engine(engine, container, heard=heard)
    told = death.certificate(ended)
    assert ("platform-lost", code) == (told.slug, told.code)
    assert "it ended when its engine stopped or was restarted" == told.message
    unknown = death.certificate(attrs.evolve(ended, engine_began_at=None))
    assert "platform-lost" != unknown.slug


def test_what_was_ended_after_the_engine_s_start_was_not_by_it():
    """Nor what ended by itself before, without a signal."""
    for changes in ({"engine_began_at": AT - 1, "exit_code": 137}, {"exit_code": 3}):
        fields = {"finished_at": AT, "engine_began_at": AT + 60, **changes}
        assert "platform-lost" != death.certificate(death.Ended(**fields)).slug


def test_a_crash_names_its_signal():
    """A JVM that aborts is not killed by anybody."""
    told = death.certificate(death.Ended(exit_code=134, finished_at=AT))
    assert ("exited", -6, "it crashed with SIGABRT") == (told.slug, told.code, told.message)


def test_every_code_has_a_certificate():
    """The slug is one of the contract's, the message short."""
    for code in range(256):
        told = death.certificate(death.Ended(exit_code=code, error="x" * 1000))
        assert isinstance(told, api.Exit)
        assert told.slug in {"exited", "killed"}, code
        assert len(told.message) <= 256, code


def test_a_child_that_was_killed_for_memory_is_told_while_the_agent_lives():
    """That is the death that users never find."""
    assert death.mishap(death.EventTrace(), None) is None
    told = death.mishap(death.EventTrace(oom_at=(AT - 5, AT)), 512 << 20)
    words = "a process in it was killed for memory (limit 512 MiB)"
    assert ("out-of-memory", words, 2, AT) == (told.slug, told.text, told.times, told.at)
