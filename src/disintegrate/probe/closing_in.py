"""Close to the baseline: answers that change their sign between two points have met it on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from disintegrate.explainers.wire import Wire
from disintegrate.probe.asking import Asker
from disintegrate.probe.digits import grain

# Where the first secant begins, and the longest step, in units of the inputs' spread.
BEGIN, MOST = 0.01, 0.5
# How far on either side of where a secant leads is asked, as a share of the step that most coordinates took, and at
# least, in the same units; under a coarse wire; and behind a softmax, where answers are smaller.
AROUND, OF_MOST, LEAST, LEAST_COARSE, LEAST_PROBABILITIES = 0.1, 0.8, 2e-5, 1e-4, 1e-3
# How many of the smallest numbers that the wire carries an answer must have.
QUANTA = 6.0
# How narrow is enough; for which share of the coordinates, sooner or later; and how many the model must look at.
CREDIBLE, CREDIBLE_COARSE = 1e-4, 5e-3
ENOUGH, LOOKED_AT = (0.95, 0.9, 0.85, 0.75, 0.7), 0.7
# How far the answer between may lie off the line through both, as a share of the larger.
BENT = 0.3
# How much steeper or less steep they may be close by than at some distance.
STEEPER = 0.4
# How often the few are followed that lie elsewhere, how far, in units of the inputs' spread, and if they answer so much
# of what a step of that spread would.
FOLLOWED, FURTHEST, TELLING = 3, 2.0, 1e-3


@dataclass(frozen=True, eq=False)
class Found:
    """A baseline, flat.

    Attributes:
        name: among the candidates, if it has one.
        point: the baseline.
        error: how far each coordinate may be off, as answers on both sides bear out.
        doubt: how far it is likely to be off at most, if the gradient does not happen to vanish there.
    """

    name: str | None
    point: Float64[np.ndarray, " d"]
    error: Float64[np.ndarray, " d"]
    doubt: Float64[np.ndarray, " d"]


@dataclass(frozen=True, eq=False)
class Between:
    """What the answers at two points say of the baseline.

    A coordinate answers `(x_i - b_i) G_i`, which changes its sign between two points only if the baseline lies between
    them or the gradient changes its own, the rather the further they lie apart.

    Attributes:
        crossed: where the sign changes.
        met: where the line through both answers vanishes; the nearer point where they are the same.
        reach: how far from that the further of the two points lies.
        slope: of the line.
        nearer: the point with the smaller answer, and `answer`: that answer.
        doubt: how far off the digits of the answers and of the points let that be.
    """

    crossed: Bool[np.ndarray, " d"]
    met: Float64[np.ndarray, " d"]
    reach: Float64[np.ndarray, " d"]
    slope: Float64[np.ndarray, " d"]
    nearer: Float64[np.ndarray, " d"]
    answer: Float64[np.ndarray, " d"]
    doubt: Float64[np.ndarray, " d"]


def bracketed(
    asker: Asker,
    target: int,
    point: Float64[np.ndarray, " d"],
    width: Float64[np.ndarray, " d"],
) -> Between:
    """Ask so far on either side of a point, in all coordinates at once."""
    ends = asker.sent(np.stack([point - width, point + width]))
    answers = asker.ask(ends, target).attribution
    met, slope = secant(ends[0], ends[1], answers[0], answers[1])
    first = np.abs(answers[0]) < np.abs(answers[1])
    return Between(
        crossed=answers[0] * answers[1] < 0,
        met=met,
        reach=np.abs(ends - met).max(0),
        slope=slope,
        nearer=np.where(first, ends[0], ends[1]),
        answer=np.where(first, answers[0], answers[1]),
        doubt=rounding(asker, np.abs(answers).max(0), slope) + spacing(asker, met),
    )


def close_in(
    asker: Asker,
    target: int,
    guess: Float64[np.ndarray, " d"],
    spread: float,
    signs: Float64[np.ndarray, " d"],
) -> Found | None:
    """Gain the last digits close by; None where the answers do not change their signs around any point."""
    credible = (CREDIBLE_COARSE if asker.coarse else CREDIBLE) * spread
    least = LEAST * spread
    if asker.coarse:
        least = (LEAST_PROBABILITIES if asker.in_unit_range else LEAST_COARSE) * spread
    last, point = asker.sent(np.stack([guess + BEGIN * spread * signs, guess]))
    before, answer = asker.ask(np.stack([last, point]), target).attribution
    met, wide = secant(last, point, before, answer)
    slope, quantum = wide, float(grain(np.zeros(1), asker.wire or Wire())[0])
    for enough in ENOUGH:
        last, before = point, answer
        # what would go further is left where it is, lest it disturb the others
        step = np.where(np.abs(met - last) < MOST * spread, met - last, 0.0)
        width = max(AROUND * float(np.quantile(np.abs(step), OF_MOST)), least)
        # and so far that small numbers are not lost
        lost = np.divide(QUANTA * quantum, np.abs(slope), out=np.zeros(point.size), where=slope != 0)
        between = bracketed(asker, target, last + step, np.maximum(width, np.minimum(lost, credible / 2)) * signs)
        looked_at = between.slope != 0
        known = between.crossed & (between.reach <= credible)
        if looked_at.mean() > LOOKED_AT and known[looked_at].mean() > enough:
            break
        point, answer = between.nearer, between.answer
        slope = np.where(looked_at, between.slope, slope)
        # what lies far off is told by steps of its own size
        met = np.where(between.crossed, between.met, secant(last, point, before, answer)[0])
    else:
        return None
    at = asker.sent(np.where(known, between.met, between.nearer)[None])[0]
    answer = asker.ask(at[None], target).attribution[0]
    # a gradient that changes its sign between the two points makes no line through both
    known &= np.abs(answer) <= BENT * np.abs(between.slope) * between.reach
    # nor is one constant that vanishes there: answers are as steep close by as at some distance only at the baseline
    straight = np.abs(np.divide(between.slope, wide, out=np.zeros(point.size), where=wide != 0) - 1) < STEEPER
    error, doubt = np.where(known & straight, between.reach, np.inf), np.where(known, between.doubt, np.inf)
    if asker.coarse:
        return Found(None, at, error, doubt)
    rest = -np.divide(answer, between.slope, out=np.zeros(point.size), where=known)
    at = asker.sent((at + np.clip(rest, -credible, credible))[None])[0]
    # an answer of 0 where a gradient was seen is the baseline to the last bit, unless it vanishes just there
    doubt = np.where(known, np.where(answer == 0, 0.0, spacing(asker, at) / 2), np.inf)
    if asker.in_unit_range:
        # behind a softmax rules are told without knowing it so well
        return Found(None, at, error, doubt)
    at, off = _followed(asker, target, at, answer, np.where(known, 0.0, between.slope), between.slope, spread)
    return Found(None, at, error, np.where(known, doubt, np.where(off < credible, off + spacing(asker, at), np.inf)))


def _followed(
    asker: Asker,
    target: int,
    point: Float64[np.ndarray, " d"],
    answer: Float64[np.ndarray, " d"],
    slope: Float64[np.ndarray, " d"],
    steepness: Float64[np.ndarray, " d"],
    spread: float,
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, " d"]]:
    """Where secants lead in the few coordinates of some slope, and how far they may still be off; infinite in others.

    The others are known by now, so that these no longer disturb them; kinks on the way take a few steps.
    """
    off, seen = np.full(point.size, np.inf), slope != 0
    enough = TELLING * spread * float(np.linalg.norm(steepness))
    for _ in range(FOLLOWED):
        if not asker.left or float(np.linalg.norm(answer[seen])) < enough:
            break
        step = -np.divide(answer, slope, out=np.zeros(point.size), where=seen)
        further = asker.sent((point + np.clip(step, -FURTHEST * spread, FURTHEST * spread))[None])[0]
        reply = asker.ask(further[None], target).attribution[0]
        new = np.divide(reply - answer, further - point, out=np.zeros(point.size), where=further != point)
        slope = np.where(seen & (new != 0), new, slope)
        point, answer = further, reply
        off = np.where(seen, 4 * np.abs(np.divide(answer, slope, out=np.zeros(point.size), where=seen)), np.inf)
    return point, off


def secant(
    last: Float64[np.ndarray, " d"],
    point: Float64[np.ndarray, " d"],
    before: Float64[np.ndarray, " d"],
    answer: Float64[np.ndarray, " d"],
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, " d"]]:
    """Where the line through the answers at two points vanishes, and its slope; the point itself where it is 0."""
    slope = np.divide(answer - before, point - last, out=np.zeros(point.size), where=point != last)
    step = np.divide(-answer, slope, out=np.zeros(point.size), where=slope != 0)
    return point + step, slope


def rounding(
    asker: Asker, answer: Float64[np.ndarray, " d"], slope: Float64[np.ndarray, " d"]
) -> Float64[np.ndarray, " d"]:
    """How far the digits of an answer let the place be off where its line vanishes."""
    found: Float64[np.ndarray, " d"] = np.divide(
        3 * asker.deviation(answer), np.abs(slope), out=np.full(answer.size, np.inf), where=slope != 0
    )
    return found


def spacing(asker: Asker, point: Float64[np.ndarray, " d"]) -> Float64[np.ndarray, " d"]:
    """Twice the distance to the next point that can be sent."""
    size = np.maximum(np.abs(point), 1e-3 * float(np.abs(point).max()))
    found: Float64[np.ndarray, " d"] = 2 * np.spacing(size.astype(asker.dtype)).astype(np.float64)
    return found
