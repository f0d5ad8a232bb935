"""Copies without data: a generator seeks the inputs where student and model differ, the student learns them.

DFME (Truong et al. 2021) has no gradient of the model and estimates the generator's by asking for outputs a small step
away. MEGEX (Miura et al. 2021, arXiv 2107.08909) takes it from explanations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from disintegrate.errors import InvalidValue
from disintegrate.explainers.protocol import Explainer, Output
from disintegrate.extraction.harness import Copy, predictor_of, told_by
from disintegrate.extraction.tangents import with_output
from disintegrate.plan import Plan
from disintegrate.planner import Proposal
from disintegrate.progress import SILENT, Progress
from disintegrate.recover import recover

# Differences are taken with a step that leaves float32 outputs enough digits.
STEP = 1e-3
NOISE = 64
TINY = float(np.finfo(np.float32).tiny)


class Seeking(Enum):
    """Where the generator's gradient through the model comes from; the value is the word shown."""

    OUTPUTS = "finite differences of outputs (DFME)"
    EXPLANATIONS = "explanations (MEGEX)"


@dataclass(frozen=True)
class Game:
    """How generator and student play.

    Attributes:
        batch: inputs made at a time.
        generator_steps: of the generator in each round.
        student_steps: of the student in each round, each with new inputs.
        directions: random ones in which a difference is taken.
        classes_each: classes explained at each input, drawn at random.
        student_rate: Adam's, falling to 0 along a cosine as the budget is spent.
        generator_rate: the same.
    """

    batch: int = 64
    generator_steps: int = 1
    student_steps: int = 5
    directions: int = 1
    classes_each: int = 1
    student_rate: float = 1e-3
    generator_rate: float = 5e-4


@runtime_checkable
class Watching(Protocol):
    """Sees a student while it learns; for curves."""

    def __call__(self, student: nn.Module, queries: int) -> None:
        """So many queries are spent."""


