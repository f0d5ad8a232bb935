"""Asking along a ray whose first kink is known, until one pattern of nodes and weights is left."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.alike import have_siblings
from disintegrate.probe.anchored import anchored
from disintegrate.probe.design import telling_scales
from disintegrate.probe.first_kink import WITHIN
from disintegrate.probe.ray import Bracket, Ray
from disintegrate.probe.staircase import Fit, Pattern, Readings

# Scales asked at first and in each later round, up to so many times that of the kink.
START, MORE, ROUNDS = 10, 6, 8
REACH, FURTHER, FARTHEST, NEAREST = 2.2, 1.5, 4.5, 1.3
# Answers that must confirm a pattern where the gradient drifts, and what is kept for telling siblings apart meanwhile.
CONFIRMING, LEAST_KEPT = 5, 4
# How far each of them may lie from it, in squares of the noise.
UNSEEN = 3.0
# Powers of the scale by which the gradient may drift between kinks: behind a softmax, where it does, and elsewhere.
DRIFTS, STEADY = (0, 1, 2, 3), (0,)
# Noise beyond that of the wire, where ties or many kinks leave no rows to contradict a rule.
SCATTERS = (0.0, 1e-4, 1e-3, 3e-3)
# How much more the second-best pattern must cost than the best; how far the best may lie from the answers, in units of
# the noise; and with how many rows to spare, at least and as a share.
MARGIN, WORST, SPARE, SHARE = 25.0, 2.0, 6, 0.4
# What no pattern explains to the last digit, as other kinks are mixed in, is still that of one of so many nodes if no
# other comes so near by so many times.
ALONE, MANY = 10.0, 6
# By how many times one must be better than any other to need no confirmation, however few there are; and how far it
# must lie from the answers, in units of the noise, or that was taken for too large to exclude any.
CERTAIN, SUSPECT = 1e3, 0.2
# Rules of so few nodes, and so few patterns, are told apart by sums where so many answers leave no other, and further
# ones that should have told them apart did not so many times.
FEWEST_NODES, FEW_NODES, SUMMED, TAKEN, TAKEN_MORE, TRIES = 3, 8, 50, 14, 20, 3
# The same where so few patterns are possible that hardly one of them could fit by chance.
FEW, SPARE_FEW, SHARE_FEW = 8, 3, 0.2
# How much nearer an answer shows whether what looks like so few nodes is the end of more; what must be left to go on
# from there.
CLOSER, LEAST_LEFT = 0.05, 8
# Queries that it takes to find a kink, to turn to it, and to tell its staircase.
STAIRCASE = 25


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a ray says: the best fits, whether the first of them stands alone, and why.

    Attributes:
        fits: the patterns that explain the answers nearly as well as the best, the best first.
        decided: whether only one is left.
        evidence: the reason, as a sentence.
        scale: how many times noise the best one misses, at least 1.
        found: the answers that were judged.
        cap: the largest scale that was judged.
        drift: the powers of the scale by which the gradient may drift.
        near: where the kink was expected.
        second: how badly the next best pattern fits where only one is left.
    """

    fits: tuple[Fit, ...]
    decided: bool
    evidence: str
    scale: float = 1.0
    found: Readings | None = None
    cap: float = 0.0
    drift: int = 0
    near: float = 0.0
    second: float = math.inf

    @property
    def narrow(self) -> bool:
        """Whether the one that is left is not so much better than the next, so that chance may have chosen."""
        return self.decided and self.second < ALONE * self.fits[0].misfit

    @property
    def alone(self) -> bool:
        """Whether one of several fits so well and all others so badly that chance did not choose it."""
        if not self.decided:
            return False
        misfit, freedom = self.fits[0].misfit, self.fits[0].freedom
        return SUSPECT * freedom < misfit and CERTAIN * max(misfit, freedom) < self.second < math.inf

    @property
    def fewest_nodes(self) -> bool:
        """Whether all have so few nodes that staircases of others look like them."""
        return all(len(fit.pattern.nodes) <= FEWEST_NODES for fit in self.fits)

    def refuted_since(self, before: Verdict) -> bool:
        """Whether chance may still have chosen the pattern, and answers that came since lie too far from it."""
        if not (self.narrow and self.found and before.found) or self.fits[0].pattern is not before.fits[0].pattern:
            return False
        more = len(self.found.scales) - len(before.found.scales)
        return self.fits[0].misfit - before.fits[0].misfit > UNSEEN * more > 0

    @property
    def numbers(self) -> list[int]:
        """The numbers of steps of the rules that are left, the likeliest first."""
        fits = sorted(self.fits, key=lambda fit: fit.misfit)
        return list(dict.fromkeys(steps for fit in fits for _, steps in fit.pattern.members))

    @property
    def few_nodes(self) -> bool:
        """Whether many answers leave rules of so few nodes alone that sums of attributions tell them apart."""
        if self.found is None or len(self.fits) > SUMMED:
            return False
        most = max((len(fit.pattern.nodes) for fit in self.fits), default=0)
        taken = TAKEN if most <= FEWEST_NODES else TAKEN_MORE
        return len(self.found.scales) >= taken and most <= FEW_NODES

    def open_still(self, reason: str) -> Verdict:
        """The verdict where the one that is left is not to be named after all."""
        return replace(self, decided=False, evidence=f"{self.evidence}; but {reason}")

    def with_steps(self, steps: int) -> Verdict:
        """The verdict where the service's own number of steps is known, and is that of some of these rules."""
        left = [(fit, fit.pattern.with_steps(steps)) for fit in self.fits]
        kept = tuple(replace(fit, pattern=pattern) for fit, pattern in left if pattern is not None)
        evidence = f"{self.evidence}; {steps} steps got the answer without a number"
        return replace(self, fits=kept, decided=True, evidence=evidence)


