"""RecordIO: the framing of a Mesos event stream, taken apart whatever the chunks are.

A record is its length in decimal digits, a line feed, and that many bytes. Pure; refuses to know
what a record holds. A stream may be cut anywhere: the decoder keeps the rest for the next piece.
"""

from outside import counts, quotes

MAX_RECORD = 16 << 20
"""Bytes. An OFFERS event of 317 agents is about 300 kB; more than this is not Mesos talking."""

_DIGITS_MAX = len(str(MAX_RECORD))


class FramingError(ValueError):
    """The bytes are no RecordIO; the stream cannot be trusted any further."""


class Decoder:
    """Collects bytes, gives whole records."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._length: int | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Return the records that are complete now, in order. Raises ``FramingError``."""
        self._rest += data
        records: list[bytes] = []
        while True:
            if self._length is None:
                self._length = self._take_length()
            if self._length is None or len(self._rest) < self._length:
                return records
            records.append(bytes(self._rest[: self._length]))
            del self._rest[: self._length]
            self._length = None

    @property
    def is_between_records(self) -> bool:
        """True when a stream that ends here was not cut inside a record."""
        return self._length is None and not self._rest

    def _take_length(self) -> int | None:
        """Take the length of the next record off the front; None if it is not all there."""
        head, line_feed, _ = self._rest[: _DIGITS_MAX + 1].partition(b"\n")
        if (head and not (head.isdigit() and head.isascii())) or (line_feed and not head):
            begins = quotes.shown(bytes(head[:20]).decode("latin-1"))
            raise FramingError(f"a record begins with {begins}, not with its length")
        if not line_feed:
            if len(head) > _DIGITS_MAX:
                raise FramingError("the length of a record has no end")
            return None
        length = int(head)
        if length > MAX_RECORD:
            raise FramingError(
                f"a record of {counts.told(length, 'byte')}; {MAX_RECORD} are allowed"
            )
        del self._rest[: len(head) + 1]
        return length


def encode(record: bytes) -> bytes:
    """Return one framed record."""
    return b"%d\n%b" % (len(record), record)
