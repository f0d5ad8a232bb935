"""Which rule makes the staircase of a kink far out of `kink_far_out`, by answers along a line across it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64
from kink_far_out import FarLine

from disintegrate.probe.one_kink import quadrature
from disintegrate.probe.staircase import Readings, patterns, readings

# Numbers along one or two axes.
Values = Float64[np.ndarray, "..."]

# Answers that look for the staircase, and where on the path they put the kink, one after the other.
LOOKS, PATHS = 9, (0.5, 1.03, 0.7, 0.3, 0.9, 0.2, 0.6, 0.97, 0.4)
# How far off a smooth staircase answers may lie; how rough the outputs' kink may be; and its most.
ROUGH, ROUGH_OUTPUT, MOST_OUTPUT = 0.05, 3e-3, 60.0
# Places and lengths that are tried for it.
PLACES, NEAR, LENGTHS = 61, 12, 36
# How far beyond the kink's length answers count.
REACH = 40.0
# Places of the outputs' kink that are tried, by so much more of their misfit.
ENDS, WORSE = 31, 16.0
# How badly the outputs may hold one kink alone; how far the length may lie from the smooth one, and further for few
# nodes; and how bad a shape is that is looked at no more.
BLURRED = 3.0
CLOSE, FEWER, HOPELESS = 0.06, 3.0, 100.0
# Noise beyond that of the wire, where nodes near the baseline see other kinks.
SCATTERS = (0.0, 1e-4, 1e-3)
# Answers that must be left to contradict a rule; how far it may lie from them, in squares of the noise for each; and
# how much more the others must cost.
SPARE, WORST, MARGIN = 5, 2.5, 25.0
# How many answers are asked at a time, among how many places; for how many rivals; by differences of so much noise.
MORE, CANDIDATES, RIVALS, CLEAR, LEAST = 3, 300, 12, 60.0, 3e-3


@dataclass(frozen=True, eq=False)
class Shape:
    """Nodes above 0, ascending, the weights beyond each as a share of all, and the rules that have them."""

    members: tuple[tuple[str, int], ...]
    nodes: Float64[np.ndarray, " n"]
    above: Float64[np.ndarray, " n+1"]


@dataclass(frozen=True, eq=False)
class Smooth:
    """Where a staircase lies on a line: which way it goes, where its end crosses, and its length."""

    sign: int
    end: float
    length: float


@dataclass(frozen=True, eq=False)
class FarFit:
    """How well a shape explains the answers: the misfit, and where it puts the end and the length."""

    shape: Shape
    misfit: float
    end: float
    length: float


@dataclass(frozen=True, eq=False)
class FarVerdict:
    """The shapes that are left, the best first; whether one is; how many answers were weighed, and how many are spare.

    Attributes:
        fits: the shapes that explain the answers nearly as well as the best.
        decided: whether only one is left.
        answers: how many were weighed.
        spare: how many of these were left to contradict it.
        near: the shapes that are not hopeless.
    """

    fits: tuple[FarFit, ...]
    decided: bool
    answers: int
    spare: int
    near: tuple[Shape, ...]


@lru_cache
def far_shapes() -> tuple[Shape, ...]:
    """All that a kink far out can tell apart: nodes above 0 as they are, weights over their sum."""
    alike: dict[tuple[float, ...], list[tuple[tuple[str, int], np.ndarray, Values]]] = {}
    for pattern in patterns():
        for rule, steps in pattern.members:
            nodes, weights = quadrature(rule, steps)
            order = np.argsort(nodes)
            order = order[nodes[order] > 0]
            if not len(order):
                continue
            nodes, weights = nodes[order], weights[order] / weights[order].sum()
            key = (len(nodes), *np.round(np.append(nodes[[0, -1]], weights[[0, -1]]), 6))
            alike.setdefault(key, []).append(((rule, steps), nodes, weights))
    return tuple(
        Shape(tuple(one[0] for one in same), same[0][1], np.append(np.cumsum(same[0][2][::-1])[::-1], 0.0))
        for same in alike.values()
    )


def located(line: FarLine, generator: np.random.Generator, kept: int) -> Smooth | None:
    """Where the staircase of a line lies: each answer is asked where one of the likely ones would be amid it."""
    for place in (-line.width, line.width, 0.0)[: max(line.seen.asker.left - kept, 0)]:
        line.ask(place)
    found = None
    for number in range(LOOKS):
        if line.seen.asker.left <= kept:
            break
        chance, signs, ends, lengths = _likely(line)
        pick = int(generator.choice(len(chance), p=chance))
        path = PATHS[number % len(PATHS)]
        line.ask(signs[pick] * (ends[pick] - lengths[pick] + lengths[pick] / path))
        chance, signs, ends, lengths = _likely(line)
        best = int(np.argmax(chance))
        found = Smooth(int(signs[best]), float(ends[best]), float(lengths[best]))
    if found is not None and line.seen.asker.left > kept:
        # the outputs' slope before their kink
        line.ask((found.sign * found.end - found.sign * line.width) / 2)
    return found


def _likely(line: FarLine) -> tuple[np.ndarray, np.ndarray, np.ndarray, Values]:
    places = np.array(line.places)
    shares = shares_of(line)
    outputs = np.array([line.seen.outputs[row] for row in line.rows])
    noise = np.array([line.seen.output_noise[row] for row in line.rows])
    noise = np.hypot(noise, ROUGH_OUTPUT * np.ptp(outputs))
    reach = np.geomspace(1e-3, 1.0, NEAR) * line.width
    around = (places[:, None] + np.concatenate([-reach, reach])).ravel()
    at = np.concatenate([np.linspace(-2, 2, PLACES) * line.width, around])
    kinks = np.array([_bent(places, outputs, noise, place) for place in at]) if len(places) > 4 else np.zeros(len(at))
    kinks = np.minimum(kinks - kinks.min(), MOST_OUTPUT)
    lengths = np.geomspace(3e-4, 3.0, LENGTHS) * line.width
    size = max(float(np.ptp(shares)), 1e-300)
    found = []
    for sign in (1, -1):
        beyond = sign * (places - at[:, None])[:, None, :]
        smooth = np.where(beyond > 0, beyond / np.maximum(beyond + lengths[:, None], 1e-300), 0.0)
        centred = smooth - smooth.mean(-1, keepdims=True)
        own = shares - shares.mean()
        square = np.maximum((centred**2).sum(-1), 1e-12)
        slope = (centred @ own) / square
        rest = ((own - slope[..., None] * centred) ** 2).sum(-1)
        score = -rest / (2 * (ROUGH * size) ** 2) - kinks[:, None] / 2
        found.append(np.where(slope * sign > 0, score, -np.inf))
    score = np.array(found)
    chance = np.exp(score - score.max())
    signs, ends, sizes = np.broadcast_arrays(np.array([1, -1])[:, None, None], at[None, :, None], lengths)
    return (chance / chance.sum()).ravel(), signs.ravel(), (signs * ends).ravel(), sizes.ravel()


def shares_of(line: FarLine) -> Values:
    """How far each gradient lies on the way that they take."""
    rows = np.array([line.seen.gradients[row] for row in line.rows])
    ends = np.argsort(line.places)[[0, -1]]
    way = rows[ends[1]] - rows[ends[0]]
    found: Values = (rows - rows[ends[0]]) @ way / max(float(way @ way), 1e-300)
    return found


def _bent(places: np.ndarray, outputs: np.ndarray, noise: np.ndarray, place: float) -> float:
    """What is left of outputs by a line with one kink, in squares of the noise."""
    design = np.column_stack([np.ones(len(places)), places, np.maximum(places - place, 0.0)]) / noise[:, None]
    data = outputs / noise
    return float(((data - design @ np.linalg.lstsq(design, data, rcond=None)[0]) ** 2).sum())


def told_far_out(
    line: FarLine,
    smooth: Smooth,
    generator: np.random.Generator,
    kept: int,
) -> FarVerdict | None:
    """Ask along the line until one shape is left that explains answers which it has not seen."""
    shapes: Sequence[Shape] = far_shapes()
    before: Shape | None = None
    verdict = None
    while True:
        verdict = _weighed(line, smooth, shapes)
        alone = verdict.fits[0].shape if verdict is not None and verdict.decided else None
        if alone is not None and alone is before:
            return verdict
        before = alone
        count = min(MORE, line.seen.asker.left - kept)
        if count <= 0:
            return verdict
        if verdict is not None:
            smooth = Smooth(smooth.sign, verdict.fits[0].end, verdict.fits[0].length)
            shapes = verdict.near
        for place in _telling(smooth, verdict, count, generator):
            line.ask(smooth.sign * place)


def _telling(smooth: Smooth, verdict: FarVerdict | None, count: int, generator: np.random.Generator) -> Sequence[float]:
    places = smooth.end - smooth.length + smooth.length / generator.uniform(0.08, 1.05, CANDIDATES)
    if verdict is None or len(verdict.fits) < 2:
        return [float(place) for place in places[:count]]
    expected = np.array([_staircase(fit.shape, places - fit.end, fit.length) for fit in verdict.fits[: RIVALS + 1]])
    gaps = np.minimum(((expected[1:] - expected[0]) / LEAST) ** 2, CLEAR)
    open_ = np.ones(len(gaps))
    chosen: list[int] = []
    for _ in range(count):
        worth = open_ @ gaps
        worth[chosen] = -1.0
        chosen.append(int(np.argmax(worth)))
        open_ = open_ * np.exp(-gaps[:, chosen[-1]] / 20)
    return [float(places[index]) for index in chosen]


def _staircase(shape: Shape, beyond: np.ndarray, length: float) -> Values:
    path = np.where(beyond > 0, length / np.maximum(beyond + length, 1e-300), 2.0)
    found: Values = shape.above[np.searchsorted(shape.nodes, path, side="right")]
    return found


def _weighed(line: FarLine, smooth: Smooth, shapes: Sequence[Shape]) -> FarVerdict | None:
    beyond = smooth.sign * np.array(line.places)
    kept = np.abs(beyond - smooth.end) < REACH * smooth.length
    rows = [row for row, keep in zip(line.rows, kept, strict=True) if keep]
    beyond = beyond[kept]
    if len(rows) < SPARE + 2:
        return None
    seen = line.seen
    answers, noise = (np.array([values[row] for row in rows]) for values in (seen.gradients, seen.noise))
    finite = np.isfinite(noise).all(0)
    answers, noise = answers[:, finite], noise[:, finite]
    outputs = np.array([seen.outputs[row] for row in rows])
    output_noise = np.array([seen.output_noise[row] for row in rows])
    ends, costs, blur = _ends(beyond, outputs, output_noise)
    smooth = _smoothed(line, smooth, ends[int(np.argmin(costs))], kept)
    verdict = None
    for scatter in SCATTERS:
        found = readings(beyond, answers, np.hypot(noise, scatter * np.sqrt((answers**2).mean(0))), 0)
        if not len(found.strength):
            break
        if found.freedom < SPARE:
            continue
        fits = sorted((_fit(found, shape, smooth, ends, costs) for shape in shapes), key=lambda fit: fit.misfit)
        scale = max(fits[0].misfit / found.freedom, 1.0)
        left = tuple(fit for fit in fits if fit.misfit < fits[0].misfit + MARGIN * scale)
        near = tuple(fit.shape for fit in fits if fit.misfit < HOPELESS * fits[0].misfit + HOPELESS * MARGIN)
        explained = scale < WORST and blur < BLURRED
        verdict = FarVerdict(left, len(left) == 1 and explained, len(rows), found.freedom, near)
        if scale < WORST:
            break
    return verdict


def _smoothed(line: FarLine, smooth: Smooth, end: float, kept: Values) -> Smooth:
    """The length that suits best for an end that the outputs tell."""
    beyond = np.maximum(smooth.sign * np.array(line.places)[kept] - end, 0.0)
    shares = shares_of(line)[kept]
    lengths = smooth.length * np.geomspace(0.2, 5.0, 400)
    curves = beyond / (beyond + lengths[:, None])
    curves = curves - curves.mean(1, keepdims=True)
    own = shares - shares.mean()
    slope = (curves @ own) / np.maximum((curves**2).sum(1), 1e-12)
    rest = ((own - slope[:, None] * curves) ** 2).sum(1)
    return Smooth(smooth.sign, float(end), float(lengths[int(np.argmin(rest))]))


def _ends(beyond: np.ndarray, outputs: np.ndarray, noise: Values) -> tuple[np.ndarray, np.ndarray, float]:
    """Where the outputs' kink may lie, and their misfit there."""
    grid = np.linspace(beyond.min(), beyond.max(), 200)
    for _ in range(4):
        misfits = np.array([_bent(beyond, outputs, noise, place) for place in grid])
        near = np.flatnonzero(misfits < misfits.min() + WORSE)
        low, high = grid[max(near.min() - 1, 0)], grid[min(near.max() + 1, len(grid) - 1)]
        grid = np.linspace(low, high, 40)
    grid = np.linspace(low, high, ENDS)
    misfits = np.array([_bent(beyond, outputs, noise, place) for place in grid])
    # where more than one kink bends them, they say less
    blur = max(float(misfits.min()) / max(len(beyond) - 4, 1), 1.0)
    return grid, (misfits - misfits.min()) / blur, blur


