"""The documents say what the code does: nothing missing, nothing invented.

``UPDATE_GOLDEN=1 pytest tests/project/test_docs.py`` writes the generated tables anew.
"""

import os
import pathlib
import re
import shlex

import yaml

from broker import metrics
from broker.cli import main, shared
from broker.config import describing, kinds, loading
from broker.core import model
from broker.metrics import values
from tests.each import each

DOCS = pathlib.Path(__file__).parent.parent.parent / "docs"
ROOT = DOCS.parent


def table_in(path, mark, table):
    """Compare, or write, what stands between a mark and the next end."""
    text = path.read_text()
    found = re.search(rf"(<!-- {mark}: .*? -->\n)(.*?)(<!-- end -->)", text, re.S)
    assert found is not None
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text[: found.start(2)] + table + text[found.end(2) :])
        return table
    return found[2]


def families(*, used=True):
    """Return every metric of ours, at rest or after one event of each."""
    template = model.Template(
        name=model.TemplateName("t"),
        labels=frozenset(),
        backends=(model.BackendName("b"),),
        revision="",
    )
    policy = model.Policy(owner="o", templates=(template,), backends={"b": model.BackendPolicy()})
    recorder = metrics.PrometheusRecorder(policy, version="1")
    if used:
        recorder.queue_latency("t", warm=True, seconds=1.0)
        recorder.acted(model.Verb.LAUNCH, "", 1.0)
        recorder.launched("t", "b", "", 1.0)
        recorder.controller_call("look", "", 1.0)
        recorder.backend_call("b", "list", "", 1.0)
        recorder.hook_heard(heard=True, lost=0)
        recorder.hook_refused("key")
        recorder.hook_decided(0.01)
        recorder.waited("t", "image", 1.0)
        recorder.led(leading=True, holder="h", transitions=1)
        recorder.cycle(*one_cycle(), 1.0)
    return [f for f in recorder.registry.collect() if f.name.startswith("jenkins_broker_")]


def one_cycle():
    """Return a world and a plan in which an agent has just come online, and one is backed off."""
    t, b = model.TemplateName("t"), model.BackendName("b")
    key = model.BackoffKey(scope=model.Scope.TEMPLATE, backend=b, template=t)
    backoff = model.Backoff(failures=1, until_at=9.0, reason="", cause=model.Failure.REJECTED)
    came = model.Memory(first_seen_at=0.0, online_at=1.0, online_witnessed=True)
    agent = model.Agent(
        name=model.NodeName("n"), phase=model.Phase.IDLE, template=t, backend=b,
        created_at=0.0, memory=came,
    )  # fmt: skip
    ledger = model.Ledger(backoffs={key: backoff})
    world = model.World(now=1.0, controller=model.ControllerView(synced=True), backends={})
    return world, model.Plan(agents=(agent,), ledger=ledger)


def test_every_metric_is_documented_and_none_invented():
    """Name as it is scraped, type, labels, how many series there are at rest, the help text."""
    rows = []
    rest = {family.name: len(family.samples) for family in families(used=False)}
    for family in families():
        labels = sorted({key for sample in family.samples for key in sample.labels} - {"le"})
        name = family.name + ("_total" if family.type == "counter" else "")
        few = rest.get(family.name) or ""
        rows.append(
            f"| `{name}` | {family.type} | {', '.join(labels)} | {few} | {family.documentation} |"
        )
    head = ["| metric | type | labels | at rest | what it is |", "|---|---|---|---|---|"]
    table = "\n".join([*head, *rows]) + "\n"
    assert table == table_in(DOCS / "metrics.md", "metrics", table)


def test_the_queries_ask_for_metrics_and_labels_that_exist():
    """A query that was copied works."""
    known, reasons = set(), {r.value for r in model.WaitReason} | set(values.END_REASONS)
    for family in families():
        known |= {sample.name for sample in family.samples}
    text = (DOCS / "metrics.md").read_text().split("<!-- end -->")[1]
    asked = set(re.findall(r"jenkins_broker_\w+", text))
    assert asked - known == set()
    assert len(re.findall(r"```promql", text)) >= 5
    for pattern in re.findall(r'reason=~"([^"]+)"', text):
        for one in pattern.split("|"):
            assert [r for r in reasons if re.fullmatch(one, r)], one


