"""What is kept of a command's output."""

from backends.kit import running


def _told(*pieces: bytes, hide: tuple[str, ...] = ()) -> str:
    tail = running.LastOutput()
    for piece in pieces:
        tail.take(piece)
    return tail.output(hide=hide)


def test_pieces_are_joined():
    """Streams are cut anywhere, also within a character."""
    assert "one\ntwö" == _told(b"o", b"ne\ntw\xc3", b"\xb6\n")
    assert "" == _told()


def test_the_end_is_kept_in_whole_lines():
    """However it came: in one piece, or in many."""
    flood = b"".join(b"line %d\n" % number for number in range(100_000))
    at_once = _told(flood)
    assert running.OUTPUT_MAX >= len(at_once)
    assert at_once.endswith("line 99999")
    assert at_once.startswith("line ")
    pieces = [flood[at : at + 1000] for at in range(0, len(flood), 1000)]
    assert at_once == _told(*pieces)


def test_one_line_without_end_is_told_as_that():
    """Half a line may be half a secret."""
    assert "too long" in _told(b"x" * (1 << 20))


def test_secrets_of_the_instance_are_hidden():
    """Also one of which only the end would be kept."""
    secret = "tell-nobody-about-this"
    assert "a (hidden) b" == _told(f"a {secret} b\n".encode(), hide=(secret,))
    assert secret[8:] not in _told(
        b"y" * 5, secret.encode(), b"z" * (4 * 4096 - 9), hide=(secret,)
    )
