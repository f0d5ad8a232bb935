"""Students: copies trained on a service's outputs (distillation), or on its explanations as well (Sobolev training)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor, nn

from disintegrate.errors import DamagedFile, InvalidValue
from disintegrate.explainers.protocol import Explainer
from disintegrate.extraction.harness import Copy, predictor_of
from disintegrate.extraction.lessons import OF_OUTPUTS, Learnt, Lessons, lessons_of, outputs_of, said_by
from disintegrate.extraction.tangents import with_output
from disintegrate.files import write_atomically
from disintegrate.models.weights import read_tensors
from disintegrate.plan import Plan
from disintegrate.planner import Proposal
from disintegrate.progress import SILENT, Progress

KEPT_EVERY = 200
ADAM_FIELDS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Training:
    """How a student is trained: Adam, its rate falling to 0 along a cosine.

    Attributes:
        steps: batches.
        batch: inputs in each.
        learning_rate: at the start.
        gradient_share: weight of the gradients' error beside that of the outputs, both relative to what is learnt.
    """

    steps: int = 3000
    batch: int = 50
    learning_rate: float = 1e-3
    gradient_share: float = 1.0


@dataclass(frozen=True)
class Pause:
    """Where a training is kept, so that a later session goes on behind it.

    Attributes:
        path: the file.
        seconds: after which the training stops; None for never.
    """

    path: Path
    seconds: float | None = None


def student(
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    budget: int | None = None,
    *,
    classes: int,
    network: Callable[[], nn.Module],
    plan: Plan | Proposal,
    learnt: Learnt,
    asked: int | None = None,
    training: Training = Training(),
    seed: int = 0,
    pause: Pause | None = None,
    progress: Progress = SILENT,
) -> Copy:
    """Train a network to answer as the service does, and where explanations are learnt, to bend as it does.

    The loss is the squared error of the outputs and, where gradients are learnt, that of the gradient of a random
    mixture of the explained classes, drawn anew for each input and step (Czarnecki et al. 2017, section 3): a step
    costs the same for one class and for all. As many of the inputs are asked about as the budget covers.

    Args:
        explainer: the service.
        inputs: points to ask about.
        budget: the most queries.
        classes: the model's outputs.
        network: makes the untrained student; it answers logits.
        plan: how gradients are asked for.
        learnt: what of the answers is used.
        asked: classes explained at each input, drawn at random; None for all.
        training: steps and rates.
        seed: of the student's weights, of the classes and of the batches.
        pause: where to keep the training.
        progress: where to show a bar.

    Raises:
        InvalidValue: labels or probabilities are to be learnt from a part of the classes.
        DamagedFile: what was kept is of another training.
        BudgetSpent: the budget does not cover one input.

    Example:
        >>> from disintegrate import Capabilities, LocalExplainer, single_step
        >>> service = LocalExplainer(nn.Linear(3, 2), Capabilities(rule="riemann_right"))
        >>> x, short = np.eye(3, dtype=np.float32), Training(steps=5)
        >>> copy = student(service, x, classes=2, network=lambda: nn.Linear(3, 2), plan=single_step(),
        ...                learnt=Learnt.GRADIENTS, training=short)
        >>> copy.notes["inputs"] == 3
        True
    """
    count = classes if asked is None else asked
    if count < classes and learnt in (Learnt.LABELS, Learnt.PROBABILITIES):
        raise InvalidValue(
            "Labels and probabilities are told by the outputs of all classes.",
            got=f"{count} of {classes}",
            instead="Leave asked out, or learn logits.",
        )
    predicts = learnt in OF_OUTPUTS and predictor_of(explainer) is not None
    each = 1 if predicts else count * len(with_output(plan))
    affordable = len(inputs) if budget is None else max(1, budget // each)
    chosen = inputs[:affordable]
    generator = np.random.default_rng(seed)
    drawn = np.stack([generator.permutation(classes)[:count] for _ in chosen]).astype(np.int64)
    lessons = lessons_of(explainer, chosen, drawn if count < classes else np.sort(drawn, axis=1), plan, learnt)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = network()
    finished = _trained(made, lessons, learnt, training, seed, pause, progress)
    return Copy(made.eval(), {"learnt": learnt.value, "inputs": len(chosen), "training": vars(training)}, finished)


def _trained(
    made: nn.Module,
    lessons: Lessons,
    learnt: Learnt,
    training: Training,
    seed: int,
    pause: Pause | None,
    progress: Progress,
) -> bool:
    """Train in place; whether it came to its end."""
    optimizer = torch.optim.Adam(made.parameters(), lr=training.learning_rate, fused=True)
    done = 0 if pause is None else _restored(pause.path, made, optimizer)
    bar = progress.task(f"student of {learnt.value}", training.steps)
    bar.advance(done)
    started = time.monotonic()
    made.train()
    for step in range(done, training.steps):
        generator = torch.Generator().manual_seed(1_000_003 * seed + step)
        rows = torch.randperm(len(lessons), generator=generator)[: training.batch]
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * 0.5 * (1 + math.cos(math.pi * step / training.steps))
        loss = _loss(made, lessons, rows, learnt, training, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.advance(1, f"loss {loss.item():.4f}")
        if pause is not None:
            late = pause.seconds is not None and time.monotonic() - started > pause.seconds
            if late or (step + 1) % KEPT_EVERY == 0:
                _keep(pause.path, made, optimizer, step + 1)
            if late and step + 1 < training.steps:
                return False
    return True


def _loss(
    made: nn.Module,
    lessons: Lessons,
    rows: Int[Tensor, " b"],
    learnt: Learnt,
    training: Training,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    wanted = lessons.outputs[rows]
    if learnt in (Learnt.LABELS, Learnt.PROBABILITIES):
        told = wanted.argmax(1) if learnt is Learnt.LABELS else wanted.softmax(1)
        return nn.functional.cross_entropy(made(lessons.inputs[rows]), told)
    if lessons.measured is None:
        outputs = outputs_of(made, lessons, rows, lessons.inputs[rows])
        return ((outputs - wanted) ** 2).mean() / _spread(lessons.outputs)
    mix = torch.randn(wanted.shape, generator=generator)
    theirs = torch.einsum("bc,bc...->b...", mix, lessons.measured[rows])
    ours = said_by(made, lessons, rows, mix)
    # The square of a mixture is as large as those of its classes together.
    scale = mix.shape[1] * (lessons.measured**2).mean()
    bent = ((ours.measured - theirs) ** 2).mean() / scale
    return ((ours.outputs - wanted) ** 2).mean() / _spread(lessons.outputs) + training.gradient_share * bent


def _spread(outputs: Float[Tensor, "n asked"]) -> Float[Tensor, ""]:
    """Mean square of what is learnt about its mean; 1 where there is nothing to tell it from."""
    spread = ((outputs - outputs.mean()) ** 2).mean()
    return spread if spread > 0 else torch.ones_like(spread)


def _keep(path: Path, made: nn.Module, optimizer: torch.optim.Adam, step: int) -> None:
    tensors = {f"model.{name}": value for name, value in made.state_dict().items()}
    for index, parameter in enumerate(made.parameters()):
        for name in ADAM_FIELDS:
            tensors[f"adam.{index}.{name}"] = optimizer.state[parameter][name]
    tensors["step"] = torch.tensor(step)
    write_atomically(path, save({name: value.detach().contiguous() for name, value in tensors.items()}))


def _restored(path: Path, made: nn.Module, optimizer: torch.optim.Adam) -> int:
    if not path.is_file():
        return 0
    tensors = read_tensors(path)
    try:
        made.load_state_dict({name: tensors[f"model.{name}"] for name in made.state_dict()})
        for index, parameter in enumerate(made.parameters()):
            optimizer.state[parameter] = {name: tensors[f"adam.{index}.{name}"] for name in ADAM_FIELDS}
        return int(tensors["step"])
    except (KeyError, RuntimeError) as error:
        raise DamagedFile(
            f"{path} is not an unfinished training of this student.",
            got=str(error)[:80],
            instead="Delete it to start over.",
        ) from None
