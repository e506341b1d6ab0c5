"""The HTTP proxy of builds and of the agent's JVM: what is written becomes variables and options.

Pure. Refuses to know who is given them, and to connect.

Facts (remoting 3309 to 3355, ``JnlpAgentEndpointResolver``, ``Engine``, ``NoProxyEvaluator``; the
JDK's ``DefaultProxySelector``; Tyrus' client; tried with the real agent.jar, see
``tests/e2e/test_real_proxy.py``):

* agent.jar asks the JVM's own choice first: ``-Dhttp.proxyHost`` and ``-Dhttp.nonProxyHosts``,
  for an https controller the ``https`` twins. Without them it takes the variable ``http_proxy``,
  in small letters only, for what it asks by http and for its TCP connection, which then goes by
  CONNECT. A URL without a port there ends in an exception.
* By WebSocket it takes the JVM's options alone, and ``no_proxy`` with them.
* The JVM speaks plain HTTP to a proxy, has no password for one among its options, and knows names
  with a ``*`` at one end, no networks: those are spelled out where that is short.
* ``-Dhttp.nonProxyHosts`` replaces what the JDK leaves alone by itself, this machine.
* Jenkins keeps the environment of an agent in a map that knows no case (``hudson.EnvVars``): of
  ``http_proxy`` and ``HTTP_PROXY`` a build gets the one that the JVM happens to list first, which
  changes with how many other variables there are. curl reads ``http_proxy`` in small letters only,
  so does wget all three; Go, Python, git, Node and Docker read either.
"""

import ipaddress
import re
import urllib.parse
from collections.abc import Iterable, Iterator

from attrs import frozen

from jnlp import tunnel
from outside import quotes

VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
"""All that ``environment`` may return."""
OPTIONS = ("-Dhttp.proxy", "-Dhttps.proxy", "-Dhttp.nonProxyHosts")
"""What ``jvm_options`` return begins with one of these."""
HERE = ("localhost", "127.0.0.1", "::1")
"""Never by way of a proxy: what builds start beside themselves."""
_HERE_OF_JAVA = ("localhost", "127.*", "[::1]")  # the JDK's own default, which ours replaces
_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*")
_MOST_SPELLED = 16
"""Patterns for one network, so that 172.16.0.0/12 is among those that Java can be told."""


class ProxySettingError(ValueError):
    """A setting that cannot be used: ``found`` (shown as it is), ``allowed`` and ``hint``."""

    def __init__(self, found: str, *, allowed: str, hint: str = "") -> None:
        """``found`` holds no password."""
        super().__init__(f"found {found}; allowed: {allowed}")
        self.found = found
        self.allowed = allowed
        self.hint = hint


@frozen(kw_only=True)
class Proxy:
    """By which proxies builds and the JVM go, and where they go without one.

    ``http``, ``https``: ``http://HOST:PORT``, checked by ``url``; for addresses of that scheme.
    ``direct``: names, addresses and networks as ``entry`` returns them.
    """

    http: str | None = None
    https: str | None = None
    direct: tuple[str, ...] = ()


def url(text: str) -> str:
    """Return a proxy's URL as everybody understands it. Raises ``ProxySettingError``."""
    allowed = "http://HOST:PORT"
    if "@" in text:
        raise ProxySettingError(
            "a URL with a user (not shown)",
            allowed=allowed,
            hint="every build reads it; let the proxy know its clients by their addresses",
        )
    try:
        parts = urllib.parse.urlsplit(text)
        host, port = parts.hostname or "", parts.port
        address = _address(host)
    except ValueError:
        raise ProxySettingError(quotes.shown(text), allowed=allowed) from None
    if parts.scheme not in {"", "http"} and "://" in text:
        hint = "the scheme is that of the proxy itself, and Java speaks plain HTTP to one"
        raise ProxySettingError(quotes.shown(text), allowed=allowed, hint=hint)
    whole = parts.scheme == "http" and parts.path in {"", "/"}
    if not whole or parts.query or parts.fragment or not (address or _NAME.fullmatch(host)):
        raise ProxySettingError(quotes.shown(text), allowed=allowed)
    if not port:
        hint = "without a port some programs take 80, some 1080, and agent.jar none at all"
        raise ProxySettingError(quotes.shown(text), allowed=allowed, hint=hint)
    return f"http://{_bracketed(host)}:{port}"


