"""How a command may end other than well; the command line makes exit codes of them.

Refuses to know why.
"""


class BadInput(Exception):  # noqa: N818 -- what it is; exit code 2
    """The arguments are wrong."""


class Refused(Exception):  # noqa: N818 -- exit code 3
    """It would have been possible, but not right."""


class Failed(Exception):  # noqa: N818 -- exit code 1
    """The outside did not play along."""
