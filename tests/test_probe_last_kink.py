"""A service's own number of steps, told by the last kink of a ray (P.11)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, LocalExplainer, Wire, Wired
from disintegrate.probe.asking import Asker
from disintegrate.probe.last_kink import by_last_kink
from disintegrate.probe.ray import Origin, Ray
from disintegrate.progress import SILENT
from disintegrate.rules import rule_named

SIZE = 20


class _Rays:
    """Rays of one direction, one for each number of steps."""

    def __init__(self, rule: str, steps: int, digits: int | None = None, *, bias: bool = True) -> None:
        torch.manual_seed(4)
        self.model = nn.Sequential(nn.Linear(SIZE, 30, bias=bias), nn.ReLU(), nn.Linear(30, 3))
        wire = Wire(significant_digits=digits)
        served = Wired(LocalExplainer(self.model, Capabilities(rule=rule, default_steps=steps)), wire)
        self.asker = Asker(served, (SIZE,), np.dtype(np.float32), 60, SILENT.task("queries", 60))
        self.asker.wire = wire
        self.direction = np.random.default_rng(1).normal(size=SIZE)
        self.rays: dict[int | None, Ray] = {}

    def __call__(self, steps: int | None) -> Ray:
        origin = Origin(np.zeros(SIZE), np.zeros(SIZE))
        return self.rays.setdefault(steps, Ray(self.asker, origin, self.direction, 1, steps=steps))

    def last_kink(self) -> float:
        """Where the last unit switches on the ray, from the weights."""
        weight, bias = (part.detach().double().numpy() for part in list(self.model.parameters())[:2])
        return float((-bias / (weight @ self.direction)).max())


@pytest.mark.parametrize(("rule", "steps"), [("midpoint", 131), ("riemann_right", 47), ("gauss_legendre", 90)])
@pytest.mark.parametrize("digits", [None, 6])
def test_the_last_kink_of_a_ray_leaves_few_numbers(rule: str, steps: int, digits: int | None) -> None:
    rays = _Rays(rule, steps, digits)
    found = by_last_kink(rays, rule)
    assert steps in found
    assert len(found) <= 12
    assert rays.asker.spent <= 20


def test_an_answer_far_out_holds_as_much_of_the_last_jump_as_its_first_nodes_weigh() -> None:
    # (P.11), the slow way: gradients by autograd on either side of the last kink
    rays = _Rays("midpoint", 30)
    rule, tau = rule_named("midpoint")(30), rays.last_kink()
    behind, before = (_gradient(rays, place) for place in (2 * tau, 0.999 * tau))
    scale = tau / (0.5 * float(rule.nodes[0] + rule.nodes[1]))
    rays(None).ask([scale])
    answer = rays(None).raw[0] / rays(None).moved[0]
    share = (answer - behind) @ (before - behind) / ((before - behind) @ (before - behind))
    assert share == pytest.approx(float(rule.weights[0]), rel=1e-3)


def _gradient(rays: _Rays, place: float) -> np.ndarray:
    point = torch.tensor(place * rays.direction, dtype=torch.float32)[None].requires_grad_()
    return torch.autograd.grad(rays.model(point)[0, 1], point)[0][0].double().numpy()


def test_few_digits_are_asked_nothing() -> None:
    rays = _Rays("midpoint", 131, 3)
    assert by_last_kink(rays, "midpoint") == []
    assert rays.asker.spent == 0


def test_a_ray_without_a_kink_tells_nothing() -> None:
    rays = _Rays("midpoint", 131, bias=False)
    assert by_last_kink(rays, "midpoint") == []
