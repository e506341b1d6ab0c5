"""``hook``: the controller's push hook, printed, put in and taken out.

Refuses to know what it tells (``broker.hook``).
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from broker import config, exits, page_address, store
from broker.cli import shared
from broker.hook import installing, script
from jnlp import errors as jnlp_errors
from jnlp import http as jnlp_http

T = TypeVar("T")


def show(options: argparse.Namespace) -> None:
    """Print the script that puts it in: without the key, unless that is asked for."""
    secrets = config.Secrets.NEEDED if options.with_key else config.Secrets.UNREAD
    settings = shared.settings_of(options, secrets=secrets)
    key = _hook(settings).key.reveal() if options.with_key else None
    print(script.install(settings.owner, _url(settings), key=key), end="")


def install(options: argparse.Namespace) -> None:
    """Put it in through the script console, in place of one that is there."""
    settings = shared.settings_of(options)
    key, url = _hook(settings).key.reveal(), _url(settings)
    _on_controller(settings, lambda session: installing.install(session, settings.owner, url, key))
    print(f"the hook of {settings.owner} is installed; it tells {url}")


def remove(options: argparse.Namespace) -> None:
    """Take it out through the script console."""
    settings = shared.settings_of(options)
    removed = _on_controller(settings, lambda session: installing.remove(session, settings.owner))
    if not removed:
        print(f"no hook of {settings.owner} is installed there")
        return
    print(f"the hook of {settings.owner} is removed, until somebody, or a file, installs it again")


def _hook(settings: config.Settings) -> config.HookSettings:
    if settings.hook is None:
        raise exits.BadInput(
            "control.hook is not set; hint: control: {hook: {key: file:/etc/agent-broker/hook}}"
        )
    return settings.hook


def _url(settings: config.Settings) -> str:
    """Return where the hook is to tell: what is set, or where the page is."""
    if settings.hook is not None and settings.hook.url is not None:
        return settings.hook.url
    if settings.listen is None:
        raise exits.BadInput("listen is off: nothing can be told; hint: listen: 127.0.0.1:8087")
    host, port = settings.listen
    if port:
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    note = page_address.noted(store.ReadOnlyStore(settings.state_dir))
    if note is None:
        raise exits.BadInput(
            "listen has port 0, and no broker is at work; hint: control: {hook: {url: …}}"
        )
    return note.url


def _on_controller(
    settings: config.Settings, ask: Callable[[jnlp_http.ControllerSession], Awaitable[T]]
) -> T:
    async def asked() -> T:
        async with jnlp_http.ControllerSession(settings.controller.session()) as session:
            return await ask(session)

    try:
        return asyncio.run(asked())
    except jnlp_errors.Forbidden as error:
        raise exits.Failed(
            f"{error}; the script console is for Overall/Administer; hint: agent-broker hook "
            "print > $JENKINS_HOME/init.groovy.d/agent-broker-hook.groovy"
        ) from error
    except (jnlp_errors.JenkinsError, installing.NotInstalled) as error:
        raise exits.Failed(str(error)) from error
