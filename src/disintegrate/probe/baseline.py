"""The service's own baseline, from answers that vanish where the input meets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64

from disintegrate.errors import NotPermitted
from disintegrate.probe.asking import Asker
from disintegrate.probe.closing_in import Found, close_in, rounding, secant, spacing

# How far out the other half lies, in units of the inputs' spread; behind a softmax under a coarse wire; and how much
# nearer where answers there are too small to tell something.
FAR, FAR_COARSE, LESS, NEAREST = 3000.0, 300.0, 6.0, 2.0
# The smallest answers that tell something, and where numbers are carried coarsely.
FAINT, FAINT_COARSE = 1e-30, 1e-4
# Where a secant begins; from which distance on one is exact enough; and how small the last step must be elsewhere.
BEGIN, STRAIGHT, SMALL, SECANTS, MOST = 0.7, 1000.0, 0.15, 4, 5.0
# How much the gradient may change over the step, in units of how far out the other half lies.
BENDS = 3.0
# How often it is tried, if so many queries are left.
TRIES, AGAIN = 2, 25
# Queries that must be left to look from elsewhere for what the model does not look at near the baseline; by how many
# secants; how far it may then lie from where it was first seen, in units of the inputs' spread; and how far off it may
# be to be of use.
THOROUGH, SURE, AGREES, TOLD = 25, 3, 0.02, 0.1
# By how much two looks from far out may miss it alike, in units of the inputs' spread over how far out they were.
BIASED = 0.5


def candidate(asker: Asker, target: int, candidates: Mapping[str, Float64[np.ndarray, " d"]]) -> Found | None:
    """Try points that it may be: all attributions are 0 there, and nowhere else.

    A coordinate answers `(x_i - b_i) G_i`, so that all are 0 means x = b, unless the gradient vanishes on the ray.
    """
    for name, point in candidates.items():
        if asker.left < 1:
            return None
        try:
            answer = asker.ask(point[None], target)
        except NotPermitted:
            continue
        if not answer.attribution.any():
            at, none = asker.sent(point[None])[0], np.zeros(point.size)
            return Found(name, at, none, none)
    return None


def solve(
    asker: Asker,
    target: int,
    spread: float,
    probabilities: bool,
    generator: np.random.Generator,
    *,
    thorough: bool = True,
) -> Found | None:
    """Solve for the baseline coordinate by coordinate.

    Half of the coordinates, far out, hold the gradient fixed along almost all of the ray; the answers of the other half
    are then linear in their coordinates, `A_i = (x_i - b_i) G_i`, and a secant meets the baseline (P.2). Then the
    halves change places. Close to the baseline the gradient is constant, and the same secant gains all digits at once.

    Where rays need not begin there, it need not be `thorough`, and what is left to see from elsewhere is left.
    """
    size = int(np.prod(asker.shape))
    half = generator.permutation(size) % 2 == 0
    signs = generator.choice((-1.0, 1.0), size)
    drive = FAR_COARSE if probabilities and asker.coarse else FAR
    guess, found = np.zeros(size), None
    for _ in range(TRIES):
        doubt = np.full(size, np.inf)
        for part in (half, ~half):
            solved = _secants(asker, target, part, guess, signs, spread, drive, 2 if asker.coarse else 1)
            if solved is None:
                return None
            guess, doubt, drive = solved.point, np.minimum(doubt, solved.error), solved.drive
        found = close_in(asker, target, guess, spread, signs)
        if found is not None or asker.left < AGAIN:
            break
        # from the other side, and with what is known by now
        signs = -signs
    if found is None:
        return None
    # a gradient that vanishes close by looks like the baseline: an error is claimed only if it showed far out too
    off = np.abs(found.point - guess)
    twice = np.isfinite(doubt) & (off < np.clip(doubt, AGREES * spread, TOLD * spread))
    # and where answers are not as steep close by as at some distance, no finer than it showed there
    seen = np.isfinite(found.doubt) & (off < AGREES * spread)
    rough = np.where(seen, 4 * off + found.doubt + BIASED * spread / drive, np.inf)
    found = replace(found, error=np.where(twice, np.where(np.isfinite(found.error), found.error, rough), np.inf))
    # where little is carried, brackets are so wide that this is likely
    rest = ~np.isfinite(found.doubt) | (~twice & asker.coarse)
    if not rest.any() or asker.left < THOROUGH or not thorough:
        return found
    return _from_elsewhere(asker, target, found, rest, guess, doubt, spread, drive, generator)


@dataclass(frozen=True, eq=False)
class _Secants:
    """Some coordinates solved for: all of the point, how far each may be off, and how far out the others were."""

    point: Float64[np.ndarray, " d"]
    error: Float64[np.ndarray, " d"]
    drive: float


def _secants(
    asker: Asker,
    target: int,
    part: Bool[np.ndarray, " d"],
    guess: Float64[np.ndarray, " d"],
    signs: Float64[np.ndarray, " d"],
    spread: float,
    drive: float,
    least: int,
    told: float = 0.5,
) -> _Secants | None:
    """Solve for some coordinates, the others being far out; by so many secants at least.

    The others come nearer until more than so large a share of the coordinates answers.
    """
    size = signs * spread
    while True:
        last, point = asker.sent(np.where(part, np.outer((BEGIN, -BEGIN), size), guess + drive * size))
        before = asker.ask(last[None], target).attribution[0]
        if np.quantile(np.abs(before[part]), 1 - told) > (FAINT_COARSE if asker.coarse else FAINT):
            break
        # the output is saturated on all of the ray but its beginning
        drive /= LESS
        if drive < NEAREST:
            return None
    slope, error = np.zeros(part.size), np.full(part.size, np.inf)
    for number in range(1, SECANTS + 1):
        answer = asker.ask(point[None], target).attribution[0]
        factor = _common(before[~part], answer[~part])
        new = secant(last, point, factor * before, answer)[1]
        # what did not move any more keeps the slope that was seen
        slope = np.where(new != 0, new, factor * slope)
        met = point - np.divide(answer, slope, out=np.zeros(point.size), where=slope != 0)
        # a gradient that vanishes leads anywhere
        seen = part & (slope != 0) & (np.abs(met) < MOST * spread)
        step, moved = np.where(seen, met - point, 0.0), np.abs(point - last)
        # the next step is as much smaller than this one as this is than the last, or more
        shrunk = np.divide(2 * np.abs(step), moved, out=np.ones(point.size), where=moved > 0)
        off = 4 * np.abs(step) * np.minimum(shrunk, BENDS / drive if drive >= STRAIGHT else 1.0)
        error = np.where(seen, off + rounding(asker, answer, slope) + spacing(asker, met), np.inf)
        last, before, point = point, answer, asker.sent((point + step)[None])[0]
        near_enough = drive >= STRAIGHT or (number > 1 and np.quantile(np.abs(step[part]), 0.9) < SMALL * spread)
        if number >= least and near_enough:
            break
    return _Secants(np.where(part, point, guess), error, drive)


def _common(before: Float64[np.ndarray, " k"], answer: Float64[np.ndarray, " k"]) -> float:
    """By which factor the answers of coordinates that were not moved are larger than before; 1 where that is open.

    A softmax that is nearly saturated makes all answers larger or smaller alike: its gradient is `1 - p` times one that
    hardly changes.
    """
    size = float(before @ before)
    factor = float(answer @ before) / size if size > 0 else 1.0
    return factor if factor > 0 else 1.0


def _from_elsewhere(
    asker: Asker,
    target: int,
    found: Found,
    rest: Bool[np.ndarray, " d"],
    guess: Float64[np.ndarray, " d"],
    doubt: Float64[np.ndarray, " d"],
    spread: float,
    drive: float,
    generator: np.random.Generator,
) -> Found:
    """What the model does not look at near the baseline, or what led astray there, seen from far out once more.

    A gradient that happened to vanish looks like the baseline too, but not from two sides.
    """
    signs = generator.choice((-1.0, 1.0), rest.size)
    again = _secants(asker, target, rest, found.point, signs, spread, drive, 2 if drive >= STRAIGHT else SURE, 0.0)
    if again is None:
        return found
    # behind a softmax the first look was too rough to count by itself
    before = doubt if drive >= STRAIGHT else np.full(rest.size, np.inf)
    told = np.minimum(again.error, before)
    known = rest & (told < TOLD * spread)
    at = np.where(known, np.where(again.error < before, again.point, guess), found.point)
    off = np.abs(again.point - guess)
    # both looks may miss it alike, by what the gradient still changes so far out
    error = np.where(known & (off < AGREES * spread), 4 * off + again.error + BIASED * spread / drive, found.error)
    return Found(None, at, error, np.where(known, told, found.doubt))
