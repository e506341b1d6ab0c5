"""Jenkins Agent Broker: watches one controller's queue and gives its builds agents."""

__version__ = "0.1.0"
