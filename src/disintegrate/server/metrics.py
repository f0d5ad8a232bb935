"""What the service tells of itself in Prometheus' format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from disintegrate.server.engine import Load

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)


class Metrics:
    """Counters of one service, in a registry of its own."""

    def __init__(self, load: Load) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "disintegrate_requests", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self.refused = Counter("disintegrate_refused", "Requests refused.", ("reason",), registry=self.registry)
        self.explanations = Counter(
            "disintegrate_explanations", "Explanations answered, by key.", ("key",), registry=self.registry
        )
        self.seconds = Histogram(
            "disintegrate_request_seconds", "Time to answer.", ("route",), registry=self.registry, buckets=SECONDS
        )
        self.under_way = Gauge("disintegrate_requests_under_way", "Requests under way.", registry=self.registry)
        for name, help_text, read in (
            ("waiting_rows", "Explanations that wait for the engine.", lambda: load.waiting_rows),
            ("batches", "Batches computed.", lambda: load.batches),
            ("batch_rows", "Rows computed, in all batches.", lambda: load.rows),
            ("engine_seconds", "Time that the engine computed.", lambda: load.seconds),
        ):
            Gauge(f"disintegrate_{name}", help_text, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)
