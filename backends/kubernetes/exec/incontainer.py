"""What ``in-container`` is made of: what an agent is given, what it asks for, what runs beside it.

Pure. An agent gets a program, and a file with what the program needs to speak with the broker; a
digest of the token stands in the pod's annotations, so that the broker remembers nothing: whoever
shows a token that fits the annotation of a pod is the agent of that pod. The token is made of the
agent's own secret, which is the same at every launch of one name; nothing leads from the
annotation back to it. Refuses to know HTTP, and how a command gets into a container.

A command is started by a program of ours in the other container. Its order goes there as one line
on its input, of printable ASCII alone: neither the API server's audit log nor a process list shows
the build's variables, and every shell reads such a line in the same way.
"""

import hashlib
import hmac
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

from attrs import field, frozen

DIGEST = "agent-broker/in-container"
"""The annotation with the digest of a pod's token."""
PROGRAM = "in-container"
"""Name of the program, and of its key in the agent's secret."""
PATH = f"/usr/local/bin/{PROGRAM}"
"""Where the agent's container has it: in the PATH of every image."""
AUTHORITY = "in-container.pem"
SETTINGS = "in-container.curl"

SHARED = "/run/in-container"
"""Where all containers of a pod have the volume in which a command's pipes are made."""
VOLUME = "agent-broker-pipes"

CANNOT_RUN = 125  # as docker: ours, not the command's
NO_SHELL = 127

_HERE = pathlib.Path(__file__).parent
_SOURCE, _BESIDE = _HERE / f"{PROGRAM}.sh", _HERE / "beside.sh"
_OURS = b"_ic_"  # how the variables of what runs beside begin
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_CONTAINERS_OWN = frozenset(
    b"PATH HOME HOSTNAME USER LOGNAME SHELL TERM PWD OLDPWD SHLVL JAVA_HOME _".split()
)
# Variables that a shell gives a meaning, or does not let anybody set.
_SHELLS_OWN = frozenset(
    b"IFS ENV PPID UID EUID GROUPS OPTIND OPTARG LINENO BASH_ENV BASHOPTS SHELLOPTS FUNCNEST"
    b" POSIXLY_CORRECT PS4".split()
)
_PLAIN = frozenset(range(0x20, 0x7F))
_BARE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/.,:=+@_")


class Malformed(Exception):  # noqa: N818 -- what the order is
    """What came is not what ``in-container`` sends."""


@frozen(kw_only=True)
class Served:
    """Where agents find the broker: ``url``, and the authority of its certificate as PEM."""

    url: str
    authority: str | None = None


@frozen(kw_only=True)
class CommandOrder:
    """One command; the environment may hold secrets of the build."""

    container: str
    directory: bytes
    has_input: bool
    arguments: tuple[bytes, ...] = field(repr=False)
    environment: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)


# --- what an agent is given --------------------------------------------------------------------


def token(name: str, secret_files: Mapping[str, str]) -> str:
    """Return the token of an instance. Raises ValueError without a secret to make it of."""
    key = "\0".join(content for _, content in sorted(secret_files.items()))
    if not key:
        raise ValueError("in_container: the instance has no secret")
    return hmac.new(key.encode(), f"{PROGRAM} {name}".encode(), hashlib.sha256).hexdigest()


def digest(shown: str) -> str:
    """Return what the annotation of a pod holds of a token."""
    return hashlib.sha256(shown.encode("utf-8", "replace")).hexdigest()


def fits(shown: str, told: str) -> bool:
    """Tell whether a token belongs to an annotation, in constant time."""
    return hmac.compare_digest(digest(shown), told)


def files(name: str, shown: str, served: Served, *, directory: str) -> dict[str, str]:
    """Return the files of an agent by name; ``directory``: where its container has them."""
    program = _SOURCE.read_text(encoding="ascii")
    program = program.replace("@URL@", f"{served.url.rstrip('/')}/v2/{name}")
    program = program.replace("@SHARED@", SHARED)
    program = program.replace("@SETTINGS@", f"{directory}/{SETTINGS}")
    options = [
        "silent",
        "no-buffer",
        "globoff",
        'noproxy = "*"',
        "connect-timeout = 10",
        'header = "Expect:"',
        f'header = "Authorization: Bearer {shown}"',
    ]
    contents = {PROGRAM: program}
    if served.authority is not None:
        contents[AUTHORITY] = served.authority
        options.append(f'cacert = "{directory}/{AUTHORITY}"')
    return {**contents, SETTINGS: "".join(f"{line}\n" for line in options)}


