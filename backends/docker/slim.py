"""Leaves out what the SDK can do without, while it is imported.

Why: `requests` imports a library that guesses the encoding of texts without one, and holds 2.6 MiB
for it, in each of some thousand brokers. It works without such a library, by its own code, and
takes those texts for UTF-8, as the Engine's are. Refuses to change anything that is installed, or
imported before.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Inside, importing these modules fails as if they were not installed; no warning says so."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not to be found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in hidden:
            del sys.modules[name]
