"""``control.hook``: what is read, and what is refused with words."""

import pytest

from broker import config
from broker.config import kinds, loading

KEY = "k" * 32
TEXT = """\
owner: o
controller: {{url: "http://127.0.0.1:1/"}}
listen: {listen}
control: {{hook: {hook}}}
templates: {{t: {{labels: t}}}}
"""


def read(tmp_path, hook="{key: file:key}", listen='"127.0.0.1:8087"', key=KEY):
    path, file = tmp_path / "broker.yaml", tmp_path / "key"
    path.write_text(TEXT.format(hook=hook, listen=listen))
    if key is not None:
        file.write_text(key)
        file.chmod(0o600)
    return loading.load([path], kinds.classes(), environ={})


def warned(settings):
    return [
        problem.text for problem in settings.warnings if problem.path[:2] == ("control", "hook")
    ]


def test_a_key_is_all_it_needs(tmp_path):
    """The rest has defaults; the key is a secret."""
    settings = read(tmp_path)
    assert settings.hook.key.reveal() == KEY
    assert settings.hook.url is None
    assert (settings.hook.install, settings.hook.tells_builds) == (False, True)
    assert not warned(settings)
    assert KEY in settings.secrets()
    assert KEY not in repr(settings)


@pytest.mark.parametrize(
    ("hook", "listen", "key", "said"),
    [
        ("{}", '"127.0.0.1:8087"', KEY, "control.hook.key: missing"),
        ("{key: kkkkkkkkkkkkkkkkkkkkkkkk}", '"127.0.0.1:8087"', KEY, "control.hook.key"),
        ("{key: file:key}", '"127.0.0.1:8087"', "short", "fewer than 20 characters"),
        ("{key: file:key}", '"127.0.0.1:8087"', None, "control.hook.key"),
        ("{key: file:key}", '"0.0.0.0:8087"', KEY, "control.hook.url: missing"),
        ("{key: file:key}", '"[::]:8087"', KEY, "control.hook.url: missing"),
        ("{key: file:key, url: broker}", '"0.0.0.0:8087"', KEY, "http://… or https://…"),
        ('{key: file:key, url: "http://u:p@b/"}', '"127.0.0.1:8087"', KEY, "a URL with a user"),
        ("{key: file:key, instal: true}", '"127.0.0.1:8087"', KEY, "instal"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, hook, listen, key, said):
    """With the place and what is allowed; never with the key."""
    with pytest.raises(config.ConfigError) as refused:
        read(tmp_path, hook, listen, key)
    words = "\n".join(refused.value.lines)
    assert said in words
    assert KEY not in words


def test_what_is_unwise_is_warned_of(tmp_path):
    """A key that travels in the clear, and a page that is not served."""
    far = '{key: file:key, url: "http://broker.example.com:8087/"}'
    assert any("not https" in text for text in warned(read(tmp_path, far)))
    near = '{key: file:key, url: "https://broker.example.com/"}'
    assert not warned(read(tmp_path, near))
    assert any("listen is off" in text for text in warned(read(tmp_path, listen='"off"')))
