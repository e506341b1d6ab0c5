"""A file with one secret: whoever reads it reads it alike, whatever an editor did to it."""

import base64
import pathlib
from collections.abc import Callable

import pytest

from backends import api
from backends.docker import settings as docker
from backends.docker.engine import logins
from backends.kubernetes.api import access
from backends.mesos import transport
from broker.config import values
from jnlp import http
from jnlp import secret as jnlp_secret
from jnlp import settings as jnlp

Read = Callable[[pathlib.Path], str]


def _of_configuration(path: pathlib.Path) -> str:
    return values.resolve(f"file:{path}", base=path.parent, environ={}).reveal()


def _of_registry(path: pathlib.Path) -> str:
    login = docker.Registry(user="bob", password_file=str(path))
    return logins.of_settings(login, "reg.example")["password"]


def _of_mesos(path: pathlib.Path) -> str:
    header = transport._credentials("p", str(path))["Authorization"]
    return base64.b64decode(header.removeprefix("Basic ")).decode().removeprefix("p:")


def _of_cluster(path: pathlib.Path) -> str:
    return access.read_secret(path)


def _of_a_refused_session(path: pathlib.Path) -> str:
    """As a secret is read again when the controller refuses the one before."""
    refused = jnlp.Credentials(user="u", secret=jnlp_secret.Secret("before"), secret_file=path)
    session = http.ControllerSession(
        jnlp.ControllerAccess(url="http://127.0.0.1:1/", credentials=refused)
    )
    if not session._has_other_secret(refused):
        raise values.Bad("nothing new", "another secret")
    return session._credentials.secret.reveal()


READERS: dict[str, Read] = {
    "configuration": _of_configuration,
    "registry": _of_registry,
    "mesos": _of_mesos,
    "cluster": _of_cluster,
    "session": _of_a_refused_session,
}
REFUSED = (values.Bad, api.BackendError)


@pytest.mark.parametrize("who", READERS)
@pytest.mark.parametrize(
    "written",
    [b"s3cret", b"s3cret\n", b"s3cret\r\n", b"\xef\xbb\xbfs3cret\n", b"  s3cret\t\n\n",
     "s3cret\u00a0\n".encode()],
)  # fmt: skip
async def test_what_an_editor_adds_is_no_part_of_a_secret(who, written, tmp_path):
    """Ends of lines, blanks, and the mark that some put before every text."""
    (tmp_path / "s").write_bytes(written)
    assert "s3cret" == READERS[who](tmp_path / "s")


@pytest.mark.parametrize("who", READERS)
@pytest.mark.parametrize(
    "written",
    [b"s3\0cret", b"s3\x1b[1mcret", "s3cret\u200b".encode(), "s3\u202ecret".encode(),
     "s3cret".encode("utf-16"), b"\xff\xfe", b"", b" \n", "\ufeff\ufeffs3cret".encode()],
)  # fmt: skip
async def test_what_nobody_sees_is_told_instead_of_401(who, written, tmp_path):
    """And the message says nothing of the secret itself."""
    (tmp_path / "s").write_bytes(written)
    with pytest.raises(REFUSED) as told:
        READERS[who](tmp_path / "s")
    assert "cret" not in str(told.value).replace("secret", "")


def test_a_variable_is_read_alike(tmp_path):
    """As a file is."""
    with pytest.raises(values.Bad, match=r"U\+200B, which nobody sees"):
        values.resolve("env:T", base=tmp_path, environ={"T": "s3cret\u200b"})
    assert "s3cret" == values.resolve("env:T", base=tmp_path, environ={"T": "s3cret\n"}).reveal()
