"""What is left out of libraries or put off is not missed."""

import asyncio
import json
import os
import platform
import ssl
import subprocess
import sys

import pytest

from tests import patience, programs

MAKE = """
set -e
for ca in ours theirs; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=$ca \\
        -addext keyUsage=critical,keyCertSign -keyout $ca.key -out $ca.pem
done
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=c -keyout key.pem -out request.pem
printf 'subjectAltName=IP:127.0.0.1\\nauthorityKeyIdentifier=keyid\\nsubjectKeyIdentifier=hash\\n' > extensions
openssl x509 -req -in request.pem -CA ours.pem -CAkey ours.key -CAcreateserial -days 3650 \\
    -extfile extensions -out certificate.pem
"""
ASK = """
import asyncio, gc, json, os, ssl, sys
from broker import lean
contexts = [c for c in gc.get_objects() if isinstance(c, ssl.SSLContext)]
before = [c.cert_store_stats()["x509"] for c in contexts]
import aiohttp
async def ask():
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            try:
                async with session.get(sys.argv[1]) as answer:
                    yield answer.status
            except aiohttp.ClientError as error:
                yield type(error).__name__
async def main():
    return [one async for one in ask()]
print(json.dumps({"before": before, "answers": asyncio.run(main()), "file": os.environ.get("SSL_CERT_FILE"),
    "modules": sorted(sys.modules), "switch": os.environ.get("FROZENLIST_NO_EXTENSIONS")}))
"""


async def run(*arguments, **environment):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", *arguments),
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    out, _ = await patience.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return json.loads(out)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    programs.need("openssl")
    folder = tmp_path_factory.mktemp("authority")
    subprocess.run(
        ["sh", "-c", MAKE],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=patience.seconds(30),
    )
    return folder


@pytest.fixture
async def url(authority):
    """A server that only ``ours.pem`` vouches for."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority / "certificate.pem", authority / "key.pem")

    async def answer(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield "https://127.0.0.1:{}/".format(*server.sockets[0].getsockname()[1:])


async def test_the_systems_authorities_are_there_when_they_are_needed(url, authority):
    """Not read at the start, by nobody; trusted at the first connection."""
    told = await run(ASK, url, SSL_CERT_FILE=str(authority / "ours.pem"))

    assert len(told["before"]) >= 2
    assert {0} == set(told["before"])
    assert [200, 200] == told["answers"]


async def test_a_server_that_they_do_not_vouch_for_is_refused(url, authority):
    """Late is not lax."""
    told = await run(ASK, url, SSL_CERT_FILE=str(authority / "theirs.pem"))

    assert ["ClientConnectorCertificateError"] * 2 == told["answers"]


async def test_the_environment_is_as_it_was(url):
    """Agents that are started get no switch of ours, and keep the operator's."""
    told = await run(ASK, url, SSL_CERT_FILE="/an/operators")
    assert ("/an/operators", None) == (told["file"], told["switch"])
    assert "frozenlist" in told["modules"]
    assert "frozenlist._frozenlist" not in told["modules"]


SDK = """
import json, sys
from backends.docker.engine import client
import requests
answer = requests.Response()
answer._content, answer.encoding = "é".encode(), None
loaded = "charset_normalizer" in sys.modules
import charset_normalizer
print(json.dumps({"loaded": loaded, "text": answer.text, "name": charset_normalizer.__name__}))
"""


async def test_the_docker_sdk_guesses_no_encodings():
    """Texts without one are UTF-8; whoever else wants the library can import it."""
    pytest.importorskip("charset_normalizer")
    told = await run(SDK)
    assert {"loaded": False, "text": "é", "name": "charset_normalizer"} == told


SEEN = """
import contextlib, json, sys
import json.tool
from backends.docker import slim
with contextlib.suppress(KeyError):
    with slim.without("json.tool", "csv"):
        there = "json.tool" in sys.modules and sys.modules["json.tool"] is not None
        try:
            import csv
        except ImportError:
            hidden = True
        raise KeyError
import csv
print(json.dumps([there, hidden, csv.__name__]))
"""


async def test_what_was_loaded_before_stays():
    """Nothing is taken from others; after an error, too, everything can be imported again."""
    assert [True, True, "csv"] == await run(SEEN)


HEAPS = """
import ctypes, json, os, pathlib, re, sys, threading
if len(sys.argv) > 1:
    from backends.kit import heap
    heap.share()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
done, kept, places = threading.Event(), threading.Barrier(9), []
def work():
    places.append(libc.malloc(ctypes.c_size_t(4096)))
    kept.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
kept.wait()
maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
(heap,) = [line.split()[0].split("-") for line in maps if line.endswith("[heap]")]
low, high = (int(end, 16) for end in heap)
print(json.dumps(sum(low <= place < high for place in places)))
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc has a heap for each thread"
)
async def test_threads_share_one_heap():
    """Eight threads at once; without the switch most have a heap of their own."""
    assert 8 == await run(HEAPS, "share")
    assert 8 > await run(HEAPS)
