"""Where a baseline may be sent: one kink alone, on rays so short that nothing else lies on them.

An answer between two points that lie close to each other is the gradient there, times the mass of the rule. So a kink
is closed in by halving, whatever the rule; and a ray that begins just before it holds no other kink, and behind a
softmax hardly any drift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.ray import Origin, Ray

# Where a kink is looked for on a ray, and how much further out where there is none.
BEGIN, ENDS = 0.02, (0.6, 6.0, 60.0)
# How narrow the bracket is made; how narrow where few rules are left; and the length of the ray that shows a gradient,
# in units of the bracket.
NARROW, ROUGH, WINDOW = 1e-4, 1e-3, 0.02
# Where the short ray begins, how far beside the bracket the kink may lie, and how long the rays are that show the
# gradients on either side, in its units.
BEFORE, BESIDE, LONG = 8.0, 0.3, 2.0
# Squares of a jump over those of its noise from which on it is one, of a coordinate and of all.
CLEAR = 9.0
# The smallest attributions that float16 carries with three digits.
SMALLEST = 2e-5
# The least noise of a share; that of a gradient which a network computes in float32, relative to a typical one; and how
# far beyond what noise makes a singular value lies that is none.
LEAST, ROUNDED, EDGE = 1e-6, 2e-7, 1.2


@dataclass(frozen=True, eq=False)
class Crossings:
    """Answers of rays across a kink, each as a share of the way from the gradient before it to that behind it.

    What leaves that way is due to other kinks, or to drift. It says how much of those is in each answer, and so which
    combinations of the shares may be theirs too.

    Attributes:
        scales: of the rays.
        shares: of the answers, and `noise`: their standard deviations.
        ends: the standard deviations of the shares 0 and 1 of the two gradients themselves.
        company: orthonormal columns, one row an answer, that hold all that leaves the way beyond noise.
    """

    scales: Float64[np.ndarray, " q"]
    shares: Float64[np.ndarray, " q"]
    noise: Float64[np.ndarray, " q"]
    ends: Float64[np.ndarray, " 2"]
    company: Float64[np.ndarray, "q r"]


@dataclass(frozen=True, eq=False)
class CloseUp:
    """A short ray across a kink, and the gradients on either side of it, times the mass of the rule.

    Attributes:
        ray: along the normal of the unit that has the kink, as far as that is known; nothing is asked on it yet.
        low: a scale before the kink, and `high`: one behind it.
        ends: the scales at which the gradients before and behind it were asked.
        before: the gradient before it, and `behind`: that behind it.
        place: where the kink lies on the ray that it was looked for on.
    """

    ray: Ray
    low: float
    high: float
    ends: tuple[float, float]
    before: Float64[np.ndarray, " d"]
    behind: Float64[np.ndarray, " d"]
    place: float

    def crossings(self, farthest: float) -> Crossings:
        """The answers up to a scale, as shares of the way from one gradient to the other."""
        kept = np.array(self.ray.reached) <= farthest
        raw, moved = (np.array(values).reshape(-1, self.before.size)[kept] for values in (self.ray.raw, self.ray.moved))
        answers, noise = divided(raw, moved), divided(self.ray.asker.deviation(raw), np.abs(moved))
        span = np.abs(self.ray.direction) * LONG
        pair = np.stack([self.before, self.behind])
        end_noise = divided(self.ray.asker.deviation(np.nan_to_num(pair) * span), np.broadcast_to(span, pair.shape))
        seen = np.isfinite(pair).all(0) & np.isfinite(answers).all(0) & (self.ray.direction != 0)
        answers, noise, pair, end_noise = answers[:, seen], noise[:, seen], pair[:, seen], end_noise[:, seen]
        # networks compute in float32, whatever the wire carries
        typical = np.sqrt((pair**2).mean()) if pair.size else 0.0
        noise, end_noise = np.hypot(noise, ROUNDED * typical), np.hypot(end_noise, ROUNDED * typical)
        columns = np.exp(np.log(np.maximum(noise, 1e-300)).mean(0)) if len(noise) else end_noise[0]
        columns = np.maximum(columns, max(1e-2 * float(np.sqrt((columns**2).mean())), 1e-300) if seen.any() else 1.0)
        jump, way = (pair[1] - pair[0]) / columns, (answers - pair[0]) / columns
        size = max(float(jump @ jump), 1e-300)
        shares = way @ jump / size
        deviations = np.sqrt(((jump * noise / columns) ** 2).sum(1)) / size
        ends = np.sqrt(((jump * end_noise / columns) ** 2).sum(1)) / size
        aside = way - np.outer(shares, jump)
        left, values, _ = np.linalg.svd(aside, full_matrices=False)
        beyond = values > EDGE * (np.sqrt(aside.shape[1]) + np.sqrt(len(aside)))
        return Crossings(
            scales=np.array(self.ray.reached)[kept],
            shares=shares,
            noise=np.maximum(deviations, LEAST),
            ends=np.maximum(ends, LEAST),
            company=left[:, beyond],
        )


def close_up(ray: Ray, narrow: float = NARROW) -> CloseUp | None:
    """The strongest kink of a ray that begins at a point that was sent; None where no jump shows.

    It is closed in to a bracket of so much of the direction. Of two halves that is followed whose ends differ more:
    what drifts differs by half as much in each, a jump does not.
    """
    if not ray.scales:
        ray.ask([BEGIN, ENDS[0]])
    shortest = _shortest(ray)
    low, high = BEGIN, ENDS[0]
    first = max(WINDOW * low, shortest)
    before, behind = gradient_at(ray, low, first), gradient_at(ray, high, first)
    for further in ENDS[1:]:
        if _jump(ray, before, behind, first).any():
            break
        low, high, before = high, further, behind
        behind = gradient_at(ray, high, first)
    while high - low > 2 * max(narrow, shortest):
        middle = (low + high) / 2
        here = gradient_at(ray, middle, max(WINDOW * (high - low), shortest))
        if np.nansum((here - before) ** 2) > np.nansum((behind - here) ** 2):
            high, behind = middle, here
        else:
            low, before = middle, here
    width = high - low
    jump = _jump(ray, before, behind, max(WINDOW * width, shortest))
    normal = jump / max(float(np.linalg.norm(jump)), 1e-300)
    along = float(normal @ ray.direction)
    if along == 0:
        return None
    place = (low + high) / 2
    begin = ray.asker.sent((ray.origin.point + low * ray.direction - BEFORE * width * along * normal)[None])[0]
    origin = Origin(begin, np.zeros(begin.size), begin)
    # behind a softmax the gradient drifts too, but hardly on so short a ray
    short = Ray(ray.asker, origin, width * along * normal, ray.target, steps=ray.steps)
    # the rays that showed the gradients so far were long beside the bracket, and may have held the kink
    beside = max(BESIDE, shortest / (2 * width))
    low, high = BEFORE - beside, BEFORE + 1 + beside
    return CloseUp(
        ray=short,
        low=low,
        high=high,
        ends=(low - LONG / 2, high + LONG / 2),
        before=gradient_at(short, low - LONG / 2, LONG),
        behind=gradient_at(short, high + LONG / 2, LONG),
        place=place,
    )


def _jump(
    ray: Ray, before: Float64[np.ndarray, " d"], behind: Float64[np.ndarray, " d"], length: float
) -> Float64[np.ndarray, " d"]:
    """The difference of two gradients in the coordinates that show more than noise; 0 in all where too few do."""
    moved = np.abs(ray.direction) * length
    noise = ray.asker.deviation(np.nan_to_num(before) * moved) + ray.asker.deviation(np.nan_to_num(behind) * moved)
    jump = np.nan_to_num(behind - before)
    clear = np.abs(jump) * moved > CLEAR * noise
    enough = float((jump * moved)[clear] @ (jump * moved)[clear]) > CLEAR * float(noise @ noise)
    return np.where(clear & enough, jump, 0.0)


def gradient_at(ray: Ray, scale: float, length: float) -> Float64[np.ndarray, " d"]:
    """The gradient at a place of a ray times the mass of the rule, NaN where so short a ray does not move."""
    begin, end = ray.asker.sent(
        ray.origin.point + np.array([[scale - length / 2], [scale + length / 2]]) * ray.direction
    )
    answer = ray.asker.ask(end[None], ray.target, steps=ray.steps, origin=begin).attribution[0]
    return divided(answer, end - begin)


def divided(
    answer: Float64[np.ndarray, "*shape d"], moved: Float64[np.ndarray, "*shape d"]
) -> Float64[np.ndarray, "*shape d"]:
    """An answer over what was moved, NaN where nothing was."""
    slope: Float64[np.ndarray, "*shape d"] = np.divide(
        answer, moved, out=np.full(answer.shape, np.nan), where=moved != 0
    )
    return slope


def share(
    here: Float64[np.ndarray, " d"], before: Float64[np.ndarray, " d"], behind: Float64[np.ndarray, " d"]
) -> float:
    """How far a gradient lies on the way from one to another."""
    jump, way = behind - before, here - before
    return float(np.nansum(way * jump) / max(float(np.nansum(np.where(np.isnan(way), np.nan, jump) ** 2)), 1e-300))


def _shortest(ray: Ray) -> float:
    """The least length of a ray, in units of the direction, whose answers the wire carries with all digits."""
    if not ray.asker.coarse:
        return 0.0
    answers, _ = ray.divided()
    typical = float(np.sqrt((answers**2).mean())) * float(np.abs(ray.direction[ray.direction != 0]).mean())
    return SMALLEST / max(typical, 1e-300)