def explore(
    ray: Ray,
    near: float,
    *,
    reserve: int,
    generator: np.random.Generator,
    known: Sequence[Pattern] | None = None,
    wider: Sequence[Pattern] = (),
    askable: int = 0,
) -> Verdict:
    """Ask a ray around and beyond its first kink, and say which patterns explain the answers.

    Asks further scales until one pattern is left, the budget but for a reserve is spent, or nothing helps.

    Args:
        ray: begins where the gradient is that of the baseline.
        near: where its kink is expected.
        reserve: queries that are left to tell rules apart that share a pattern.
        generator: for scales.
        known: the patterns that it may be, if not any.
        wider: those that it may be as well where none of them explains the answers.
        askable: numbers of steps that the service itself can be asked about, one query each, if so few are left.
    """
    return _rounds(ray, near, START, REACH * near, reserve, generator, known, wider, askable, look=not ray.drifting)


def _rounds(
    ray: Ray,
    near: float,
    start: int,
    cap: float,
    reserve: int,
    generator: np.random.Generator,
    known: Sequence[Pattern] | None,
    wider: Sequence[Pattern],
    askable: int,
    *,
    look: bool,
) -> Verdict:
    """What `explore` says, from so many scales around the kink and what was asked by then up to some scale.

    Where all that is left has few nodes, it may look once whether a kink lies nearer, and go on from that.
    """
    shared = known is None or have_siblings(known)
    kept = max(shared * reserve, min(askable, LEAST_KEPT))
    ray.ask(_grid(min(start, max(ray.asker.left - kept, 0)), 0.8 * near, REACH * near, 0.0))
    verdict = _judged(ray, near, cap, known, wider)
    confirmed, paired, tries = False, False, TRIES
    if verdict.fits and not 0.8 < verdict.fits[0].kinks[0] / near < NEAREST:
        near = float(verdict.fits[0].kinks[0])
        cap = REACH * near
    for number in range(ROUNDS):
        if look and verdict.fits and verdict.fewest_nodes and ray.asker.left > LEAST_LEFT:
            look, bracket = False, _nearer(ray, verdict.near)
            if bracket is not None:
                # what was asked further out counts as well
                again = (ray, bracket.high, MORE, verdict.cap)
                return _rounds(*again, reserve, generator, known, wider, askable, look=False)
        # what is kept for telling siblings apart is of little use while several patterns are left
        if verdict.fits:
            shared = have_siblings(fit.pattern for fit in verdict.fits)
        kept = min(reserve, LEAST_KEPT) if shared and (ray.drifting or ray.asker.left > reserve + 1) else 0
        # sums tell rules of few nodes apart where staircases do not, or no longer
        by_sums = verdict.few_nodes and not verdict.decided and reserve > 0
        if by_sums and tries:
            tries -= 1
            by_sums = not len(_telling(verdict, near, 1, generator)[0])
        if 1 < len(verdict.numbers) <= askable or by_sums:
            break
        kept = kept if verdict.decided else max(kept, min(askable, LEAST_KEPT))
        count = min(MORE, ray.asker.left - kept)
        few = known is not None and len(known) <= FEW and not verdict.alone
        doubtful = ray.drifting or verdict.scale > WORST or verdict.narrow or few
        if (verdict.decided and (confirmed or not doubtful)) or count < 2:
            # nothing was there to be preferred to, and no answer came since that could contradict it
            only = few and ray.drifting and verdict.decided and not confirmed and math.isinf(verdict.second)
            return verdict.open_still("no further answers bear it out") if only else verdict
        if verdict.decided:
            # behind a softmax, where other kinks are mixed in, or where digits are few, one pattern may be left by
            # chance: it must explain answers that it has not seen
            confirmed = True
            before = verdict
            ray.ask(_grid(min(count, CONFIRMING), 0.95 * near, verdict.cap, 0.21))
            verdict = _judged(ray, near, cap, known, wider)
            if verdict.refuted_since(before):
                if verdict.cap > FURTHER * NEAREST * near and ray.asker.left - kept >= MORE:
                    # where other kinks lie further out, what is left before them may still be explained
                    cap, confirmed = verdict.cap / FURTHER, False
                    verdict = _judged(ray, near, cap, known, wider)
                    continue
                return verdict.open_still("the last of them lie too far from it")
            continue
        scales, end = _telling(verdict, near, count, generator)
        ray.ask(scales)
        # the last two are told apart by these alone, if by any
        paired = len(verdict.fits) == 2 and not paired and len(scales) > 0
        cap = max(cap / FURTHER, NEAREST * near) if verdict.found is None else max(cap, verdict.cap, *scales)
        low, high = (0.9 * near, cap) if verdict.found is None else (near, end)
        ray.ask(_grid(0 if paired else count - len(scales), low, high, 0.37 * (number + 1)))
        verdict = _judged(ray, near, cap, known, wider)
    return verdict


