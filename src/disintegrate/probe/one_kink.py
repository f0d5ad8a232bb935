"""Which rule makes the answers of a ray that crosses one kink alone.

Between the gradients `g` before the kink and `g + D` behind it, both known, an answer at scale `s` lies at the share

    y(s) = sum of w_i over t_i > tau / s, over the mass                                                      (P.5)

of the way. Nothing but the place `tau` of the kink is free, and that within narrow bounds, so the shares tell how far
out the last node lies and what the baseline weighs, as well as all other nodes and weights; not the mass.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.close_up import CloseUp, Crossings, gradient_at, share
from disintegrate.probe.staircase import MOST_STEPS, Pattern, legendre, patterns
from disintegrate.rules import rule_named

# How far out is asked, in units of the kink's place, how many scales at first and in each later round.
NEAREST, FARTHEST, START, MORE = 1.02, 5.0, 8, 3
# How much more the second-best rule must cost than the best; how far the best may lie from the answers, in units of the
# noise; and with how many answers to spare.
MARGIN, WORST, SPARE, FREEDOM = 25.0, 3.0, 4, 3
# How many times as much as needed the last answers should have told, where further ones are in vain.
PROMISED = 1.5
# How far out answers are judged, in units of the place behind the kink: as far as other kinks leave enough of them.
STRETCHES = (5.0, 3.3, 2.2, 1.5)
# Answers that no rule explains after which no more are asked, as there is more than one kink; or that so many of the
# rules explain, as what other kinks make of the shares leaves nothing to contradict them.
ENOUGH, OPEN = 13, 0.8
# A difference in squares of the noise below which a scale tells nothing; and how far apart places of the kink must lie
# that can be told apart, in units of the bracket.
FAINT, APART = 2.0, 1e-3
# Noise of shares beyond that of the wire, where no rule explains them without: behind a softmax rays bend a little.
FLOORS = (0.0, 1e-4, 5e-4, 2e-3)
# Scales among which the next are chosen, for so many rivals, by differences of so much noise at the most.
CANDIDATES, RIVALS, CLEAR = 300, 30, 60.0


def members_of(steps: int | None, rules: Collection[str] | None = None) -> tuple[tuple[str, int], ...]:
    """All rules of so many steps, or of any number; or those of them that have one of these names."""
    every = (member for shape in shapes() for member in shape.members)
    return tuple(member for member in every if steps in (None, member[1]) and (rules is None or member[0] in rules))


def _among(members: Collection[tuple[str, int]] | None) -> Sequence[Pattern]:
    """The shapes that have one of these members."""
    return [shape for shape in shapes() if members is None or any(member in members for member in shape.members)]


@lru_cache
def shapes(most: int = MOST_STEPS) -> tuple[Pattern, ...]:
    """All that a single kink between known gradients can tell apart: all nodes as they are, weights over the mass.

    Example:
        >>> any({("riemann_right", 3), ("captum_riemann_right", 3)} == set(shape.members) for shape in shapes(4))
        True
    """
    alike: dict[tuple[float, ...], list[Pattern]] = {}
    for pattern in patterns(most):
        for rule, steps in pattern.members:
            nodes, weights = quadrature(rule, steps)
            order = np.argsort(nodes)
            nodes, weights = nodes[order], weights[order] / weights.sum()
            above = np.append(np.cumsum(weights[::-1])[::-1], 0.0)
            key = (len(nodes), *np.round(np.append(nodes[[0, -1]], weights[[0, -1]]), 6))
            alike.setdefault(key, []).append(Pattern(((rule, steps),), nodes, above))
    return tuple(
        Pattern(tuple(shape.members[0] for shape in same), same[0].nodes, same[0].above) for same in alike.values()
    )


@cache
def quadrature(rule: str, steps: int) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Nodes and weights of a rule by its name."""
    if "legendre" in rule:
        return legendre(steps)
    found = rule_named(rule)(steps)
    return found.nodes, found.weights


@dataclass(frozen=True, eq=False)
class Match:
    """How well a shape explains the shares.

    Attributes:
        shape: of the rule.
        misfit: the squares of what it leaves, in units of the noise.
        place: where it puts the kink.
        curve: what it makes of each scale that may be asked next.
    """

    shape: Pattern
    misfit: float
    place: float
    curve: Float64[np.ndarray, " c"]