# --- what it asks for --------------------------------------------------------------------------


def read_order(body: bytes) -> CommandOrder:
    r"""Read what the program sends: texts that end with NUL.

    Container, directory, ``0`` or ``1`` for input, the count of arguments, the arguments; the
    environment of the agent's container; an empty text; the environment of the build's step.
    Raises ``Malformed``.
    """
    try:
        container, directory, has_input, count, rest = body.split(b"\0", 4)
        found = rest.split(b"\0", int(count))
        arguments, rest = tuple(found[:-1]), found[-1]
        name = container.decode("ascii")
    except ValueError as error:
        raise Malformed("not an order of in-container") from error
    if len(arguments) != int(count) or not arguments or has_input not in {b"0", b"1"}:
        raise Malformed("not an order of in-container")
    if not directory.startswith(b"/"):
        raise Malformed("the directory is not absolute")
    before, _, now = rest.partition(b"\0\0") if rest[:1] != b"\0" else (b"", b"", rest[1:])
    return CommandOrder(
        container=name,
        directory=directory,
        has_input=has_input == b"1",
        arguments=arguments,
        environment=tuple(_added(_variables(before), _variables(now))),
    )


def _variables(raw: bytes) -> dict[bytes, bytes]:
    pairs = (text.partition(b"=") for text in raw.split(b"\0"))
    return {name: value for name, sign, value in pairs if name and sign}


def _added(
    before: Mapping[bytes, bytes], now: Mapping[bytes, bytes]
) -> Iterable[tuple[bytes, bytes]]:
    """Yield what the build set or changed, but for what belongs to each container."""
    for name, value in now.items():
        unfit = not _NAME.fullmatch(name) or name in _CONTAINERS_OWN or name in _SHELLS_OWN
        if not unfit and not name.startswith(_OURS) and before.get(name) != value:
            yield name, value


# --- how a foreign shell is told ---------------------------------------------------------------


def beside() -> Sequence[str]:
    """Return the command that is run in the other container; it reads ``line``.

    It says ``started`` once the command of the order is, or was, started; ``gone`` where there is
    no folder for it; or ends with a code, and words on its standard error.
    """
    return ("sh", "-c", _BESIDE.read_text(encoding="ascii"))


def line(order: CommandOrder, number: str) -> bytes:
    """Return what ``beside`` reads; ``number``: the order's, as the agent chose it."""
    where, words = _literal(order.directory), []
    missing = f"in container {order.container} there is no directory "
    words += [*where.before, f"cd {where.word} 2>/dev/null || {{"]
    words += [f"printf '%s\\n' {_quoted(missing)}{where.word} >&2; exit {CANNOT_RUN}; }};"]
    for name, value in order.environment:
        text = _literal(value)
        words += [*text.before, f"export {name.decode()}={text.word};"]
    words.append("set --;")
    for argument in order.arguments:
        text = _literal(argument)
        words += [*text.before, f'set -- "$@" {text.word};']
    words.append(f"_ic_folder={_quoted(f'{SHARED}/{number}')};")
    words.append(f"_ic_input={int(order.has_input)}")
    return " ".join(words).encode("ascii") + b"\n"


@frozen
class _Text:
    word: str
    before: tuple[str, ...] = ()


def _literal(raw: bytes) -> _Text:
    """Write bytes as a shell word; what is not printable ASCII goes through ``printf``.

    The shell takes line ends off what a command prints, so another letter protects them.
    """
    if _PLAIN.issuperset(raw):
        return _Text(_quoted(raw.decode("ascii")))
    octal = "".join(chr(b) if b in _BARE else f"\\{b:03o}" for b in raw)
    return _Text('"${_ic_text%.}"', (f"_ic_text=$(printf '{octal}.');",))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