def _nearer(ray: Ray, near: float) -> Bracket | None:
    """Around a kink before all answers, if there is one: what looks like the step of an only node may be another's."""
    plateau, nearest = int(np.argmin(ray.scales)), CLOSER * near
    if ray.scales[plateau] <= nearest:
        return None
    ray.ask([nearest])
    if not ray.shows(ray.news(plateau, -1)):
        return None
    return ray.bisected(Bracket(nearest, ray.scales[plateau]), WITHIN)


def _telling(
    verdict: Verdict, near: float, count: int, generator: np.random.Generator
) -> tuple[Float64[np.ndarray, " k"], float]:
    """Scales that tell apart what is left, and the furthest that is worth asking beside them.

    They lie a little further than was explained so far, where the staircases of rivals have drifted apart; and as far
    as it takes, where none of these does.
    """
    end, low, high = verdict.cap, 0.9 * near, FURTHER * verdict.cap
    scales = np.zeros(0)
    if verdict.found is not None:
        scales = telling_scales(verdict.found, verdict.fits, low, high, count, generator)
        while not len(scales) and high < FARTHEST * near:
            end = high = FURTHER * high
            scales = telling_scales(verdict.found, verdict.fits, low, high, max(count - 2, 1), generator)
    return scales, end


def _grid(count: int, low: float, high: float, shift: float) -> Float64[np.ndarray, " k"]:
    return low * (high / low) ** (((np.arange(count) + 0.5 + shift) / max(count, 1)) % 1)


