"""The probe: what it finds, what it asks, and that it says unknown rather than guess."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import (
    Capabilities,
    Deaf,
    Explainer,
    Explanation,
    LocalExplainer,
    NotPermitted,
    Output,
    ProbeResult,
    Recording,
    Request,
    Wire,
    Wired,
    cli,
    gauss_legendre,
    probe,
)
from disintegrate.errors import BadAnswer, InvalidValue
from disintegrate.probe import NamedRule, Override, baseline
from disintegrate.probe.closing_in import Found
from disintegrate.probe.digits import grain, wire_of
from disintegrate.probe.own_number import USUAL
from disintegrate.probe.staircase import patterns
from disintegrate.rules import rule_named

SIZE = 24


class Blank:
    """A service that says nothing useful of itself."""

    capabilities = Capabilities(rule="")

    def __init__(self, inside: Explainer, *, refuses: bool = False) -> None:
        self.inside = inside
        self.refuses = refuses

    def explain(self, request: Request) -> Explanation:
        if self.refuses and (request.steps is not None or request.baselines is not None):
            raise NotPermitted("The service does not take this.")
        return self.inside.explain(request)


def model(softmax: bool = False) -> nn.Module:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(SIZE, 30), nn.ReLU(), nn.Linear(30, 4))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    return nn.Sequential(net, nn.Softmax(1)) if softmax else net


def inputs(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, SIZE)).astype(np.float32)


TARGETS = np.array([0, 1, 2])


def service(rule: str, steps: int, *, softmax: bool = False, baseline: np.ndarray | None = None) -> LocalExplainer:
    return LocalExplainer(model(softmax), Capabilities(rule=rule, default_steps=steps), own_baseline=baseline)


def rules_of(found: ProbeResult) -> set[tuple[str, int]]:
    return {(named.rule, named.steps) for named in found.rules.value or ()}


@pytest.mark.parametrize(
    ("rule", "steps", "digits"),
    [("midpoint", 33, None), ("captum_gausslegendre", 50, 4), ("riemann_right", 50, 7), ("trapezoid", 21, None)],
)
def test_rule_and_steps_are_found_where_nothing_may_be_set(rule: str, steps: int, digits: int | None) -> None:
    wire = Wire(significant_digits=digits)
    recording = Recording(Wired(service(rule, steps), wire) if digits else service(rule, steps))
    found = probe(Blank(recording, refuses=True), inputs(), TARGETS)
    assert (rule, steps) in rules_of(found)
    assert found.baseline.value is not None
    assert found.baseline.value.name == "zero"
    assert found.output.value is Output.LOGITS
    assert found.wire.value == wire
    assert found.deterministic.value is True
    assert found.steps_override.value is Override.REFUSED
    assert found.baseline_override.value is Override.REFUSED
    capabilities = found.capabilities()
    assert capabilities.fewest_steps == capabilities.most_steps
    assert not capabilities.baseline
    assert rule_named(capabilities.rule)(capabilities.own_steps).steps == rule_named(rule)(steps).steps


def test_probabilities_are_told_from_logits_and_the_rule_found_behind_them() -> None:
    found = probe(Blank(service("gauss_legendre", 20, softmax=True)), inputs(), TARGETS)
    assert found.output.value is Output.PROBABILITIES
    assert ("gauss_legendre", 20) in rules_of(found)
    assert found.steps_override.value is Override.HONOURED
    assert found.baseline_override.value is Override.HONOURED


def test_a_baseline_that_nobody_named_is_solved_for_within_its_stated_error() -> None:
    secret = np.random.default_rng(5).normal(size=SIZE).astype(np.float32)
    found = probe(Blank(Deaf(service("midpoint", 20, baseline=secret), steps=True, baseline=True)), inputs(), TARGETS)
    at = found.baseline.value
    assert at is not None
    assert at.name == "another"
    assert (np.abs(at.point - secret) <= at.error).all()
    assert at.error.max() < 1e-3
    assert ("midpoint", 20) in rules_of(found)
    assert found.steps_override.value is Override.IGNORED
    assert found.baseline_override.value is Override.IGNORED
    assert not found.capabilities().zero_baseline


def _blind(coordinate: int) -> nn.Module:
    """The model, not looking at one coordinate."""
    net = model()
    with torch.no_grad():
        next(net.parameters())[:, coordinate] = 0
    return net


def test_a_coordinate_that_the_model_does_not_look_at_does_not_hide_the_rule() -> None:
    secret = np.random.default_rng(5).normal(size=SIZE).astype(np.float32)
    hidden = LocalExplainer(_blind(7), Capabilities(rule="midpoint", default_steps=20), own_baseline=secret)
    found = probe(Blank(Deaf(hidden, steps=True, baseline=True)), inputs(), TARGETS)
    at = found.baseline.value
    assert at is not None
    assert np.isinf(at.error).tolist() == [coordinate == 7 for coordinate in range(SIZE)]
    # whether the budget tells it from its neighbours is another matter
    assert rules_of(found) <= {("midpoint", 20), ("captum_riemann_middle", 20)}
    assert "unknown" not in found.rules.evidence


def test_pooling_that_ties_on_a_baseline_is_left_where_another_baseline_may_be_sent() -> None:
    torch.manual_seed(0)
    pooled = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 4),
    )
    hidden = LocalExplainer(pooled, Capabilities(rule="gauss_legendre", default_steps=24))
    images = np.random.default_rng(0).normal(size=(3, 1, 12, 12)).astype(np.float32)
    found = probe(Blank(Deaf(hidden, steps=True, baseline=False)), images, TARGETS)
    assert found.baseline.value is not None
    assert found.baseline.value.name == "zero"
    assert ("gauss_legendre", 24) in rules_of(found)


def test_candidates_of_the_callers_are_tried() -> None:
    secret = np.full(SIZE, 0.25, np.float32)
    hidden = service("midpoint", 20, baseline=secret)
    found = probe(Blank(hidden), inputs(), TARGETS, candidates={"grey": secret})
    assert found.baseline.value is not None
    assert found.baseline.value.name == "grey"
    assert found.baseline.value.error.max() == 0


def test_queries_are_counted_and_stay_within_the_budget() -> None:
    for budget in (8, 15, 25, 60):
        recording = Recording(service("midpoint", 20))
        found = probe(Blank(recording), inputs(), TARGETS, budget=budget)
        assert found.queries == sum(len(request.inputs) for request in recording.requests) <= budget
        assert rules_of(found) <= {("midpoint", 20), ("captum_riemann_middle", 20)}


def test_a_small_budget_leaves_unknowns_with_reasons() -> None:
    found = probe(Blank(service("midpoint", 20)), inputs(), TARGETS, budget=8)
    assert found.rules.value is None
    assert found.rules.evidence == "the budget did not reach so far"
    assert found.deterministic.value is True
    with pytest.raises(InvalidValue, match="The rule of this service is unknown"):
        found.capabilities()


def test_what_went_out_are_the_callers_shapes_and_types() -> None:
    recording = Recording(service("midpoint", 20))
    probe(Blank(recording), inputs(), TARGETS)
    assert {request.inputs.dtype for request in recording.requests} == {np.dtype(np.float32)}
    assert {request.inputs.shape[1:] for request in recording.requests} == {(SIZE,)}
    # whether steps are honoured, the numbers that libraries take, and the one that is left, which one more is not
    assert {request.steps for request in recording.requests} == {None, 3, *USUAL, 20, 21}


def test_a_model_without_kinks_leaves_the_rule_unknown() -> None:
    for flat in (nn.Linear(SIZE, 4), nn.Sequential(nn.Linear(SIZE, 30, bias=False), nn.ReLU(), nn.Linear(30, 4))):
        hidden = LocalExplainer(flat, Capabilities(rule="midpoint", default_steps=20))
        found = probe(Blank(hidden, refuses=True), inputs(), TARGETS)
        assert found.rules.value is None


def test_noise_makes_the_service_not_deterministic_and_the_rule_not_guessed() -> None:
    noisy = Wired(service("midpoint", 20), Wire(noise=1e-3, deterministic=False))
    found = probe(Blank(noisy), inputs(), TARGETS)
    assert found.deterministic.value is False
    assert rules_of(found) <= {("midpoint", 20), ("captum_riemann_middle", 20)}
    assert found.wire.value is None or found.wire.value.noise > 0


def test_values_that_are_refused_end_in_unknown() -> None:
    bounded = LocalExplainer(
        model(), Capabilities(rule="midpoint", default_steps=20, smallest_value=0.0, largest_value=1.0)
    )
    found = probe(Blank(bounded), np.abs(inputs()).clip(0.1, 1), TARGETS)
    assert rules_of(found) <= {("midpoint", 20), ("captum_riemann_middle", 20)}
    assert found.values.value is not None
    assert found.values.value[1] <= 1


def test_an_answer_of_another_shape_is_refused() -> None:
    class Short:
        capabilities = Capabilities(rule="")

        def explain(self, request: Request) -> Explanation:
            return Explanation(np.zeros(len(request.inputs)), np.zeros((len(request.inputs), 2)))

    with pytest.raises(BadAnswer, match="arrays of other shapes"):
        probe(Short(), inputs(), TARGETS)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((inputs().tolist(), TARGETS), {}, "The inputs must be a numpy array. Got list."),
        ((inputs()[0], TARGETS), {}, "Inputs need a batch dimension"),
        ((inputs(), TARGETS[:2]), {}, "Inputs need a batch dimension"),
        ((inputs() * np.nan, TARGETS), {}, "Inputs must be finite numbers."),
        ((inputs(), TARGETS / 2), {}, "Targets are indices of outputs."),
        ((inputs(), TARGETS), {"budget": 7}, "The budget must be a whole number of at least 8. Got 7."),
        ((inputs(), TARGETS), {"candidates": {"grey": np.zeros(3)}}, "The baseline grey must have the shape"),
    ],
)
def test_bad_input(arguments: tuple[np.ndarray, np.ndarray], options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidValue, match=sentence.replace("(", r"\(")):
        probe(service("midpoint", 20), *arguments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wire",
    [
        Wire(),
        Wire(dtype="float16"),
        Wire(decimals=4),
        *(Wire(significant_digits=count) for count in range(2, 9)),
    ],
)
def test_digits_are_read_off_the_numbers(wire: Wire) -> None:
    values = np.random.default_rng(1).normal(size=400) * np.random.default_rng(2).choice((0.1, 1.0, 10.0), 400)
    rounded = wire.round(values.astype(np.float32))
    assert wire_of(rounded) == wire
    assert (np.abs(rounded - values) <= 0.51 * grain(rounded, wire) + 1e-6).all()


def test_patterns_are_the_rules_own_nodes_and_weights_but_for_a_stretch() -> None:
    for pattern in patterns()[::37]:
        for name, steps in pattern.members:
            rule = rule_named(name)(steps)
            order = np.argsort(rule.nodes)
            nodes, weights = rule.nodes[order], rule.weights[order]
            nodes, weights = nodes[nodes > 0], weights[nodes > 0]
            assert np.allclose(nodes / nodes.max(), pattern.nodes, atol=1e-6)
            assert np.allclose(weights / weights.sum(), -np.diff(pattern.above), atol=1e-6)
    legendre = next(pattern for pattern in patterns() if ("gauss_legendre", 200) in pattern.members)
    exact = gauss_legendre(200)
    assert np.abs(legendre.nodes - exact.nodes / exact.nodes[-1]).max() < 1e-13


def test_the_command_prints_findings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["probe", "TwoLayerNet", "--rule", "midpoint", "--steps", "12", "--digits", "5", "--deaf", "--json"]
    monkeypatch.setattr(sys, "argv", ["disintegrate", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    found = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 0
    assert "midpoint(12)" in found["findings"]["rule and steps"]["value"]
    assert found["findings"]["digits"]["value"] == "5 significant digits"
    assert found["findings"]["steps of the caller"]["value"] == "ignored"
    assert found["queries"] <= 60


def test_the_command_refuses_what_it_does_not_know(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["disintegrate", "probe", "TwoLayerNet", "--baseline", "grey"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "Use zero, mean or random." in capsys.readouterr().err


def test_named_rules_are_values() -> None:
    assert NamedRule("midpoint", 3) == NamedRule("midpoint", 3)


@pytest.mark.parametrize("seed", range(4))
def test_a_bounded_output_is_not_taken_for_a_probability(seed: int) -> None:
    class Bounded(nn.Module):
        """Within [0, 1] but on one side far out."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0.3 + 0.6 * torch.tanh(x.flatten(1)[:, :2] / 20)

    found = probe(
        LocalExplainer(Bounded(), Capabilities(rule="midpoint", default_steps=20)), inputs(), TARGETS, seed=seed
    )
    assert found.output.value is not Output.PROBABILITIES