@dataclass(frozen=True, eq=False)
class Crossed:
    """The rules that are left, and why.

    Attributes:
        members: rules and steps, the likeliest first.
        decided: whether nothing but their mass may tell them apart.
        evidence: the reason, as a sentence.
        closer: the ray across the kink.
    """

    members: tuple[tuple[str, int], ...]
    decided: bool
    evidence: str
    closer: CloseUp

    @property
    def numbers(self) -> list[int]:
        """The numbers of steps of the rules that are left, the likeliest first."""
        return list(dict.fromkeys(steps for _, steps in self.members))


def crossed(
    closer: CloseUp,
    *,
    generator: np.random.Generator,
    among: Collection[tuple[str, int]] | None = None,
    needed: int = FREEDOM,
) -> Crossed:
    """Ask across the kink until one shape is left, nothing tells those apart that are, or the budget is spent.

    Args:
        closer: the ray, and the gradients on either side.
        generator: for scales.
        among: the rules and steps that it may be; None for any.
        needed: answers that must be left to contradict the one that is named.
    """
    ray = closer.ray
    offered_shapes = _among(among)
    low, high = NEAREST * closer.low, FARTHEST * closer.high
    count = min(START, ray.asker.left)
    if count > 0:
        ray.ask(low * (high / low) ** ((np.arange(count) + generator.random(count)) / count))
    before: list[Pattern] = []
    promised = 0.0
    while True:
        offered = low * (high / low) ** generator.random(CANDIDATES)
        rows = len(ray.scales)
        weighed = _weighed(closer, offered_shapes, offered)
        best, rivals = weighed.found[0], weighed.rivals
        left = [match.shape for match in rivals]
        settled = weighed.explains and len(rivals) == 1 and weighed.freedom >= needed
        # where a kink before the bracket makes a staircase that another rule's could be, no answer of this ray helps
        stalled = weighed.explains and left == before and promised > PROMISED * MARGIN * weighed.scale
        before = left
        count = min(MORE, ray.asker.left)
        in_vain = not weighed.explains or len(left) > OPEN * len(offered_shapes) > 1
        if settled or count <= 0 or (in_vain and rows > ENOUGH):
            break
        # what no rule explains holds too many other kinks: fewer lie nearer
        scales, promised = offered[offered <= STRETCHES[2] * closer.high][:count], 0.0
        if stalled:
            scales = scales[:0]
        elif weighed.explains and len(rivals) > 1:
            reach = np.where(offered <= weighed.farthest, 1.0, 0.0)
            scales, promised = _telling(rivals, offered, weighed.noise, count, reach)
        if len(scales):
            ray.ask(scales)
            continue
        nearer = _placed(closer, rivals)
        if nearer is None:
            break
        closer, before = nearer, []
    members = tuple(member for match in rivals for member in match.shape.members if among is None or member in among)
    name = "{}({})".format(*members[0])
    judged = len(weighed.crossings.scales)
    if not weighed.explains:
        members, evidence = (), f"no rule explains {rows} answers across one kink; {name} comes nearest"
    elif len(rivals) > 1:
        evidence = f"{len(rivals)} rules explain {rows} answers across one kink alike, as {name} does"
    elif not settled:
        evidence = f"{judged} answers across one kink are too few to contradict {name}"
    else:
        evidence = (
            f"{judged} answers across one kink are those of {name}: it lies {best.misfit:.3g} from them where noise "
            f"would put it {weighed.freedom}"
        )
        evidence += f", the next best {weighed.found[1].misfit:.3g}" if len(weighed.found) > 1 else ""
    return Crossed(members, settled, evidence, closer)


@dataclass(frozen=True, eq=False)
class Weighed:
    """All shapes, weighed by the answers up to some scale.

    Attributes:
        crossings: the answers.
        farthest: the scale.
        floor: the least noise that their shares are taken to have.
        freedom: answers that are left to contradict a shape.
        found: every shape, the best first.
    """

    crossings: Crossings
    farthest: float
    floor: float
    freedom: int
    found: list[Match]

    @property
    def scale(self) -> float:
        """How many times noise the best shape lies from the answers, at least 1."""
        return max(self.found[0].misfit / max(self.freedom, 1), 1.0)

    @property
    def explains(self) -> bool:
        """Whether the best shape explains the answers."""
        return self.scale <= WORST

    @property
    def rivals(self) -> list[Match]:
        """The shapes that explain them nearly as well."""
        return [match for match in self.found if match.misfit - self.found[0].misfit < MARGIN * self.scale]

    @property
    def noise(self) -> float:
        """The standard deviation of a share."""
        return float(np.hypot(np.median(self.crossings.noise), self.floor)) if len(self.crossings.noise) else 1.0


