"""Names of jobs, read from their addresses."""

from broker.core import model
from broker.status import jobs
from tests.each import each


@each(
    ("url", "name"),
    [
        ("http://localhost:8080/job/fs-nobody/", "fs-nobody"),
        ("http://localhost:8080/job/long-busy/1/", "long-busy #1"),
        ("https://c/jenkins/job/team/job/app/12/", "team/app #12"),
        ("http://c/job/org/job/repo/job/feature%252Fx/3/", "org/repo/feature%2Fx #3"),
        ("http://c/job/mx/PY=3.9,label=mx-win/", "mx/PY=3.9,label=mx-win"),
        ("http://c/job/mx-expr/where=linux%20&&%20docker/4/", "mx-expr/where=linux && docker #4"),
        ("http://c/job/a/job/7/", "a/7"),
        ("http://c/job/7/7/", "7 #7"),
        ("http://c/job/a/lastBuild/", "a"),
        ("http://c/job/bell%07%E2%80%AE/1/", "bell\ufffd\ufffd #1"),
        ("http://c/queue/item/7/", ""),
        ("http://c/job/", ""),
        ("", ""),
    ],
)
def test_an_address_tells_the_full_name(url, name):
    """Folders, branches, matrices as recorded; nothing in it can steer a terminal."""
    assert name == jobs.name_of(url)


def test_a_task_without_an_address_is_called_by_its_own_name():
    """As those of plugins may be; a step of a Pipeline is called by its build."""
    item = model.QueueItem(
        id=model.ItemId(1), stage=model.Stage.BUILDABLE, task_name="part of wf #5"
    )
    assert "part of wf #5" == jobs.full_name(item)
    wf = model.QueueItem(
        id=model.ItemId(1), stage=model.Stage.BUILDABLE,
        task_name="part of wf #5", task_url="http://c/job/f/job/wf/5/",
    )  # fmt: skip
    assert "f/wf #5" == jobs.full_name(wf)
