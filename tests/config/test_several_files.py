"""A configuration of several files: put together, each message with its file, nothing said twice."""

import json
import os

import pytest

from broker import config
from broker.cli import main as cli
from broker.config import kinds, loading

KINDS = kinds.classes()
HEAD = "owner: o\ncontroller: {url: 'http://localhost/'}\n"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "conf"
    made.mkdir()
    return made


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name.replace('_', '-')}.yaml").write_text(text)


def load(*named, environ=()):
    return loading.load(named, KINDS, environ=dict(environ))


def refused(*named, environ=()):
    with pytest.raises(config.ConfigError) as caught:
        load(*named, environ=environ)
    return list(caught.value.lines)


def names(settings):
    return [template.name for template in settings.templates]


# --- named one by one ---


def test_sections_of_several_files_are_put_together(folder):
    """Each says a part; the order of the files is that of preference."""
    write(
        folder,
        a=f"{HEAD}limits: {{agents: 5}}\ntemplates:\n  t: {{labels: l}}\n",
        b="limits: {starting: 2}\ntemplates: {u: {labels: m}}\ndefaults: {warm: {min_idle: 1}}\n",
        c="defaults: {cap: 3}\ntemplates:\n",
    )
    made = load(folder / "a.yaml", folder / "b.yaml", folder / "c.yaml")
    assert ["t", "u"] == names(made)
    assert (5, 2) == (made.limits.agents, made.limits.starting)
    assert [(3, 1), (3, 1)] == [(t.cap, t.min_idle) for t in made.templates]


def test_what_is_given_twice_names_both_places(folder):
    """A value, and a template or a backend as a whole: no half of it is taken."""
    write(
        folder,
        a=f"{HEAD}backends:\n  b: {{kind: memory}}\ntemplates:\n  t: {{labels: l}}\n",
        b="owner: p\ncontroller:\n  url: http://localhost/\nbackends:\n  b: {cap: 5}\n"
        "templates:\n  t: {cap: 1}\n",
    )
    a, b = folder / "a.yaml", folder / "b.yaml"
    assert refused(a, b) == [
        f"{b}:1: owner: given twice, first in {a}:1; hint: keep one of them",
        f"{b}:3: controller.url: given twice, first in {a}:2; hint: keep one of them",
        f"{b}:5: backends.b: given twice, first in {a}:4; hint: keep one of them",
        f"{b}:7: templates.t: given twice, first in {a}:6; hint: keep one of them",
    ]


def test_everything_wrong_in_all_files_is_said_at_once(folder):
    """With its file, in their order; a file that is no section, too."""
    write(
        folder,
        a=f"{HEAD}poll: {{busy: fast}}\ntemplates: {{t: {{labels: l}}}}\n",
        b="templates:\n  u:\n    labels: m\n    cpa: 1\n",
        c="- a list\n",
    )
    lines = refused(*(folder / f"{name}.yaml" for name in "abc"))
    assert [(folder / name).as_posix() for name in ("a.yaml:3", "b.yaml:4", "c.yaml:1")] == [
        ":".join(line.split(":")[:2]) for line in lines
    ]


def test_a_text_that_cannot_be_read_hides_no_other(folder):
    """All of them are told, of every file."""
    write(folder, a=f"{HEAD}templates: [\n", b="a: {\n")
    lines = refused(folder / "a.yaml", folder / "b.yaml")
    assert [True, True] == ["not YAML" in line for line in lines]
    assert ["a.yaml", "b.yaml"] == [line.split(":")[0].rpartition("/")[2] for line in lines]


def test_a_file_that_cannot_be_read_hides_no_mistake_of_another(folder):
    """The values of the others are judged; what may stand in it is not missed."""
    write(
        folder,
        a="owner: Team A\ncontroller: {user: u, timeuot: 5s}\nlimits: {agents: many}\n"
        "templates:\n  t: {labels: l, image: x, once: true, backends: [far]}\n",
        b="backends:\n  d: {kind: docker, cpa: 5}\ntemplates:\n  u: {docker: {pids: lots}}\n",
        c="backends: [\n",
    )
    (folder / "d.yaml").write_bytes(b"owner: \xff\n")
    a, b, c, d, e = (folder / f"{name}.yaml" for name in "abcde")
    lines = refused(a, b, c, d, e)
    assert [":".join(line.split(": ")[:2]) for line in lines] == [
        f"{d}:not UTF-8 text, at byte 8",
        f"{e}:there is no such file; hint",
        f"{a}:1:owner",
        f"{a}:2:controller.timeuot",
        f"{a}:3:limits.agents",
        f"{a}:5:templates.t.once",
        f"{b}:2:backends.d.cpa",
        f"{b}:4:templates.u.docker.pids",
        f"{c}:2:not YAML",
    ]