def _fit(found: Readings, shape: Shape, smooth: Smooth, ends: np.ndarray, costs: Values) -> FarFit:
    within = 1 + CLOSE + FEWER / len(shape.nodes)
    low, high = smooth.length / within, smooth.length * within
    inner = shape.nodes[shape.nodes < 1]
    pairs = []
    for number, end in enumerate(ends):
        beyond = found.scales - end
        edges = np.multiply.outer(inner / (1 - inner), beyond[beyond > 0]).ravel()
        edges = np.concatenate([[low], np.sort(edges[(edges > low) & (edges < high)]), [high]])
        lengths = np.sqrt(edges[1:] * edges[:-1])[np.diff(edges) > 1e-9 * high]
        pairs.append(np.stack([np.full(len(lengths), float(number)), lengths]))
    which, lengths = np.concatenate(pairs, 1)
    number = which.astype(int)
    beyond = found.scales[:, None] - ends[number]
    path = np.where(beyond > 0, lengths / np.maximum(beyond + lengths, 1e-300), 2.0)
    columns = shape.above[np.searchsorted(shape.nodes, path, side="right")] * found.certainty[:, None]
    columns = columns - found.drift @ (found.drift.T @ columns)
    inside = found.signal.T @ columns
    square = (columns**2).sum(0)
    noise = np.sqrt(((inside / found.strength[:, None]) ** 2).sum(0))
    size = np.sqrt(square)
    noise = np.clip(noise, 1e-7 * size, 6 * size / found.strength[0])
    misfits = np.maximum(square - (inside**2).sum(0), 0.0) / np.maximum(noise**2, 1e-300) + costs[number]
    misfits[size < 1e-4 * np.linalg.norm(found.certainty)] = np.inf
    at = int(np.argmin(misfits))
    # two numbers that are nearly equal lose digits
    exact = float(((columns[:, at] - found.signal @ inside[:, at]) ** 2).sum()) / max(float(noise[at]) ** 2, 1e-300)
    return FarFit(shape, exact + float(costs[number[at]]), float(ends[number[at]]), float(lengths[at]))
