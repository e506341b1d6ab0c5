"""Metrics: what the shell tells about its work, and how Prometheus reads it.

``recorder`` is all that the shell sees; ``prometheus`` is the one place that knows
prometheus_client. Refuses to decide anything. ``docs/metrics.md`` lists every metric.
"""

from broker.metrics.metered import MeteredNodes, MeteredReader, called, metered
from broker.metrics.prometheus import PrometheusRecorder
from broker.metrics.recorder import NullRecorder, Recorder

__all__ = [
    "MeteredNodes",
    "MeteredReader",
    "NullRecorder",
    "PrometheusRecorder",
    "Recorder",
    "called",
    "metered",
]