def test_every_setting_is_in_the_reference():
    """The table is made from the classes that read the file."""
    table = describing.reference(kinds.classes())
    assert table == table_in(DOCS / "configuration.md", "settings", table)


def test_every_reason_has_an_entry():
    """Why builds wait, what agents ended of and how orders fail, each exactly once."""
    entries = re.findall(r"^### (.+)$", (DOCS / "troubleshooting.md").read_text(), re.M)
    wanted = [m.value for m in (*model.WaitReason, *model.Cause, *model.Failure)]
    page = "docs/troubleshooting.md"
    missing = [f"### {one}" for one in wanted if one not in entries]
    assert missing == [], f"{page} has no such heading: say there what it means, what to do"
    unknown = [f"### {one}" for one in entries if one not in wanted]
    assert unknown == [], f"{page} has a heading of no reason, cause or failure"
    assert [one for one in entries if entries.count(one) > 1] == [], f"{page} has it twice"


def yes(flag):
    return "yes" if flag else ""


def test_the_tables_of_causes_and_failures_are_made_from_the_members():
    """In their order; what a start that ended so holds back, and whether somebody must act."""
    causes = [
        f"| `{c.slug}` | {c.words} | {yes(c.accident)} | {yes(c.needs_person)} "
        f"| {c.scope.value if c.scope is not None else ''} |"
        for c in model.Cause
    ]
    failures = [f"| `{f.slug}` | {f.words} | {yes(f.needs_person)} |" for f in model.Failure]
    head = "| slug | what it is | accident | somebody must act | a start that ends so holds back |"
    made = {
        "causes": "\n".join([head, "|---|---|---|---|---|", *causes]) + "\n",
        "failures": "\n".join(
            ["| slug | what it is | somebody must act |", "|---|---|---|", *failures]
        )
        + "\n",
    }
    for mark, table in made.items():
        assert table == table_in(DOCS / "troubleshooting.md", mark, table)


def test_the_alerts_and_the_page_know_whom_a_person_must_help():
    """The manual's query names the reasons to wait that time does not heal, and the ends that are
    accidents, as the members say."""
    text = (DOCS / "metrics.md").read_text()
    asked = re.search(r'items_waiting{reason=~"([^"]+)"}\) > 0', text)
    assert set(asked[1].split("|")) == {r.value for r in model.WaitReason if r.needs_person}
    for pattern in re.findall(r'agents_ended_total{reason=~"([^"]+)"', text):
        found = {c for c in model.Cause if re.fullmatch(pattern, c.slug)}
        assert found == {c for c in model.Cause if c.accident}


