"""Our KServe client against our service, over a real socket."""

from collections.abc import Iterator

import numpy as np
import pytest

from disintegrate import Capabilities, LocalExplainer, NotPermitted, Request, UnknownName, recover, step_count
from disintegrate.clients import connect
from disintegrate.server import Service
from tests.server.running import Running, inputs, serving, settings, small_model

ALLOWED = Capabilities("riemann_right", 1, 100, dtype="float32", default_steps=50)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    chosen = settings(rule="riemann_right", steps=50, steps_allowed=(1, 100), caller_baseline=True)
    with serving(Service(small_model(), chosen)) as service:
        yield service


def test_a_recovery_over_the_network_is_that_of_the_process_bit_for_bit(running: Running) -> None:
    x, targets = inputs(20), np.arange(20) % 4
    with connect(f"kserve+{running.url}/v1/models/net", capabilities=ALLOWED) as remote:
        far = recover(remote, x, targets, step_count(50))
    near = recover(LocalExplainer(small_model(), ALLOWED), x, targets, step_count(50))
    np.testing.assert_array_equal(far.gradient, near.gradient)
    np.testing.assert_array_equal(far.outputs, near.outputs)


def test_what_the_service_refuses_is_an_error_of_ours_with_its_sentence(running: Running) -> None:
    asked = Request(inputs(1), None, np.array([0]), 500)
    for name, kind, said in (
        ("net", NotPermitted, r"status 400: .*steps in 1 to 100"),
        ("other", UnknownName, "There is no model of this name"),
    ):
        with connect(f"kserve+{running.url}/v1/models/{name}") as remote, pytest.raises(kind, match=said):
            remote.explain(asked)
