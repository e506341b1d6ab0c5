"""A real browser, spoken to by its own protocol (Chrome DevTools, ``--remote-debugging-port``)."""

import asyncio
import base64
import contextlib
import json

import aiohttp

from tests import patience, programs

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # for root, in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--remote-debugging-port=0",
)


class Tab:
    """One page in the browser."""

    def __init__(self, socket):
        self._socket, self._number, self.errors = socket, 0, []

    async def call(self, method, **parameters):
        """Ask for something; return its result."""
        self._number += 1
        told = {"id": self._number, "method": method, "params": parameters}
        await self._socket.send_json(told)
        while True:
            answer = await patience.wait_for(self._socket.receive_json(), 60)
            if answer.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}:
                self.errors.append(answer["params"])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    async def run(self, script):
        """Run JavaScript in the page; return what it gives, also by a promise."""
        told = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, script, *, within_s=30):
        """Wait until a script gives something true; return it."""
        patient = patience.Patience(within_s)
        while not (found := await self.run(script)):
            assert not patient.is_over(), script
            await asyncio.sleep(0.05)
        return found

    async def go(self, url):
        """Load a page whole."""
        await self.call("Page.navigate", url=url)
        await self.until(
            f"location.href === {json.dumps(url)} && document.readyState === 'complete'"
        )

    async def looks(self, *, width=1280, height=900, zoom=1.0, dark=False):
        """Have a window of so many pixels, in light or dark."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=int(width / zoom),
            height=int(height / zoom),
            deviceScaleFactor=zoom,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, path):
        """Write what is seen into a file, as PNG."""
        told = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))


@contextlib.asynccontextmanager
async def tab(folder):
    """Yield a fresh tab of a browser of its own; skipped where there is none."""
    program = programs.need("chromium")
    browser = await asyncio.create_subprocess_exec(
        program,
        *_OPTIONS,
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        noted, patient = folder / "DevToolsActivePort", patience.Patience(60)
        while not (noted.exists() and noted.read_text().strip()):
            assert browser.returncode is None
            assert not patient.is_over()
            await asyncio.sleep(0.05)
        port = noted.read_text().split()[0]
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            async with http.put("/json/new?about:blank") as answer:
                url = (await answer.json())["webSocketDebuggerUrl"]
            async with http.ws_connect(url, max_msg_size=0) as socket:
                made = Tab(socket)
                for domain in ("Page", "Runtime", "Log"):
                    await made.call(f"{domain}.enable")
                yield made
    finally:
        if browser.returncode is None:
            browser.terminate()
        await browser.wait()
