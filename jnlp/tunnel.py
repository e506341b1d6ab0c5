"""How an inbound agent reaches its controller: TCP, through a tunnel, directly, or by WebSocket.

Pure. Knows the rules of agent.jar (which options exclude each other, how a tunnel is written);
refuses to guess anything from an environment or to know how an agent is started.
"""

import enum

from attrs import field, frozen


class Transport(enum.Enum):
    """The three ways in."""

    TCP = "tcp"
    WEBSOCKET = "websocket"
    DIRECT = "direct"


@frozen(kw_only=True)
class Connection:
    """A checked connection setting; made by ``connection``."""

    transport: Transport = Transport.TCP
    tunnel: str | None = None  # HOST:PORT, HOST: or :PORT, TCP only
    direct: str | None = None  # HOST:PORT, DIRECT only
    instance_identity: str | None = field(default=None, repr=False)  # DIRECT only, base64
    protocols: tuple[str, ...] = ()
