"""``${NAME}`` in values: what is put in where, what it is read as, and what is left alone."""

import re

import pytest

from broker import config
from broker.config import kinds, loading, tree, variables
from outside import text as outside_text
from tests.each import each

KINDS = kinds.classes()
HEAD = "owner: o\ncontroller: {url: 'http://localhost/'}\n"
ENVIRON = {
    "N": "5",
    "WORD": "maven",
    "YES": "true",
    "NOTHING": "",
    "LIST": "[a, b]",
    "SECTION": "a: b",
    "LINES": "a\nlimits: {agents: 1}",
    "OCTAL": "010",
    "PLACE": "/run/secrets",
}


def parse(text, **environ):
    return loading.parse(f"{HEAD}{text}", KINDS, environ={**ENVIRON, **environ})


def refused(text, **environ):
    with pytest.raises(config.ConfigError) as caught:
        parse(text, **environ)
    return caught.value.lines


@each(
    ("written", "meant"),
    [
        ("${WORD}", "maven"),
        ("a-${WORD}-${N}", "a-maven-5"),
        ("${MISSING:-x}", "x"),
        ("${NOTHING:-x}", "x"),
        ("${WORD:-x}", "maven"),
        ("${MISSING:-}", ""),
        ("${NOTHING}", ""),
        ("^${WORD}", "${WORD}"),
        ("^${WORD}${WORD}", "${WORD}maven"),
        ("^${a.b}", "${a.b}"),
        ("$WORD {WORD} $$ $", "$WORD {WORD} $$ $"),
        ("{name}", "{name}"),
    ],
)
def test_a_text_has_its_variables_put_in(written, meant):
    """As Configuration as Code writes them."""
    assert meant == variables.substituted(written, ENVIRON)


@pytest.mark.parametrize(
    "written", ["${}", "${WORD", "${1}", "${a.b}", "${WORD:?no}", "${A:-${B}}"]
)
def test_what_is_written_otherwise_is_refused(written):
    """Nobody's meaning is guessed: neither a shell's nor a plug-in's."""
    with pytest.raises(tree.NotInserted, match="allowed"):
        variables.substituted(written, ENVIRON)


def test_what_is_put_in_is_never_looked_at_again():
    """A variable's own ``${`` is text."""
    assert "${N}" == variables.substituted("${X}", {"X": "${N}", "N": "5"})


@pytest.mark.parametrize(
    ("written", "cap"), [("${N}", 5), ("${MISSING:-7}", 7), ("1${N}", 15), ("${NOTHING}", None)]
)
def test_an_unquoted_value_is_typed_afterwards(written, cap):
    """As if it stood in the file."""
    assert (
        cap == parse(f"templates: \n  t: \n    labels: l\n    cap: {written}\n").templates[0].cap
    )


@pytest.mark.parametrize("written", ["'${N}'", '"${N}"', ">-\n      ${N}", "'5'"])
def test_a_quoted_value_stays_text(written):
    """Also if it looks like a number."""
    (line,) = refused(f"templates:\n  t:\n    labels: l\n    cap: {written}\n")
    assert re.search(r"cap: found '(5|\$\{N\})'; allowed: a whole number", line)


@pytest.mark.parametrize("name", ["LIST", "SECTION", "LINES"])
def test_a_value_never_becomes_structure(name):
    """One text, whatever it holds; the labels are those of a text with blanks."""
    made = parse(f"templates:\n  t:\n    labels: l\n    java: ${{{name}}}\n")
    assert ENVIRON[name] == made.templates[0].launch.java
    assert made.limits.agents is None


def test_the_traps_of_yaml_are_those_of_a_variable_too():
    """An octal number is refused whoever wrote it."""
    (line,) = refused("templates:\n  t:\n    labels: l\n    cap: ${OCTAL}\n")
    assert "010 is read as 8" in line


def test_keys_have_no_variables():
    """A name that looks like one is refused as a name."""
    (line,) = refused("templates:\n  ${WORD}: {labels: l}\n")
    assert "templates.${WORD}: a name has lower-case letters" in line


