"""A real service on loopback, in a thread of the test's own process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import numpy as np
import torch
from torch import nn

from disintegrate.server import Keys, Service, Settings, in_background

SHAPE = (2, 3)
CLASSES = 4


@dataclass
class Running:
    """A service that listens."""

    service: Service
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def post(self, path: str, body: object = None, **options: object) -> httpx.Response:
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            sent = {"content": body} if isinstance(body, bytes) else {"json": body}
            return client.post(path, **sent, **options)  # type: ignore[arg-type]

    def get(self, path: str, **options: object) -> httpx.Response:
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            return client.get(path, **options)  # type: ignore[arg-type]


def small_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def settings(**options: object) -> Settings:
    defaults = {"name": "net", "rule": "midpoint", "steps": 8, "input_shape": SHAPE}
    return Settings.model_validate({**defaults, **options})


def inputs(count: int = 3, seed: int = 0) -> np.ndarray:
    drawn: np.ndarray = np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)
    return drawn


@contextmanager
def serving(service: Service, keys: Keys | None = None) -> Iterator[Running]:
    with in_background(service, keys) as url:
        yield Running(service, url)
