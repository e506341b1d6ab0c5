"""The echoing server and its search, so that the tests that trust them are worth something."""

import base64
import html
import json
import socket
import urllib.parse

from tests import echo
from tests.each import each

SECRET = 'pass"wörd & <11a0b1c2>'


@each("way", echo.WAYS)
def test_every_way_tells_the_secret_back(way):
    """In what goes over the wire it can be found."""
    login = base64.b64encode(b"someone:a-very-long-token").decode()
    with echo.serving(way) as server, socket.create_connection(("127.0.0.1", server.port)) as s:
        s.sendall(f"POST /x HTTP/1.1\r\nAuthorization: Basic {login}\r\n\r\n".encode())
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    assert server.was_sent("a-very-long-token")
    assert echo.found("a-very-long-token", answer.decode("latin-1"))


@each(
    "shown",
    [
        SECRET,
        html.escape(SECRET),
        urllib.parse.quote(SECRET),
        urllib.parse.quote_plus(SECRET),
        json.dumps(f"x {SECRET} y"),
        json.dumps(html.escape(SECRET)),
        base64.b64encode(f"u:{SECRET}".encode()).decode(),
        base64.urlsafe_b64encode(f"us:{SECRET}".encode()).decode(),
        urllib.parse.quote(base64.b64encode(f"use:{SECRET}".encode())),
        SECRET.encode().hex(),
        f"… {SECRET[3:15]} …",
    ],
)
def test_the_search_finds_every_form_and_a_piece_of_it(shown):
    """Also without its ends."""
    assert echo.found(SECRET, f"something {shown} something")
    assert not echo.found("another-secret", f"something {shown} something")