def _judged(ray: Ray, near: float, cap: float, known: Sequence[Pattern] | None, wider: Sequence[Pattern]) -> Verdict:
    """The verdict on known patterns, or where none of them explains the answers, on a wider choice."""
    verdict = _among(ray, near, cap, known)
    if verdict.fits or known is None or len(wider) <= len(known):
        return verdict
    found = _among(ray, near, cap, wider)
    return found if found.fits else verdict


def _among(ray: Ray, near: float, cap: float, known: Sequence[Pattern] | None) -> Verdict:
    """The verdict on the longest stretch of the ray that some pattern explains, by the smallest drift that will do.

    Where it leaves several, shorter ones may tell those apart: other kinks lie beyond them, and take no rows. Not where
    the gradient drifts, for then what is left over is not noise alone.
    """
    longest = Verdict((), False, "the answers do not change enough along the ray")
    for found, drift, end in _stretches(ray, near, cap, known is not None and len(known) <= FEW):
        left = [fit.pattern for fit in longest.fits]
        verdict = _verdict(anchored(found, near, left or known), found, drift, end, near)
        if verdict.decided:
            return verdict
        if not left:
            longest = verdict
        if longest.fits and ray.drifting:
            break
    return longest


def _stretches(ray: Ray, near: float, cap: float, few: bool) -> Iterator[tuple[Readings, int, float]]:
    spare, share = (SPARE_FEW, SHARE_FEW) if few else (SPARE, SHARE)
    end = cap
    while end >= NEAREST * near:
        for drift in DRIFTS if ray.drifting else STEADY:
            for scatter in sorted({*SCATTERS, ray.scatter}):
                found = ray.below(end, drift, scatter)
                if found is None or not len(found.strength):
                    break
                if found.freedom - 2 * found.ramps >= max(spare, share * len(found.scales)):
                    yield found, drift, end
                    break
        end /= FURTHER


def _verdict(fits: tuple[Fit, ...], found: Readings, drift: int, end: float, near: float) -> Verdict:
    best = fits[0]
    per = best.misfit / max(best.freedom, 1)
    rows = len(found.scales)
    name = named(best.pattern)
    # among a few patterns one may stand alone by chance
    alone = len(fits) > FEW and fits[1].misfit > ALONE * best.misfit and len(best.pattern.nodes) >= MANY
    if per > WORST and not alone:
        return Verdict((), False, f"no rule explains {rows} scales; {name} comes nearest")
    scale = max(per, 1.0)
    explain = fits if per <= WORST else fits[:1]
    rivals = tuple(fit for fit in explain if fit.misfit - best.misfit < MARGIN * scale)
    if len(rivals) > 1:
        several = ", ".join(named(fit.pattern) for fit in rivals[:4])
        evidence = f"{len(rivals)} rules explain {rows} scales alike: {several}"
        return Verdict(rivals, False, evidence, scale, found, end, drift, near)
    evidence = (
        f"{rows} scales of a ray hold the staircase of {name}: it lies {best.misfit:.3g} from them where noise would "
        f"put it {best.freedom}"
    )
    if len(fits) > 1:
        evidence += f"; that of {named(fits[1].pattern)}, the next best, {fits[1].misfit:.3g}"
    second = fits[1].misfit if len(fits) > 1 else math.inf
    return Verdict(rivals, True, evidence, scale, found, end, drift, near, second)


def named(pattern: Pattern) -> str:
    """The first rule of a pattern, as text."""
    rule, steps = pattern.members[0]
    return f"{rule}({steps})"
