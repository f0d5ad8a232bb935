"""What the probe claims, it has seen from more than one side: the errors of a baseline that was solved for."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest

from disintegrate import Capabilities, Explanation, Request
from disintegrate.probe.asking import Asker
from disintegrate.probe.baseline import solve
from disintegrate.probe.closing_in import _followed, bracketed, close_in
from disintegrate.probe.explore import Verdict, explore
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.staircase import Fit, Pattern, patterns
from disintegrate.progress import SILENT

SIZE = 60


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
    # a true baseline between two points; one beyond both
    true = np.array([0.5, 0.53])
    asker = _asker(Answering(lambda points: points - true), 2)
    between = bracketed(asker, 0, np.full(2, 0.5), np.full(2, 1e-4))
    assert between.crossed.tolist() == [True, False]
    assert np.allclose(between.met, true, atol=1e-6)


def test_a_gradient_that_changes_its_sign_is_not_claimed_to_be_the_baseline() -> None:
    generator = np.random.default_rng(0)
    true, guess = generator.normal(size=(2, SIZE))
    guess = true + 1e-5 * guess
    # the gradient of one coordinate jumps from 1 to -1 at 0, just where a secant leads that begins in 0.008 and -0.002
    true[0], guess[0], beyond = 0.2, -0.002, -0.808 / 0.192

    def answer(points: np.ndarray) -> np.ndarray:
        gradient = np.ones_like(points)
        gradient[:, 0] = np.where(points[:, 0] < 0, 1.0, np.where(points[:, 0] < 0.005, -1.0, beyond))
        return np.asarray((points - true) * gradient)

    found = close_in(_asker(Answering(answer), SIZE), 0, guess, 1.0, np.ones(SIZE))
    assert found is not None
    assert (np.abs(found.point - true) <= found.error).all()
    assert np.isfinite(found.error[1:]).all()


def test_a_gradient_that_vanishes_close_by_and_far_out_is_not_claimed_to_be_the_baseline() -> None:
    generator = np.random.default_rng(0)
    true = generator.normal(size=SIZE)
    true[0] = 0.5

    # far out the first coordinate does not count, and close by its gradient passes 0 just where it is looked for first
    def answer(points: np.ndarray) -> np.ndarray:
        gradient = np.ones_like(points)
        near = np.abs(points).max(1) < 10
        gradient[:, 0] = np.where(near, points[:, 0] ** 2 - 0.6999**2, 0.0)
        return np.asarray((points - true) * gradient)

    for thorough in (False, True):
        found = solve(_asker(Answering(answer), SIZE), 0, 1.0, False, generator, thorough=thorough)
        assert found is not None
        assert (np.abs(found.point - true) <= found.error).all()
        assert np.isfinite(found.error[1:]).all()


def test_what_the_model_does_not_look_at_near_the_baseline_is_seen_from_far_out_if_at_all() -> None:
    known = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        true = generator.normal(size=SIZE)
        weight = np.abs(generator.normal(size=SIZE)) * generator.choice((-1.0, 1.0), SIZE)

        # the first coordinate counts only where a unit is on, which is off near the baseline and on in half of space
        def answer(points: np.ndarray, true: np.ndarray = true, weight: np.ndarray = weight) -> np.ndarray:
            gradient = np.broadcast_to(weight, points.shape).copy()
            gradient[:, 0] = (points - true)[:, 1:] @ weight[1:] > 1
            return np.asarray((points - true) * gradient)

        asker = _asker(Answering(answer), SIZE)
        found = solve(asker, 0, 1.0, False, generator)
        assert found is not None
        assert asker.spent <= 14
        assert (np.abs(found.point - true) <= found.error).all()
        assert np.isfinite(found.error[1:]).all()
        known.append(bool(np.isfinite(found.error[0])))
    assert 0 < sum(known) < len(known)


def test_the_few_coordinates_that_answer_more_than_the_rest_are_followed_over_kinks() -> None:
    true = np.random.default_rng(0).normal(size=SIZE)

    def answer(points: np.ndarray) -> np.ndarray:
        # the mean of a gradient that jumps half a spread away from the baseline
        off = points - true
        return np.asarray(off + 0.6 * np.sign(off) * np.maximum(np.abs(off) - 0.5, 0))

    asker = _asker(Answering(answer), SIZE)
    begin = true.copy()
    begin[:2] += (1.7, -0.9)
    slope = np.where(np.arange(SIZE) < 2, 1.6, 0.0)
    point, off = _followed(asker, 0, begin, answer(begin), slope, np.ones(SIZE), 1.0)
    assert asker.spent <= 3
    assert (np.abs(point - true)[:2] <= off[:2] + 1e-6).all()
    assert (off[:2] < 1e-3).all()
    assert np.isinf(off[2:]).all()
    assert np.allclose(point[2:], true[2:], atol=1e-6)
    # what answers little is none of its business
    spent, nearly = asker.spent, true + 1e-4
    point, off = _followed(asker, 0, nearly, answer(nearly), slope, np.ones(SIZE), 1.0)
    assert asker.spent == spent
    assert (point == nearly).all()
    assert np.isinf(off).all()


@pytest.mark.parametrize("drifting", [False, True])
def test_behind_a_softmax_a_rule_must_explain_answers_that_it_has_not_seen(
    drifting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = np.ones(1)
    fits = tuple(Fit(pattern, 1.0, one, one, one, 9, one) for pattern in patterns()[40:42])
    seen: list[int] = []

    def judged(ray: Ray, near: float, cap: float, known: Sequence[Pattern] | None, wider: Sequence[Pattern]) -> Verdict:
        assert known is None
        assert not wider
        # by the first answers one rule is left, by any more the other
        seen.append(len(ray.scales))
        return Verdict(fits[:1] if len(seen) == 1 else fits[1:], True, "", cap=cap)

    monkeypatch.setattr(sys.modules[explore.__module__], "_judged", judged)
    ray = Ray(_asker(Answering(np.zeros_like), 4), Origin(np.zeros(4), np.zeros(4)), np.ones(4), 0, drifting=drifting)
    verdict = explore(ray, 1.0, reserve=20, generator=np.random.default_rng(0))
    assert verdict.fits == (fits[1:] if drifting else fits[:1])
    assert len(seen) == (2 if drifting else 1)
    assert len(ray.scales) > seen[0] if drifting else len(ray.scales) == seen[0]
