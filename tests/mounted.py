"""Runs a command with this machine as the image of a container: ``ROOT MOUNTS FOLDER COMMAND...``.

Alone in a mount namespace: everything of the machine but ``/tmp`` and ``/opt/agent``, and the
mounts (JSON: lists of source, target, whether it is read-only) over it. ``ROOT`` is an empty folder
to do it in, ``FOLDER`` where the command begins. Standard library only. Exit code 125: it cannot.
"""

import ctypes
import json
import os
import pathlib
import sys

_NAMESPACES = 0x00020000, 0x10000000  # mounts, users
_READ_ONLY, _REMOUNT, _BIND, _ALL, _ALONE = 1, 32, 4096, 16384, 1 << 18
_LEFT_OUT = ("/tmp", "/mnt", "/opt/agent")
_C = ctypes.CDLL(None, use_errno=True)


def _checked(code: int, what: str) -> None:
    if code != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    words = [None if one is None else one.encode() for one in (source, target, kind)]
    _checked(_C.mount(*words, ctypes.c_ulong(flags), None), target)


def _bind(source: str, target: str, *, read_only: bool = False) -> None:
    _mount(source, target, None, _BIND | _ALL)
    if read_only:
        _mount("none", target, None, _REMOUNT | _BIND | _READ_ONLY)


def _alone() -> None:
    mounts, users = _NAMESPACES
    uid, gid = os.geteuid(), os.getegid()
    _checked(_C.unshare(mounts | (users if uid else 0)), "unshare")
    if uid:
        own = pathlib.Path("/proc/self")
        (own / "setgroups").write_text("deny")
        (own / "uid_map").write_text(f"{uid} {uid} 1")
        (own / "gid_map").write_text(f"{gid} {gid} 1")
    _mount("none", "/", None, _ALL | _ALONE)


def _show(root: str, folder: pathlib.Path, targets: list[str]) -> None:
    """Show what is in a folder of the machine, but what is a container's own.

    Of a folder with a place to mount at, or one left out, what is in it is shown, one by one: so
    nothing is made on the machine.
    """
    for one in folder.iterdir():
        to = pathlib.Path(f"{root}{one}")
        if str(one) in (*_LEFT_OUT, *targets):
            continue
        if one.is_symlink():
            to.symlink_to(one.readlink())
        elif one.is_dir() and any(place.startswith(f"{one}/") for place in (*_LEFT_OUT, *targets)):
            to.mkdir()
            _show(root, one, targets)
        elif one.is_dir():
            to.mkdir()
            _bind(str(one), str(to))
        elif one.is_file():
            to.touch()
            _bind(str(one), str(to))


def main() -> None:
    """Become the command."""
    root, mounts, folder, *argv = sys.argv[1:]
    try:
        _alone()
        _mount("none", root, "tmpfs", 0)
        told = json.loads(mounts)
        _show(root, pathlib.Path("/"), [target for _, target, _ in told])
        for source, target, read_only in sorted(told, key=lambda one: one[1]):
            place = pathlib.Path(root + target)
            place.parent.mkdir(parents=True, exist_ok=True)
            _ = place.mkdir(exist_ok=True) if pathlib.Path(source).is_dir() else place.touch()
            _bind(source, root + target, read_only=read_only)
        os.chroot(root)
        os.chdir(folder)
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"cannot be: {error}", flush=True)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 125)


if __name__ == "__main__":
    main()