def test_a_good_file_beside_one_that_cannot_be_read_is_told_nothing(folder):
    """Only the one is, whatever the other one refers to."""
    write(
        folder,
        a=f"{HEAD}templates: {{t: {{labels: l, image: x, backends: [d], paused: true}}}}\n",
        b="backends: {d: {kind: docker}\n",
    )
    (line,) = refused(folder / "a.yaml", folder / "b.yaml")
    assert line.startswith(f"{folder / 'b.yaml'}:2: not YAML")


def test_files_that_are_not_there_are_told_together(folder):
    """And one that is named twice."""
    write(folder, a=f"{HEAD}templates: {{t: {{labels: l}}}}\n")
    a, b = folder / "a.yaml", folder / "b.yaml"
    assert refused(a, b, a) == [
        f"{b}: there is no such file; hint: agent-broker init writes one",
        f"{a}: named twice; hint: once is enough",
    ]


def test_relative_paths_begin_at_the_first_file(folder, tmp_path):
    """Wherever the others are."""
    write(folder, a="owner: o\nstate_dir: state\n")
    (tmp_path / "b.yaml").write_text(
        "controller: {url: 'http://localhost/'}\ntemplates: {t: {labels: l}}"
    )
    assert folder / "state" == load(folder / "a.yaml", tmp_path / "b.yaml").state_dir
    assert tmp_path / "state" == load(tmp_path / "b.yaml", folder / "a.yaml").state_dir


# --- a folder, with teams ---


def test_a_team_has_templates_that_are_called_like_it(folder):
    """With defaults of its own between those of all and the template."""
    write(
        folder,
        broker=f"{HEAD}defaults: {{cap: 9, warm: {{min_idle: 1}}, retention: {{idle: 1m}}}}\n"
        "templates: {common: {labels: c}}\n",
        data="defaults: {cap: 5, retention: {max_builds: 3}}\n"
        "templates: {data: {labels: d}, data-gpu: {labels: g, cap: 2}}\n",
        web="templates: {web-1: {labels: w}}\n",
    )
    made = load(folder)
    assert ["common", "data", "data-gpu", "web-1"] == names(made)
    assert [9, 5, 2, 9] == [t.cap for t in made.templates]
    assert [None, 3, 3, None] == [t.retention.max_builds for t in made.templates]
    assert {60.0} == {t.retention.idle_s for t in made.templates}
    assert {1} == {t.min_idle for t in made.templates}


def test_a_team_may_touch_nothing_else(folder):
    """Each try is told with its line, beside what is wrong elsewhere."""
    write(
        folder,
        broker=f"{HEAD}templates: {{common: {{labels: c}}, data-old: {{labels: o}}}}\n",
        data="controller: {url: 'http://evil/'}\nbackends: {}\ndefaults: {cap: no}\n"
        "templates:\n  common: {labels: x}\n  database: {labels: y}\n  data-old: {labels: z}\n"
        "  data-new: {labels: n}\n",
    )
    main, team = folder / "broker.yaml", folder / "data.yaml"
    to_main = "hint: put it into broker.yaml"
    rename = "hint: rename it, or put it into broker.yaml"
    assert refused(folder) == [
        f"{team}:1: controller: not of a team's file; allowed: defaults, templates; {to_main}",
        f"{team}:2: backends: not of a team's file; allowed: defaults, templates; {to_main}",
        f"{team}:3: defaults.cap: found false; allowed: a whole number",
        f"{team}:5: templates.common: not a name of this file; allowed: data, data-…; {rename}",
        f"{team}:6: templates.database: not a name of this file; allowed: data, data-…; {rename}",
        f"{team}:7: templates.data-old: given twice, first in {main}:3; hint: keep one of them",
    ]


def test_a_name_belongs_to_the_team_that_says_most_of_it(folder):
    """``data-science`` keeps its own from ``data``; without it they are ``data``'s."""
    write(
        folder,
        broker=HEAD,
        data="templates: {data-science-gpu: {labels: l}}\n",
    )
    assert ["data-science-gpu"] == names(load(folder))
    write(folder, data_science="templates: {data-science: {labels: l}}\n")
    (line,) = refused(folder)
    assert "data.yaml:1: templates.data-science-gpu: not a name of this file" in line
    assert line.endswith("hint: data-science.yaml has it")


