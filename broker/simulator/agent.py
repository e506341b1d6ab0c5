"""A stand-in for agent.jar that needs no Java: it connects to the simulated controller and stays.

Run as a program (``python agent.py``) with the environment that any own-command agent gets:
JENKINS_URL, JENKINS_AGENT_NAME, JENKINS_SECRET_FILE. Standard library only, so that it starts
fast and runs by its path alone. Exit codes as agent.jar's: 255 for a wrong secret or an unknown
node, 0 when its node was deleted, 1 when the controller stayed away for too long. Refuses to run
builds: the simulation keeps their time.
"""

import http.client
import os
import pathlib
import sys
import time
import urllib.parse

_BACK_WITHIN_S = 60.0
_RETRY_S = 0.25
_SILENT_S = 10.0


def main() -> int:
    """Stay connected; return the exit code."""
    url = urllib.parse.urlsplit(os.environ["JENKINS_URL"])
    name = os.environ["JENKINS_AGENT_NAME"]
    secret = pathlib.Path(os.environ["JENKINS_SECRET_FILE"]).read_text(encoding="utf-8").strip()
    away_since = time.monotonic()
    while time.monotonic() - away_since < _BACK_WITHIN_S:
        code, was_connected = _connect(url, name, secret)
        if code is not None:
            return code
        if was_connected:
            away_since = time.monotonic()
        time.sleep(_RETRY_S)
    _say("the controller stays away")
    return 1


def _connect(url: urllib.parse.SplitResult, name: str, secret: str) -> tuple[int | None, bool]:
    """Hold one connection; return an exit code or None, and whether it had been connected."""
    host, port = url.hostname or "localhost", url.port or 80
    connection = http.client.HTTPConnection(host, port, timeout=_SILENT_S)
    connected = False
    try:
        path = f"{url.path.rstrip('/')}/simulated-agent/{urllib.parse.quote(name, safe='')}"
        connection.request("GET", path, headers={"X-Agent-Secret": secret})
        answer = connection.getresponse()
        if answer.status in {403, 404}:
            _say(f"refused: {answer.status}")
            return 255, False
        if answer.status != 200:
            return None, False
        while line := answer.readline():
            word, _, why = line.decode().strip().partition(" ")
            if word == "connected":
                connected = True
                _say(f"{name} connected")
            elif word == "gone" and why == "deleted":
                _say("the node was deleted")
                return 0, True
    except OSError as error:
        _say(f"connection lost: {error}")
    except http.client.HTTPException as error:
        _say(f"connection lost: {type(error).__name__}")
    finally:
        connection.close()
    return None, connected


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 -- the agent's log


if __name__ == "__main__":
    sys.exit(main())
