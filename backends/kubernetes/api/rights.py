"""Rights that a broker can do without: what one that is missing costs is said once in the log.

Refuses to know what is done without it.
"""

import logging

from attrs import define

from backends.kubernetes.api import errors

_LOG = logging.getLogger("backends.kubernetes")


@define
class OptionalRight:
    """A right that we may lack; ``cost`` says what is lost without it."""

    cost: str
    _said: bool = False

    def lacks(self, error: Exception) -> bool:
        """Tell whether it is this right that is missing, and say so the first time."""
        if not isinstance(error, errors.NoRight):
            return False
        if not self._said:
            self._said = True
            _LOG.info(self.cost, extra={"reason": error.reason})
        return True
