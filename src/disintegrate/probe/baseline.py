"""The service's own baseline, from answers that vanish where the input meets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import NotPermitted
from disintegrate.probe.asking import Asker

FAR = 3000.0
FAR_PROBABILITIES, FAR_PROBABILITIES_COARSE = 150.0, 15.0
ROUNDS = 4


@dataclass(frozen=True, eq=False)
class Found:
    """A baseline, flat: its name among the candidates if it has one, and how far each coordinate may be off."""

    name: str | None
    point: Float64[np.ndarray, " d"]
    error: Float64[np.ndarray, " d"]


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
            return Found(name, asker.sent(point[None])[0], np.zeros(point.size))
    return None


def solve(asker: Asker, target: int, spread: float, probabilities: bool, generator: np.random.Generator) -> Found | None:
    """Solve for the baseline coordinate by coordinate.

    Half of the coordinates, far out, hold the gradient fixed along almost all of the ray; the answers of the other half
    are then linear in their coordinates, `A_i = (x_i - b_i) G_i`, and a secant meets the baseline (P.2). Then the
    halves change places. Close to the baseline the gradient is constant, and the same secant gains all digits at once.
    """
    size = int(np.prod(asker.shape))
    parity = generator.permutation(size) % 2 == 0
    signs = generator.choice((-1.0, 1.0), size)
    guess = np.zeros(size)
    drive = FAR
    if probabilities:
        drive = FAR_PROBABILITIES_COARSE if asker.coarse else FAR_PROBABILITIES
    for half in (parity, ~parity):
        start = np.where(half, 0.7 * spread * signs, 0.0)
        while True:
            away = np.where(half, 0.0, signs * spread * drive)
            last = asker.sent((away + start)[None])[0]
            before = asker.ask(last[None], target).attribution[0]
            if np.median(np.abs(before[half])) > _faint(asker):
                break
            # the output is saturated on all of the ray but its beginning
            drive /= 6
            if drive < 3:
                return None
        point = asker.sent((away - start)[None])[0]
        for _ in range(ROUNDS):
            answer = asker.ask(point[None], target).attribution[0]
            step = np.where(half, _secant(point, last, answer, before, 4 * spread), 0.0)
            last, before = point, answer
            point = asker.sent((point + step)[None])[0]
            if np.quantile(np.abs(step[half]), 0.9) < 0.02 * spread:
                break
            if drive >= 1000 and last[half][0] != (away - start)[half][0]:
                break
        guess = np.where(half, point, guess)
    return polish(asker, target, guess, spread, signs)


def polish(
    asker: Asker, target: int, guess: Float64[np.ndarray, " d"], spread: float, signs: Float64[np.ndarray, " d"]
) -> Found | None:
    """Gain the last digits close by; None where the answers do not fall to the rounding of the inputs."""
    last = asker.sent((guess + 0.01 * spread * signs)[None])[0]
    before = asker.ask(last[None], target).attribution[0]
    point = asker.sent(guess[None])[0]
    for _ in range(ROUNDS + 1):
        answer = asker.ask(point[None], target).attribution[0]
        step = _secant(point, last, answer, before, 0.5 * spread)
        slope = np.divide(answer - before, point - last, out=np.zeros(point.size), where=point != last)
        floor = 2 * np.spacing(np.maximum(np.abs(point), 0.01 * spread).astype(asker.dtype)).astype(np.float64)
        error = np.full(point.size, np.inf)
        seen = slope != 0
        error[seen] = 3 * np.abs(step[seen]) + floor[seen] + 3 * asker.deviation(answer)[seen] / np.abs(slope[seen])
        error[error > 0.02 * spread] = np.inf
        moved = (answer != 0) & (point != last)
        last, before = np.where(moved, point, last), np.where(moved, answer, before)
        point = asker.sent((point + step)[None])[0]
        if np.quantile(error, 0.8) <= max(1e-5 * spread, float(2 * np.median(floor))):
            return Found(None, point, _confirmed(asker, target, point, error, slope, spread * signs))
    return None


def _confirmed(
    asker: Asker,
    target: int,
    point: Float64[np.ndarray, " d"],
    error: Float64[np.ndarray, " d"],
    slope: Float64[np.ndarray, " d"],
    offset: Float64[np.ndarray, " d"],
) -> Float64[np.ndarray, " d"]:
    """Errors no smaller than what an independent answer, a small step the other way, leaves of them."""
    near = asker.sent((point - (5e-3 if asker.coarse else 2e-4) * offset)[None])[0]
    answer = asker.ask(near[None], target).attribution[0]
    elsewhere = near - np.divide(answer, slope, out=np.full(point.size, np.inf), where=slope != 0)
    apart = np.abs(elsewhere - point)
    apart = np.maximum(apart - 3 * asker.deviation(answer) / np.where(slope != 0, np.abs(slope), 1), 0)
    return np.where(apart < 0.02 * np.abs(offset), np.maximum(error, 2 * apart), np.inf)


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
    return np.clip(step, -most, most)