def test_what_other_programs_read_is_left_alone():
    """Commands, environments, pods and raw sections; the image and the other settings are ours."""
    made = parse("""
backends:
  d: {kind: docker}
  k:
    kind: kubernetes
    namespace: ${WORD}
    pods: {base: {metadata: {annotations: {a: "${OF_THE_POD}"}}}}
defaults:
  environment: {A: "${OF_THE_DEFAULT}"}
templates:
  t:
    labels: l
    image: registry/${WORD}:${N}
    command: [sh, -c, 'exec "${OF_A_SHELL:?}"']
    environment: {B: "^${OF_THE_AGENT}"}
    docker:
      user: "1${N}"
      entry_point: ["${OF_THE_IMAGE}"]
      docker: {HostConfig: {Runtime: "${OF_THE_ENGINE}"}}
    kubernetes:
      pod: {spec: {containers: [{name: side, image: x, command: ["${OF_THE_KUBELET}"]}]}}
      service_account: ${WORD}
""")
    launch = made.templates[0].launch
    assert "registry/maven:5" == launch.image
    assert ("sh", "-c", 'exec "${OF_A_SHELL:?}"') == launch.command
    assert {"A": "${OF_THE_DEFAULT}", "B": "^${OF_THE_AGENT}"} == launch.environment
    docker, pods = launch.platform["d"], launch.platform["k"]
    assert ("15", ("${OF_THE_IMAGE}",)) == (docker.user, docker.entry_point)
    assert "${OF_THE_ENGINE}" == docker.docker["HostConfig"]["Runtime"]
    assert "${OF_THE_KUBELET}" in str(pods.pod)
    assert "maven" == pods.service_account
    assert "maven" == made.backends["k"].settings.namespace
    assert "${OF_THE_POD}" in str(made.backends["k"].settings.pods)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_section_that_a_platform_takes_as_it_is_is_left_alone(kind):
    """None is forgotten when a kind gets another one."""
    stays = variables.kept(KINDS)
    for setting in variables.raw(KINDS[kind].template_settings):
        assert stays(("templates", "t", kind, setting, "x", 0), "${X}")
        assert stays(("defaults", kind, setting), "${X}")
    for setting in variables.raw(KINDS[kind].settings):
        assert stays(("backends", "b", setting, "x"), "${X}")
    assert not stays(("templates", "t", "image"), "${X}")


def test_a_secret_is_referred_to_and_its_place_may_be_a_variable(tmp_path):
    """The file's path, not what is in it."""
    (tmp_path / "token").write_text("11secret\n")
    (tmp_path / "token").chmod(0o600)
    made = loading.parse(
        "owner: o\ncontroller: {url: 'https://c/', user: u, token: 'file:${DIR}/token'}\n"
        "templates: {t: {labels: l}}",
        KINDS,
        environ={"DIR": str(tmp_path)},
    )
    assert "11secret" == made.controller.credentials.secret.reveal()


@pytest.mark.parametrize("written", ["${TOKEN}", "${TOKEN:-hunter2}"])
def test_a_secret_in_a_variable_is_refused_with_what_to_write(written):
    """``env:NAME`` is the way, and nothing of the secret is said."""
    text = f"owner: o\ncontroller:\n  url: https://c/\n  user: u\n  token: {written}\n"
    with pytest.raises(config.ConfigError) as caught:
        loading.parse(
            f"{text}templates: {{t: {{labels: l}}}}", KINDS, environ={"TOKEN": "11secret"}
        )
    (line,) = caught.value.lines
    assert line == (
        "broker.yaml:5: controller.token: found the variable TOKEN; allowed: file:PATH or "
        "env:NAME; hint: env:TOKEN"
    )


def test_a_variable_of_another_character_set_is_refused_like_such_a_text():
    """What no output can show."""
    (line,) = refused("templates:\n  t:\n    labels: ${X}\n", X="a\udc80")
    assert "the character U+DC80 is not allowed" in line
    assert line == outside_text.clean(line, 1000)


def test_anchors_are_allowed_and_each_use_is_read_at_its_own_place():
    """An alias of a text is left alone in a command and has its variable put in elsewhere."""
    made = parse("""
templates:
  a: &a
    labels: l
    java: &text ${WORD}
    command: [*text]
  b:
    <<: *a
    labels: m
""")
    for template in made.templates:
        assert ("maven", ("${WORD}",)) == (template.launch.java, template.launch.command)