def _weighed(closer: CloseUp, among: Sequence[Pattern], offered: Float64[np.ndarray, " c"]) -> Weighed:
    """By the longest stretch of the ray that other kinks leave answers enough of to contradict a shape."""
    weighed = None
    for further in STRETCHES:
        crossings = closer.crossings(further * closer.high)
        freedom = len(crossings.scales) + 2 - SPARE - crossings.company.shape[1]
        if weighed is not None and freedom < FREEDOM:
            continue
        for floor in FLOORS:
            found = matches(closer, crossings, among, offered, floor)
            weighed = Weighed(crossings, further * closer.high, floor, freedom, found)
            if weighed.explains:
                break
        if freedom >= FREEDOM:
            break
    assert weighed is not None  # noqa: S101
    return weighed


def matches(
    closer: CloseUp,
    crossings: Crossings,
    among: Sequence[Pattern],
    offered: Float64[np.ndarray, " c"],
    floor: float,
) -> list[Match]:
    """How well each shape explains the answers, the best first, if shares are so noisy at least."""
    scales = crossings.scales
    weight = np.hypot(np.concatenate([crossings.noise, crossings.ends]), floor)
    # the gradients on either side are two answers more: of no scale, before all nodes and behind them
    data = np.concatenate([crossings.shares, [0.0, 1.0]]) / weight
    drift = np.concatenate([scales / 2, closer.ends]) / max(closer.ends)
    company = np.vstack([crossings.company, np.zeros((2, crossings.company.shape[1]))])
    free = np.column_stack([np.ones(len(data)), drift, company]) / weight[:, None]
    basis = np.linalg.qr(free)[0]
    left = data - basis @ (basis.T @ data)
    found = []
    for shape in among:
        edges = np.multiply.outer(scales, shape.nodes)
        edges = np.sort(edges[(edges > closer.low) & (edges < closer.high)])
        edges = np.concatenate([[closer.low], edges, [closer.high]])
        places = (edges[1:] + edges[:-1]) / 2
        columns = np.vstack([shape.staircase(places / scales[:, None]), np.zeros(len(places)), np.ones(len(places))])
        columns = columns / weight[:, None]
        white = columns - basis @ (basis.T @ columns)
        size = (white**2).sum(0)
        factor = (left @ white) / np.maximum(size, 1e-300)
        misfit = (left**2).sum() - factor**2 * size
        at = int(np.argmin(misfit))
        # two numbers that are nearly equal lose digits
        exact = float(((left - factor[at] * white[:, at]) ** 2).sum())
        found.append(Match(shape, exact, float(places[at]), factor[at] * shape.staircase(places[at] / offered)))
    return sorted(found, key=lambda match: match.misfit)


def _telling(
    rivals: Sequence[Match],
    offered: Float64[np.ndarray, " c"],
    noise: float,
    count: int,
    reach: Float64[np.ndarray, " c"],
) -> tuple[Float64[np.ndarray, " k"], float]:
    """The scales at which the best of the rivals differs most from the others, and by how much at least in all."""
    gaps = np.array([(rival.curve - rivals[0].curve) ** 2 for rival in rivals[1 : RIVALS + 1]]).reshape(
        -1, len(offered)
    )
    gaps = np.minimum(gaps / noise**2, CLEAR) * reach
    chosen: list[int] = []
    open_ = np.ones(len(gaps))
    for _ in range(count):
        worth = open_ @ gaps
        worth[chosen] = -1.0
        pick = int(np.argmax(worth))
        if worth[pick] < FAINT:
            break
        chosen.append(pick)
        open_ = open_ * np.exp(-gaps[:, pick] / 20)
    found: Float64[np.ndarray, " k"] = offered[chosen]
    return found, float(gaps[:, chosen].sum(1).min())


def _placed(closer: CloseUp, rivals: Sequence[Match]) -> CloseUp | None:
    """The kink between narrower bounds, by the gradient at a place that lies between those of the rivals.

    Rules whose nodes differ by a stretch of the ray make the same answers of kinks at different places.
    """
    if len(rivals) < 2:
        return None
    places = np.sort([rival.place for rival in rivals])
    gaps = np.diff(places)
    at = int(np.argmax(gaps))
    if gaps[at] < APART:
        return None
    middle = float(places[at] + places[at + 1]) / 2
    passed = share(gradient_at(closer.ray, middle, 0.8 * float(gaps[at])), closer.before, closer.behind)
    return replace(closer, high=middle) if passed > 0.5 else replace(closer, low=middle)
