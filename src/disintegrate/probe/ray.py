"""Which scales of a ray are asked, and what rule and steps their answers leave."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.asking import Asker
from disintegrate.probe.staircase import Fit, Pattern, Readings, explain, patterns, readings, refine, scan

FIRST, SHRINK, SMALLEST = 0.5, 0.22, 1e-5
BISECTIONS = 3
REACH, REACH_DRIFTING = 5.0, 2.5
# Where ties of the model leave noise at the smallest scales: what counts as no change, and as no jump.
TIED, TIED_FLOOR = 2e-2, 3e-3
CANDIDATES, CANDIDATES_DRIFTING, PROMISING, REFINED = 40, 120, 250, 12
# What the second-best pattern must miss more than the best, and what the best may miss, in units of the noise.
MARGIN, WORST = 45.0, 3.0
DRIFTING = 2.5
# How far the first staircase may lie from the answers to be part of them, and from where on it is none.
NEAR, STRANGE = 3.0, 1000.0


@dataclass(frozen=True, eq=False)
class Origin:
    """Where rays begin: the point, how far it may be off, and what is sent as the baseline (None: nothing)."""

    point: Float64[np.ndarray, " d"]
    error: Float64[np.ndarray, " d"]
    named: Float64[np.ndarray, " d"] | None = None


class Ray:
    """Answers at scales of one ray, divided by what was moved."""

    def __init__(
        self, asker: Asker, origin: Origin, direction: Float64[np.ndarray, " d"], target: int, steps: int | None = None
    ) -> None:
        self.asker = asker
        self.origin = origin
        self.direction = direction
        self.target = target
        self.steps = steps
        self.blur = 0.0
        self.scales: list[float] = []
        self.raw: list[Float64[np.ndarray, " d"]] = []
        self.moved: list[Float64[np.ndarray, " d"]] = []
        self.outputs: list[float] = []

    def ask(self, scales: Float64[np.ndarray, " k"] | list[float]) -> None:
        """Ask at these scales, all in one request."""
        wanted = np.asarray(scales, np.float64)
        points = self.asker.sent(self.origin.point + wanted[:, None] * self.direction)
        answer = self.asker.ask(points, self.target, steps=self.steps, origin=self.origin.named)
        self.scales += wanted.tolist()
        self.raw += list(answer.attribution)
        self.moved += list(points - self.origin.point)
        self.outputs += answer.output.tolist()

    def divided(self) -> tuple[Float64[np.ndarray, "q d"], Float64[np.ndarray, "q d"]]:
        """The answers divided by what was moved, and their standard deviations; both 0 where nothing is known."""
        size = self.origin.point.size
        raw, moved = (np.array(values).reshape(-1, size) for values in (self.raw, self.moved))
        error = self.origin.error
        usable = ((moved != 0) & (error < 0.02 * np.abs(moved))).all(0)
        raw, moved, error = raw[:, usable], np.abs(moved[:, usable]) * np.sign(moved[:, usable]), error[usable]
        rho = raw / moved
        typical = np.linalg.norm(rho, axis=1, keepdims=True) / np.sqrt(max(rho.shape[1], 1))
        size = np.abs(moved)
        noise = np.sqrt((self.asker.deviation(raw) / size) ** 2 + (2e-7 * typical) ** 2 + (error / size * rho) ** 2)
        return rho, noise

    def forget(self, last: int) -> None:
        """Drop the answers up to one: a kink lies so far out that they are none of a ray's end."""
        for kept in (self.scales, self.raw, self.moved, self.outputs):
            del kept[1 : last + 1]

    def totals(self) -> tuple[Float64[np.ndarray, " q"], Float64[np.ndarray, " q"]]:
        """Sums of attributions, and their standard deviations."""
        raw = np.array(self.raw)
        spread = np.sqrt((self.asker.deviation(raw) ** 2).sum(1) + (2e-7 * np.abs(raw).sum(1)) ** 2)
        return raw.sum(1), spread

    def differ(self, one: int, other: int) -> bool:
        """Whether two answers differ by more than noise."""
        answers, deviations = self.divided()
        if not answers.shape[1]:
            return False
        noise = np.hypot(deviations[one], deviations[other])
        noise = np.hypot(noise, self.blur * np.sqrt((answers**2).mean(0)))
        gap = (answers[one] - answers[other]) / np.where(noise > 0, noise, np.inf)
        return float(gap @ gap) / len(gap) > 1.4 + 6 * float(np.sqrt(2 / len(gap)))

    def below(self, cap: float, drift: int, floor: float) -> Readings | None:
        """The readings at scales up to some cap, blurred by a share of their size that no model of drift covers."""
        kept = np.array(self.scales) <= cap * (1 + 1e-9)
        answers, deviations = self.divided()
        deviations = np.hypot(deviations, floor * np.sqrt((answers**2).mean(0)))
        if not answers.shape[1]:
            return None
        return readings(np.array(self.scales)[kept], answers[kept], deviations[kept], drift)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a ray says: the best fits, whether the first of them stands alone, and why."""

    fits: tuple[Fit, ...]
    decided: bool
    evidence: str
    usable: bool = False
    scale: float = 1.0
    cap: float = 0.0
    drift: tuple[int, float] = (0, 0.0)
    first: float = 0.0


def explore(ray: Ray, drifts: tuple[tuple[int, float], ...], reserve: int) -> Verdict:
    """Find the first kinks of a ray, ask beyond them, and say which patterns explain the answers.

    Asks further scales until one pattern is left, the budget but for a reserve is spent, or nothing helps.
    """
    first = _first_kink(ray)
    if first is None:
        return Verdict((), False, "the answers do not change along the ray beyond what the wire rounds")
    if ray.blur == TIED:
        drifts = ((drifts[-1][0], TIED_FLOOR),)
    cap = (REACH if len(drifts) == 1 else REACH_DRIFTING) * first
    ray.ask(_grid(12, first, cap, 0.0))
    verdict = Verdict((), False, "too few queries for the kinks of the ray")
    rounds, known = 0, list(patterns())
    while True:
        rounds += 1
        verdict, cap, known = _judge(ray, first, cap, drifts, known)
        if verdict.decided or ray.asker.left - reserve < 6 or rounds > 3:
            return verdict
        ray.ask(_grid(6, max(first, cap / 2.5) if rounds % 2 else first, cap, 0.37 * rounds))


def _grid(count: int, low: float, high: float, shift: float) -> Float64[np.ndarray, " k"]:
    return low * (high / low) ** (((np.arange(count) + 0.5 + shift) / count) % 1)


def _first_kink(ray: Ray) -> float | None:
    scale = FIRST
    ray.ask([scale])
    while scale > SMALLEST:
        scale *= SHRINK
        ray.ask([scale])
        if not ray.differ(-1, -2):
            break
    base = len(ray.scales) - 1
    if scale <= SMALLEST:
        # max pooling over equal neighbours ties at the baseline, and rounding decides: look for a plateau above
        ray.blur = TIED
        base = next((k for k in range(1, base) if not ray.differ(k, k + 1)), base)
    if base == 1:
        # nothing changes below the first scale: look further out
        for further in (4.0, 40.0):
            ray.ask([further])
            if ray.differ(-1, base):
                break
        else:
            return None
        low, high = ray.scales[-2] if further > 4 else FIRST, further
    else:
        low, high = ray.scales[base - 1], ray.scales[base - 2]
        if ray.blur == TIED:
            low, high = ray.scales[base], ray.scales[base - 1]
    for _ in range(BISECTIONS):
        middle = float(np.sqrt(low * high))
        ray.ask([middle])
        low, high = (low, middle) if ray.differ(-1, base) else (middle, high)
    return high


def _judge(
    ray: Ray, first: float, cap: float, drifts: tuple[tuple[int, float], ...], known: list[Pattern]
) -> tuple[Verdict, float, list[Pattern]]:
    best: Verdict | None = None
    promising: set[int] = set()
    next_cap = cap
    for drift, floor in drifts:
        found, reached = _readable(ray, cap, drift, floor)
        next_cap = max(min(cap, reached * 1.25), 1.5 * first)
        if found is None or len(found.strength) == 0:
            continue
        if reached >= 0.8 * cap and found.freedom > 2 * len(found.strength) + 6:
            next_cap = 1.8 * cap
        fits, nearest = _fits(found, first, reached, known)
        promising |= set(nearest)
        verdict = replace(_verdict(fits, found), cap=reached, drift=(drift, floor), first=first)
        if best is None or (verdict.decided and not best.decided):
            best = verdict
        if verdict.decided:
            break
    return (
        best or Verdict((), False, "too many kinks for the queries that were left"),
        next_cap,
        [known[i] for i in sorted(promising)] or known,
    )


def _readable(ray: Ray, cap: float, drift: int, floor: float) -> tuple[Readings | None, float]:
    """The readings up to the largest scale at which kinks leave rows to contradict a rule."""
    for scale in sorted((s for s in ray.scales if s <= cap), reverse=True):
        found = ray.below(scale, drift, floor)
        if found is None or len(found.scales) < drift + 6:
            break
        if found.freedom >= max(7, 1.3 * len(found.strength)):
            return found, scale
    return None, cap / 2


def _fits(found: Readings, first: float, reached: float, known: list[Pattern]) -> tuple[tuple[Fit, ...], list[int]]:
    apart = []
    for pattern in known:
        _, far, total = scan(found, pattern, 0.4 * first, first)
        apart.append(float(np.where(total > 1e-12, far, np.inf).min()))
    order = [int(i) for i in np.argsort(apart)]
    lowest = 0.02 * float(found.scales.min())
    # a drift blurs which staircases are part of the answers
    tried = CANDIDATES_DRIFTING if found.ramps else CANDIDATES
    fits = [replace(explain(found, known[i], lowest, reached), apart=apart[i]) for i in order[:tried]]
    fits.sort(key=lambda fit: fit.cost)
    fits[:REFINED] = [refine(found, fit, lowest, reached) for fit in fits[:REFINED]]
    return tuple(sorted(fits, key=lambda fit: fit.cost)), order[:PROMISING]


def _verdict(fits: tuple[Fit, ...], found: Readings) -> Verdict:
    best = fits[0]
    per = best.misfit / max(best.freedom, 1)
    # a drift that is only modelled leaves more than noise
    scale = max(per, 1.0) * (DRIFTING if found.ramps else 1.0)
    # a rival whose first staircase is no part of the answers needs kinks that are not there: half the margin will do
    near = best.apart < NEAR
    rivals = tuple(
        fit for fit in fits if fit.cost - best.cost < MARGIN * scale * (0.5 if near and fit.apart > STRANGE else 1)
    )
    free = found.drift.shape[1] + (2 if found.ramps else 1.5) * len(best.kinks) + 5
    enough = len(found.scales) >= free
    fine = enough and per < WORST
    name = _named(best.pattern)
    if fine and len(rivals) == 1:
        second = f"; the next best, {_named(fits[1].pattern)}, misses {fits[1].misfit:.3g}" if len(fits) > 1 else ""
        evidence = (
            f"{len(found.scales)} scales of a ray show {len(best.kinks)} kinks whose staircases are those of {name}: "
            f"it misses {best.misfit:.3g} where noise would {best.freedom}{second}"
        )
        return Verdict(rivals, True, evidence, usable=True, scale=scale)
    if not fine:
        if not enough:
            return Verdict(fits[:5], False, f"{len(found.scales)} scales are few for {len(best.kinks)} kinks")
        return Verdict(fits[:5], False, f"no rule explains {len(found.scales)} scales; {name} comes nearest")
    several = ", ".join(_named(fit.pattern) for fit in rivals[:4])
    return Verdict(
        rivals, False, f"{len(rivals)} rules explain {len(found.scales)} scales alike: {several}", True, scale
    )


def _named(pattern: Pattern) -> str:
    rule, steps = pattern.members[0]
    return f"{rule}({steps})"