def entry(text: str) -> str:
    """Return what goes without a proxy in the one spelling that all tools read.

    A name stands for itself and all below it. Raises ``ProxySettingError``.
    """
    allowed = "a name, .DOMAIN, an address or a network like 10.0.0.0/8"
    value = text.strip()
    if "/" in value and "//" not in value:
        try:
            return str(ipaddress.ip_network(value))
        except ValueError as error:
            hint = "write its first address" if "host bits" in str(error) else ""
            raise ProxySettingError(quotes.shown(text), allowed=allowed, hint=hint) from None
    address = _address(value.removeprefix("[").removesuffix("]"))
    if address is not None:
        return str(address)
    bare = value.removeprefix("*").removeprefix(".")
    is_name = _NAME.fullmatch(bare) and value in {bare, f".{bare}", f"*.{bare}"}
    if is_name and not bare.replace(".", "").isdecimal():
        return value.removeprefix("*").lower()
    hint = ""
    if re.search(r"[,|\s]", value):
        hint = "an entry for each"
    elif "//" in value:
        hint = "the name alone, not a URL"
    elif ":" in value:
        hint = "without a port: Java and agent.jar know none here"
    raise ProxySettingError(quotes.shown(text), allowed=allowed, hint=hint)


def controllers(agent_url: str, connection: tunnel.Connection) -> tuple[str, ...]:
    """Return the hosts that an agent connects to, as entries; each once."""
    found = [urllib.parse.urlsplit(agent_url).hostname or ""]
    told = (text for text in (connection.tunnel, connection.direct) if text is not None)
    found += (tunnel.parse_tunnel(text).host for text in told)
    return tuple(dict.fromkeys(host.lower() for host in found if host))


def covers(entries: Iterable[str], host: str) -> str | None:
    """Return the entry by which a host goes without a proxy, if one does."""
    address = _address(host)
    for one in entries:
        if address is None:
            bare = one.removeprefix(".")
            if host == bare or host.endswith(f".{bare}"):
                return one
        elif address == _address(one) or ("/" in one and address in ipaddress.ip_network(one)):
            return one
    return None


def untold(entries: Iterable[str]) -> tuple[str, ...]:
    """Return the entries that Java cannot be told: its JVM goes there by way of the proxy."""
    return tuple(one for one in entries if not _patterns(one))


def environment(proxy: Proxy) -> dict[str, str]:
    """Return the variables for builds, in small letters: of two spellings one would get lost."""
    told = {"http_proxy": proxy.http, "https_proxy": proxy.https}
    told["no_proxy"] = ",".join(dict.fromkeys((*HERE, *proxy.direct)))
    return {name: value for name, value in told.items() if value is not None}


def jvm_options(proxy: Proxy) -> tuple[str, ...]:
    """Return the options for a JVM; none has a blank in it."""
    options: list[str] = []
    for scheme, told in (("http", proxy.http), ("https", proxy.https)):
        if told is not None:
            parts = urllib.parse.urlsplit(told)
            options += [
                f"-D{scheme}.proxyHost={parts.hostname}",
                f"-D{scheme}.proxyPort={parts.port}",
            ]
    patterns = dict.fromkeys(part for one in proxy.direct for part in _patterns(one))
    options.append(f"-Dhttp.nonProxyHosts={'|'.join(dict.fromkeys((*_HERE_OF_JAVA, *patterns)))}")
    return tuple(options)


def _patterns(one: str) -> tuple[str, ...]:
    """Return an entry as Java's patterns; empty: there are none, or too many."""
    if "/" in one:
        return tuple(_of_network(one))
    if _address(one) is not None:
        return (_bracketed(one),)
    bare = one.removeprefix(".")
    return (bare, f"*.{bare}")


def _of_network(text: str) -> Iterator[str]:
    network = ipaddress.ip_network(text)
    if network.version != 4 or network.prefixlen == 0:
        return
    octets = -(-network.prefixlen // 8)
    if 1 << (8 * octets - network.prefixlen) > _MOST_SPELLED:
        return
    for part in network.subnets(new_prefix=8 * octets):
        kept = str(part.network_address).split(".")[:octets]
        yield ".".join(kept) + (".*" if octets < 4 else "")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if "%" in text:  # a zone of one machine means nothing on another, and may hold anything
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
