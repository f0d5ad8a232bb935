"""A kink far out that stands alone, where every other one has been left behind: without a softmax.

Far out a path from the baseline to `x` has left all kinks behind soon after its begin, but that of a unit whose plane
lies nearly parallel to it: on the line `x + alpha n` along the unit's normal `n` the path meets the plane at

    t = kappa / (alpha - alpha_1 + kappa)     beyond alpha_1, where its end does

whatever the baseline, so that the answers go from one gradient to the other by the rule's own staircase, nodes as they
are. The output has a kink at `alpha_1` itself; where it is small, few digits show that to a hair.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from disintegrate.probe.asking import Asker

# How far out, in units of the inputs' spread.
FAR = 1e3
# How often a direction is looked for in which the output vanishes, and how small it need be, as a share.
ROOTS, SMALL = 4, 1e-2
# How far aside another point lies that has another gradient, as a share of how far out; how large that change is at
# least; and by how many halvings a kink is met.
ASIDE, LARGE, HALVINGS = (0.1, 0.5, 2.0), 0.02, 14
# Between which shares of the way an answer lies amid a staircase; and how far off the way it may lie.
AMID, BESIDE, BESIDE_END = 0.03, 0.1, 0.3


@dataclass(eq=False)
class FarPoints:
    """Points far out, with the answers over what was moved.

    Attributes:
        asker: the service.
        target: the output that is explained.
        begin: the baseline, as far as known.
    """

    asker: Asker
    target: int
    begin: Float64[np.ndarray, " d"]
    points: list[Float64[np.ndarray, " d"]] = field(default_factory=list)
    gradients: list[Float64[np.ndarray, " d"]] = field(default_factory=list)
    noise: list[Float64[np.ndarray, " d"]] = field(default_factory=list)
    outputs: list[float] = field(default_factory=list)
    output_noise: list[float] = field(default_factory=list)

    def ask(self, point: Float64[np.ndarray, " d"]) -> int:
        """The number of the point, asked."""
        sent = self.asker.sent(point[None])[0]
        answer = self.asker.ask(sent[None], self.target)
        raw, output, moved = answer.attribution[0], float(answer.output[0]), sent - self.begin
        gradient = np.divide(raw, moved, out=np.zeros(moved.size), where=moved != 0)
        typical = float(np.sqrt((gradient**2).mean()))
        self.points.append(sent)
        self.gradients.append(gradient)
        noise = np.divide(self.asker.deviation(raw), np.abs(moved), out=np.full(moved.size, np.inf), where=moved != 0)
        self.noise.append(np.hypot(noise, 2e-7 * typical))
        self.outputs.append(output)
        rounded = float(self.asker.deviation(np.array([output]))[0])
        self.output_noise.append(rounded + 3e-7 * abs(output) + 1e-7 * float(np.linalg.norm(raw)))
        return len(self.points) - 1

    def jump(self, low: int, high: int) -> Float64[np.ndarray, " d"]:
        """How much the gradient differs between two points, beyond noise."""
        gap, noise = self.gradients[high] - self.gradients[low], np.hypot(self.noise[low], self.noise[high])
        sure = np.maximum(1 - np.minimum(noise / np.maximum(np.abs(gap), 1e-300), 1.0) ** 2, 0.0)
        return np.where(np.isfinite(noise), sure * gap, 0.0)

    def way(self, low: int, high: int, at: int) -> tuple[float, float, float]:
        """How far a gradient lies on the way between two others, how far off it, and how much of that may be noise."""
        way = self.gradients[high] - self.gradients[low]
        size = float(way @ way)
        share = float((self.gradients[at] - self.gradients[low]) @ way) / size
        off = float(np.linalg.norm(self.gradients[at] - self.gradients[low] - share * way))
        noise = float(np.linalg.norm(np.where(np.isfinite(self.noise[at]), self.noise[at], 0.0)))
        return share, off / np.sqrt(size), noise / np.sqrt(size)


@dataclass(frozen=True, eq=False)
class FarLine:
    """A line across one plane, along its normal.

    Attributes:
        seen: the points that were asked.
        begin: a point of the line, where an answer lies amid a staircase.
        normal: of the plane.
        width: how far on either side the staircase is over, about.
        rows: the numbers of the points on the line, and `places` where these lie on it.
    """

    seen: FarPoints
    begin: Float64[np.ndarray, " d"]
    normal: Float64[np.ndarray, " d"]
    width: float
    rows: list[int] = field(default_factory=list)
    places: list[float] = field(default_factory=list)

    def ask(self, place: float) -> None:
        """Ask at a place of the line."""
        self.rows.append(self.seen.ask(self.begin + place * self.normal))
        self.places.append(float((self.seen.points[-1] - self.begin) @ self.normal))


def far_line(seen: FarPoints, spread: float, generator: np.random.Generator) -> FarLine | None:
    """A line that crosses one plane far out; None where none was found."""
    low = _root(seen, spread, generator)
    middle, gradient = seen.points[low], seen.gradients[low]
    far = float(np.linalg.norm(middle - seen.begin))
    ahead = generator.normal(size=middle.size)
    ahead = ahead - gradient * (ahead @ gradient) / max(float(gradient @ gradient), 1e-300)
    ahead = far * ahead / np.linalg.norm(ahead)
    at = {low: 0.0}
    for aside in ASIDE:
        high = seen.ask(middle + aside * ahead)
        at[high] = aside
        if np.linalg.norm(seen.jump(low, high)) > LARGE * np.linalg.norm(gradient):
            break
        low = high
    else:
        return None
    for _ in range(HALVINGS):
        jump = seen.jump(low, high)
        here = (at[low] + at[high]) / 2
        along = float(ahead @ jump)
        if along:
            # where the plane lies if that is the jump of one unit alone
            plane = at[low] - float((middle + at[low] * ahead - seen.begin) @ jump) / along
            gap = (at[high] - at[low]) / 10
            here = plane if at[low] + gap < plane < at[high] - gap else here
        new = seen.ask(middle + here * ahead)
        at[new] = here
        share, off, noise = seen.way(low, high, new)
        if AMID < share < 1 - AMID and off < min(BESIDE, BESIDE_END * min(share, 1 - share)) + 2 * noise:
            return _along_normal(seen, low, high, new)
        before, behind = (seen.gradients[new] - seen.gradients[low]), (seen.gradients[high] - seen.gradients[new])
        low, high = (low, new) if np.linalg.norm(before) > np.linalg.norm(behind) else (new, high)
    return None


def _root(seen: FarPoints, spread: float, generator: np.random.Generator) -> int:
    """A point far out where the output is small, by Newton's method: it is nearly linear along rays."""
    size = seen.begin.size
    at = seen.ask(seen.begin + FAR * spread * generator.choice((-1.0, 1.0), size) * generator.uniform(0.5, 1.5, size))
    first, far = abs(seen.outputs[at]), float(np.linalg.norm(seen.points[at] - seen.begin))
    best = at
    for _ in range(ROOTS):
        gradient = seen.gradients[at]
        if abs(seen.outputs[best]) < SMALL * first or not gradient.any():
            break
        ahead = seen.points[at] - seen.begin - seen.outputs[at] * gradient / float(gradient @ gradient)
        at = seen.ask(seen.begin + far * ahead / np.linalg.norm(ahead))
        best = at if abs(seen.outputs[at]) < abs(seen.outputs[best]) else best
    return best


def _along_normal(seen: FarPoints, low: int, high: int, amid: int) -> FarLine:
    jump = seen.jump(low, high)
    normal = jump / np.linalg.norm(jump)
    across = float((seen.points[high] - seen.points[low]) @ normal)
    normal = normal * np.sign(across)
    # the output is made still smaller, aside of the normal
    gradient = seen.gradients[amid]
    aside = gradient - float(gradient @ normal) * normal
    begin = seen.points[amid] - seen.outputs[amid] * aside / float(gradient @ aside)
    return FarLine(seen, begin, normal, abs(across))
