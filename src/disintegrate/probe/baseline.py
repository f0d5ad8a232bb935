"""The service's own baseline, from answers that vanish where the input meets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from disintegrate.errors import NotPermitted
from disintegrate.probe.asking import Asker

FAR = 3000.0
FAR_PROBABILITIES, FAR_PROBABILITIES_COARSE = 150.0, 15.0
ROUNDS, SURE_ROUNDS, EXACT_ROUNDS = 4, 3, 2
# Queries that must be left to look from elsewhere for what the model does not look at near the baseline.
THOROUGH = 25
# How many times the error on either side the baseline must lie between, at first and where that does not show.
BRACKETS = (1.5, 30.0)
# The widest of such that count, in units of the inputs' spread: the gradient may change its sign, the rather the wider.
CREDIBLE, CREDIBLE_COARSE = 1e-4, 1e-2
# How far the answer between may lie off the line through both, as a share of their difference.
BENT = 0.15


@dataclass(frozen=True, eq=False)
class Found:
    """A baseline, flat.

    Attributes:
        name: among the candidates, if it has one.
        point: the baseline.
        error: how far each coordinate may be off.
        likeliest: where all answers vanish to the last bit, as far as the gradient shows it.
        unlikely: how far each coordinate of that may be off, but for places where the gradient happens to vanish.
    """

    name: str | None
    point: Float64[np.ndarray, " d"]
    error: Float64[np.ndarray, " d"]
    likeliest: Float64[np.ndarray, " d"]
    unlikely: Float64[np.ndarray, " d"]


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
            return Found(name, at, none, at, none)
    return None


def solve(
    asker: Asker,
    target: int,
    spread: float,
    probabilities: bool,
    generator: np.random.Generator,
    *,
    exact: bool = True,
) -> Found | None:
    """Solve for the baseline coordinate by coordinate.

    Half of the coordinates, far out, hold the gradient fixed along almost all of the ray; the answers of the other half
    are then linear in their coordinates, `A_i = (x_i - b_i) G_i`, and a secant meets the baseline (P.2). Then the
    halves change places. Close to the baseline the gradient is constant, and the same secant gains all digits at once.

    Where rays need not begin there, it need not be `exact`, and what is left to see from elsewhere is left.
    """
    size = int(np.prod(asker.shape))
    half = generator.permutation(size) % 2 == 0
    signs = generator.choice((-1.0, 1.0), size)
    guess = np.zeros(size)
    for part in (half, ~half):
        solved = _part(asker, target, part, guess, signs, spread, probabilities)
        if solved is None:
            return None
        guess = np.where(part, solved[0], guess)
    found = polish(asker, target, guess, spread, signs, exact=exact)
    if found is None or np.isfinite(found.error).all() or asker.left < THOROUGH or not exact:
        return found
    # what the model does not look at near the baseline may show from elsewhere
    rest = ~np.isfinite(found.error)
    again = _part(
        asker, target, rest, found.point, generator.choice((-1.0, 1.0), size), spread, probabilities, SURE_ROUNDS
    )
    if again is None:
        return found
    point = np.where(rest & np.isfinite(again[1]), again[0], found.point)
    # a gradient that happened to vanish looks like the baseline too, but not from another side
    drive = 15.0 if probabilities else FAR
    aside = np.where(rest, point, point + generator.choice((-1.0, 1.0), size) * spread * drive)
    there = asker.sent(aside[None])[0]
    moved = asker.sent((aside + np.where(rest, 0.3 * spread * signs, 0))[None])[0]
    answer, other = (asker.ask(end[None], target).attribution[0] for end in (there, moved))
    slope = np.divide(other - answer, moved - there, out=np.zeros(size), where=moved != there)
    off = np.divide(np.abs(answer), np.abs(slope), out=np.full(size, np.inf), where=slope != 0)
    error = np.where(off < 0.01 * spread, np.maximum(4 * again[1], 4 * off), np.inf)
    whole = np.where(rest, error, found.error)
    likeliest, unlikely = np.where(rest, point, found.likeliest), np.where(rest, error, found.unlikely)
    return Found(None, point, whole, likeliest, unlikely)


def _part(
    asker: Asker,
    target: int,
    part: Bool[np.ndarray, " d"],
    centre: Float64[np.ndarray, " d"],
    signs: Float64[np.ndarray, " d"],
    spread: float,
    probabilities: bool,
    rounds: int = 0,
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, " d"]] | None:
    """Some coordinates of the baseline, the others being far out, and how far they may be off."""
    drive = FAR
    if probabilities:
        drive = FAR_PROBABILITIES_COARSE if asker.coarse else FAR_PROBABILITIES
    start = np.where(part, 0.7 * spread * signs, 0.0)
    while True:
        away = np.where(part, 0.0, centre + signs * spread * drive)
        last = asker.sent((away + start)[None])[0]
        before = asker.ask(last[None], target).attribution[0]
        if np.median(np.abs(before[part])) > _faint(asker) or (rounds and before[part].any()):
            break
        # the output is saturated on all of the ray but its beginning
        drive /= 6
        if drive < 2:
            return None
    point = asker.sent((away - start)[None])[0]
    error = np.full(part.size, np.inf)
    for number in range(ROUNDS):
        answer = asker.ask(point[None], target).attribution[0]
        step = np.where(part, _secant(point, last, answer, before, 4 * spread), 0.0)
        slope = np.divide(answer - before, point - last, out=np.zeros(point.size), where=point != last)
        floor = 2 * np.spacing(np.maximum(np.abs(point), 0.01 * spread).astype(asker.dtype)).astype(np.float64)
        seen = part & (slope != 0)
        error[:] = np.inf
        error[seen] = 4 * np.abs(step[seen]) + floor[seen] + 3 * asker.deviation(answer)[seen] / np.abs(slope[seen])
        error[error > 0.02 * spread] = np.inf
        last, before = point, answer
        point = asker.sent((point + step)[None])[0]
        if number + 1 >= rounds and np.quantile(np.abs(step[part]), 0.9) < 0.02 * spread:
            break
        if not rounds and drive >= 1000 and number:
            break
    return point, error


def polish(
    asker: Asker,
    target: int,
    guess: Float64[np.ndarray, " d"],
    spread: float,
    signs: Float64[np.ndarray, " d"],
    *,
    exact: bool = True,
) -> Found | None:
    """Gain the last digits close by; None where the answers do not fall to the rounding of the inputs."""
    last = asker.sent((guess + 0.01 * spread * signs)[None])[0]
    before = asker.ask(last[None], target).attribution[0]
    point = asker.sent(guess[None])[0]
    slope = np.zeros(point.size)
    for _ in range(ROUNDS + 1):
        answer = asker.ask(point[None], target).attribution[0]
        # what did not move any more keeps the slope that was seen
        fresh = (point != last) & (answer != before)
        slope = np.divide(answer - before, point - last, out=slope, where=fresh)
        step = np.divide(-answer, slope, out=np.zeros(point.size), where=slope != 0)
        step = np.clip(step, -0.5 * spread, 0.5 * spread)
        floor = 2 * np.spacing(np.maximum(np.abs(point), 0.01 * spread).astype(asker.dtype)).astype(np.float64)
        error = np.full(point.size, np.inf)
        seen = slope != 0
        error[seen] = 4 * np.abs(step[seen]) + floor[seen] + 3 * asker.deviation(answer)[seen] / np.abs(slope[seen])
        error *= 3 if asker.coarse else 1
        error[error > 0.02 * spread] = np.inf
        moved = (answer != 0) & (point != last)
        last, before = np.where(moved, point, last), np.where(moved, answer, before)
        point = asker.sent((point + step)[None])[0]
        most = np.sort(error)[int(0.8 * error.size)]
        if most <= (1e-3 if asker.coarse else 2e-5) * spread:
            return _confirmed(asker, target, point, error, spread * signs, EXACT_ROUNDS if exact else 0)
    return None


def _confirmed(
    asker: Asker,
    target: int,
    point: Float64[np.ndarray, " d"],
    error: Float64[np.ndarray, " d"],
    offset: Float64[np.ndarray, " d"],
    rounds: int,
) -> Found:
    """The point once more, with a small step the other way: its slope is that of the gradient at the baseline."""
    near = asker.sent((point - (5e-3 if asker.coarse else 2e-4) * offset)[None])[0]
    beside, at = asker.ask(np.stack([near, point]), target).attribution
    slope = np.divide(beside - at, near - point, out=np.zeros(point.size), where=near != point)
    seen = slope != 0
    step = np.divide(-at, slope, out=np.zeros(point.size), where=seen)
    trusted = seen & np.isfinite(error) & (np.abs(step) < 0.01 * np.abs(offset))
    point = asker.sent((point + step)[None])[0]
    floor = 2 * np.spacing(np.maximum(np.abs(point), 1e-3 * np.abs(offset)).astype(asker.dtype)).astype(np.float64)
    rounding = np.divide(asker.deviation(at), np.abs(slope), out=np.full(point.size, np.inf), where=seen)
    left = np.where(trusted, (4 * np.abs(step) + 3 * rounding + floor) * (3 if asker.coarse else 1), np.inf)
    likeliest, exact = point, np.zeros(point.size, bool)
    middle = None
    for _ in range(0 if asker.coarse else rounds):
        # an answer of 0 where a gradient was seen is the baseline to the last bit, unless it vanishes just there
        answer = asker.ask(likeliest[None], target).attribution[0]
        middle = answer if middle is None else middle
        exact = seen & (answer == 0)
        if exact[trusted].all():
            break
        aside = np.divide(-answer, slope, out=np.zeros(point.size), where=seen & ~exact)
        most = 0.01 * np.abs(offset)
        likeliest = asker.sent((likeliest + np.clip(aside, -most, most))[None])[0]
    if middle is None:
        middle = asker.ask(point[None], target).attribution[0]
    error = _bracketed(asker, target, point, middle, left)
    error[error > (CREDIBLE_COARSE if asker.coarse else CREDIBLE) * np.abs(offset)] = np.inf
    exact &= np.isfinite(error)
    return Found(None, point, error, np.where(exact, likeliest, point), np.where(exact, 0.0, error))


def _bracketed(
    asker: Asker,
    target: int,
    point: Float64[np.ndarray, " d"],
    middle: Float64[np.ndarray, " d"],
    error: Float64[np.ndarray, " d"],
) -> Float64[np.ndarray, " d"]:
    """The errors that answers on either side bear out; infinite where they do not.

    A coordinate answers `(x_i - b_i) G_i`, which changes its sign between two points only if the baseline lies between
    them or the gradient changes its own; and then the answer between the two is not the mean of theirs. All
    coordinates are asked at once, and again further out where need be.
    """
    shown = np.full(error.size, np.inf)
    for wider in BRACKETS:
        open_ = np.isfinite(error) & np.isinf(shown)
        if not open_.any():
            break
        width = np.where(open_, wider * error, 0.0)
        ends = asker.sent(np.stack([point - width, point + width]))
        below, above = asker.ask(ends, target).attribution
        share = np.divide(point - ends[0], ends[1] - ends[0], out=np.full(point.size, 0.5), where=open_)
        bent = np.abs(middle - below - share * (above - below)) > BENT * np.abs(above - below)
        reach = np.maximum(point - ends[0], ends[1] - point)
        shown = np.where(open_ & (below * above < 0) & ~bent, reach, shown)
    return shown


def _faint(asker: Asker) -> float:
    return 1e-4 if asker.coarse else 1e-30


def _secant(
    point: Float64[np.ndarray, " d"],
    last: Float64[np.ndarray, " d"],
    answer: Float64[np.ndarray, " d"],
    before: Float64[np.ndarray, " d"],
    most: float,
) -> Float64[np.ndarray, " d"]:
    change = answer - before
    step = np.divide(-answer * (point - last), change, out=np.zeros(point.size), where=change != 0)
    clipped: Float64[np.ndarray, " d"] = np.clip(step, -most, most)
    return clipped
