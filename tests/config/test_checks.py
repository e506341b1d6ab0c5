"""``checks`` of a template: what becomes of them, and which backends cannot run them."""

import attrs

from broker import config
from broker.config import loading
from broker.core import model


@attrs.frozen(kw_only=True)
class Nothing:
    pass


KINDS = {
    "able": config.KindClasses(settings=Nothing, template_settings=Nothing),
    "unable": config.KindClasses(
        settings=Nothing, template_settings=Nothing, run_refusal="it has no hands"
    ),
}
TEXT = """
owner: o
controller: {url: 'http://c/'}
backends: {x: {kind: able}, y: {kind: unable}}
templates:
  t:
    labels: l
    backends: [BACKENDS]
    checks:
      ready: {command: "test -d /opt", timeout: 20s}
      dirty: {command: [is-clean, --all]}
"""


def parse(backends, text=TEXT):
    return loading.parse(text.replace("BACKENDS", backends), KINDS, environ={})


def test_a_text_is_for_a_shell_and_a_list_is_a_program():
    """With the time that they may take."""
    (template,) = parse("x").templates
    assert template.checks == model.Checks(
        ready=model.CheckCommand(argv=("sh", "-c", "test -d /opt"), within_s=20.0),
        dirty=model.CheckCommand(argv=("is-clean", "--all"), within_s=30.0),
    )


def test_a_changed_check_makes_no_other_definition():
    """It holds from the next check on; no agent is replaced for it."""
    revisions = {
        parse("x", text).templates[0].revision for text in (TEXT, TEXT.replace("/opt", "/srv"))
    }
    assert len(revisions) == 1


def test_a_backend_that_runs_no_commands_is_refused_by_name():
    """Each check of each such backend, with its own words."""
    try:
        parse("x, y")
    except config.ConfigError as error:
        words = str(error)
    assert "templates.t.checks.ready: backend y, of kind unable, cannot: it has no hands" in words
    assert "templates.t.checks.dirty: backend y" in words
    assert "backend x" not in words


def test_what_a_check_runs_is_in_no_text_about_a_template():
    """It may have a secret in it, though it should not."""
    (template,) = parse("x").templates
    assert "/opt" not in repr(template)
