"""The configuration: YAML in, strict settings out, every problem at once.

``shape`` says which settings there are, ``tree`` reads YAML with lines, ``reading`` structures it,
``building`` checks across and fetches secrets, ``settings`` is what the rest of the broker sees,
``describing`` makes schema, reference table and sample. Refuses to import any kind of backend: its
settings classes are handed in.
"""

from broker.config.describing import reference, sample_config, schema
from broker.config.loading import ConfigError, load, parse
from broker.config.settings import BackendSettings, KindClasses, Settings, policy

__all__ = [
    "BackendSettings",
    "ConfigError",
    "KindClasses",
    "Settings",
    "load",
    "parse",
    "policy",
    "reference",
    "sample_config",
    "schema",
]
