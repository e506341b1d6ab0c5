"""Which job an item is of, and for which jobs a template is.

The full name of a job is read from the address of its task: the task's own name is the short
one, and of a step of a Pipeline a sentence. Controllers whose Pipeline plugin exports no address
(before workflow-durable-task-step 2.38) do not tell it. Pure; refuses to know labels.
"""

import functools
import urllib.parse
from collections.abc import Iterable, Sequence

from broker.core import model
from broker.core.demand import globs

_LONGEST = 2048
"""Characters of a full name."""
_KEPT = 16384

Restriction = tuple[model.TemplateName, tuple[str, ...], tuple[str, ...]]
"""A template, the jobs that it is for alone, and those that it is not for."""


def name_of(url: str) -> str:
    """Return the full name of the job of an address, as ``folder/job``; empty if it tells none.

    Names are as the controller has them: decoded once, so that the branch ``feature/x`` of a
    multibranch project is ``feature%2Fx``. Builds and configurations of a matrix are of their job.
    """
    return split(url)[0]


def split(url: str) -> tuple[str, tuple[str, ...]]:
    """Return the job of an address, and what of the address follows it: a build, say."""
    path = url.partition("://")[2].partition("/")[2] if "://" in url else url
    parts = [part for part in path.partition("?")[0].split("/") if part]
    rest = parts[parts.index("job") :] if "job" in parts else []
    names = []
    while len(rest) > 1 and rest[0] == "job":
        names.append(rest[1])
        rest = rest[2:]
    return _shown(urllib.parse.unquote("/".join(names))), tuple(rest)


def _shown(name: str) -> str:
    """Return a name that may be shown; one that is changed is no name that could be shown."""
    name = name[:_LONGEST]
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def is_for(template: model.Template, job: str) -> bool:
    """Return whether a template is for a job; it is for none of which the name is not known."""
    return _is_for(template.only_for, template.not_for, job)


def restrictions(templates: Iterable[model.Template]) -> tuple[Restriction, ...]:
    """Return those of the templates that are not for every job."""
    return tuple((t.name, t.only_for, t.not_for) for t in templates if t.restricted)


@functools.lru_cache(maxsize=_KEPT)
def barred(url: str, restricted: tuple[Restriction, ...]) -> frozenset[model.TemplateName]:
    """Return which of these templates are not for the job of an address.

    The same is asked in every look, of thousands that wait, and remembered.
    """
    job = name_of(url)
    return frozenset(name for name, only, never in restricted if not _is_for(only, never, job))


def _is_for(only_for: Sequence[str], not_for: Sequence[str], job: str) -> bool:
    if not only_for and not not_for:
        return True
    if not job or globs.any_matches(not_for, job):
        return False
    return not only_for or globs.any_matches(only_for, job)


def words(template: model.Template) -> str:
    """Say for which jobs a restricted template is, for people."""
    said = [f"for {_listed(template.only_for)} only"] if template.only_for else []
    said += [f"not for {_listed(template.not_for)}"] if template.not_for else []
    return ", ".join(said)


def _listed(patterns: Sequence[str]) -> str:
    return ", ".join(patterns[:3]) + ", ..." * (len(patterns) > 3)
