"""A service that lets its callers set everything."""

from collections.abc import Iterator

import pytest

from disintegrate.server import Service
from tests.server.running import Running, serving, settings, small_model


@pytest.fixture(scope="module")
def open_service() -> Iterator[Running]:
    service = Service(small_model(), settings(steps_allowed=(1, 100), caller_baseline=True))
    with serving(service) as running:
        yield running