def test_what_can_be_found_is_where_a_point_further_out_is_refused() -> None:
    class Near(Blank):
        """Takes a baseline, and no value beyond 10."""

        def explain(self, request: Request) -> Explanation:
            if np.abs(request.inputs).max() > 10:
                raise NotPermitted("The point is too far out.")
            return super().explain(request)

    found = probe(Near(service("midpoint", 20, softmax=True)), inputs(), TARGETS)
    # whether these are probabilities is seen further out only; the rule is not
    assert found.output.value is None
    assert "was refused" in found.output.evidence
    assert ("midpoint", 20) in rules_of(found)
    assert found.baseline_override.value is Override.HONOURED
    assert found.baseline.value is not None
    assert found.baseline.value.name == "zero"
    assert found.refused_values


def test_a_baseline_is_solved_for_by_another_output_where_that_of_the_input_is_saturated() -> None:
    network = model(softmax=True)
    with torch.no_grad():
        dict(network.named_parameters())["0.2.bias"][0] -= 40
    baseline = np.random.default_rng(7).normal(size=SIZE).astype(np.float32)
    inside = LocalExplainer(network, Capabilities(rule="riemann_right", default_steps=20), own_baseline=baseline)
    found = probe(
        Deaf(Wired(inside, Wire(dtype="float16")), steps=True, baseline=True), inputs(), TARGETS, naming=False
    )
    at = found.baseline.value
    assert at is not None
    known = np.isfinite(at.error)
    assert known.sum() > SIZE / 2
    assert (np.abs(at.point - baseline)[known] <= at.error[known]).all()


def test_a_coordinate_that_may_be_off_by_much_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    error = np.where(np.arange(SIZE) % 2, 0.01, 0.2)
    solved = Found(None, np.zeros(SIZE), error, error)
    monkeypatch.setattr(baseline, "solve", lambda *_, **__: solved)
    baseline_ = np.ones(SIZE, np.float32)
    inside = LocalExplainer(model(), Capabilities(rule="midpoint", default_steps=5), own_baseline=baseline_)
    found = probe(Deaf(inside, steps=True, baseline=True), inputs(), TARGETS, naming=False)
    assert found.baseline.value is not None
    # inputs differ by about 1, and an error that is claimed is four times what answers say: 0.04 and 0.8
    assert np.array_equal(np.isfinite(found.baseline.value.error), error == 0.01)
