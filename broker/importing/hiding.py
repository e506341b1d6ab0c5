"""What of a file is never written out again: passwords, encrypted values, private keys.

Pure. What looks like a secret is left out, whether it is one or not. Refuses to know settings.
"""

import re
from typing import Any

REMOVED = "(removed)"
_NAME = re.compile(
    r"(?i)passw|passphrase|token|secret|api_?-?key|private_?key|access_?key|credential|_pwd\b|_psw\b"
)
_REFERENCE = re.compile(r"\^?\$[\w{(].*", re.DOTALL)  # a variable: it holds the secret elsewhere
_PATTERNS = (
    (re.compile(r"\{AQA[A-Za-z0-9+/=\s]{8,}\}"), REMOVED),  # as Jenkins keeps them
    (
        re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
            r".*?(-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
        REMOVED,
    ),
    (
        re.compile(r"(?<=://)[^/\s@'\":]{0,200}:[^/\s@'\"]{0,500}@"),
        f"{REMOVED}@",
    ),  # a password in an address
    (re.compile(r"(?i)(?<=bearer )(?![$^-])\S+"), REMOVED),
    (re.compile(r"\b(?:gh[pos]_|glpat-|xox[abp]-|AKIA|eyJ)[A-Za-z0-9_.-]{12,}"), REMOVED),
)

_ASSIGNED = re.compile(r"(?<![\w-])([\w-]{1,60})([= ])(?!\^?\$|/|-)")
_VALUE = re.compile(r"[^\s'\";&]*")
_OPTION = re.compile(r"(?i)passw|passphrase|token|secret|api[_-]?key")


def is_secret(name: str, value: str) -> bool:
    """Return whether a variable's value is one, by the variable's name: no reference, no path."""
    if not value or _REFERENCE.fullmatch(value) or re.fullmatch(r"(?i)true|false|\d{1,4}", value):
        return False
    return bool(_NAME.search(name)) and not value.startswith("/")


def cleaned(text: str) -> str:
    """Return a text without what looks like a secret."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return _without_assigned(text)


def _without_assigned(text: str) -> str:
    """Return a text without what is given to a secret's name: NAME=value, --name value."""
    parts, at = [], 0
    for found in _ASSIGNED.finditer(text):
        name, sign = found[1], found[2]
        is_given = sign == "=" or name.startswith("--")
        if found.start() < at or not is_given or not _OPTION.search(name):
            continue
        value = _VALUE.match(text, found.end())
        if value is not None and value[0]:
            parts += [text[at : found.end()], REMOVED]
            at = value.end()
    return "".join([*parts, text[at:]])


def cleaned_tree(value: Any) -> Any:
    """Return plain data whose texts are clean; values of variables with secret names are gone."""
    if isinstance(value, dict):
        name, told = value.get("name"), value.get("value")
        if isinstance(name, str) and isinstance(told, str) and is_secret(name, told):
            value = {**value, "value": REMOVED}
        return {key: cleaned_tree(part) for key, part in value.items()}
    if isinstance(value, list):
        return [cleaned_tree(part) for part in value]
    return cleaned(value) if isinstance(value, str) else value
