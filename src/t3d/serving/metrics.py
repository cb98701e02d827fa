"""What Prometheus reads of a server."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from t3d.decoding.llm import LLM
from t3d.serving.worker import Worker

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class _EngineCounts(Collector):
    """The engine's own sums."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    def collect(self) -> Iterator[Metric]:
        """Read when Prometheus asks."""
        stats = self._llm.stats
        for name, value, text in (
            ("forwards", stats.forwards, "Forwards of the engine"),
            ("committed_tokens", stats.committed_tokens, "Tokens of finished responses, last blocks whole"),
            ("visible_tokens", stats.visible_tokens, "Tokens of finished responses, up to their ends"),
            ("row_steps", stats.row_steps, "Denoising steps, summed over the responses"),
            ("drafted_tokens", stats.drafted_tokens, "Draft tokens that were checked"),
            ("accepted_tokens", stats.accepted_tokens, "Draft tokens that were right"),
            ("engine_seconds", stats.seconds, "Time of the forwards"),
        ):
            yield CounterMetricFamily(f"t3d_{name}", text, value=value)


class Metrics:
    """A registry of its own, so that several servers may live in one process."""

    def __init__(self, llm: LLM, worker: Worker) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCounts(llm))
        self.requests = Counter(
            "t3d_requests", "Requests by endpoint and status", ["endpoint", "status"], registry=self.registry
        )
        self.prompt_tokens = Counter("t3d_prompt_tokens", "Prompt tokens", registry=self.registry)
        self.open_requests = Gauge("t3d_open_requests", "Requests being answered", registry=self.registry)
        open_choices = Gauge("t3d_open_choices", "Answers that are decoded or wait", registry=self.registry)
        open_choices.set_function(lambda: worker.num_open)
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
