"""What a rule weighs both ends of a path with, from answers between points that are sent."""

from __future__ import annotations

import numpy as np
import pytest

from disintegrate import Capabilities, Deaf, LocalExplainer, NotPermitted, Recording, Wire, Wired, probe
from disintegrate.explainers.protocol import Explainer, Explanation, Request
from disintegrate.probe.asking import Asker
from disintegrate.probe.ends import Ends, ends
from disintegrate.probe.one_kink import quadrature
from disintegrate.probe.ray import Origin, Ray
from disintegrate.progress import SILENT
from tests.test_probe import SIZE, TARGETS, inputs, model, rules_of

RULES = [
    ("riemann_right", 40),
    ("riemann_left", 7),
    ("saliency", 30),
    ("captum_riemann_trapezoid", 12),
    ("midpoint", 9),
]


def _ends(service: Explainer, *, softmax: bool) -> tuple[Ends | None, int]:
    asker = Asker(service, (SIZE,), np.dtype(np.float32), 60, SILENT.task("queries", 60))
    rng = np.random.default_rng(5)
    begin = asker.sent(rng.normal(size=(1, SIZE)))[0]
    asker.ask(begin[None], 1)
    asker.learn_wire()
    spent = asker.spent
    found = ends(Ray(asker, Origin(begin, np.zeros(SIZE), begin), rng.choice((-1.0, 1.0), SIZE), 1, drifting=softmax))
    return found, asker.spent - spent


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize(("rule", "steps"), RULES)
def test_four_answers_tell_what_both_ends_are_weighed_with(rule: str, steps: int, softmax: bool) -> None:
    service = LocalExplainer(model(softmax), Capabilities(rule=rule, default_steps=steps))
    found, queries = _ends(service, softmax=softmax)
    nodes, weights = quadrature(rule, steps)
    assert found is not None
    assert queries == (3 if softmax else 4)
    for seen, end, doubt in zip((found.baseline, found.input), (0.0, 1.0), found.doubts, strict=True):
        wanted = float(weights[nodes == end].sum() / weights.sum())
        # behind a softmax the gradient close by has drifted already
        assert abs(seen - wanted) < (0.01 * wanted + 1e-9 if softmax else 1e-6)
        assert abs(seen - wanted) < 6 * doubt
    assert found.agreeing([(rule, steps)])
    assert not found.agreeing([("riemann_left", 3), ("saliency", 2)])


@pytest.mark.parametrize(("rule", "steps"), RULES)
def test_in_float16_both_weights_show_to_a_thousandth(rule: str, steps: int) -> None:
    inside = LocalExplainer(model(), Capabilities(rule=rule, default_steps=steps))
    found, _ = _ends(Wired(inside, Wire(dtype="float16")), softmax=False)
    nodes, weights = quadrature(rule, steps)
    assert found is not None
    for seen, end, doubt in zip((found.baseline, found.input), (0.0, 1.0), found.doubts, strict=True):
        off = abs(seen - float(weights[nodes == end].sum() / weights.sum()))
        assert off < min(1e-3, 6 * doubt)


def test_a_service_that_refuses_points_far_out_tells_nothing() -> None:
    class Near:
        capabilities = Capabilities(rule="")

        def __init__(self) -> None:
            self._inside = LocalExplainer(model(), Capabilities(rule="riemann_right", default_steps=9))

        def explain(self, request: Request) -> Explanation:
            if np.abs(request.inputs).max() > 100:
                raise NotPermitted("Too far out.")
            return self._inside.explain(request)

    assert _ends(Near(), softmax=False)[0] is None


@pytest.mark.parametrize(("rule", "steps"), [("riemann_left", 160), ("saliency", 90)])
def test_in_float16_a_rule_of_many_steps_is_named_by_one_kink_and_both_ends(rule: str, steps: int) -> None:
    # across one kink alone several numbers and families explain such answers alike, whatever the budget
    inside = LocalExplainer(model(), Capabilities(rule=rule, default_steps=steps))
    service = Recording(Deaf(Wired(inside, Wire(dtype="float16")), steps=True, baseline=False))
    found = probe(service, inputs(), TARGETS)
    assert (rule, steps) in rules_of(found), found.rules.evidence
    assert "across one kink" in found.rules.evidence
