"""``agent-broker import``: clouds of Jenkins' plugins become a configuration of ours.

Two readers make one plain tree of a file, a module for each plugin maps it with comments, one
writer makes the text. Refuses to know files and terminals.
"""

from broker.importing.controller_xml import decoded
from broker.importing.converting import Imported, convert
from broker.importing.found import NotReadable

__all__ = ["Imported", "NotReadable", "convert", "decoded"]
