"""Behind a softmax: far out only the node nearest to the baseline is heard, and outputs tell how far that is."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from disintegrate import Capabilities, LocalExplainer, Output, Recording, audit, distance, propose, vanilla_gradient
from disintegrate.audit import Verdict
from disintegrate.estimate import carry_out
from disintegrate.explainers import Explanation, Request
from disintegrate.rules import rule_named
from disintegrate.saturating import Saturating, saturating
from disintegrate.walk import Walk

D = 24
RULES = (("captum_gausslegendre", 8), ("gauss_legendre", 50), ("riemann_right", 20), ("midpoint", 7))


def network(seed: int, *, steep: float = 6.0) -> nn.Module:
    """Probabilities whose top log odds at the inputs are of the size of `steep`."""
    torch.manual_seed(seed)
    last = nn.Linear(60, 4)
    with torch.no_grad():
        last.weight.mul_(3 * steep)
    return nn.Sequential(nn.Linear(D, 60), nn.ReLU(), last, nn.Softmax(1)).double().eval()


def questions(seed: int, count: int = 10) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, D)), generator.integers(0, 4, count)


def fixed(rule: str, steps: int) -> Capabilities:
    return Capabilities(rule, steps, steps, baseline=False, default_steps=steps, output=Output.PROBABILITIES)


@given(
    at=st.lists(st.floats(0.05, 5), min_size=1, max_size=6, unique=True),
    slope=st.floats(-8, 8),
    where=st.floats(0, 20),
)
def test_straight_log_odds_are_known_everywhere(at: list[float], slope: float, where: float) -> None:
    positions = np.array(at)
    outputs = 1 / (1 + np.exp(-slope * positions))
    told = 1 - outputs > 1e-5
    if not told.any() or np.ptp(positions[told]) < 0.01 * (told.sum() > 1):
        return

    def size(position: float) -> float:
        p = 1 / (1 + np.exp(-slope * position))
        q = 1 / (1 + np.exp(slope * position))
        return float(p * q)

    found = saturating(Walk(), positions, outputs).size(np.array([where]))[0]
    assert found == pytest.approx(size(where) / size(1.0), rel=1e-2)


@pytest.mark.parametrize(("rule", "steps"), RULES)
def test_a_service_that_fixes_everything_gives_the_gradient_away_once_it_explains_probabilities(
    rule: str, steps: int
) -> None:
    model, (x, targets) = network(3), questions(3)
    service = LocalExplainer(model, fixed(rule, steps))
    truth = vanilla_gradient(model, torch.tensor(x), torch.tensor(targets)).numpy()
    proposal = propose(service.capabilities)
    found = carry_out(service, x, targets, proposal)
    first = rule_named(rule)(steps).nodes.min()
    assert any(np.isclose(term.query.stop * first, 1) for term in proposal.plan)
    assert np.median(distance(truth, found.gradient)) < 1e-3
    # straight from the formula: one far answer, by hand
    far = service.explain(Request(x / first, None, targets, None)).attribution
    assert np.median(distance(truth, far / x)) < 1e-2
    # the same plan without the softmax in mind is lost
    naive = carry_out(service, x, targets, propose(service.capabilities, walk=Walk()))
    assert np.median(distance(truth, naive.gradient)) > 0.1


def test_where_nothing_saturates_the_near_answers_are_heard() -> None:
    torch.manual_seed(0)
    bounded = nn.Sequential(nn.Linear(D, 30), nn.Tanh(), nn.Linear(30, 4), nn.Softmax(1)).double().eval()
    x, targets = questions(1)
    service = LocalExplainer(bounded, fixed("gauss_legendre", 20))
    truth = vanilla_gradient(bounded, torch.tensor(x), torch.tensor(targets)).numpy()
    found = carry_out(service, x, targets, propose(service.capabilities))
    assert np.median(distance(truth, found.gradient)) < 0.1


def test_points_within_the_input_leave_no_way_out() -> None:
    model, (x, targets) = network(3), questions(3)
    within = Capabilities(
        "gauss_legendre", 8, 8, baseline=False, default_steps=8, output=Output.PROBABILITIES, furthest=1.0
    )
    service = Recording(LocalExplainer(model, within))
    truth = vanilla_gradient(model, torch.tensor(x), torch.tensor(targets)).numpy()
    found = carry_out(service, x, targets, propose(within))
    assert max(np.abs(request.inputs).max() for request in service.requests) <= np.abs(x).max()
    assert np.median(distance(truth, found.gradient)) > 0.1


def test_prior_sizes_are_relative_to_the_input() -> None:
    prior = Saturating(Walk(), (0.0, 0.5, 2.0), (0.0, 1.0, 7.0))
    assert prior.size(np.array([1.0]))[0] == 1
    assert (np.diff(prior.size(np.array([0.0, 0.5, 1.0, 2.0, 5.0, 50.0, 1e4]))) <= 0).all()


class Unknown:
    """A service that tells nothing of itself."""

    def __init__(self, inside: LocalExplainer) -> None:
        self.inside = inside

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("", baseline=True, dtype="float32")

    def explain(self, request: Request) -> Explanation:
        return self.inside.explain(request)


@pytest.mark.parametrize(("rule", "steps"), [("gauss_legendre", 8), ("riemann_right", 31)])
def test_of_a_service_about_which_nothing_is_known_the_first_node_is_found(rule: str, steps: int) -> None:
    model, (x, _) = network(5, steep=4).float(), questions(5)
    x = x.astype(np.float32)
    # classes that are not named: their probabilities are small and have all digits
    targets = model(torch.tensor(x)).argmin(1).numpy()
    found = audit(Unknown(LocalExplainer(model, fixed(rule, steps))), x, targets)
    assert found.judgement.verdict is Verdict.LEAKS
    truth = vanilla_gradient(model, torch.tensor(x), torch.tensor(targets)).numpy()
    assert np.median(distance(truth * found.observed, found.gradient)) < 0.05
