"""Audits from probe to verdict, in process."""

import json
import zlib

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import (
    Capabilities,
    Explanation,
    InvalidValue,
    LocalExplainer,
    NotPermitted,
    Output,
    Recording,
    Request,
    Verdict,
    Wire,
    Wired,
    audit,
)
from disintegrate.audit import Check, judge, sarif


def network(size: int = 20, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(size, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 4)).eval()


def questions(size: int = 20, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(count, size)).astype(np.float32), generator.integers(0, 4, count)


def fixed(rule: str, steps: int, **more: object) -> Capabilities:
    return Capabilities(rule, steps, steps, baseline=False, dtype="float32", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("known", [True, False])
def test_free_steps_leak_by_one_query_whichever_way_it_is_checked(known: bool) -> None:
    model, (x, targets) = network(), questions()
    service = Recording(LocalExplainer(model, Capabilities(rule="riemann_right")))
    found = audit(service, x, targets, model=model if known else None)
    assert found.judgement.verdict is Verdict.LEAKS
    assert found.check is (Check.MODEL if known else Check.OUTPUTS)
    assert found.judgement.queries_per_gradient == 1
    assert found.queries == sum(len(request.inputs) for request in service.requests)
    assert found.queries_for_check == (0 if known else 9 * len(x))
    assert found.queries_for_choice == (0 if known else 9 * 4)  # a look for kinks at a few of the inputs
    assert (found.judgement.bits > 20) is known


def test_a_fixed_service_with_few_steps_leaks_less() -> None:
    model, (x, targets) = network(), questions()
    # one node half-way, and inputs that may not be moved further out
    service = LocalExplainer(model, fixed("midpoint", 1, furthest=1.0))
    found = audit(service, x, targets, model=model, budget=1)
    assert found.judgement.verdict is not Verdict.LEAKS
    assert found.judgement.share_recovered < 0.5


def test_noise_larger_than_the_attributions_shows_nothing() -> None:
    model, (x, targets) = network(), questions()
    allowed = fixed("captum_gausslegendre", 50)
    service = Wired(LocalExplainer(model, allowed), Wire(noise=50.0, deterministic=True))
    found = audit(service, x, targets, model=model)
    assert found.judgement.verdict is Verdict.NOT_SHOWN


@pytest.mark.parametrize("budget", [10, 100])
def test_no_plan_costs_as_much_as_differences_of_outputs(budget: int) -> None:
    model = nn.Linear(4, 2)
    x, targets = np.sign(np.random.default_rng(1).normal(size=(40, 4))).astype(np.float32), np.zeros(40, int)
    with torch.no_grad():
        model.weight.fill_(1.0)
    service = LocalExplainer(model, Capabilities("riemann_right", 1, 100, baseline=False, dtype="float32"))
    noisy = Wired(service, Wire(noise=0.35, deterministic=False))
    found = audit(noisy, x, targets, model=model, budget=budget)
    # The mean of ten answers would be near enough; the fifth already costs what differences of outputs do.
    assert found.judgement.queries_per_gradient <= 4
    assert found.judgement.queries_by_differences == 5
    assert found.judgement.verdict is Verdict.PARTLY


class Unknown:
    """A service that tells nothing of itself."""

    capabilities = Capabilities(rule="unknown", dtype="float32")

    def __init__(self, inside: LocalExplainer) -> None:
        self.inside = inside
        self.queries = 0

    def explain(self, request: Request) -> Explanation:
        self.queries += len(request.inputs)
        return self.inside.explain(request)


def test_an_unknown_service_is_probed_first() -> None:
    model, (x, targets) = network(), questions()
    service = Unknown(LocalExplainer(model, Capabilities(rule="midpoint", default_steps=12)))
    found = audit(service, x, targets)
    assert found.probed is not None
    assert found.probed.queries <= 60
    assert found.judgement.verdict is Verdict.LEAKS
    assert found.queries == service.queries
    # the same findings may be used again
    before = service.queries
    again = audit(service, x, targets, probed=found.probed)
    assert service.queries - before == again.queries - found.probed.queries


class Refusing(Unknown):
    """A service that refuses all that callers might set, its own settings too."""

    def explain(self, request: Request) -> Explanation:
        if request.steps is not None or request.baselines is not None:
            raise NotPermitted("The service does not take this.")
        return super().explain(request)


def test_a_service_that_refuses_steps_and_baselines_is_asked_without() -> None:
    model, (x, targets) = network(), questions()
    service = Refusing(LocalExplainer(model, Capabilities(rule="gauss_legendre", default_steps=20)))
    found = audit(service, x, targets, model=model)
    assert found.proposal is not None
    assert found.queries_for_plan == len(found.proposal.plan) * len(x)
    assert np.median(found.distance) < 0.5


class Scrambled:
    """Answers that follow from no rule: each row's own random numbers, the same every time."""

    capabilities = Capabilities(rule="unknown", dtype="float32")

    def explain(self, request: Request) -> Explanation:
        if request.steps is not None or request.baselines is not None:
            raise NotPermitted("The service does not take this.")
        rows = [np.random.default_rng(zlib.crc32(row.tobytes())) for row in request.inputs]
        return Explanation(np.zeros(len(rows)), np.array([row.normal(size=request.inputs.shape[1]) for row in rows]))


def test_a_service_that_stays_unknown_is_not_called_safe() -> None:
    x, targets = questions()
    found = audit(Scrambled(), x, targets)
    assert found.judgement.verdict is Verdict.NOT_SHOWN
    assert found.capabilities is None
    assert found.check is None
    assert found.queries_for_plan == 0
    assert "safe" not in json.dumps(found.record())


def test_probabilities_leak_too() -> None:
    model, (x, targets) = nn.Sequential(network(), nn.Softmax(1)), questions()
    service = LocalExplainer(model, Capabilities(rule="gauss_legendre", output=Output.PROBABILITIES))
    found = audit(service, x, targets, model=model)
    assert found.judgement.verdict is Verdict.LEAKS


def test_a_baseline_of_its_own_is_taken_into_account() -> None:
    model, (x, targets) = network(), questions()
    point = np.full(20, 0.3, np.float32)
    allowed = Capabilities("riemann_right", 1, 100, baseline=False, zero_baseline=False, dtype="float32")
    service = LocalExplainer(model, allowed, own_baseline=point)
    assert audit(service, x, targets, model=model, baseline=point).judgement.verdict is Verdict.LEAKS


def test_the_record_is_json_and_holds_every_input() -> None:
    model, (x, targets) = network(), questions()
    found = audit(LocalExplainer(model, Capabilities(rule="riemann_right")), x, targets, model=model)
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["verdict"] == "leaks"
    assert record["weakness"]["id"] == "AML.T0024.002"
    assert [row["distance"] for row in record["inputs"]] == found.distance.tolist()
    assert record["plan"]["atoms"] == [[1.0, 1.0]]
    assert record["queries"]["all"] == found.queries
    result = sarif(record, "model.safetensors")["runs"][0]["results"][0]
    assert (result["level"], result["message"]["text"]) == ("error", found.judgement.sentence)


# The checks of shapes would refuse them first.
@pytest.mark.usefixtures("unchecked")
def test_bad_questions_get_a_sentence() -> None:
    model, (x, targets) = network(), questions()
    service = LocalExplainer(model, Capabilities(rule="riemann_right"))
    with pytest.raises(InvalidValue, match="one target each"):
        audit(service, x, targets[:3])
    with pytest.raises(InvalidValue, match="A plan needs a query"):
        audit(service, x, targets, budget=0)
    with pytest.raises(InvalidValue, match="must be numbers"):
        audit(service, np.where(np.arange(len(x))[:, None] == 1, np.nan, x).astype(x.dtype), targets)
    with pytest.raises(InvalidValue, match="nothing to judge"):
        judge(np.zeros(0), 1, np.zeros(0))


@pytest.mark.parametrize(
    ("distances", "queries", "coordinates", "verdict"),
    [
        ([0.09, 0.09, 0.2], 1, 784, Verdict.LEAKS),  # two of three within 0.1
        ([0.11, 0.11, 0.09], 1, 784, Verdict.PARTLY),  # one of three
        ([0.6, 0.6, 0.6], 1, 784, Verdict.NOT_SHOWN),
        ([0.4, 0.4, 1.4], 1, 784, Verdict.PARTLY),  # none recovered, yet most of the direction
        ([1e-7, 1e-7, 1e-7], 785, 784, Verdict.NOT_SHOWN),  # differences of outputs need as many
        ([1e-7, 1e-7, 1e-7], 784, 784, Verdict.LEAKS),
    ],
)
def test_verdicts(distances: list[float], queries: int, coordinates: int, verdict: Verdict) -> None:
    found = judge(np.array(distances), queries, np.full(3, float(coordinates)))
    assert found.verdict is verdict
    assert found.queries_by_differences == coordinates + 1


def test_bits_are_the_logarithm_of_the_distance() -> None:
    assert judge(np.array([np.sqrt(2) / 1024]), 1, np.array([9.0])).bits == pytest.approx(10)
    assert judge(np.array([np.sqrt(2)]), 1, np.array([9.0])).bits == 0
