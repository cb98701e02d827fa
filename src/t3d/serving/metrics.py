"""What Prometheus reads of a server."""

from collections.abc import Collection, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from t3d.decoding.stats import EngineStats
from t3d.serving.worker import Worker

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


_COUNTS = (
    ("forwards", "Forwards of the engine"),
    ("committed_tokens", "Tokens of finished responses, last blocks whole"),
    ("visible_tokens", "Tokens of finished responses, up to their ends"),
    ("row_steps", "Denoising steps, summed over the responses"),
    ("drafted_tokens", "Draft tokens that were checked"),
    ("accepted_tokens", "Draft tokens that were right"),
    ("engine_seconds", "Time of the forwards"),
)


class _EngineCounts(Collector):
    """The engines' own sums, by model."""

    def __init__(self, stats: Mapping[str, EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Read when Prometheus asks."""
        for name, text in _COUNTS:
            family = CounterMetricFamily(f"t3d_{name}", text, labels=["model"])
            for model, stats in self._stats.items():
                values = {
                    "forwards": stats.forwards,
                    "committed_tokens": stats.committed_tokens,
                    "visible_tokens": stats.visible_tokens,
                    "row_steps": stats.row_steps,
                    "drafted_tokens": stats.drafted_tokens,
                    "accepted_tokens": stats.accepted_tokens,
                    "engine_seconds": stats.seconds,
                }
                family.add_metric([model], values[name])
            yield family


class Metrics:
    """A registry of its own, so that several servers may live in one process."""

    def __init__(self, stats: Mapping[str, EngineStats], workers: Collection[Worker]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCounts(stats))
        self.requests = Counter(
            "t3d_requests", "Requests by endpoint and status", ["endpoint", "status"], registry=self.registry
        )
        self.prompt_tokens = Counter("t3d_prompt_tokens", "Prompt tokens", registry=self.registry)
        self.open_requests = Gauge("t3d_open_requests", "Requests being answered", registry=self.registry)
        open_choices = Gauge("t3d_open_choices", "Answers that are decoded or wait", registry=self.registry)
        open_choices.set_function(lambda: sum(worker.num_open for worker in workers))
        self.first_block_seconds = Histogram(
            "t3d_first_block_seconds",
            "Time to the first committed block",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "t3d_request_seconds",
            "Time to the end of an answer",
            buckets=_SECONDS,
            registry=self.registry,
        )
