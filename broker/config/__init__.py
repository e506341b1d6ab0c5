"""The configuration: YAML in, strict settings out, every problem at once.

``settings`` is what the rest of the broker sees and ``errors`` what can be wrong. ``loading`` is
the way in: ``texts`` says which files are read, ``tree`` reads YAML with lines, ``variables`` says
what stands for ``${NAME}``, ``merging`` puts files together. ``shape`` says which settings there
are and ``kinds`` what those of backends are, ``reading`` structures them, ``building`` checks
across and fetches secrets. ``describing`` makes schema, reference table and sample. Refuses to
know any kind of backend: its settings classes are handed in.
"""

from broker.config.errors import ConfigError
from broker.config.settings import (
    RESTARTS,
    BackendSettings,
    ConfigurationState,
    HighAvailability,
    HookSettings,
    KindClasses,
    Secrets,
    Settings,
    policy,
)

__all__ = [
    "RESTARTS",
    "BackendSettings",
    "ConfigError",
    "ConfigurationState",
    "HighAvailability",
    "HookSettings",
    "KindClasses",
    "Secrets",
    "Settings",
    "policy",
]
