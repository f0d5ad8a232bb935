"""The rules in the field against the libraries themselves: nodes and weights bit by bit, attributions on networks."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from captum.attr._utils.approximation_methods import approximation_parameters
from hypothesis import given
from hypothesis import strategies as st
from saliency.core import IntegratedGradients as SaliencyIntegratedGradients

from disintegrate import (
    PRESETS,
    Capabilities,
    InvalidValue,
    LocalExplainer,
    Request,
    gauss_legendre,
    integrated_gradients,
    rule_named,
)
from tests.strategies import Case, cases

CAPTUM = ("riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid", "gausslegendre")


@pytest.mark.parametrize("method", CAPTUM)
def test_captums_nodes_and_weights_bit_by_bit(method: str) -> None:
    weights, nodes = approximation_parameters(method)
    for steps in [*range(2, 130), 200, 500, 1000]:
        rule = rule_named(f"captum_{method}")(steps)
        assert rule.nodes.tolist() == list(nodes(steps))
        # Captum's own next step with them: torch.tensor(step_sizes).float().
        assert rule.weights.tolist() == torch.tensor(weights(steps)).float().tolist()


@given(case=cases(), method=st.sampled_from(CAPTUM), steps=st.integers(2, 40), seed=st.integers(0, 99))
def test_captums_attributions_on_networks(case: Case, method: str, steps: int, seed: int) -> None:
    x, targets = torch.tensor(case.inputs), torch.tensor(case.targets)
    b = torch.tensor(np.random.default_rng(seed).normal(size=case.inputs.shape))
    theirs = IntegratedGradients(case.model).attribute(x, b, target=targets, n_steps=steps, method=method)
    ours = integrated_gradients(case.model, x, b, targets, rule_named(f"captum_{method}")(steps))
    # Float64 throughout: weights or nodes that were not rounded as theirs would miss by 1e-8.
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_captums_default_is_the_preset() -> None:
    model, x = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)), torch.randn(3, 4)
    preset, target = PRESETS["captum"], torch.tensor([0, 1, 1])
    service = LocalExplainer(model, Capabilities(rule=preset.rule))
    asked = Request(x.numpy(), np.zeros((3, 4), np.float32), target.numpy(), preset.steps)
    theirs = IntegratedGradients(model).attribute(x, target=target).detach().numpy()
    np.testing.assert_allclose(service.explain(asked).attribution, theirs, rtol=1e-5, atol=1e-7)


@given(steps=st.integers(2, 60), case=cases(kinds=("tanh", "softmax", "relu"), images=1))
def test_saliencys_nodes_and_attributions(steps: int, case: Case) -> None:
    seen: list[np.ndarray] = []
    target = torch.tensor(case.targets)

    def gradients(batch: np.ndarray, call_model_args: object, expected_keys: object) -> dict[str, np.ndarray]:
        seen.extend(batch)
        leaf = torch.tensor(batch).requires_grad_()
        (found,) = torch.autograd.grad(case.model(leaf)[:, int(target[0])].sum(), leaf)
        return {"INPUT_OUTPUT_GRADIENTS": found.numpy()}

    x, b = case.inputs[0], np.full_like(case.inputs[0], 0.25)
    theirs = SaliencyIntegratedGradients().GetMask(x, gradients, x_baseline=b, x_steps=steps)
    rule = rule_named("saliency")(steps)
    np.testing.assert_array_equal(np.stack(seen), b + rule.nodes[:, None] * (x - b))
    ours = integrated_gradients(case.model, torch.tensor(x[None]), torch.tensor(b[None]), target, rule)[0]
    # Theirs sums the gradients in float32.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def test_saliencys_default_is_the_preset() -> None:
    seen: list[float] = []

    def gradients(batch: np.ndarray, call_model_args: object, expected_keys: object) -> dict[str, np.ndarray]:
        seen.extend(batch[:, 0])
        return {"INPUT_OUTPUT_GRADIENTS": np.ones_like(batch)}

    mask = SaliencyIntegratedGradients().GetMask(np.ones(1), gradients)
    rule = rule_named("saliency")(PRESETS["saliency"].steps)
    assert seen == rule.nodes.tolist()
    assert mask[0] == pytest.approx(rule.mass)


@pytest.mark.parametrize("steps", [2, 3, 15, 50])
def test_masses_are_the_libraries_fingerprints(steps: int) -> None:
    assert rule_named("captum_riemann_trapezoid")(steps).mass == pytest.approx((steps - 1) / steps, abs=1e-6)
    for name in ("captum_riemann_left", "captum_gausslegendre", "saliency", "tensorflow_tutorial"):
        assert rule_named(name)(steps).mass == pytest.approx(1, abs=1e-6)


def test_the_tensorflow_tutorial_is_its_formula() -> None:
    """mean((g[:-1] + g[1:]) / 2) over g at linspace(0, 1, m + 1)."""
    values = np.random.default_rng(0).normal(size=8)
    rule = rule_named("tensorflow_tutorial")(7)
    assert rule.nodes.tolist() == np.linspace(0, 1, 8).tolist()
    assert rule.weights @ values == pytest.approx(((values[:-1] + values[1:]) / 2).mean())


def test_every_preset_names_a_rule_and_its_source() -> None:
    expected = {"paper": 50, "captum": 50, "alibi": 50, "saliency": 25, "tensorflow_tutorial": 50, "torchserve": 15,
                "vertex": 50}  # fmt: skip
    assert {name: preset.steps for name, preset in PRESETS.items()} == expected
    for preset in PRESETS.values():
        assert rule_named(preset.rule)(preset.steps).steps >= preset.steps
        assert preset.source
    assert rule_named(PRESETS["alibi"].rule)(50).weights.tolist() == gauss_legendre(50).weights.tolist()


def test_captum_refuses_one_step_of_riemann_and_so_do_we() -> None:
    for method in CAPTUM[:4]:
        with pytest.raises(InvalidValue, match="at least 2"):
            rule_named(f"captum_{method}")(1)
        with pytest.raises(AssertionError):
            approximation_parameters(method)[0](1)
    assert rule_named("captum_gausslegendre")(1).nodes.tolist() == [0.5]
