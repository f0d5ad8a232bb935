"""What to ask next on a ray where a softmax falls, and a ray that is begun anew: against slow oracles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from jaxtyping import Float64

from disintegrate import Capabilities, LocalExplainer
from disintegrate.probe.asking import Asker
from disintegrate.probe.fall import Fall
from disintegrate.probe.falling import CHANGES, FADING, Answered, Falling, Given, Line
from disintegrate.probe.falling_design import most_telling
from disintegrate.probe.one_kink import quadrature
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.recentred import recentred
from disintegrate.progress import SILENT
from tests.test_probe import SIZE, model

Vector = Float64[np.ndarray, " n"]


def _given() -> tuple[Falling, Answered, tuple[Vector, Vector], tuple[Vector, Vector]]:
    places = np.array([0.0, 1.0, 3.0, 6.0, 12.0, 20.0])
    log = -1.0 - 0.9 * places - 0.3 * np.maximum(places - 4, 0)
    falling = Falling(places, log, np.full(len(places), 1e-3))
    nodes, weights = quadrature("riemann_right", 20)
    scales = np.array([3.0, 6.0, 12.0]) / nodes.min()
    steep = np.where(scales * nodes.min() > 4, 1.2, 0.9)
    falls = weights[0] * steep * np.exp(np.interp(scales * nodes.min(), places, log))
    answered = Answered(scales, falls, 1e-3 * falls, 0.0, 0.02, np.zeros(0), np.zeros(0))
    return falling, answered, (nodes, weights), (nodes * 1.02, weights)


def _told(given: Given, answered: Answered, best: tuple[Vector, Vector], rival: tuple[Vector, Vector]) -> float:
    """The expected logarithm by which answers tell the two apart, by the textbook's formula."""
    predicted = given.predicted(answered.scales, *best)
    total, moved = predicted.total, predicted.moved
    apart = np.log(given.predicted(answered.scales, *rival).total) - np.log(total)
    covariance = moved @ moved.T + np.diag((answered.deviation / total) ** 2 + predicted.between)
    covariance += np.outer(answered.common / total, answered.common / total) + answered.level**2
    return float(apart @ np.linalg.inv(covariance) @ apart) / 2


def test_what_an_output_tells_is_what_the_line_tells_that_was_asked_for_it() -> None:
    falling, answered, best, rival = _given()
    telling = most_telling(falling, answered, best, rival, np.zeros(0), lambda log: np.full(log.shape, 1e-3), np.abs)
    assert telling.output
    fading, change = max(
        ((fading, float(change)) for fading in FADING for change in CHANGES),
        key=lambda pair: Given(Line(falling, pair[0]), pair[1]).likely(answered, *best)[0],
    )
    line = Line(falling, fading)
    before = Given(line, change)
    log = float((line.rows(np.array([telling.scale]))[0] @ before.mean)[0])
    order = np.argsort(scales := np.append(falling.scales, telling.scale))
    asked = Falling(scales[order], np.append(falling.log, log)[order], np.full(len(scales), 1e-3))
    after = Given(Line(asked, fading), change)
    # the same prior, with one output more
    np.testing.assert_array_equal(after.line.places, line.places)
    gain = _told(after, answered, best, rival) - _told(before, answered, best, rival)
    assert gain == pytest.approx(telling.gain, rel=1e-6)
    assert telling.gain > 0


def test_an_answer_is_asked_where_it_tells_more_than_any_output() -> None:
    falling, answered, best, rival = _given()
    scales = np.array([2.0, 9.0, 16.0]) / best[0].min()
    one = most_telling(
        falling, answered, best, rival, scales, lambda log: np.full(log.shape, 10.0), lambda total: 1e-3 * total
    )
    assert not one.output
    given = max(
        (Given(Line(falling, fading), float(change)) for fading in FADING for change in CHANGES),
        key=lambda given: given.likely(answered, *best)[0],
    )
    gains = []
    for scale in scales:
        more = np.append(answered.scales, scale)
        total = given.predicted(more, *best).total
        falls, deviation = np.append(answered.falls, total[-1]), np.append(answered.deviation, 1e-3 * total[-1])
        gains.append(_told(given, replace(answered, scales=more, falls=falls, deviation=deviation), best, rival))
    assert one.scale == scales[int(np.argmax(gains))]
    assert one.gain == pytest.approx(max(gains) - _told(given, answered, best, rival), rel=1e-6)


def test_a_secant_far_out_leads_to_the_baseline_where_it_was_not_known() -> None:
    service = LocalExplainer(model(True), Capabilities(rule="riemann_right", default_steps=20))
    asker = Asker(service, (SIZE,), np.dtype(np.float32), 60, SILENT.task("queries", 60))
    asker.learn_wire()
    begin, error = np.zeros(SIZE), np.zeros(SIZE)
    begin[:3], error[:3] = (0.7, -0.4, 0.2), np.inf
    direction = np.where(np.isfinite(error), np.random.default_rng(1).choice((-1.0, 1.0), SIZE), 0.0)
    near, out = (Ray(asker, Origin(begin, error), direction, 1, drifting=True) for _ in range(2))
    near.ask([1e-2])
    out.ask([-1e5 if _rises(asker, begin, direction) else 1e5])
    ray = Ray(asker, Origin(begin, error), np.sign(out.scales[0]) * direction, 1, drifting=True)
    answered = Ray(asker, ray.origin, ray.direction, 1, drifting=True)
    answered.ask([300.0])
    spent = asker.spent
    places = np.array([10.0, 15.0])
    anew = recentred(Fall(ray, near, out), answered, 0, places)
    assert anew is not None
    # the service's own baseline is 0
    assert np.abs(anew.ray.origin.point[:3]).max() < 1e-3
    assert anew.ray.scales == places.tolist()
    assert asker.spent - spent == 1 + 1 + len(places)
    assert np.array_equal(anew.ray.origin.error, error)


def _rises(asker: Asker, begin: Vector, direction: Vector) -> bool:
    """Whether the output rises along a direction, so that it falls against it."""
    return float(asker.ask((begin + 1e3 * direction)[None], 1).output[0]) > 0.5
