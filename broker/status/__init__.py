"""The status page, the JSON behind it, health and metrics over HTTP: from memory, read-only.

What changes something is a door of its own, with a guard (``broker.control``).

``source`` says what is needed, ``documents`` chooses the fields, ``page`` lays them out and
``server`` answers requests. Refuses to hold state of its own and to change anything.
"""

from broker.status.server import Server
from broker.status.source import StatusSource, TryOrders, TryRefused

__all__ = ["Server", "StatusSource", "TryOrders", "TryRefused"]
