"""The exec endpoint of the fake API server: really runs the command, as a process of this machine.

Speaks the versions 5 and 4 of the protocol as ``streamtranslator.go`` of Kubernetes 1.36 and the
kubelet's ``remotecommand`` do. A process is the leader of its own session, as runc makes it, and
lives on when the connection goes. The end of one that leaves input unread is never told (seen on
1.36.2 with containerd 1.6). Containers share this machine's files; that is their workspace.
"""

import asyncio
import contextlib
import json
import os
import signal
from typing import Any

import aiohttp
from aiohttp import web
from attrs import define, field

from tests import programs
from tests.kubernetes import machine

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_RUNC = (
    "Internal error occurred: error executing command in container: failed to exec in container: "
    'failed to start exec "f8b19ff10724eaa5600a13c1f81b651aa19d84590c339de1dd02168397ec2d15": OCI runtime exec failed: exec failed: unable to start container '
    'process: exec: "{}": executable file not found in $PATH: unknown'
)


@define(eq=False)
class Kubelet:
    protocols: tuple[str, ...] = (V5, V4)
    shells: dict[str, tuple[str, ...]] = field(factory=dict)  # by container; empty: has none
    env: dict[str, str] = field(factory=lambda: {"PATH": os.environ["PATH"], "HOME": "/"})
    machine: "machine.Machine | None" = None  # has a file system for each container
    gone: set[str] = field(factory=set)  # dead, but the pod's state does not say so yet
    allowed: bool = True  # by RBAC
    silent: int = 0  # so many connections break when their command has said something
    commands: list[list[str]] = field(factory=list)
    queries: list[str] = field(factory=list)
    processes: list[asyncio.subprocess.Process] = field(factory=list)
    wires: list[web.WebSocketResponse] = field(factory=list)
    requests: list[web.Request] = field(factory=list)

    async def aclose(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            process._transport.close()

    def cut(self) -> None:
        """Break every connection."""
        for request in self.requests:
            if request.transport is not None:
                request.transport.abort()

    async def exec(self, request: web.Request, pod: dict[str, Any]) -> web.StreamResponse:
        name, container = pod["metadata"]["name"], request.query["container"]
        if not self.allowed:
            words = (
                f'pods "{name}" is forbidden: User "system:serviceaccount:jenkins:agent-broker" '
                'cannot create resource "pods/exec" in API group "" in the namespace "agents"'
            )
            return _refusal(403, "Forbidden", words)
        if container not in [c["name"] for c in pod["spec"]["containers"]]:
            return _refusal(
                400, "BadRequest", f"container {container} is not valid for pod {name}"
            )
        wire = web.WebSocketResponse(protocols=self.protocols)
        if not wire.can_prepare(request):
            return _refusal(400, "BadRequest", "Upgrade request required")
        await wire.prepare(request)
        self.wires.append(wire)
        self.requests.append(request)
        self.queries.append(request.query_string)
        command = request.query.getall("command")
        self.commands.append(command)
        status = await self._status(wire, pod, container, command)
        if not wire.closed:
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await wire.send_bytes(b"\x03" + json.dumps({"metadata": {}, **status}).encode())
                await wire.close()
        return wire

    async def _status(
        self, wire: web.WebSocketResponse, pod: dict[str, Any], container: str, command: list[str]
    ) -> dict[str, Any]:
        statuses = pod["status"].get("containerStatuses", [])
        if container in self.gone or not any(
            c["name"] == container and "running" in c["state"] for c in statuses
        ):
            words = f'unable to upgrade connection: container not found ("{container}")'
            return _internal(words)
        shell = self.shells.get(container, ("sh",))
        if command[0] == "sh":
            if not shell:
                return _internal(_RUNC.format("sh"))
            command = [*shell, *command[1:]]
        env = self.env
        if self.machine is not None:
            life = self.machine.lives[pod["metadata"]["name"]]
            command, env = [*life.inside(container, command)], life.env(container)
        told = self.queries[-1]
        process = await asyncio.create_subprocess_exec(
            *programs.hearing(),  # as runc starts it
            *command,
            stdin=asyncio.subprocess.PIPE if "stdin=true" in told else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=env,
            cwd="/",
        )
        self.processes.append(process)
        silent, self.silent = self.silent > 0, max(0, self.silent - 1)
        if silent:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write((await wire.receive()).data[1:])
            await process.stdout.readline()
            await wire.close()
        reading = asyncio.ensure_future(_read(wire, process))
        await asyncio.gather(
            _write(wire, 1, process.stdout), _write(wire, 2, process.stderr), process.wait()
        )
        if reading.done() and reading.result():
            while not wire.closed:
                await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        code = process.returncode
        assert code is not None
        code = code if code >= 0 else 128 - code
        if code == 0:
            return {"status": "Success"}
        return {
            "status": "Failure",
            "message": f"command terminated with non-zero exit code: exit status {code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }


async def _read(wire: web.WebSocketResponse, process: asyncio.subprocess.Process) -> bool:
    """Give a process its input; tell whether it left some unread."""
    if process.stdin is None:  # it was given none
        async for _ in wire:
            pass
        return False
    try:
        async for message in wire:
            if message.data[0] == 0:
                process.stdin.write(message.data[1:])
                await process.stdin.drain()
            elif message.data == b"\xff\x00" and wire.ws_protocol == V5:
                process.stdin.close()
    except ConnectionError:
        return True
    process.stdin.close()
    return False


async def _write(
    wire: web.WebSocketResponse, channel: int, stream: asyncio.StreamReader | None
) -> None:
    assert stream is not None
    while data := await stream.read(1 << 15):
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):  # nobody listens any more
            await wire.send_bytes(bytes((channel,)) + data)


def _refusal(code: int, reason: str, words: str) -> web.Response:
    told = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    told |= {"message": words, "reason": reason, "code": code}
    return web.json_response(told, status=code)


def _internal(words: str) -> dict[str, Any]:
    return {
        "status": "Failure",
        "message": f"Internal error occurred: {words}",
        "reason": "InternalError",
        "details": {"causes": [{"message": words}]},
        "code": 500,
    }
