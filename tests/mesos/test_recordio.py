"""Framing: whatever the chunks, the same records; the recorded bytes as they came."""

import itertools
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.mesos import recordio
from tests.each import each

RECORDED = pathlib.Path(__file__).parent.parent / "recordings" / "mesos"


@given(records=st.lists(st.binary(max_size=40), max_size=8), cuts=st.lists(st.integers(0, 400)))
def test_any_chunking_gives_the_same_records(records, cuts):
    """Empty records, records that look like lengths, cuts anywhere."""
    stream = b"".join(map(recordio.encode, records))
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    decoder = recordio.Decoder()
    found = [
        record
        for begin, end in itertools.pairwise(edges)
        for record in decoder.feed(stream[begin:end])
    ]
    assert records == found
    assert decoder.is_between_records


@given(records=st.lists(st.binary(min_size=1, max_size=40), min_size=1), data=st.data())
def test_a_cut_record_is_noticed(records, data):
    """A stream that ends inside a record gives the whole ones and says so."""
    stream = b"".join(map(recordio.encode, records))
    last = len(stream) - len(recordio.encode(records[-1]))
    decoder = recordio.Decoder()
    cut = data.draw(st.integers(last + 1, len(stream) - 1))
    assert records[:-1] == decoder.feed(stream[:cut])
    assert not decoder.is_between_records


@each(
    "stream",
    [b"x", b"\n", b"-1\n", b"+5\nabc", b" 3\nabc", b"5a\n", b"9" * 30, b"99999999\n", b"\xb2\n"],
)
def test_what_is_no_length_is_refused(stream):
    """Lost framing is an error at once, not a wait for gigabytes."""
    with pytest.raises(recordio.FramingError):
        recordio.Decoder().feed(stream)


@pytest.mark.parametrize(
    "name", ["02-launch-finish", "27-memory-limit", "34-many-tasks-one-accept"]
)
def test_recorded_streams_are_read(name):
    """The bytes of a 1.11 master, byte by byte, are the events that were seen."""
    stream = (RECORDED / name / "stream-1.recordio").read_bytes()
    told = json.loads((RECORDED / name / "stream-1.json").read_text())
    decoder = recordio.Decoder()
    found = [json.loads(record) for byte in stream for record in decoder.feed(bytes([byte]))]
    assert [one["event"] for one in told["events"]] == found
    assert decoder.is_between_records