def test_a_mistake_in_a_teams_defaults_is_said_once_where_it_is(folder):
    """Not for each template, and not in the main file."""
    write(
        folder,
        broker=f"{HEAD}\n\ndefaults: {{retention: {{max_builds: 0}}}}\n",
        data="\n\ndefaults:\n  retention: {max_builds: -1}\n"
        "templates: {data-a: {labels: a}, data-b: {labels: b}}\n",
    )
    (line,) = refused(folder)
    assert line.startswith(f"{folder}/data.yaml:4: defaults.retention.max_builds: found -1")


def test_a_teams_file_is_given_no_variable_of_the_broker(folder):
    """The environment holds the broker's secrets; a label would show one to everybody."""
    write(
        folder,
        broker="owner: o\ncontroller: {url: 'https://c/', user: u, token: 'env:TOKEN'}\n",
        data="templates:\n  data: {labels: '${TOKEN}', environment: {A: '${LEFT}'}}\n",
    )
    (line,) = refused(folder, environ={"TOKEN": "11secret"})
    assert "data.yaml:2: templates.data.labels: a team's file has no variables" in line
    assert "11secret" not in line


def test_a_link_to_a_secret_shows_nothing_of_it(folder, tmp_path):
    """The page shows why a configuration is refused, and a team may put links into its place."""
    secret = tmp_path / "token"
    secret.write_text("11secret\n")
    write(folder, broker=f"{HEAD}templates: {{t: {{labels: l}}}}\n")
    (folder / "data.yaml").symlink_to(secret)
    (line,) = refused(folder)
    assert line == f"{folder}/data.yaml:1: found something else; allowed: a section of settings"


def test_what_is_hidden_or_called_otherwise_is_not_read(folder):
    """Editors' files, ConfigMaps' own; what looks like a mistake is warned of."""
    write(folder, broker=f"{HEAD}templates: {{t: {{labels: l}}}}\n")
    for name in (".hidden.yaml", "web.yaml~", "#web.yaml#", "README.md", "web.yaml.bak"):
        (folder / name).write_text("{")
    assert [] == [w for w in load(folder).warnings if str(folder) in w.file and not w.path]
    (folder / "web.yml").write_text("{")
    (warning,) = (w for w in load(folder).warnings if not w.path)
    assert warning.placed() == f"{folder}/web.yml:1: not read: a team's file ends in .yaml"


def test_a_file_that_no_team_can_have_is_refused(folder):
    """Its templates could have no name."""
    write(folder, broker=f"{HEAD}templates: {{t: {{labels: l}}}}\n", Data="templates: {}\n")
    (line,) = refused(folder)
    assert f"{folder}/Data.yaml: a team's file is called NAME.yaml; a name has" in line


def test_a_folder_without_its_main_file_is_refused(folder):
    """With the file that is missing."""
    write(folder, data="templates: {data: {labels: l}}\n")
    assert refused(folder) == [
        f"{folder}/broker.yaml: there is no such file; hint: agent-broker init writes one"
    ]


def mounted(folder, version, **texts):
    """Write files as the kubelet mounts a ConfigMap: links through ``..data``, swapped at once."""
    content = folder / f"..{version}"
    content.mkdir()
    write(content, **texts)
    (folder / "..data_tmp").symlink_to(content.name)
    os.replace(folder / "..data_tmp", folder / "..data")
    for name in texts:
        link = folder / f"{name}.yaml"
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}.yaml")


def test_a_mounted_config_map_is_read_and_its_swap_seen(folder):
    """What tells the texts from others changes with them; paths begin at the folder itself."""
    mounted(folder, "1", broker=f"{HEAD}state_dir: s\n", data="templates: {data: {labels: l}}\n")
    first = load(folder)
    assert (["data"], folder / "s") == (names(first), first.state_dir)
    assert first.digest == load(folder).digest
    mounted(folder, "2", broker=f"{HEAD}state_dir: s\n", data="templates: {data-2: {labels: l}}\n")
    second = load(folder)
    assert ["data-2"] == names(second)
    assert first.digest != second.digest


# --- the commands ---


def test_every_command_takes_several(folder, capsys):
    """``-c`` is ``--config``; programs are told the file of each problem."""
    write(
        folder, a=f"{HEAD}listen: 'off'\n", b="templates: {t: {labels: l}}\n", c="limits: {x: 1}\n"
    )
    a, b, c = (str(folder / f"{name}.yaml") for name in "abc")
    assert 0 == cli.main(["check-config", "-c", a, "--config", b])
    assert f"{a}, {b}: good; owner o, 1 template" in capsys.readouterr().out
    assert 0 == cli.main(["explain", "l", "-c", a, "-c", b])
    capsys.readouterr()
    assert 2 == cli.main(["check-config", "-c", a, "-c", b, "-c", c, "--json"])
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (c, 1, "limits.x") == tuple(problem[key] for key in ("file", "line", "setting"))
