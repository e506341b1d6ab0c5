"""The status page, the JSON behind it, health and metrics over HTTP: read-only, from memory.

``source`` says what is needed, ``documents`` chooses the fields, ``page`` lays them out and
``server`` answers requests. Refuses to hold state of its own and to change anything.
"""

from broker.status.server import Server
from broker.status.source import StatusSource

__all__ = ["Server", "StatusSource"]
