"""Explainers that count, and fail as they are told."""

import threading
from collections import Counter

import numpy as np

from disintegrate import Capabilities, Explanation, Request


class Scripted:
    """Explains f(x) = sum(x^2) / 2 from zero; raises what it is told to for the first asks of a row."""

    capabilities = Capabilities("midpoint", dtype="float32")

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)
        self.asked: Counter[float] = Counter()
        self.calls = 0
        self.scale = 1.0
        self._lock = threading.Lock()

    def explain(self, request: Request) -> Explanation:
        with self._lock:
            self.calls += 1
            failure = self.failures.pop(0) if self.failures else None
            if failure is not None:
                raise failure
            self.asked.update(request.inputs[:, 0].tolist())
        x = np.asarray(request.inputs, np.float64) * self.scale
        return Explanation((x**2).sum(1) / 2, x**2 / 2)


def rows(count: int, first: int = 0) -> Request:
    inputs = np.arange(first, first + count, dtype=np.float32)[:, None] + np.array([1, 0.5], np.float32)
    return Request(inputs, None, np.zeros(count, int), None)
