"""Tables for terminals: what is too long is folded where it belongs, and nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.status import terminal
from tests.cli.test_cli import told
from tests.status import status_source

ROWS = [
    ("job", "item", "why"),
    ("team/app", 7, "no template has label gpu; nearest: linux, which lacks it"),
    ("x", 8, ""),
]


def test_what_fits_is_not_folded():
    """The same on a wide terminal as in a file."""
    assert terminal.table(ROWS) == terminal.table(ROWS, width=120)


def test_the_last_column_goes_on_under_itself():
    """Between words."""
    assert terminal.table(ROWS, width=45).splitlines() == [
        "job       item  why",
        "team/app  7     no template has label gpu;",
        "                nearest: linux, which lacks",
        "                it",
        "x         8",
    ]


def test_where_little_is_left_it_stands_under_its_row():
    """A column of some letters is not read by anybody."""
    assert terminal.table(ROWS, width=30).splitlines() == [
        "job       item",
        "    why",
        "team/app  7",
        "    no template has label gpu;",
        "    nearest: linux, which",
        "    lacks it",
        "x         8",
    ]


@given(
    st.lists(
        st.tuples(st.text(max_size=30), st.text("ab 漢\u0301", max_size=30), st.text(max_size=90)),
        min_size=1, max_size=4,
    ),
    st.integers(12, 100),
)  # fmt: skip
def test_no_line_is_wider_than_the_terminal_and_no_letter_is_lost(rows, width):
    """Whatever the texts are; a wide letter takes two columns, an accent none."""
    table = terminal.table(rows, width=width)
    assert all(terminal.columns(line) <= width for line in table.split("\n"))
    letters = sorted("".join("".join(terminal.plain(c) for c in row) for row in rows))
    assert [c for c in letters if c != " "] == [c for c in sorted(table) if c not in " \n"]


def test_a_wide_letter_takes_two_columns():
    """And an accent none."""
    assert 3 == terminal.columns("漢a\u0301")
    assert "漢" == terminal.cut("漢字", 3)


@pytest.mark.parametrize("width", [40, 80])
def test_a_whole_status_fits(width):
    """Every line of it."""
    text = terminal.render(told(status_source.full("some words " * 30)), width=width)
    assert max(map(terminal.columns, text.splitlines())) <= width


def test_what_an_agent_used_in_words():
    used = {
        "memory_peak_bytes": 812 << 20,
        "memory_cached_peak_bytes": 1536 << 20,
        "memory_limit_bytes": 2 << 30,
        "cpu_s": 34.2,
        "cpu_peak_cores": 1.84,
        "throttled_s": 3.1,
    }
    assert (
        "812 MiB of memory at most, 1.5 GiB with files kept in it, 2.0 GiB allowed, 34 s of "
        "processor time, 1.8 processors at most, held back by its limit of them for 3.1 s"
    ) == terminal.usage_words(used)
    assert "34 s of processor time" == terminal.usage_words({"cpu_s": 34.2, "throttled_s": 0.0})
    assert "" == terminal.usage_words(None)


def test_published_ports_are_told_with_where_they_are_reached():
    """An address of IPv6 in brackets, as it is typed; an instance without ports says nothing."""
    ports = [
        {"port": 80, "protocol": "tcp", "address": "", "host_port": 32768},
        {"port": 53, "protocol": "udp", "address": "::1", "host_port": 53},
    ]
    assert "80/tcp at port 32768, 53/udp at [::1]:53" == terminal.ports_words({"ports": ports})
    told = terminal.ports_words({"ports": ports, "host": "fe80::7"})
    assert "80/tcp at [fe80::7]:32768, 53/udp at [::1]:53" == told
    assert "" == terminal.ports_words({"ports": []}) == terminal.ports_words(None)
