"""Who may do what on the simulated controller: users, crumbs, permissions.

As recorded (``auth/01``, ``permissions/*``): a wrong user or token is 401 on every path; nobody is
403; a POST needs no crumb with an API token, but a crumb and the cookie of its session otherwise;
a missing permission is 403 and names it. Refuses to know what a request does.
"""

import base64
import hashlib
import re
import secrets

from aiohttp import web
from attrs import define, field

from broker.simulator import pages, simulation

COOKIE = "JSESSIONID.simulated"
ALL = frozenset(
    f"{group}/{name}"
    for group, names in {
        "Overall": ("Read", "Administer"),
        "Job": ("Read", "Discover", "Build", "Cancel"),
        "Agent": ("Create", "Connect", "Disconnect", "Delete", "Configure"),
    }.items()
    for name in names
)
_CLASSES = {
    "Overall": "hudson.model.Hudson",
    "Job": "hudson.model.Item",
    "Agent": "hudson.model.Computer",
}
_PUBLIC = re.compile(r"jnlpJars/|tcpSlaveAgentListener|login|wsagents|simulated-agent/|whoAmI/")
_NODE = re.compile(r"computer/[^/]+/(?P<verb>.+)")
_NEEDED = {
    "slave-agent.jnlp": "Agent/Connect",
    "jenkins-agent.jnlp": "Agent/Connect",
    "launchSlaveAgent": "Agent/Connect",
    "config.xml": "Agent/Configure",
    "changeOfflineCause": "Agent/Disconnect",
    "doDisconnect": "Agent/Disconnect",
    "doDelete": "Agent/Delete",
}


@define(kw_only=True)
class Accounts:
    """Who may come in, and with what. Without a user everybody may do everything."""

    user: str | None = None
    token: str | None = None
    password: str | None = None
    permissions: frozenset[str] = ALL
    _crumbs: dict[str, str] = field(factory=dict)  # of a session's cookie

    def may(self, permission: str) -> bool:
        """Return whether the user has a permission; Disconnect implies Connect."""
        sources = {permission, "Overall/Administer"}
        if permission == "Agent/Connect":
            sources.add("Agent/Disconnect")
        return self.user is None or bool(sources & self.permissions)

    def refusal(
        self, request: web.Request, path: str, *, toggles_on: bool = False
    ) -> web.Response | None:
        """Return the refusal of a request, or None for one that is let in."""
        if self.user is None:
            return None
        kind = self._authenticate(request)
        if kind == "wrong":
            return self._unauthorized(request)
        if request.method == "POST" and kind != "token" and not self._has_crumb(request):
            return pages.bare(403, "No valid crumb was included in the request")
        if _PUBLIC.match(path):
            return None
        if kind == "nobody":
            return _nobody()
        needed = ("Overall/Read", self._needed(path, toggles_on=toggles_on))
        missing = (one for one in needed if one and not self.may(one))
        return next(map(self._forbidden, missing), None)

    def _needed(self, path: str, *, toggles_on: bool) -> str:
        if path in {"computer/doCreateItem", "computer/createItem"}:
            return "Agent/Create"
        parts = _NODE.fullmatch(path)
        if parts is None:
            return ""
        if parts["verb"] == "toggleOffline":
            return "Agent/Connect" if toggles_on else "Agent/Disconnect"
        return _NEEDED.get(parts["verb"], "")

    def _forbidden(self, permission: str) -> web.Response:
        group, _, name = permission.partition("/")
        text = f"{self.user} is missing the {permission} permission"
        answer = pages.refusal(simulation.SimulatedRefusal(403, text))
        answer.headers["X-You-Are-Authenticated-As"] = str(self.user)
        answer.headers["X-Required-Permission"] = f"{_CLASSES[group]}.{name}"
        return answer

    def _authenticate(self, request: web.Request) -> str:
        user, given = _told(request)
        if not user and not given:
            return "nobody"
        if user == self.user and given:
            if self.token is not None and secrets.compare_digest(given, self.token):
                return "token"
            if self.password is not None and secrets.compare_digest(given, self.password):
                return "password"
        return "wrong"

    def _unauthorized(self, request: web.Request) -> web.Response:
        user, _ = _told(request)
        answer = pages.bare(401, f"Invalid password/token for user: {user}")
        answer.headers["WWW-Authenticate"] = 'Basic realm="Jenkins"'
        return answer

    # --- crumbs ---

    def _has_crumb(self, request: web.Request) -> bool:
        cookie = request.cookies.get(COOKIE, "")
        crumb = request.headers.get("Jenkins-Crumb", "")
        return bool(crumb) and self._crumbs.get(cookie) == crumb

    def crumb(self, request: web.Request, session: str) -> tuple[str, str]:
        """Return a crumb and the cookie of the session that it is good for."""
        cookie = request.cookies.get(COOKIE) or f"node0{secrets.token_hex(8)}"
        value = hashlib.sha256(f"{cookie}{session}".encode()).hexdigest()
        self._crumbs[cookie] = value
        return value, cookie

    def forget_sessions(self) -> None:
        """End all sessions, as a start of the controller or their expiry does."""
        self._crumbs.clear()

    def whoami(self, request: web.Request) -> dict[str, object]:
        """Return ``/whoAmI/api/json``."""
        user, _ = _told(request)
        anonymous = self.user is None or not user
        return {
            "_class": "hudson.security.WhoAmI",
            "anonymous": anonymous,
            "authenticated": True,
            "authorities": [""] if anonymous else ["authenticated"],
            "name": "anonymous" if anonymous else user,
        }


def _nobody() -> web.Response:
    answer = pages.page("Jenkins", "Authentication required", status=403)
    answer.headers["X-You-Are-Authenticated-As"] = "anonymous"
    answer.headers["X-Required-Permission"] = "hudson.model.Hudson.Read"
    return answer


def _told(request: web.Request) -> tuple[str, str]:
    told = request.headers.get("Authorization", "").removeprefix("Basic ")
    try:
        user, _, given = base64.b64decode(told).decode().partition(":")
    except ValueError:
        return "?", ""
    return user, given
