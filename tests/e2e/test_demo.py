"""The demo as a newcomer runs it: any port, no terminal, Ctrl-C at any time."""

import asyncio
import os
import re
import signal
import socket
import sys

import pytest

from tests import patience


async def play(folder, *arguments):
    """Start the demo with its temporary files below ``folder``."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker", "demo", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(folder)},
    )


def left_in(folder):
    """Return what lies in the folder, and the processes that were started from it."""
    found = [path.name for path in folder.iterdir()]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as line:
                if str(folder).encode() in line.read():
                    found.append(pid)
        except OSError:
            continue
    return found


@pytest.mark.soak
async def test_a_taken_port_is_no_reason_to_fail(tmp_path):
    """It says so, takes a free one, serves its builds and leaves nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        demo = await play(tmp_path, "--seconds", "5", "--listen", address)
        said = (await patience.wait_for(demo.communicate(), 50))[0].decode()
    assert 0 == demo.returncode, said
    assert f"({address} is taken by another program" in said
    assert f"http://{address}/" not in said
    assert "lost 0, failed 0, not served 0" in said
    assert "`agent-broker demo --stay` keeps it" in said
    assert "left over 0" in said
    assert [] == left_in(tmp_path)


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.soak)])
async def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path, times):
    """Once: what runs is finished, and the summary comes. Twice: at once. No traceback."""
    demo = await play(tmp_path, "--seconds", "60", "--listen", "127.0.0.1:0")
    said = b""
    while b"served" not in said:
        said += await patience.wait_for(demo.stdout.readline(), 20)
    demo.send_signal(signal.SIGINT)
    if times == 2:
        await asyncio.sleep(0.3)
        demo.send_signal(signal.SIGINT)
    said += (await patience.wait_for(demo.communicate(), 40))[0]
    assert (0 if times == 1 else 1) == demo.returncode, said.decode()
    assert b"Traceback" not in said
    assert (times == 1) == (b"left over 0" in said)
    assert [] == left_in(tmp_path)


async def test_it_stays_for_whoever_looks_at_its_page(tmp_path):
    """Until Ctrl-C; then it ends as well as by itself."""
    demo = await play(tmp_path, "--seconds", "2", "--listen", "127.0.0.1:0", "--stay")
    said = b""
    while b"the page stays at" not in said:
        line = await patience.wait_for(demo.stdout.readline(), 40)
        assert line, said.decode()
        said += line
    assert b"the build that asks for a gpu is cancelled now" in said
    (page,) = re.findall(rb"stays at http://([\d.:]+)/", said)
    reader, writer = await asyncio.open_connection(*page.decode().split(":"))
    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b" 200 " in await reader.readline()
    writer.close()
    demo.send_signal(signal.SIGINT)
    said += (await patience.wait_for(demo.communicate(), 40))[0]
    assert 0 == demo.returncode, said.decode()
    assert b"lost 0, failed 0, not served 0" in said
    assert b"left over 0" in said
    assert b"--stay" not in said
    assert [] == left_in(tmp_path)
