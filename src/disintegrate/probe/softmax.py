"""Whether the outputs of a service are probabilities, which of them to look at, and what is left of one far out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64

from disintegrate.errors import DisintegrateError, NotPermitted
from disintegrate.explainers.protocol import Output
from disintegrate.probe.asking import Asker, Spent
from disintegrate.probe.far_out import far_of
from disintegrate.probe.findings import Findings
from disintegrate.probe.ray import Origin, Ray
from disintegrate.probe.result import Finding

# Outputs that are looked at for one that is not saturated, and what counts as such: p (1 - p).
CLASSES, LIVELY = 4, 0.02
# How near the baseline they are looked at, in units of the inputs' spread.
NEAR = 1e-2
# How near to 0 or 1 probabilities are far out.
CERTAIN = 1e-3
# What share of the gradient close by is left far out at most where no node lies at the baseline.
NO_NODE = 1e-3


def liveliest(asker: Asker, origin: Origin, direction: Float64[np.ndarray, " d"], targets: Iterable[int]) -> Ray:
    """A ray of an output that is not saturated near the baseline, where its gradient would drown in the digits."""
    rays: list[Ray] = []
    for target in dict.fromkeys([*targets, *range(CLASSES)]):
        ray = Ray(asker, origin, direction, target)
        try:
            ray.ask([NEAR])
        except Spent:
            raise
        except DisintegrateError:
            if not rays:
                raise
            continue
        rays.append(ray)
        if len(rays) == CLASSES or liveliness(ray) > LIVELY:
            break
    return max(rays, key=liveliness)


def liveliness(ray: Ray) -> float:
    """How fast the first output of a ray may change: p (1 - p)."""
    return ray.outputs[0] * (1 - ray.outputs[0])


def saturates(out: Ray, findings: Findings) -> bool:
    """Whether outputs stay within [0, 1] far out, unlike logits; taken to where points are refused.

    Args:
        out: a ray on which nothing was asked; it is asked far out, on one side or on both.
        findings: where to add what was seen.
    """
    far = far_of(out)
    try:
        out.ask([far])
        if not _certain(out.outputs):
            # a bounded output that is no probability may lie outside on the other side
            out.ask([-far])
    except NotPermitted:
        out.asker.refused = True
        evidence = "outputs stay within [0, 1], but a point further out, where logits would not, was refused"
        findings.add(output=Finding(None, evidence))
        return True
    inside = out.asker.in_unit_range and _certain(out.outputs)
    if inside:
        evidence = f"outputs stay within [0, 1] even {far:g} times as far out as the inputs"
        findings.add(output=Finding(Output.PROBABILITIES, evidence))
    return inside


def some_is_left(near: Ray, out: Ray) -> bool:
    """Whether some of the gradient close to the baseline is left far out, as of a node at the baseline.

    Where no point so far out is taken, it may be.
    """
    if not out.scales:
        return True
    close, beyond = (float(np.linalg.norm(ray.raw[0])) / abs(ray.scales[0]) for ray in (near, out))
    return beyond > NO_NODE * close


def _certain(outputs: list[float]) -> bool:
    """Whether some output is 0 or 1, as probabilities are far out."""
    return any(min(abs(output), abs(1 - output)) <= CERTAIN for output in outputs)
