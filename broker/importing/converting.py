"""From the text of a file with clouds to a configuration of ours, with comments.

Pure but for the rules that the result is held against. Refuses to know files and terminals.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from attrs import frozen

from broker.config.settings import KindClasses
from broker.importing import (
    checking,
    controller_xml,
    docker,
    hiding,
    jcasc,
    kubernetes,
    mesos,
    outline,
    swarm,
)
from broker.importing.fields import PlainSection
from broker.importing.found import Cloud, Found, NotReadable
from broker.importing.target import Target
from outside import counts

_TOKEN = "jenkins-token"  # noqa: S105 -- a file's name
_URL = "http://localhost:8080/"
_VARIABLE = re.compile(r"(?<!\^)\$\{([A-Za-z_][A-Za-z0-9_]*)(:-)?")
_PLUGINS: Mapping[str, Callable[[PlainSection, Target], None]] = {
    "kubernetes": kubernetes.read,
    "docker": docker.read,
    "yadocker": docker.read_other,
    "mesos": mesos.read,
    "dockerswarm": swarm.read,
}
_ELSEWHERE = {
    "amazonec2": "machines of EC2",
    "ec2": "machines of EC2",
    "ecs": "tasks of ECS",
    "eC2Fleet": "machines of EC2",
    "azureVM": "machines of Azure",
    "googleComputeEngine": "machines of Google's Compute Engine",
    "nomad": "tasks of Nomad",
    "openstack": "machines of OpenStack",
}


@frozen(kw_only=True)
class Imported:
    """A configuration, what is to be said of it, and what has to be made beside it."""

    text: str
    remarks: tuple[str, ...]
    create: tuple[str, ...]


def convert(text: str, kinds: Mapping[str, KindClasses]) -> Imported:
    """Return a configuration. Raises ``NotReadable`` where nothing can be imported."""
    is_xml = text.lstrip("\ufeff \t\r\n").startswith("<")
    found = controller_xml.read(text) if is_xml else jcasc.read(text)
    if not found.clouds:
        raise NotReadable("no clouds in it: neither jenkins: clouds: nor <clouds>")
    into, strangers = _converted(found)
    if not into.templates.keys():
        known = ", ".join(sorted({cloud.kind for cloud in found.clouds}))
        raise NotReadable(
            f"nothing to import: clouds {hiding.cleaned(known)[:200]}; templates of kubernetes, "
            "docker, yet-another-docker, docker-swarm and mesos are"
        )
    root = _whole(into, found, strangers)
    written = outline.text_of(root)
    defaulted = frozenset(name for name, default in _VARIABLE.findall(written) if default)
    used = checking.mended(root, kinds, defaulted)
    if not into.templates.keys():
        raise NotReadable("nothing to import: no template of it can be")
    body = outline.text_of(root)
    create = [hiding.cleaned(one) for one in into.create]
    create += [f"the environment variable {name} of the broker" for name in used]
    return Imported(
        text=hiding.cleaned(f"{''.join(_head(create))}{body}"),
        remarks=tuple(_remarks(root)),
        create=tuple(create),
    )


def _converted(found: Found) -> tuple[Target, outline.Section]:
    into, strangers = Target(), outline.Section()
    for remark in found.remarks:
        strangers.note(f"of the file: {hiding.cleaned(remark)}", loud=True)
    for cloud in found.clouds:
        plugin = _PLUGINS.get(cloud.kind.lower().removesuffix("cloud"))
        if plugin is None:
            _stranger(cloud, strangers)
        else:
            plugin(PlainSection(cloud.fields, strangers, found.has_variables), into)
    return into, strangers


def _stranger(cloud: Cloud, out: outline.Section) -> None:
    name = cloud.fields.get("name") or cloud.fields.get("cloudName") or ""
    called = f" {hiding.cleaned(name)[:60]}" if isinstance(name, str) and name else ""
    many = cloud.fields.get("templates")
    count = f" with {counts.told(len(many), 'template')}" if isinstance(many, list) else ""
    what = next((w for k, w in _ELSEWHERE.items() if k.lower() == cloud.kind.lower()), "")
    meant = f" ({what})" if what else ""
    kind = hiding.cleaned(cloud.kind)[:80]
    out.note(
        f"the cloud {kind}{called}{count}{meant} is not imported: the broker has no backend for "
        "it. It can go on beside the broker, as long as their labels differ",
        loud=True,
    )


def _whole(into: Target, found: Found, strangers: outline.Section) -> outline.Section:
    root = into.root
    root.set(
        "owner", "jenkins", "unique on the controller and the platforms; agents are named after it"
    )
    _controller(into, found)
    root.items += strangers.items
    root.set("controller", into.controller)
    root.set("backends", into.backends)
    root.set("templates", into.templates)
    return root


def _controller(into: Target, found: Found) -> None:
    out = into.controller
    public = PlainSection({"url": found.url}, out, found.has_variables).text("url")
    told = into.urls[0] if into.urls else ""
    url = public or told
    if not url:
        out.note("its address was not in the file", loud=True)
        url = _URL
    url = url if url.endswith("/") else f"{url}/"
    out.set("url", url, "as the broker reaches it")
    if told and told != url:
        out.set("agent_url", told, "as agents reach it")
    out.set("user", "agent-broker", "a user with the permissions of docs/security.md")
    out.set("token", f"file:{_TOKEN}", "its API token, alone in a file")
    into.create.insert(0, f"{_TOKEN}: the API token of the user agent-broker, in Jenkins")


def _head(create: list[str]) -> Iterator[str]:
    head = outline.Section()
    head.note("Made by `agent-broker import`. Comments with !! are differences that matter.")
    head.note("To be made:")
    for one in create:
        head.note(f"* {one}")
    head.note("Then: agent-broker check-config, agent-broker doctor, agent-broker plan")
    yield outline.text_of(head)
    yield "\n"


def _remarks(root: outline.Section) -> Iterator[str]:
    """Yield what is loud, each with its places; what is said of many templates is told once."""
    places: dict[str, list[str]] = {}
    for path, text in root.loud():
        places.setdefault(hiding.cleaned(text), []).append(".".join(map(str, path[:2])))
    for text, where in places.items():
        named = [place for place in dict.fromkeys(where) if place]
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        yield f"{', '.join(named[:3])}{more}: {text}" if named else text
