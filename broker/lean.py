"""What a broker leaves out of the libraries that it is built on; imported before they are.

Each broker is one of some thousand, so memory that nothing uses is paid some thousand times; what
each of these saves is in ``docs/decisions/0050-memory.md``. Refuses to take away anything that a
broker uses: what is put off here comes when it is asked for.
"""

import contextlib
import gc
import linecache
import mimetypes
import os
import ssl
from collections.abc import Iterator
from typing import Any


class LateContext(ssl.SSLContext):
    """Reads the system's authorities for the first connection that may need them, not before."""

    _has_authorities = False

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As its parent, with the authorities."""
        self._read_authorities()
        return super().wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As its parent, with the authorities."""
        self._read_authorities()
        return super().wrap_socket(*args, **kwargs)

    def _read_authorities(self) -> None:
        if not self._has_authorities:
            self.load_default_certs()
            self._has_authorities = True


@contextlib.contextmanager
def _environment(**changed: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _late_contexts() -> Iterator[None]:
    """Inside, contexts are made without the system's authorities; they come when needed.

    aiohttp makes two when it is imported, and each reads all of them.
    """
    create = ssl.create_default_context

    def late(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        made = create(*args, **kwargs)
        made.__class__ = LateContext
        return made

    ssl.create_default_context = late
    try:
        with _environment(SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=os.devnull):
            yield
    finally:
        ssl.create_default_context = create


mimetypes.knownfiles.clear()  # the system's table of file types; no file is served here
with _environment(FROZENLIST_NO_EXTENSIONS="1"):  # else a C++ library comes, for a rare list
    import frozenlist  # noqa: F401 -- it looks at the environment now
with _late_contexts():
    import aiohttp  # noqa: F401 -- it makes its contexts now


def settle() -> None:
    """Let go of what was only needed to load, and take the rest for granted from now on.

    The collector waits with a full round until a quarter of all objects are new. Without what was
    loaded that is soon, and a round is short: less rubbish lies about.
    """
    linecache.clearcache()  # the sources of generated methods
    gc.collect()
    gc.freeze()
