"""Names of jobs and builds as people know them, read from their addresses on the controller.

An item's task tells its short name alone, and of a step of a Pipeline a sentence; its address
tells where it stands. Pure; refuses to ask anybody.
"""

import urllib.parse

from broker.core import model
from broker.core.demand import jobs
from outside import text as outside_text

_LONGEST = 256


def full_name(item: model.QueueItem) -> str:
    """Return the full name of the job that waits, with the build where it is a part of one."""
    return name_of(item.task_url) or outside_text.clean(item.task_name, _LONGEST)


def name_of(url: str) -> str:
    """Return ``folder/job #7`` of an address; empty if it is that of no job.

    Names are as the controller has them: decoded once, so that the branch ``feature/x`` of a
    multibranch project is ``feature%2Fx``. The configuration of a matrix follows its job.
    """
    job, rest = jobs.split(url)
    if rest and "=" in rest[0]:
        job, rest = f"{job}/{urllib.parse.unquote(rest[0])}", rest[1:]
    number = f" #{rest[0]}" if rest and rest[0].isascii() and rest[0].isdecimal() else ""
    return outside_text.clean(job + number if job else "", _LONGEST)
