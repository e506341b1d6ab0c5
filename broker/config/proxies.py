"""The proxy of a template: its section becomes a value, or every mistake with its place.

Refuses to connect, and to know how a proxy is told to whom (``jnlp.proxy``).
"""

from collections.abc import Callable

from broker.config import collector, shape, tree
from jnlp import proxy as jnlp_proxy
from jnlp import tunnel as jnlp_tunnel


def read(
    notes: collector.Notes,
    path: tree.Path,
    section: shape.Template,
    connection: jnlp_tunnel.Connection,
    agent_url: str,
) -> jnlp_proxy.Proxy | None:
    """Return the proxy of builds and of the JVM, if a template has one.

    Where the agents' controller is, nobody goes by way of it unless the template says so. What
    contradicts it is warned of.
    """
    told = section.proxy
    if told is None:
        return None
    where = (*path, "proxy")
    if told.http is None and told.https is None:
        hint = "http: http://HOST:PORT"
        notes.bad(where, "it names no proxy; allowed: http, https or both", hint)
    if told.agent and told.http is None:
        notes.bad(
            (*where, "agent"),
            "true, and there is no http: the agent's TCP connection goes by that one",
            "http: http://HOST:PORT",
        )
    http = _parsed(notes, (*where, "http"), jnlp_proxy.url, told.http)
    https = _parsed(notes, (*where, "https"), jnlp_proxy.url, told.https)
    entries = tuple(
        one
        for number, text in enumerate(told.no_proxy)
        if (one := _parsed(notes, (*where, "no_proxy", number), jnlp_proxy.entry, text))
    )
    hosts = jnlp_proxy.controllers(agent_url, connection)
    _check_entries(notes, where, told, entries, hosts)
    proxy = jnlp_proxy.Proxy(
        http=http,
        https=http if told.https is None else https,
        direct=entries if told.agent else tuple(dict.fromkeys((*hosts, *entries))),
    )
    _check_beside(notes, path, section, proxy)
    return proxy


def _parsed(
    notes: collector.Notes, path: tree.Path, parse: Callable[[str], str], text: str | None
) -> str | None:
    if text is None:
        return None
    try:
        return parse(text)
    except jnlp_proxy.ProxySettingError as error:
        notes.bad(path, f"found {error.found}; allowed: {error.allowed}", error.hint)
        return None


def _check_entries(
    notes: collector.Notes,
    where: tree.Path,
    told: shape.Proxy,
    entries: tuple[str, ...],
    hosts: tuple[str, ...],
) -> None:
    """Note what Java cannot be told, and what keeps the agent from its proxy."""
    for one in jnlp_proxy.untold(entries):
        notes.warn(
            (*where, "no_proxy"),
            f"Java has no word for {one}: the agent's JVM goes there by way of the proxy, and "
            "only tools that know networks do not",
            "a network that ends at a dot (/8, /16, /24), or the names of what is in it",
        )
    for host in hosts if told.agent else ():
        by = jnlp_proxy.covers((*jnlp_proxy.HERE, *entries), host)
        if by is not None:
            notes.warn(
                (*where, "agent"),
                f"true, and {by} goes without the proxy: so does the agent to {host}",
                "leave agent out, or take it from no_proxy",
            )


def _check_beside(
    notes: collector.Notes, path: tree.Path, section: shape.Template, proxy: jnlp_proxy.Proxy
) -> None:
    """Note where the template says otherwise by itself, and wins."""
    ours = jnlp_proxy.environment(proxy)
    for name, value in section.environment.items():
        if ours.get(name.lower(), value) != value:
            notes.warn(
                (*path, "environment", name),
                "it says otherwise than proxy, and wins for builds; the agent's Java goes as "
                "proxy says",
                "leave it to proxy",
            )
        elif name not in ours and name.lower() in ours:
            notes.warn(
                (*path, "environment", name),
                f"builds get it in place of {name.lower()}: Jenkins hands on one spelling of a "
                "variable, and curl and wget read this one in small letters",
                "leave it to proxy",
            )
    for number, option in enumerate(section.jvm_options):
        if option.startswith(jnlp_proxy.OPTIONS):
            notes.warn(
                (*path, "jvm_options", number),
                "proxy gives this option, too; this one wins",
                "leave it to proxy",
            )
