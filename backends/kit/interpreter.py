"""How a Python process of our own is started that finds the same modules as this one.

For work that needs much memory once. Refuses to know what is run, and to change the environment:
programs that the child starts would see it.
"""

import sys


def command(code: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line of ``code``, with ``arguments`` in ``sys.argv[1:]``."""
    # -P: no module is taken from the working directory unless this process takes them there
    return (
        *(sys.executable, "-P", "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"),
        *arguments,
    )
