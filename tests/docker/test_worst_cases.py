"""Whatever a build, a registry or an engine writes is looked at in time: 64 KB each, at their worst."""

import time

import pytest

from backends.docker.containers import death
from backends.docker.engine import answers, reference

SIZE = 64 << 10
PARSERS = {
    "init": lambda said: death.refused_by_init(said),
    "start": lambda said: death.slug_of_start(said[:256]),
    "refusal": lambda said: answers.refusal(500, said[:1024]),
    "launch": lambda said: answers.refused_launch(404, said[:1024], container_id="c"),
    "pull": lambda said: answers.refused_pull(None, said[:1024]),
    "tls": lambda said: answers.refused_tls("tcp://x:1", said[:1024]),
    "version": lambda said: answers.version(said),
    "image": lambda said: reference.problem(said),
    "registry": lambda said: reference.registry_of(said),
    "to pull": lambda said: reference.to_pull(said),
    "found": lambda said: answers.listed({"Id": said, "State": said, "Labels": {"a": said}}),
    "inspected": lambda said: answers.inspected(
        {"Id": "x", "Config": {}, "State": {"Status": "exited", "Error": said, "FinishedAt": said}}
    ),
    "certificate": lambda said: death.certificate(
        death.Ended(exit_code=127, last_words=said, error=said)
    ),
}
PIECES = [
    "[FATAL tini (8)] exec ", "FATAL tini ", "] exec  failed: ", "network ", "network x", "a", "-",
    "a-", "._", "/", "a/", ":", "@", "a:1@", "0", "0.", "1.4", "verify failed", "plugin x ",
    "looking up a ", "client version ", " ", "\n", "\x1b[", "é", "sha256:", "a.a:",
]  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_is_linear(name):
    """Under 50 ms of processor time for each; the best of three, for the machine is shared."""
    for piece in PIECES:
        said = (piece * (SIZE // len(piece) + 1))[:SIZE]
        for text in (said, f"x{said}", f"{said}\x00!"):
            took = []
            for _ in range(3):
                began = time.thread_time()
                try:
                    PARSERS[name](text)
                except ValueError:
                    pass
                took.append(time.thread_time() - began)
                if took[-1] < 0.05:
                    break
            assert min(took) < 0.05, (piece, took)
