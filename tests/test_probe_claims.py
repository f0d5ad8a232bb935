"""What the probe claims, it has seen from more than one side: the errors of a baseline that was solved for."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest

from disintegrate import Capabilities, Explanation, Request
from disintegrate.probe.asking import Asker
from disintegrate.probe.baseline import _bracketed
from disintegrate.probe.explore import Verdict, explore
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.staircase import Fit, Pattern, patterns
from disintegrate.progress import SILENT


class Answering:
    """A service whose attributions are a function of the input."""

    capabilities = Capabilities(rule="")

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def explain(self, request: Request) -> Explanation:
        points = request.inputs.astype(float)
        return Explanation(np.zeros(len(points)), self.answer(points))  # type: ignore[operator]


def _asker(explainer: object, size: int) -> Asker:
    return Asker(explainer, (size,), np.dtype(np.float32), 60, SILENT.task("queries", 60))  # type: ignore[arg-type]


def test_an_error_is_claimed_only_where_answers_on_both_sides_bear_it_out() -> None:
    # a true baseline within the error; one beyond it; one beyond it whose gradient changes its sign just between
    true = np.array([0.5, 0.53, 0.53])

    def answer(points: np.ndarray) -> np.ndarray:
        gradient = np.ones_like(points)
        gradient[:, 2] = np.where(points[:, 2] < 0.5, 1.0, -1.0)
        return np.asarray((points - true) * gradient)

    asker = _asker(Answering(answer), 3)
    point = np.full(3, 0.5)
    middle = asker.ask(point[None], 0).attribution[0]
    error = _bracketed(asker, 0, point, middle, np.full(3, 1e-4))
    assert np.isfinite(error).tolist() == [True, False, False]
    assert error[0] >= abs(point[0] - true[0])


@pytest.mark.parametrize("drifting", [False, True])
def test_behind_a_softmax_a_rule_must_explain_answers_that_it_has_not_seen(
    drifting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = np.ones(1)
    fits = tuple(Fit(pattern, 1.0, one, one, one, 9, one) for pattern in patterns()[:2])
    seen: list[int] = []

    def judged(ray: Ray, near: float, cap: float, known: Sequence[Pattern] | None) -> Verdict:
        assert known is None
        # by the first answers one rule is left, by any more the other
        seen.append(len(ray.scales))
        return Verdict(fits[:1] if len(seen) == 1 else fits[1:], True, "", cap=cap)

    monkeypatch.setattr(sys.modules[explore.__module__], "_judged", judged)
    ray = Ray(_asker(Answering(np.zeros_like), 4), Origin(np.zeros(4), np.zeros(4)), np.ones(4), 0, drifting=drifting)
    verdict = explore(ray, 1.0, reserve=20, generator=np.random.default_rng(0))
    assert verdict.fits == (fits[1:] if drifting else fits[:1])
    assert len(seen) == (2 if drifting else 1)
    assert len(ray.scales) > seen[0] if drifting else len(ray.scales) == seen[0]
