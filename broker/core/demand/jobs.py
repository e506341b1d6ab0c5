"""Which job an item is of, and for which jobs a template is.

The full name of a job is read from the address of its task: the task's own name is the short
one, and of a step of a Pipeline a sentence. Controllers whose Pipeline plugin exports no address
(before workflow-durable-task-step 2.38) do not tell it. Pure; refuses to know labels.
"""

import urllib.parse
from collections.abc import Iterable, Sequence

from broker.core import model
from broker.core.demand import globs


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
    return urllib.parse.unquote("/".join(names)), tuple(rest)


def is_for(template: model.Template, job: str) -> bool:
    """Return whether a template is for a job; it is for none of which the name is not known."""
    if not template.restricted:
        return True
    if not job or globs.any_matches(template.not_for, job):
        return False
    return not template.only_for or globs.any_matches(template.only_for, job)


def barred(
    item: model.QueueItem, templates: Iterable[model.Template]
) -> frozenset[model.TemplateName]:
    """Return which of these templates are not for the job of an item."""
    job = name_of(item.task_url)
    return frozenset(t.name for t in templates if not is_for(t, job))


def words(template: model.Template) -> str:
    """Say for which jobs a restricted template is, for people."""
    said = [f"for {_listed(template.only_for)} only"] if template.only_for else []
    said += [f"not for {_listed(template.not_for)}"] if template.not_for else []
    return ", ".join(said)


def _listed(patterns: Sequence[str]) -> str:
    return ", ".join(patterns[:3]) + ", ..." * (len(patterns) > 3)
