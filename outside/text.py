"""The one door for text that others wrote: cut, without secrets, fit to be shown anywhere.

What comes from a controller, a platform or a build's output goes through here where it comes in;
after that it may stand in a log line, on the page, in a terminal and in JSON. Pure but for the
secrets that are known to be ours (``outside.secrets``). Refuses to know what a text means.

Rules (docs/security.md, K2): one line unless lines were asked for; control characters, characters
that turn the direction of writing and halves of surrogate pairs become U+FFFD; the cut comes
first, so that no size of a text costs more than its limit, and never through a secret.
"""

import re
import string

from outside import secrets

LIMIT = 256
"""Characters of a remote's words in a message."""
_MORE = "…"
# Cc without the blanks that ``split`` folds; what turns or hides text (UAX 9, tags, BOM, zero
# width); surrogates; noncharacters
_UNFIT = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e0fff\ud800-\udfff]"
)
_BREAK = re.compile("[\t-\r\x1c-\x1f\x85\u2028\u2029]")
_WINDOW = 4
_WORD = f"{string.ascii_letters}{string.digits}+/_=-"


def clean(text: str, limit: int = LIMIT) -> str:
    """Return a text as one line of at most ``limit`` characters; a cut one ends with an ellipsis.

    Blanks are folded. Costs no more than a few times ``limit``, however long the text is.
    """
    window = _WINDOW * limit
    part = secrets.blanked(text[: secrets.cut_before(text, window)])
    if len(text) > window:  # the last word may be half of what is known by its looks only
        part = part.rstrip(_WORD) or part
    line = _UNFIT.sub("\N{REPLACEMENT CHARACTER}", " ".join(part.split()))
    if len(line) <= limit:
        return line if len(text) <= window else line[: limit - 1] + _MORE
    return line[: limit - 1] + _MORE


def fit(text: str, limit: int) -> str:
    """Return the first ``limit`` characters as one line that may be shown; blanks stay.

    For texts that a parser is to read, or that mean something to the letter (labels): secrets stay
    as well, so what is shown of it goes through ``clean``.
    """
    part = text[:limit]
    if part.isprintable():
        return part
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", _BREAK.sub(" ", part))


def name(text: str, limit: int = LIMIT) -> str:
    """Return a name as it is, or, if it may not be shown so, one that nothing else has.

    Two names stay two names: what is changed never becomes a name that was fit as it was.
    """
    clean_name = " ".join(fit(text, limit).split())
    return text if clean_name == text else f"{clean_name}\N{REPLACEMENT CHARACTER}"


def last_lines(text: str, count: int, limit: int = LIMIT) -> tuple[str, ...]:
    """Return the last ``count`` lines that are not blank, each cleaned.

    Looks at the end of the text only: at most ``count`` times ``limit`` times four characters.
    """
    window = _WINDOW * count * limit
    lines = secrets.blanked(text[-window:]).splitlines()
    if len(text) > window and len(lines) > 1:
        del lines[0]  # its beginning is cut off, and may have been in the midst of a secret
    elif len(text) > window:
        lines = [_MORE]
    told = [line for line in lines if not line.isspace() and line][-count:]
    return tuple(clean(line, limit) for line in told)


def cut(text: str, limit: int) -> str:
    """Return at most ``limit`` characters, nothing else changed; for a parser's input."""
    return text[:limit]