def image_generator(low: float, high: float) -> nn.Module:
    """A small generator of one-channel images of 28 by 28 pixels between two values, from noise of 64 numbers.

    Example:
        >>> made = image_generator(-1, 2)(torch.randn(3, NOISE))
        >>> made.shape == (3, 1, 28, 28) and bool((made >= -1).all() and (made <= 2).all())
        True
    """
    return nn.Sequential(
        nn.Linear(NOISE, 64 * 7 * 7),
        nn.Unflatten(1, (64, 7, 7)),
        nn.BatchNorm2d(64),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(64, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(32, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 1, 3, padding=1),
        nn.BatchNorm2d(1, affine=False),
        nn.Sigmoid(),
        _Between(low, high),
    )


class _Between(nn.Module):
    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, shares: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return self.low + (self.high - self.low) * shares


def data_free(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    budget: int | None,
    *,
    classes: int,
    network: Callable[[], nn.Module],
    generator: Callable[[], nn.Module],
    seeking: Seeking,
    plan: Plan | Proposal,
    game: Game = Game(),
    seed: int = 0,
    watching: Watching | None = None,
    progress: Progress = SILENT,
) -> Copy:
    """Copy a model without data, by a game between a generator of inputs and a student.

    With the model's outputs `v` (logits; log-probabilities less their mean where probabilities are answered) and the
    student's `s`, the generator `G` rises and the student falls on `L(x) = mean_c |s_c(x) - v_c(x)|`. The generator's
    gradient, `dL/dx = mean_c sign(s_c - v_c) (grad s_c - grad v_c)`, is taken from explanations of classes drawn at
    random, which does not bias it; or estimated from outputs as `d (L(x + e u) - L(x)) / e u` with random `u` on the
    unit sphere of `d` dimensions, averaged over directions.

    Args:
        explainer: the service.
        inputs: not used, for there are none; the harness hands them to every method.
        budget: the most queries; they are spent.
        classes: the model's outputs.
        network: makes the untrained student; it answers logits.
        generator: makes the untrained generator, from noise of 64 numbers to inputs.
        seeking: where the generator's gradient comes from.
        plan: how a gradient is asked for.
        game: steps and rates.
        seed: of all that is drawn.
        watching: sees the student after every round.
        progress: where to show a bar.

    Raises:
        InvalidValue: no budget, for the game has no end of its own.

    Example:
        >>> from disintegrate import Capabilities, LocalExplainer, single_step
        >>> service = LocalExplainer(nn.Linear(3, 2), Capabilities(rule="riemann_right"))
        >>> copy = data_free(service, np.zeros((1, 3), np.float32), 500, classes=2, network=lambda: nn.Linear(3, 2),
        ...                  generator=lambda: nn.Linear(NOISE, 3), seeking=Seeking.EXPLANATIONS, plan=single_step())
        >>> copy.notes["queries"] <= 500
        True
    """
    if budget is None:
        raise InvalidValue("A game without data has no end of its own.", got="no budget", instead="Give a budget.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        player = _Player(explainer, classes, network(), generator(), seeking, plan, game, budget)
        bar = progress.task(f"without data, by {seeking.value}", budget)
        rounds = 0
        while player.affords_a_round():
            before = player.spent
            player.play()
            rounds += 1
            bar.advance(player.spent - before)
            if watching is not None:
                watching(player.student, player.spent)
    notes: dict[str, object] = {"seeking": seeking.value, "queries": player.spent, "rounds": rounds, "game": vars(game)}
    return Copy(player.student.eval(), notes)


class _Player:
    """Student and generator with what they have spent."""

    def __init__(
        self, explainer: Explainer, classes: int, student: nn.Module, generator: nn.Module, seeking: Seeking,
        plan: Plan | Proposal, game: Game, budget: int,
    ) -> None:  # fmt: skip
        self.explainer, self.classes, self.game, self.budget = explainer, classes, game, budget
        self.student, self.generator, self.seeking, self.plan = (
            student.train(),
            generator.train(),
            seeking,
            with_output(plan),
        )
        self.learning = torch.optim.Adam(student.parameters(), lr=game.student_rate, fused=True)
        self.seeking_more = torch.optim.Adam(generator.parameters(), lr=game.generator_rate, fused=True)
        self.probabilities = explainer.capabilities.output is Output.PROBABILITIES
        self.predictor = predictor_of(explainer)
        self.outputs_cost = 1 if self.predictor is not None else classes
        self.spent = 0

    def affords_a_round(self) -> bool:
        each = self.game.student_steps * self.outputs_cost + self.game.generator_steps * self._seeking_cost()
        return self.spent + self.game.batch * each <= self.budget

    def _seeking_cost(self) -> int:
        if self.seeking is Seeking.OUTPUTS:
            return (1 + self.game.directions) * self.outputs_cost
        # behind a softmax an output compares with the others only
        compared = self.outputs_cost if self.probabilities else 0
        return compared + self.game.classes_each * len(self.plan)

    def play(self) -> None:
        left = 0.5 * (1 + np.cos(np.pi * min(1.0, self.spent / self.budget)))
        for optimizer, rate in ((self.learning, self.game.student_rate), (self.seeking_more, self.game.generator_rate)):
            for group in optimizer.param_groups:
                group["lr"] = rate * left
        for _ in range(self.game.generator_steps):
            self._seek()
        for _ in range(self.game.student_steps):
            self._learn()

    def _made(self) -> Float[Tensor, "b *shape"]:
        made: Tensor = self.generator(torch.randn(self.game.batch, NOISE))
        return made

    def _told(self, points: Float[Tensor, "b *shape"]) -> Float[Tensor, "b classes"]:
        """The model's outputs, as logits less a constant where probabilities are answered."""
        asked = points.detach().numpy()
        self.spent += len(asked) * self.outputs_cost
        if self.predictor is not None:
            outputs = torch.tensor(np.asarray(self.predictor.predict(asked), np.float32))
        else:
            outputs = told_by(self.explainer, asked, self.classes).float()
        return self._of_logits(outputs)

    def _of_logits(self, outputs: Float[Tensor, "b classes"]) -> Float[Tensor, "b classes"]:
        return self._shown(outputs.clamp_min(TINY).log()) if self.probabilities else outputs

    def _said(self, points: Float[Tensor, "b *shape"]) -> Float[Tensor, "b classes"]:
        return self._shown(self.student(points))

    def _shown(self, logits: Float[Tensor, "b classes"]) -> Float[Tensor, "b classes"]:
        """Logits as they are compared: behind a softmax a constant is lost."""
        return logits - logits.mean(1, keepdim=True) if self.probabilities else logits

    def _learn(self) -> None:
        with torch.no_grad():
            points = self._made()
        wanted = self._told(points)
        loss = (self._said(points) - wanted).abs().mean()
        self.learning.zero_grad()
        loss.backward()
        self.learning.step()

    def _seek(self) -> None:
        made = self._made()
        points = made.detach().clone()
        rise = self._by_outputs(points) if self.seeking is Seeking.OUTPUTS else self._by_explanations(points)
        self.seeking_more.zero_grad()
        made.backward(-rise / len(points))
        self.seeking_more.step()

    def _by_outputs(self, points: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
        size = points[0].numel()
        with torch.no_grad():
            here = (self._said(points) - self._told(points)).abs().mean(1)
            total = torch.zeros_like(points)
            for _ in range(self.game.directions):
                way = torch.randn_like(points)
                way = way / way.flatten(1).norm(dim=1).reshape(-1, *[1] * (points.ndim - 1))
                moved = points + STEP * way
                there = (self._said(moved) - self._told(moved)).abs().mean(1)
                slope = size * (there - here) / STEP
                total += slope.reshape(-1, *[1] * (points.ndim - 1)) * way
        return total / self.game.directions

    def _by_explanations(self, points: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
        count, each, ones = len(points), self.game.classes_each, [1] * (points.ndim - 1)
        drawn = torch.stack([torch.randperm(self.classes)[:each] for _ in range(count)])
        asked = np.repeat(points.numpy(), each, axis=0)
        found = recover(self.explainer, asked, drawn.reshape(-1).numpy(), self.plan)
        self.spent += len(asked) * len(self.plan)
        output = torch.tensor(found.output, dtype=torch.float32).reshape(count, each)
        # what was not observed adds nothing
        theirs = torch.tensor(np.nan_to_num(found.gradient), dtype=torch.float32)
        leaf = points.clone().requires_grad_()
        said = self.student(leaf)
        chosen = said.gather(1, drawn)
        if self.probabilities:
            sign = (self._shown(said.detach()) - self._told(points)).sign()
            weights = (sign - sign.mean(1, keepdim=True)).gather(1, drawn)
            theirs = theirs / output.clamp_min(TINY).reshape(-1, *ones)
        else:
            weights = (chosen.detach() - output).sign()
        (ours,) = torch.autograd.grad((weights * chosen).sum(), leaf)
        weighed = (weights.reshape(-1, *ones) * theirs).reshape(count, each, *points.shape[1:]).sum(1)
        return (ours - weighed) / each
