"""Texts in messages for people."""

import pytest

from outside import quotes


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "''"),
        ("C:\\jenkins", "'C:\\jenkins'"),
        ("it's", '"it\'s"'),
        ("""it's "so\"""", """'it's "so"'"""),
        ("a\nb\x1b[2J\u200b", r"'a\nb\x1b[2J\u200b'"),
        ("größe", "'größe'"),
    ],
)
def test_a_text_stays_what_it_is_and_what_cannot_be_seen_is_spelled_out(text, shown):
    """No backslash of it is doubled, and it can be told where it ends."""
    assert quotes.shown(text) == shown


def test_a_long_text_is_cut_and_says_so():
    """The cut is outside of the quotes: it is not part of the text."""
    assert quotes.shown("abcdef", 3) == "'abc'…"
    assert quotes.shown("abc", 3) == "'abc'"
