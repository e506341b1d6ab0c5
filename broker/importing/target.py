"""The configuration that is being made, and what every plugin's templates have in common.

Pure. Refuses to know any plugin.
"""

import re
from collections.abc import Iterable

from attrs import define, field

from broker.importing import hiding, names, outline
from broker.importing.fields import PlainSection
from jnlp import node as jnlp_node

SECRETS = "/etc/agent-broker"
"""Where the files are that have to be made."""
INBOUND = "jenkins/inbound-agent:latest"
_IMAGE = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:/@\]-]{0,500}")
NORMAL = (
    "mode NORMAL there, which is the default: agents take builds without a label, and are started "
    "for them. Of several such templates the first is started"
)
ONCE = "single use there: one build, then gone. Remove `once` to use agents again"


@define
class Target:
    """A configuration, and what has to be made beside it."""

    root: outline.Section = field(factory=outline.Section)
    controller: outline.Section = field(factory=outline.Section)
    backends: outline.Section = field(factory=outline.Section)
    templates: outline.Section = field(factory=outline.Section)
    create: list[str] = field(factory=list)
    urls: list[str] = field(factory=list)  # of the controller, as agents are told

    def need(self, what: str) -> None:
        """Say what has to be made, once."""
        if what not in self.create:
            self.create.append(what)

    def backend(self, name: str, kind: str, default: str) -> tuple[str, outline.Section]:
        """Return a new backend's name and section."""
        found = names.fit(name, self.backends.keys(), default)
        section = self.backends.section(found)
        section.set("kind", kind)
        return found, section

    def template(self, *told: str) -> tuple[str, outline.Section]:
        """Return a new template's name and section; the first text that is one names it."""
        text = next((text for text in told if re.search(r"[A-Za-z0-9]", text)), "agent")
        name = names.fit(text, self.templates.keys(), "agent")
        return name, self.templates.section(name)

    def url(self, fields: PlainSection, *keys: str) -> None:
        """Take the controller's URL as agents are told; a broker has one for all."""
        url = fields.text(*keys)
        if url and not url.endswith("/"):
            url += "/"
        if url and self.urls and url not in self.urls:
            fields.note(
                f"{keys[0]}: {url} is another one than {self.urls[0]}; a broker gives all agents "
                "one `controller.agent_url`: use a second broker (with another owner) if agents "
                "cannot reach it",
                loud=True,
            )
        if url and url not in self.urls:
            self.urls.append(url)

    def variable(
        self, into: dict[str, str], fields: PlainSection, name: str, value: str, where: str
    ) -> None:
        """Take a variable of agents, unless its value looks like a secret."""
        if not name:
            return
        if hiding.is_secret(name, value) or hiding.REMOVED in value:
            fields.note(
                f"the variable {name}: its value looks like a secret and is not written here: "
                "builds can read an agent's environment, so keep it in Jenkins' credentials",
                loud=True,
            )
            self.need(f"a credential in Jenkins for the variable {name} of {where}")
            return
        into[name] = value


def labels(out: outline.Section, text: str, default: str) -> None:
    """Write labels: a list, without what cannot be one."""
    good = []
    for label in dict.fromkeys(text.split()):
        problems = jnlp_node.label_problems(label) if "${" not in label else ()
        if problems:
            out.note(f"{problems[0]}; not imported", loud=True)
        else:
            good.append(label)
    if not good:
        out.note(
            "no label there: builds could not ask for these agents; the template's name is one"
        )
        good = [default]
    out.set("labels", " ".join(good))


def image(out: outline.Section, text: str) -> None:
    """Write an image; the official one stands there where a text cannot be the name of one."""
    plain = re.sub(r"(?<!\^)\$\{[^}]*\}", "x", text)
    if _IMAGE.fullmatch(plain):
        out.set("image", text)
    else:
        shown = hiding.cleaned(text)[:80]
        out.set("image", INBOUND, f"image {shown}: it cannot be the name of one", loud=True)


def mode(out: outline.Section, told: str) -> None:
    """Write who may use an agent."""
    if told.strip().upper() == "EXCLUSIVE":
        return
    out.set("mode", "normal", NORMAL, loud=True)
    out.set("takes_unlabelled", True)


def minutes(number: int | outline.Written) -> str:
    """Return minutes as a duration."""
    return f"{number}m"


def java_options(out: outline.Section, words: Iterable[str]) -> None:
    """Write options of the agent's Java."""
    told = list(words)
    if told:
        have = out.get("jvm_options") or []
        out.set("jvm_options", [*have, *told])


def environment(out: outline.Section, told: dict[str, str]) -> None:
    """Write the agent's environment; what its entry script reads as options is a setting here."""
    options = told.pop("JENKINS_JAVA_OPTS", "")
    if options:
        java_options(out, [word.strip('"') for word in options.split()])
    if told:
        out.set("environment", told)


def node_properties(target: Target, fields: PlainSection, where: str) -> dict[str, str]:
    """Return the variables among a node's properties, and name the others."""
    found: dict[str, str] = {}
    for kind, one in fields.kinds("nodeProperties"):
        if kind in {"envVars", "environmentVariables", "dockerEnvVars"}:
            for pair in one.entries("env"):
                target.variable(found, fields, pair.raw("key"), pair.raw("value"), where)
        elif kind == "toolLocation":
            fields.note(
                "nodeProperties: toolLocation: where tools lie on the agent; a node of the broker "
                "has no such property: put the tools onto the PATH of the image, or install them "
                "by Jenkins' tools"
            )
        else:
            fields.note(f"nodeProperties: {kind[:80] or 'one without a name'}: not imported")
    return found
