"""``diff``: the files against what the running broker has in force, before it reads them.

Refuses to know what a setting means; whether a template's agents drift is told by its revision, as
everywhere.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from broker import config, exits
from broker.cli import inspection, shared
from broker.status import documents
from outside import counts


@frozen(kw_only=True)
class TemplateChange:
    """What becomes of a template, and of its agents."""

    name: str
    change: str  # new, gone, changed
    settings: tuple[str, ...] = ()  # those that differ, as they stand in the template
    agents: int = 0  # that retire because of it, as soon as they are idle


@frozen(kw_only=True)
class Difference:
    """All that the files would change."""

    templates: tuple[TemplateChange, ...] = ()
    settings: tuple[str, ...] = ()  # other than of templates
    restart: tuple[str, ...] = ()  # those of ``settings`` that only a restart puts in force
    reordered: bool = False

    @property
    def agents(self) -> int:
        """How many agents retire."""
        return sum(one.agents for one in self.templates)

    def __bool__(self) -> bool:
        return bool(self.templates or self.settings or self.reordered)


def diff(options: argparse.Namespace) -> None:
    """Print what differs; it is no failure if something does."""
    settings = shared.settings_of(options, secrets=config.Secrets.UNREAD)
    asked = inspection.RunningBroker.of(settings, "configuration", "agents")
    if asked.answers is None:
        raise exits.Failed(
            f"no broker of owner {settings.owner} answers that works with state_dir "
            f"{settings.state_dir}; hint: is it running, with a page (listen), and may you read "
            "its state_dir?"
        )
    asked.say()
    found = compare(
        settings, asked.answers["configuration"], asked.answers["agents"]["agents"], asked.blinded
    )
    if options.json:
        shared.print_json({"asked": asked.url, **_document(found)})
    else:
        _print(found)


def compare(
    settings: config.Settings,
    in_force: documents.Document,
    agents: list[Mapping[str, Any]],
    blind: Callable[[str], str],
) -> Difference:
    """Compare the files with what a broker says that it has in force, and with its agents."""
    theirs = in_force["settings"]
    ours = {path: blind(digest) for path, digest in settings.parts.items()}
    paths = sorted(
        path for path in theirs.keys() | ours.keys() if theirs.get(path) != ours.get(path)
    )
    before: Mapping[str, str] = in_force["revisions"]
    after = {str(t.name): t.revision for t in settings.templates}
    retiring = Counter(
        a["template"]
        for a in agents
        if a["revision"] == before.get(a["template"]) != after.get(a["template"])
    )
    changes = []
    for name in dict.fromkeys((*after, *before)):
        changed = tuple(
            path.removeprefix(f"templates.{name}.")
            for path in paths
            if path.startswith(f"templates.{name}.")
        )
        change = "new" if name not in before else "gone" if name not in after else "changed"
        if change != "changed":
            changed = ()
        elif not changed and before[name] == after[name]:
            continue
        changes.append(
            TemplateChange(name=name, change=change, settings=changed, agents=retiring[name])
        )
    others = tuple(path for path in paths if not path.startswith("templates."))
    return Difference(
        templates=tuple(changes),
        settings=others,
        restart=tuple(path for path in others if path.partition(".")[0] in config.RESTARTS),
        reordered=[n for n in after if n in before] != [n for n in before if n in after],
    )


def _document(found: Difference) -> dict[str, Any]:
    return {
        "differs": bool(found),
        "templates": [
            {"name": t.name, "change": t.change, "settings": t.settings, "retiring": t.agents}
            for t in found.templates
        ],
        "reordered": found.reordered,
        "retiring": found.agents,
        "settings": found.settings,
        "restart": found.restart,
    }


def _print(found: Difference) -> None:
    if not found:
        print("nothing differs")
        return
    if found.templates:
        shared.print_table(
            [
                ("template", "is", "agents that retire", "settings"),
                *((t.name, t.change, t.agents, ", ".join(t.settings)) for t in found.templates),
            ]
        )
    if found.reordered:
        print("the templates are preferred in another order")
    for path in found.settings:
        when = "needs a restart" if path in found.restart else "is in force with the reload"
        print(f"{path}: {when}")
    print(f"{counts.told(found.agents, 'agent')} would retire when idle")
