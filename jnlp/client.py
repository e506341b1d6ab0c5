"""What we do to nodes over REST: create, take the secret, cordon, seal, delete, read.

Knows the endpoints and which of them may be repeated; refuses to know when and why: the order of
steps that keeps builds safe is the caller's.

Facts: section 3 and 7 of the REST reference, recordings ``nodes/*``, ``agent/01-jnlp-files``.
"""

import asyncio
import contextlib
import re
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from urllib.parse import quote

from jnlp import environment, errors, http, node, state, version
from jnlp import secret as jnlp_secret
from outside import quotes

_SECRETS_KEPT = 2048
"""Names are never reused, so old secrets are only forgotten memory."""
CONTROLLERS_OWN = "(master)"
"""In a path the controller's own computer; since 2.307 ``(built-in)`` as well."""
_MENU = 100
_DELETIONS = ("/delete", "/doDelete")


class NodeClient:
    """The node calls of one controller. Every method raises any ``JenkinsError``."""

    def __init__(self, session: http.ControllerSession) -> None:
        self._session = session
        self._secrets: dict[str, jnlp_secret.Secret] = {}
        self._secrets_of = ""  # the controller session they belong to
        self._has_plain_secrets = True
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def create(self, definition: node.NodeDefinition) -> None:
        """Create a node. Raises ``NodeExists`` for a taken name, ``BadRequest`` for a bad one.

        The controller's own check for an existing name is not atomic, so names must be unique by
        their making; ``NodeExists`` then means that an earlier try of ours went through.
        """
        wrong = node.problems(definition)
        if wrong:
            raise errors.BadRequest(f"node not sent: {'; '.join(wrong)}")
        try:
            await self._session.post("computer/doCreateItem", form=node.creation_form(definition))
        except errors.BadRequest as error:
            # in another language than ours "already exists" reads differently
            if error.status == 400 and (await self.read(definition.name)).exists:
                raise errors.NodeExists(error.text, status=error.status) from error
            raise
        except errors.Unexpected as error:
            if error.status == 500:  # JSON that it cannot bind (recording nodes/02)
                raise errors.BadRequest(error.text, status=error.status) from error
            raise

    async def secret(self, name: str) -> jnlp_secret.Secret:
        """Return the secret of a node; asked once per name and controller start.

        It depends on the name and on a key of the controller only, and every download of a JNLP
        file makes newer controllers write a warning. So ``agent-secret`` is asked first (core
        26017), and not again of a controller that has it not; then ``slave-agent.jnlp``, which all
        known versions serve. It is forgotten with the node: an agent that is refused goes.
        """
        if self._secrets_of != self._session.session:
            self._secrets.clear()
            self._secrets_of = self._session.session
            self._has_plain_secrets = True
        if name not in self._secrets:
            secret = await self._plain_secret(name)
            if secret is None:
                secret = await self._secret_of_jnlp(name)
                self._has_plain_secrets = False  # until another start of the controller
            while len(self._secrets) >= _SECRETS_KEPT:
                del self._secrets[next(iter(self._secrets))]
            self._secrets[name] = secret
        return self._secrets[name]

    async def _plain_secret(self, name: str) -> jnlp_secret.Secret | None:
        if not self._has_plain_secrets:
            return None
        try:
            answer = await self._session.get_text(_path(name, "agent-secret"))
            return jnlp_secret.from_text(answer.text)
        except (errors.NotFound, ValueError):
            return None

    async def _secret_of_jnlp(self, name: str) -> jnlp_secret.Secret:
        try:
            answer = await self._session.get_text(_path(name, "slave-agent.jnlp"))
        except errors.NotFound:
            answer = await self._session.get_text(_path(name, "jenkins-agent.jnlp"))
        try:
            return jnlp_secret.from_jnlp(answer.text)
        except ValueError as error:
            raise errors.Unexpected(f"secret of node {name}: {error}") from None

    async def read(self, name: str) -> state.NodeState:
        """Read one computer; ``exists`` is False for a name that the controller does not know.

        Builds end with what is believed to be gone, and a proxy says 404 as well when it has lost
        the controller: the list is the second witness. Raises ``Unexpected`` where they disagree.
        """
        try:
            answer = await self._session.get_json(_path(name, "api/json"), {"tree": state.TREE})
        except errors.NotFound as error:
            if not await self._lists(name):
                return state.NodeState(exists=False, name=name)
            raise errors.Unexpected(f"{error.text}; but node {name} is listed") from None
        return state.parse(answer.json)

    async def _lists(self, name: str) -> bool:
        try:
            return name in await self.node_names()
        except errors.NotFound as error:
            raise errors.Unexpected(f"{error.text}; is a controller behind this?") from None

    async def node_names(self) -> tuple[str, ...]:
        """Return the names of all nodes that have a computer, without the controller's own.

        One that is no computer or has no name is left out: it is nobody's node.
        """
        answer = await self._session.get_list(
            "computer/api/json", "computer", {"tree": "computer[displayName]"}
        )
        try:
            computers = [entry.parse() for entry in answer.entries]
        except ValueError as error:
            raise errors.Unexpected(f"GET computer/api/json: {error}") from None
        names = []
        for computer in computers:
            with contextlib.suppress(errors.Unexpected):
                name = state.name_of(computer)
                if not str(computer.get("_class", "")).endswith("$MasterComputer"):
                    names.append(name)
        return tuple(names)

    async def cordon(self, name: str, message: str) -> None:
        """Take a node temporarily offline, running builds go on; may be repeated.

        ``changeOfflineCause`` sets, ``toggleOffline`` would flip: a repeated toggle after a
        time-out puts the node back to work.
        """
        async with self._turn(name):
            await self._session.post(
                _path(name, "changeOfflineCause"), form={"offlineMessage": message}
            )

    async def uncordon(self, name: str) -> None:
        """Bring a node back into service and make sure of it; may be repeated.

        Raises ``NotFound`` for an unknown node, ``Unexpected`` if it is still taken out after.
        """
        for _ in range(2):  # two clients that toggle at once undo each other
            async with self._turn(name):
                seen = await self._must_read(name)
                if not seen.temporarily_offline:
                    return
                await self._session.post(_path(name, "toggleOffline"), form={"offlineMessage": ""})
        if (await self._must_read(name)).temporarily_offline:
            raise errors.Unexpected(
                f"node {name} is still temporarily offline after toggleOffline"
            )

    async def seal(self, name: str, *labels: str, busy: bool) -> None:
        """Let a node take nothing more and leave it nothing but these labels; may be repeated.

        What is on its way to it still runs. A build that asks for its node in the very instant
        fails visibly (measured: 2 of 350): the node is replaced. An idle one keeps its schedule on
        controllers that would close its connection for it: an item could be given to it meanwhile.
        """
        refuse = busy or version.schedule_only_refuses(self._session.version)

        def sealed(config: str) -> str:
            if refuse:
                config = node.accepting(config, tasks=False)
            return node.with_labels(config, labels)

        await self._configure(name, sealed)

    async def unseal(self, name: str, *labels: str, exclusive: bool = True) -> None:
        """Let a node take items again, with these labels.

        Without any they must ask for it by its name: its own are gone.
        """

        def unsealed(config: str) -> str:
            if labels:
                config = node.with_labels(config, labels, exclusive=exclusive)
            return node.accepting(config, tasks=True)

        await self._configure(name, unsealed)

    async def tell_builds(
        self, name: str, variables: Mapping[str, str], *, ours: re.Pattern[str]
    ) -> None:
        """Set the variables of builds on a node whose names match ``ours``; may be repeated.

        Writes only what differs. Raises ``Unexpected`` where the controller does not keep them.
        """

        def told(config: str) -> str:
            return environment.with_variables(config, variables, ours=ours)

        if await self._configure(name, told):
            kept, wanted = await self._changed_config(name, told)
            if kept != wanted:
                raise errors.Unexpected(
                    f"the controller does not keep the environment of node {name}"
                )

    async def delete(self, name: str) -> None:
        """Remove a node, closing its agent's connection; raises ``NotFound`` if it is gone."""
        await self._session.post(_path(name, "doDelete"))
        self._secrets.pop(name, None)

    async def may_delete(self, name: str = CONTROLLERS_OWN) -> bool | None:
        """Return whether we are allowed to delete a node; None: the controller does not tell.

        Nothing on REST says so; the menu of a computer's page does (``contextMenu``, from
        ``Computer/sidepanel.jelly``, 2.263 to master): it has an entry for the deletion where
        Agent/Delete is granted. The controller's own computer never has it, so False of that one
        says no more than that the menu is answered.
        """
        try:
            answer = await self._session.get_json(_path(name, "contextMenu"))
        except (errors.NotFound, errors.BadRequest, errors.Unexpected):
            return None
        menu = answer.json.get("items") if isinstance(answer.json, dict) else None
        if not isinstance(menu, list) or not menu:
            return None
        return any(_deletes(entry) for entry in menu[:_MENU])

    async def release(self, name: str) -> None:
        """Remove a node whose agent is dead so that Pipeline ends the steps on it at once.

        Where the controller does not take the mark, or does not delete the node, all is as it was
        before. Raises ``NotFound`` for a node that is gone, ``Unexpected`` where the mark is lost.
        """
        async with self._turn(name):
            before, marked = await self._changed_config(name, node.as_single_use)
            try:
                await self._post_config(name, marked)
                kept = await self._session.get_text(_path(name, "config.xml"))
                if not node.is_single_use(kept.text):
                    raise errors.Unexpected(
                        f"the controller does not mark node {name} as single-use: the plugin "
                        "durable-task is missing"
                    )
                await self.delete(name)
            except errors.NotFound:
                raise
            except errors.JenkinsError:
                with contextlib.suppress(errors.JenkinsError):  # the first error is what counts
                    await self._post_config(name, before)
                raise

    async def disconnect(self, name: str, message: str = "") -> None:
        """Close the connection of a node's agent, whose name is free again then."""
        await self._session.post(_path(name, "doDisconnect"), form={"offlineMessage": message})

    async def _must_read(self, name: str) -> state.NodeState:
        seen = await self.read(name)
        if not seen.exists:
            raise errors.NotFound(f"node {name} is unknown", status=404)
        return seen

    @contextlib.asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """Change a node by one hand at a time.

        A ``config.xml`` is the whole node, since 2.482 the offline mark too: one that was read
        before another change would undo it.
        """
        lock = self._turns.get(name) or asyncio.Lock()
        self._turns[name] = lock
        async with lock:
            yield

    async def _configure(self, name: str, change: Callable[[str], str]) -> bool:
        """Return whether anything had to be written."""
        async with self._turn(name):
            config, changed = await self._changed_config(name, change)
            if changed != config:  # every replacement is a risk for a build that is just starting
                await self._post_config(name, changed)
            return changed != config

    async def _changed_config(self, name: str, change: Callable[[str], str]) -> tuple[str, str]:
        """Return what a node is configured as, and what it is to be."""
        config = (await self._session.get_text(_path(name, "config.xml"))).text
        try:
            named = node.name_of(config)
            changed = change(config)
        except ValueError as error:
            raise errors.Unexpected(f"config.xml of node {name}: {error}") from error
        if named != name:  # another name inside would rename the node
            raise errors.Unexpected(
                f"config.xml of node {name} names the node {quotes.shown(named)}"
            )
        return config, changed

    async def _post_config(self, name: str, config: str) -> None:
        # in ASCII it is the same document whatever charset the receiver assumes
        body = config.encode("ascii", "xmlcharrefreplace")
        await self._session.post(_path(name, "config.xml"), body=body)


def _path(name: str, rest: str) -> str:
    return f"computer/{quote(name, safe='')}/{rest}"


def _deletes(entry: object) -> bool:
    """Return whether an entry of a menu leads to the deletion: by its address, or its event's."""
    told = entry if isinstance(entry, dict) else {}
    event = told.get("event")
    leads = (told.get("url"), event.get("url") if isinstance(event, dict) else None)
    return any(isinstance(url, str) and url.rstrip("/").endswith(_DELETIONS) for url in leads)