@each(
    "path",
    [
        *sorted(ROOT.glob("*.md")),
        *sorted(DOCS.rglob("*.md")),
        *sorted(ROOT.glob("examples/*/README.md")),
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_lead_somewhere(path):
    """Inside the repository; what is outside is not asked."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", path.read_text()):
        if "://" not in target:
            page = (path.parent / target) if target else path
            assert page.exists(), target
            assert not anchor or anchor in anchors(page), f"{target}#{anchor}"


def anchors(page):
    """Return what headings of a page are called in links."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_examples_of_the_reference_load():
    """A template for each purpose, as it stands in the page."""

    page = (DOCS / "configuration.md").read_text()
    part = page.partition("## A template for each purpose")[2]
    text = part.split("```yaml\n")[1].split("```")[0]
    made = loading.parse(
        f"owner: o\ncontroller: {{url: 'http://localhost/'}}\n{text}",
        kinds.classes(),
        environ={},
    )
    assert len(made.templates) == 5


def configurations():
    """Yield the configurations of all pages, with what they leave out put in."""
    for page in sorted(DOCS.rglob("*.md")):
        for number, block in enumerate(
            re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.M | re.S)
        ):
            found = yaml.safe_load(block)
            templates = found.get("templates") or {}
            if templates and all("labels" in section for section in templates.values()):
                yield f"{page.name} {number}", {**_LEFT_OUT, **_somewhere(found), **found}


_LEFT_OUT = {
    "owner": "o",
    "controller": {"url": "http://localhost/"},
    "defaults": {"mesos": {"secrets": "volume"}},
}


def _somewhere(found):
    on_docker = {"backends": {"d": {"kind": "docker"}}, "defaults": {"image": "an/agent"}}
    return {} if "backends" in found else on_docker


@each(("name", "configuration"), list(configurations()))
def test_whole_configurations_of_the_manual_load(name, configuration):
    """Whoever copies one has an agent of it."""
    text = yaml.safe_dump(configuration, sort_keys=False)
    assert loading.parse(text, kinds.classes(), environ={}).templates, name


def commands_of(page):
    """Yield what a reader would type, of every block of a page, word by word."""
    inside = False
    for line in page.read_text().replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
        elif inside and re.match(r"\s*(?:\$ )?(agent-broker|export) ", line):
            lexer = shlex.shlex(
                line.strip().removeprefix("$ "), posix=True, punctuation_chars="&|;<>"
            )
            lexer.whitespace_split = True
            words = list(lexer)
            while words:
                end = next(
                    (i for i, word in enumerate(words) if word in {"&&", "|", ";", ">"}),
                    len(words),
                )
                yield words[:end]
                words = words[end + 1 :]


def test_the_commands_of_the_readme_do_what_they_say(tmp_path, monkeypatch, capsys):
    """In their order, in an empty folder beside the examples; those that ask somebody are parsed."""
    commands = list(commands_of(ROOT / "README.md"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.delenv("JENKINS_TOKEN", raising=False)
    done = set()
    for words in commands:
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            monkeypatch.setenv(name, value)
            continue
        options = main.parser().parse_args(words[1:])
        done.add(words[1])
        if words[1] in {"init", "check-config", "explain", "render"}:
            assert main.main(words[1:]) == 0, capsys.readouterr().err
        elif hasattr(options, "config"):  # the file that it would read is there
            loading.load(shared.files_of(options), kinds.classes(), environ=os.environ)
    assert done >= {"init", "check-config", "doctor", "plan", "run", "status", "explain", "render"}
    assert "maven" in capsys.readouterr().out


@each(
    "path",
    [
        *sorted(ROOT.glob("*.md")),
        *sorted(DOCS.rglob("*.md")),
        *sorted(ROOT.glob("examples/*/*.md")),
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_commands_of_a_page_can_be_typed(path):
    """Each names a command with options that it has."""
    for words in commands_of(path):
        if words[0] == "agent-broker" and len(words) > 1:
            main.parser().parse_args(words[1:])


def test_the_configuration_of_the_readme_loads():
    """As it stands there, with its variable set."""
    text = (ROOT / "README.md").read_text().split("```yaml\n")[1].split("```")[0]
    made = loading.parse(text, kinds.classes(), environ={"JENKINS_TOKEN": "x"})
    assert [t.name for t in made.templates] == ["linux"]


def test_the_steps_that_check_a_change_need_no_secret(tmp_path, monkeypatch, capsys):
    """As the manual writes them for GitHub and Jenkins, in a clean folder with a team's file."""
    text = (DOCS / "operating.md").read_text().split("## Checking a change")[1].split("\n## ")[0]
    commands = re.findall(r"agent-broker ((?:check-config|render) .*)", text)
    assert len(commands) == 3
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "broker.yaml").write_text(
        "owner: o\ncontroller: {url: 'https://c/', user: u, token: 'file:/run/secrets/token',"
        " ca_file: /not/here.pem}\nbackends: {k: {kind: kubernetes, namespace: n}}\n"
    )
    (folder / "maven.yaml").write_text("templates: {maven: {labels: maven, image: agent}}\n")
    for command in commands:
        assert main.main(shlex.split(command)) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert out.count("warning: conf/broker.yaml:2: controller.token: not here: found file:") == 2
    assert out.count("warning: conf/broker.yaml:2: controller.ca_file: not here: found ") == 2
    assert "kind: Pod" in out
    assert main.main(["check-config", "--strict", "-c", "conf"]) == 2
