"""How an inbound agent reaches its controller: TCP, through a tunnel, directly, or by WebSocket.

Pure. Knows the rules of agent.jar (which options exclude each other, how a tunnel is written);
refuses to guess anything from an environment or to know how an agent is started.

Rules, from ``hudson.remoting.Launcher`` and ``org.jenkinsci.remoting.engine.HostPort``:

* a tunnel replaces host, port or both of what the controller announces, so it is TCP only;
* WebSocket excludes tunnel and direct connection; agent.jar answers such a pair with its usage
  text and **exit status 0** (recording ``agent/12-connect-websocket``), hence the check here;
* a direct connection asks the controller nothing over HTTP, so it needs the instance identity.
"""

import base64
import binascii
import enum
import ipaddress
import re
from collections.abc import Iterable

from attrs import field, frozen

from outside import counts, quotes

_TUNNEL_FORMS = "HOST:PORT, HOST: (port of the controller), :PORT (host of the controller)"
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_PROTOCOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_PORT = 65535


class Transport(enum.Enum):
    """The three ways in."""

    TCP = "tcp"
    WEBSOCKET = "websocket"
    DIRECT = "direct"


@frozen(kw_only=True)
class Connection:
    """A checked connection setting; made by ``connection``."""

    transport: Transport = Transport.TCP
    tunnel: str | None = None  # HOST:PORT, HOST: or :PORT, TCP only
    direct: str | None = None  # HOST:PORT, DIRECT only
    instance_identity: str | None = field(default=None, repr=False)  # DIRECT only, base64
    protocols: tuple[str, ...] = ()


@frozen(kw_only=True)
class Tunnel:
    """A tunnel taken apart. Empty host, port None: what the controller announces."""

    host: str
    port: int | None


class ConnectionSettingError(ValueError):
    """A connection setting that agent.jar would refuse, or misunderstand.

    ``field`` is the setting's name, ``found`` what it holds, ``allowed`` what it may hold.
    """

    def __init__(self, field: str, found: str, *, allowed: str, hint: str = "") -> None:
        """``found`` is quoted to 256 characters at most."""
        self.field = field
        self.found = found[:256]
        self.allowed = allowed
        self.hint = hint
        text = f"{field}: found {self.found}; allowed: {allowed}"
        super().__init__(f"{text} ({hint})" if hint else text)


def parse_tunnel(text: str) -> Tunnel:
    """Take ``HOST:PORT``, ``HOST:``, ``:PORT`` or ``[IPv6]:PORT`` apart.

    Stricter than agent.jar in two points: an IPv6 address without brackets is refused (agent.jar
    would take its last group for the port), and so is ``:``, which says nothing.

    Raises ``ConnectionSettingError`` with field ``tunnel``.
    """
    return _host_port("tunnel", text, allowed=_TUNNEL_FORMS)


def connection(
    transport: Transport = Transport.TCP,
    tunnel: str | None = None,
    direct: str | None = None,
    instance_identity: str | None = None,
    protocols: Iterable[str] = (),
) -> Connection:
    """Check the settings together; raises ``ConnectionSettingError`` for impossible pairs."""
    protocols = tuple(protocols)
    if tunnel is not None:
        if transport is not Transport.TCP:
            raise ConnectionSettingError(
                "tunnel",
                f"{quotes.shown(tunnel)} together with transport {transport.value}",
                allowed="a tunnel with transport tcp only",
                hint="drop the tunnel, or use transport tcp",
            )
        parse_tunnel(tunnel)
        tunnel = tunnel.strip()
    if transport is Transport.DIRECT:
        _check_direct(direct, instance_identity, protocols)
    else:
        _check_not_direct(transport, direct, instance_identity, protocols)
    return Connection(
        transport=transport,
        tunnel=tunnel,
        direct=None if direct is None else direct.strip(),
        instance_identity=None if instance_identity is None else instance_identity.strip(),
        protocols=protocols,
    )


def _check_direct(
    direct: str | None, instance_identity: str | None, protocols: tuple[str, ...]
) -> None:
    if direct is None:
        raise ConnectionSettingError(
            "direct",
            "nothing together with transport direct",
            allowed="HOST:PORT of the controller's agent port",
            hint="a direct connection asks the controller nothing over HTTP",
        )
    where = _host_port("direct", direct, allowed="HOST:PORT")
    if not where.host or where.port is None:
        raise ConnectionSettingError(
            "direct", quotes.shown(direct), allowed="HOST:PORT", hint="both parts must be given"
        )
    if instance_identity is None or not instance_identity.strip():
        raise ConnectionSettingError(
            "instance_identity",
            "nothing together with transport direct",
            allowed="the controller's public key in base64",
            hint="it is the header X-Instance-Identity of URL/tcpSlaveAgentListener/",
        )
    try:
        base64.b64decode(instance_identity.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ConnectionSettingError(
            "instance_identity",
            f"{counts.told(len(instance_identity), 'character')} that are not base64",
            allowed="the controller's public key in base64",
            hint="copy the header X-Instance-Identity as it is, in one line",
        ) from None
    for protocol in protocols:
        if not _PROTOCOL.fullmatch(protocol):
            raise ConnectionSettingError(
                "protocols",
                quotes.shown(protocol),
                allowed="names such as JNLP4-connect",
                hint="leave it out to let the agent try all it knows",
            )


def _check_not_direct(
    transport: Transport,
    direct: str | None,
    instance_identity: str | None,
    protocols: tuple[str, ...],
) -> None:
    given = {"direct": direct, "instance_identity": instance_identity, "protocols": protocols}
    for name, value in given.items():
        if value:
            raise ConnectionSettingError(
                name,
                f"a value together with transport {transport.value}",
                allowed="with transport direct only",
                hint=f"drop {name}, or use transport direct",
            )


def _host_port(name: str, text: str, *, allowed: str) -> Tunnel:
    value = text.strip()
    quoted = quotes.shown(text)
    host, colon, port = value.rpartition(":")
    if not colon:
        raise ConnectionSettingError(
            name,
            quoted,
            allowed=allowed,
            hint="a colon is missing; agent.jar ends with 255 on this",
        )
    if not host and not port:
        raise ConnectionSettingError(
            name, quoted, allowed=allowed, hint="it names neither host nor port; leave it out"
        )
    if value.startswith("["):
        _check_ipv6(name, quoted, host, port)
    elif ":" in host:
        hint = "write an IPv6 address as [ADDRESS]:PORT; a URL is not allowed here"
        raise ConnectionSettingError(name, quoted, allowed=allowed, hint=hint)
    elif host and not _HOST.fullmatch(host):
        raise ConnectionSettingError(
            name, quoted, allowed=allowed, hint=f"{quotes.shown(host)} is not a host name"
        )
    if not port:
        return Tunnel(host=host, port=None)
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= _MAX_PORT):
        raise ConnectionSettingError(
            name, quoted, allowed=allowed, hint=f"the port must be 1 to {_MAX_PORT}"
        )
    return Tunnel(host=host.strip("[]"), port=int(port))


def _check_ipv6(name: str, quoted: str, host: str, port: str) -> None:
    try:
        ipaddress.IPv6Address(host.removeprefix("[").removesuffix("]"))
        good = host.endswith("]") and bool(port)
    except ValueError:
        good = False
    if not good:
        raise ConnectionSettingError(
            name,
            quoted,
            allowed="[IPv6]:PORT",
            hint="after a bracket come an IPv6 address, a closing bracket, a colon and the port",
        )
