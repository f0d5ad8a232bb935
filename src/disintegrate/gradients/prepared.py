"""A model made ready for many gradients: rewritten where that is safe, its tiles measured, all of it once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import ceil

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from disintegrate.gradients import plain
from disintegrate.gradients.along import gradient_at, mean_gradient
from disintegrate.gradients.checks import Signature, check
from disintegrate.gradients.rewriting import Rewritten, rewrite
from disintegrate.gradients.tiles import DEFAULT_MEMORY, each_by_one_thread, rows_within, tiles
from disintegrate.quadrature import Quadrature, midpoint

# The first batch is compared on so many of its rows and at so many points in all: its rows times these, which round
# nothing, so that values which are equal stay equal.
COMPARED, POINTS, ROUNDING, MOST = 8, 16, 1000, 0.75
FACTORS = (1.0, 0.5, -1.0, -0.5, 0.25, -0.25, 0.125, -0.125)
# Coordinates beyond this are scaled down for it.
LARGE = 1e3
MEASURED_STEPS, CLEARLY = 50, 0.95


class Rewriting(Enum):
    """How much of a model may be rewritten."""

    ALL = "all of it"
    BEHIND_POOLING = "what lies behind its last max pooling, so that ties there are settled as the model settles them"
    NONE = "none of it"


class Path(Enum):
    """How gradients are computed; the value is the sentence shown."""

    SPLIT = "rewritten: the affine beginning once for each ray, the rest in place and without batch normalisation"
    REWRITTEN = "rewritten: in place and without batch normalisation, every point from the input on"
    ASKED = "as it is: no rewriting was asked for"
    TRAINING = "as it is: a part of the model is in training mode"
    HOOKS = "as it is: the model has hooks, which a rewriting would lose"
    NOT_TRACED = "as it is: torch.fx cannot trace the model, as where control flow depends on the input"
    DIFFERS = "as it is: the rewritten model differed from it by more than rounding"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model and the way its gradients are computed; its weights must not change any more.

    Attributes:
        model: as it was given.
        path: which way was taken.
        rewritten: what computes, where the path is a rewriting.
        rows: points computed together.
        signature: what the model takes and answers.
        measured: whether that number of rows was measured to be the best, or is the largest that memory permits.
    """

    model: nn.Module
    path: Path
    rewritten: Rewritten | None
    rows: int
    signature: Signature
    measured: bool = False

    def gradient(self, inputs: Float[Tensor, "n *shape"], targets: Int[Tensor, " n"]) -> Float[Tensor, "n *shape"]:
        """Gradient of the target output at each input."""
        parts = zip(inputs.split(self.rows), targets.split(self.rows), strict=True)
        if self.rewritten is None:
            return torch.cat([plain.gradient_at(self.model, *part) for part in parts])
        return torch.cat([gradient_at(self.rewritten, *part) for part in parts])

    def attributions(
        self,
        inputs: Float[Tensor, "n *shape"],
        baselines: Float[Tensor, "n *shape"],
        targets: Int[Tensor, " n"],
        quadrature: Quadrature,
    ) -> Float[Tensor, "n *shape"]:
        """`(x - b) sum_i w_i g(b + t_i (x - b))`; beside the answers no more is held than a tile."""
        if self.rewritten is None:
            difference = inputs - baselines
            return difference * plain.mean_gradient(self.model, baselines, difference, targets, quadrature, self.rows)
        nodes, weights = (
            torch.tensor(array, dtype=inputs.dtype, device=inputs.device)
            for array in (quadrature.nodes, quadrature.weights)
        )
        answers, rewritten = torch.empty_like(inputs), self.rewritten

        def answer(block: slice, parts: list[slice]) -> None:
            difference = inputs[block] - baselines[block]
            steps = [(nodes[part], weights[part]) for part in parts]
            answers[block] = difference * mean_gradient(rewritten, baselines[block], difference, targets[block], steps)

        threads, rows = 1, self.rows
        if rewritten.second_for(quadrature.steps) is not None and inputs.device.type == "cpu":
            # Its many small operations gain more from a ray for each thread than from threads within each; and what is
            # held of a row is half of the activations, since those before the second layer are never made.
            threads = min(torch.get_num_threads(), len(inputs))
            rows = max(1, min(2 * rows // threads, quadrature.steps)) if threads > 1 else rows
        each_by_one_thread(answer, tiles(len(inputs), quadrature.steps, rows), threads)
        return answers


def prepare(
    model: nn.Module,
    inputs: Float[Tensor, "n *shape"],
    targets: Int[Tensor, " n"],
    *,
    memory: int = DEFAULT_MEMORY,
    rewriting: Rewriting = Rewriting.ALL,
    measuring: bool = True,
) -> Prepared:
    """Make a model ready: rewrite it, compare it with itself on a first batch, measure how many rows go together best.

    Args:
        model: answers `[n, classes]`, each row by itself, in eval mode.
        inputs: a first batch, of the shape, dtype and device of all that will follow.
        targets: the output to differentiate for each.
        memory: bytes that a tile's activations may take, roughly.
        rewriting: how much of the model may be rewritten.
        measuring: whether to spend a second or two on the best tile; otherwise, and for models that are computed ray by
            ray behind their first ReLU, as many rows as memory permits.

    Raises:
        InvalidValue: shapes that do not match, NaN in an input, a target that the model does not have.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 2)).eval()
        >>> x, targets = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
        >>> prepared = prepare(model, x, targets)
        >>> prepared.path is Path.SPLIT
        True
    """
    signature = check(model, inputs, targets)
    rows = rows_within(model, inputs, memory)
    asis = Prepared(model, Path.ASKED, None, rows, signature)
    candidates = _candidates(asis, inputs, rewriting, both=measuring)
    first = candidates[0]
    by_ray = first.rewritten is not None and first.rewritten.second is not None
    best = _measured(candidates, inputs, targets) if measuring and not by_ray else first
    if best.rewritten is None:
        return best
    difference = _difference(model, best.rewritten, inputs[:COMPARED], targets[:COMPARED])
    if difference is None:
        return best
    warnings.warn(f"The rewritten model differs from the model ({difference}); it is used as it is.", stacklevel=2)
    return replace(asis, path=Path.DIFFERS)


def _candidates(asis: Prepared, inputs: Tensor, rewriting: Rewriting, *, both: bool) -> list[Prepared]:
    """The rewritten model, for one layout of maps in memory or for both; or the model as it is."""
    model = asis.model
    refusal = Path.ASKED if rewriting is Rewriting.NONE else _refusal(model)
    if refusal is not None:
        return [replace(asis, path=refusal)]
    keep_pooling = rewriting is Rewriting.BEHIND_POOLING
    on_maps = inputs.ndim == 4 and any(isinstance(module, nn.Conv2d) for module in model.modules())
    layouts = ((True, False) if both else (True,)) if on_maps and not keep_pooling else (False,)
    try:
        rewritten = [rewrite(model, inputs, last=last, keep_pooling=keep_pooling) for last in layouts]
    except Exception:  # a model's own code may raise anything when it is traced
        return [replace(asis, path=Path.NOT_TRACED)]
    return [
        replace(asis, path=Path.REWRITTEN if one.beginning is None else Path.SPLIT, rewritten=one) for one in rewritten
    ]


def _refusal(model: nn.Module) -> Path | None:
    modules = list(model.modules())
    if any(module.training for module in modules):
        return Path.TRAINING
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return Path.HOOKS if any(getattr(module, name) for module in modules for name in names) else None


def _difference(model: nn.Module, rewritten: Rewritten, inputs: Tensor, targets: Tensor) -> str | None:
    """In what a rewriting differs from the model by more than rounding, if it does.

    Outputs are continuous and must agree on every row. Gradients jump at kinks, which rounding may pass on either side,
    so they must agree on most rows.
    """
    # a first batch that overflows the model would say nothing of it
    excess = (inputs.flatten(1).abs().amax(1) / LARGE).clamp_min(1.0)
    inputs = inputs / excess.view(-1, *[1] * (inputs.ndim - 1))
    # where rows are few, a kink at one of them must not decide
    factors = FACTORS[: ceil(POINTS / len(inputs))]
    points, targets = torch.cat([factor * inputs for factor in factors]), targets.repeat(len(factors))
    with torch.no_grad():
        expected, found = model(points), rewritten.outputs(points)
    tolerance = ROUNDING * torch.finfo(inputs.dtype).eps
    if found.shape != expected.shape or not bool((_relative(found - expected, expected) <= tolerance).all()):
        return "in its outputs"
    truth = plain.gradient_at(model, points, targets)
    apart = _relative(gradient_at(rewritten, points, targets) - truth, truth)
    same = float((apart <= tolerance).double().mean()) >= MOST
    return None if same else f"in its gradients by {float(apart.median()):.1e}, median"


def _relative(difference: Tensor, whole: Tensor) -> Tensor:
    tiny = torch.finfo(whole.dtype).tiny
    quotient: Tensor = difference.flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1).clamp_min(tiny)
    return quotient


def _measured(candidates: Sequence[Prepared], inputs: Tensor, targets: Tensor) -> Prepared:
    """The candidate and the number of rows that cost least for one gradient.

    From as many rows as memory permits downwards, and fewer only where that is clearly faster: a disturbed measurement
    must not end in tiles so small that their number is what costs.
    """
    best = (float("inf"), candidates[0])
    for candidate in candidates:
        rows, worse, lowest = candidate.rows, 0, float("inf")
        while worse < 2 and rows >= 1:
            trial = replace(candidate, rows=rows, measured=True)
            rule = midpoint(min(trial.rows, MEASURED_STEPS))
            images = trial.rows // rule.steps
            chosen = torch.arange(images, device=inputs.device) % len(inputs)
            rays = (inputs[chosen], torch.zeros_like(inputs[chosen]), targets[chosen])
            seconds = min(_seconds(trial, *rays, rule) for _ in range(3)) / images / rule.steps
            worse = 0 if seconds < CLEARLY * lowest else worse + 1
            lowest = min(lowest, seconds)
            if seconds < CLEARLY * best[0]:
                best = seconds, trial
            rows //= 2
    return best[1]


def _seconds(prepared: Prepared, inputs: Tensor, baselines: Tensor, targets: Tensor, rule: Quadrature) -> float:
    started = time.perf_counter()
    prepared.attributions(inputs, baselines, targets, rule)
    if inputs.device.type == "cuda":
        torch.cuda.synchronize(inputs.device)
    return time.perf_counter() - started
