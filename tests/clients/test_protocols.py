"""The same questions in process and over every protocol of our service: identical to the last bit."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from disintegrate import Capabilities, LocalExplainer, Plan, Request, baseline_window, recover, step_count
from disintegrate.clients import RemoteExplainer, connect
from disintegrate.clients.link import Link
from disintegrate.clients.oip import OipDialect
from disintegrate.models import load_model
from disintegrate.paper import mnist
from disintegrate.server import Service
from tests.server.running import Running, inputs, serving, settings, small_model

ALLOWED = Capabilities("riemann_right", 1, 100, dtype="float32", default_steps=50)
PATHS = {
    "kserve": "/v1/models/7",
    "oip": "/v2/models/7",
    "vertex": "/v1/projects/p/locations/l/endpoints/7",
}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    chosen = settings(name="7", rule="riemann_right", steps=50, steps_allowed=(1, 100), caller_baseline=True)
    with serving(Service(small_model(), chosen)) as service:
        yield service


@pytest.mark.parametrize("scheme", PATHS)
@pytest.mark.parametrize("plan", [step_count(50), baseline_window(1e-2, 3)])
def test_a_recovery_over_a_protocol_is_that_of_the_process_bit_for_bit(
    running: Running, scheme: str, plan: Plan
) -> None:
    x = inputs(6)
    targets = np.array([1, 1, 1, 1, 1, 1])
    # Vertex has one baseline for a whole request, so rows with their own are asked one by one.
    alone = scheme == "vertex" and plan != step_count(50)
    local = LocalExplainer(small_model(), ALLOWED)
    with connect(f"{scheme}+{running.url}{PATHS[scheme]}", capabilities=ALLOWED, rows=1 if alone else 32) as remote:
        far = recover(remote, x, targets, plan)
    if alone:
        rows = [recover(local, x[i : i + 1], targets[i : i + 1], plan) for i in range(6)]
        gradient, outputs = (np.concatenate([getattr(r, name) for r in rows]) for name in ("gradient", "outputs"))
    else:
        near = recover(local, x, targets, plan)
        gradient, outputs = near.gradient, near.outputs
    np.testing.assert_array_equal(far.gradient, gradient)
    np.testing.assert_array_equal(far.outputs, outputs)


@pytest.mark.parametrize("scheme", PATHS)
def test_rows_with_different_targets_and_baselines_come_back_in_their_order(running: Running, scheme: str) -> None:
    request = Request(inputs(5), inputs(5, seed=2), np.array([3, 0, 3, 1, 0]), 4)
    expected = LocalExplainer(small_model(), ALLOWED).explain(request)
    with connect(f"{scheme}+{running.url}{PATHS[scheme]}", rows=2) as remote:
        answer = remote.explain(request)
    np.testing.assert_allclose(answer.attribution, expected.attribution, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer.output, expected.output, rtol=1e-5, atol=1e-6)


def test_json_tensors_are_as_exact_as_binary_ones(running: Running) -> None:
    request = Request(inputs(3), None, np.array([0, 1, 2]), None)
    answers = []
    for binary in (True, False):
        with RemoteExplainer(OipDialect(f"{running.url}/v2/models/7", binary=binary), ALLOWED, Link()) as remote:
            answers.append(remote.explain(request))
    np.testing.assert_array_equal(answers[0].attribution, answers[1].attribution)
    np.testing.assert_array_equal(answers[0].output, answers[1].output)


@pytest.mark.parametrize(
    ("body", "attributions", "outputs"),
    [
        (
            {
                "instances": "$inputs",
                "parameters": {"targets": "$targets", "n_steps": "$steps", "baselines": "$baselines"},
            },
            "explanations[*].attributions",
            "explanations[*].output",
        ),
        (
            {"instances": ["$input"], "parameters": {"targets": "$target", "n_steps": "$steps"}},
            "explanations[0].attributions",
            "explanations[0].output",
        ),
    ],
)
def test_a_template_asks_any_json_route(
    running: Running, tmp_path: Path, body: object, attributions: str, outputs: str
) -> None:
    url = f"{running.url}/v1/models/7:explain"
    lines = {"url": url, "body": json.dumps(body), "attributions": attributions, "outputs": outputs}
    (tmp_path / "own.toml").write_text("".join(f"{name} = '{value}'\n" for name, value in lines.items()))
    request = Request(inputs(3), None, np.array([2, 1, 2]), 6)
    with connect(f"http-json:{tmp_path / 'own.toml'}") as remote:
        answer = remote.explain(request)
    expected = LocalExplainer(small_model(), ALLOWED).explain(request)
    np.testing.assert_allclose(answer.attribution, expected.attribution, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer.output, expected.output, rtol=1e-5, atol=1e-6)


def test_outputs_may_come_from_a_route_of_their_own(running: Running, tmp_path: Path) -> None:
    explain = '{"instances": "$inputs", "parameters": {"targets": "$targets"}}'
    (tmp_path / "own.toml").write_text(
        f"url = '{running.url}/v1/models/7:explain'\nbody = '{explain}'\n"
        "attributions = 'explanations[*].attributions'\n"
        f"[predict]\nurl = '{running.url}/v1/models/7:predict'\nbody = '{{\"instances\": \"$inputs\"}}'\n"
        "outputs = 'predictions'\n"
    )
    request = Request(inputs(3), None, np.array([2, 0, 3]), None)
    with connect(f"http-json:{tmp_path / 'own.toml'}") as remote:
        answer = remote.explain(request)
    expected = LocalExplainer(small_model(), ALLOWED).explain(request)
    np.testing.assert_allclose(answer.output, expected.output, rtol=1e-6)


def test_a_thousand_queries_give_identical_recoveries_in_process_and_over_every_protocol() -> None:
    """500 digits, two queries each; the whole of a query in one exchange, so that the same batches are computed."""
    model = load_model("TwoLayerNet").module
    chosen = settings(name="7", rule="riemann_right", steps=10, steps_allowed=(1, 100), input_shape=(1, 28, 28))
    service = Service(model, chosen)
    x, targets = mnist.load("test").first(500).normalised(), np.full(500, 3)
    near = recover(LocalExplainer(model, service.capabilities), x, targets, step_count(10))
    with serving(service) as running:
        for scheme, path in PATHS.items():
            target = f"{scheme}+{running.url}{path}"
            with connect(target, capabilities=service.capabilities, rows=500) as remote:
                far = recover(remote, x, targets, step_count(10))
            np.testing.assert_array_equal(far.gradient, near.gradient, err_msg=scheme)
            np.testing.assert_array_equal(far.outputs, near.outputs, err_msg=scheme)
            assert far.queries == 1000
        assert service.engine.load.rows >= 3000
