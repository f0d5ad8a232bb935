"""The harness: it counts what a method asks, holds it to its budget, and scores the copy itself."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from disintegrate.clients.budget import Budget
from disintegrate.errors import InvalidValue
from disintegrate.explainers.protocol import (
    Capabilities,
    Explainer,
    Explanation,
    Output,
    Predictor,
    Request,
)
from disintegrate.versions import versions

# Rows of the held-out inputs that are computed together.
ROWS = 1000


@dataclass(frozen=True, eq=False)
class Copy:
    """What a method hands in.

    Attributes:
        model: the copy; it answers `[n, classes]` logits.
        notes: what the method says of it: units found, units that it could not tell apart, and the like.
        complete: whether the method came to its end within the budget.
    """

    model: nn.Module
    notes: dict[str, object] = field(default_factory=dict)
    complete: bool = True


# A method of theft: explainer, query inputs, budget of queries (None for any number).
Method = Callable[[Explainer, Float[np.ndarray, "n *shape"], int | None], Copy]


class Counted:
    """An explainer that counts what goes through, under a budget that it does not exceed.

    Attributes:
        points: different inputs that were sent.
        explanations: explanations answered, for each class.
        predictions: inputs of which all outputs were told.
        requests: batches that they came in.

    Example:
        >>> from disintegrate.explainers import LocalExplainer
        >>> explainer = Counted(LocalExplainer(nn.Linear(3, 2), Capabilities(rule="midpoint")), 2)
        >>> _ = explainer.explain(Request(np.ones((2, 3), np.float32), None, np.array([0, 1]), None))
        >>> explainer.points == 1 and explainer.explanations == {0: 1, 1: 1}
        True
    """

    def __init__(self, explainer: Explainer, limit: int | None = None) -> None:
        self.explainer = explainer
        self.budget = Budget(limit)
        self.explanations: Counter[int] = Counter()
        self.predictions = 0
        self.requests = 0
        self._seen: set[bytes] = set()

    @property
    def capabilities(self) -> Capabilities:
        """Those of the explainer inside."""
        return self.explainer.capabilities

    @property
    def points(self) -> int:
        """Different inputs so far."""
        return len(self._seen)

    def explain(self, request: Request) -> Explanation:
        """Pass the request on where the budget covers all of it.

        Raises:
            BudgetSpent: it does not; nothing is asked then.
        """
        self.budget.reserve(len(request.inputs))
        answer = self.explainer.explain(request)
        self.requests += 1
        self.explanations.update(request.targets.tolist())
        self._note(request.inputs)
        return answer

    def predictor(self) -> Predictor | None:
        """The service as far as it predicts, counted too; None where it only explains."""
        return _CountedPredictor(self, self.explainer) if isinstance(self.explainer, Predictor) else None

    def _note(self, inputs: Float[np.ndarray, "n *shape"]) -> None:
        self._seen.update(hashlib.sha256(row.tobytes()).digest() for row in inputs)


@dataclass(frozen=True, eq=False)
class _CountedPredictor:
    counted: Counted
    inside: Predictor

    def predict(self, inputs: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n classes"]:
        self.counted.budget.reserve(len(inputs))
        outputs = self.inside.predict(inputs)
        self.counted.requests += 1
        self.counted.predictions += len(inputs)
        self.counted._note(inputs)
        return outputs


@dataclass(frozen=True)
class Likeness:
    """How like its victim a copy is on held-out inputs.

    Attributes:
        inputs: how many.
        agreement: share of inputs where both name the same class.
        accuracy: share where the copy names the label; None where there are no labels.
        victim_accuracy: the victim's.
        largest_error: largest difference of a logit; of log-probabilities where the victim answers probabilities.
        mean_error: its mean.
    """

    inputs: int
    agreement: float
    accuracy: float | None
    victim_accuracy: float | None
    largest_error: float
    mean_error: float


@dataclass(frozen=True, eq=False)
class Extraction:
    """A copy of a model, what it cost, and how like the victim it is.

    Attributes:
        method: its name.
        copy: answers `[n, classes]` logits.
        points: different inputs that the service was sent.
        explanations: explanations that it was asked for, for each class.
        predictions: inputs of which it was asked for all outputs, without an explanation.
        budget: the most queries that were allowed; None for any number.
        likeness: on held-out inputs.
        scoring: explanations that the score took, where the victim was not at hand.
        complete: whether the method came to its end within the budget.
        notes: what the method says of its copy.
        seconds: that the method took, the service included.
    """

    method: str
    copy: nn.Module
    points: int
    explanations: dict[int, int]
    predictions: int
    budget: int | None
    likeness: Likeness
    scoring: int
    complete: bool
    notes: dict[str, object]
    seconds: float

    @property
    def queries(self) -> int:
        """Explanations of all classes, and predictions."""
        return sum(self.explanations.values()) + self.predictions

    def record(self) -> dict[str, object]:
        """All but the copy, as JSON holds it."""
        return {
            "method": self.method,
            "points": self.points,
            "queries": self.queries,
            "explanations": {str(name): count for name, count in sorted(self.explanations.items())},
            "predictions": self.predictions,
            "budget": self.budget,
            "complete": self.complete,
            "likeness": vars(self.likeness),
            "scoring": self.scoring,
            "notes": self.notes,
            "seconds": self.seconds,
            "versions": versions(),
        }


def extract(
    method: Method,
    explainer: Explainer,
    inputs: Float[np.ndarray, "n *shape"],
    held_out: Float[np.ndarray, "m *shape"],
    victim: nn.Module | None,
    *,
    name: str,
    labels: Int[np.ndarray, " m"] | None = None,
    budget: int | None = None,
) -> Extraction:
    """Let a method copy the model behind a service, count what it asks, and score the copy on held-out inputs.

    The method sees the service and the query inputs, and nothing of the victim nor of the held-out inputs.

    Args:
        method: from (explainer, query inputs, budget) to a copy.
        explainer: the service.
        inputs: query inputs that the method may use.
        held_out: inputs to score on.
        victim: the model behind the service, for the score alone; it answers what the service explains. None where it
            is not at hand: then the service is asked for its outputs at the held-out inputs, which is counted apart.
        name: of the method, for the record.
        labels: of the held-out inputs.
        budget: the most queries; None for any number.

    Raises:
        InvalidValue: held-out inputs of another shape than the query inputs, or labels that do not match.
        BudgetSpent: the method asked for more than its budget and had no copy then.

    Example:
        >>> from disintegrate.explainers import LocalExplainer
        >>> victim = nn.Linear(3, 2)
        >>> service = LocalExplainer(victim, Capabilities(rule="riemann_right"))
        >>> x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
        >>> extract(lambda asked, inputs, budget: Copy(victim), service, x, x, victim, name="told").points == 0
        True
    """
    if held_out.shape[1:] != inputs.shape[1:] or (labels is not None and labels.shape != held_out.shape[:1]):
        raise InvalidValue(
            "Held-out inputs have the shape of the query inputs, and one label each.",
            got=f"{held_out.shape} beside {inputs.shape}",
            instead="Give arrays that belong together.",
        )
    counted = Counted(explainer, budget)
    started = time.monotonic()
    copy = method(counted, inputs, budget)
    seconds = time.monotonic() - started
    ours = answers(copy.model, held_out)
    theirs = answers(victim, held_out) if victim else told_by(explainer, held_out, ours.shape[1])
    probabilities = explainer.capabilities.output is Output.PROBABILITIES
    return Extraction(
        method=name,
        copy=copy.model.eval(),
        points=counted.points,
        explanations=dict(counted.explanations),
        predictions=counted.predictions,
        budget=budget,
        likeness=_compared(ours, theirs, labels, probabilities=probabilities),
        scoring=0 if victim else theirs.numel(),
        complete=copy.complete,
        notes=copy.notes,
        seconds=seconds,
    )


def likeness(
    copy: nn.Module,
    victim: nn.Module,
    held_out: Float[np.ndarray, "m *shape"],
    labels: Int[np.ndarray, " m"] | None = None,
    *,
    probabilities: bool = False,
) -> Likeness:
    """Hold a copy's logits against its victim's; the log-probabilities of both where the victim answers probabilities.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> found = likeness(model, model, np.ones((4, 3), np.float32))
        >>> found.agreement == 1 and found.largest_error == 0
        True
    """
    return _compared(answers(copy, held_out), answers(victim, held_out), labels, probabilities=probabilities)


def _compared(
    ours: Float64[Tensor, "m classes"],
    theirs: Float64[Tensor, "m classes"],
    labels: Int[np.ndarray, " m"] | None,
    *,
    probabilities: bool,
) -> Likeness:
    if probabilities:
        # What underflowed in the victim's softmax has no logarithm to compare.
        ours, theirs = ours.log_softmax(1), theirs.log()
    named, expected = ours.argmax(1).numpy(), theirs.argmax(1).numpy()
    error = (ours - theirs).abs()
    error = error[torch.isfinite(error)]
    return Likeness(
        inputs=len(ours),
        agreement=float((named == expected).mean()),
        accuracy=None if labels is None else float((named == labels).mean()),
        victim_accuracy=None if labels is None else float((expected == labels).mean()),
        largest_error=float(error.max()),
        mean_error=float(error.mean()),
    )


def predictor_of(explainer: Explainer) -> Predictor | None:
    """What tells all outputs of an input by one query, where the service does."""
    if isinstance(explainer, Counted):
        return explainer.predictor()
    return explainer if isinstance(explainer, Predictor) else None


def told_by(explainer: Explainer, inputs: Float[np.ndarray, "n *shape"], classes: int) -> Float64[Tensor, "n classes"]:
    """The outputs that come with a service's explanations, one explanation for each input and class."""
    told = [
        np.concatenate([
            explainer.explain(Request(part, None, np.full(len(part), target), None)).output
            for part in np.split(inputs, range(ROWS, len(inputs), ROWS))
        ])
        for target in range(classes)
    ]  # fmt: skip
    return torch.tensor(np.stack(told, axis=1), dtype=torch.float64)


@torch.no_grad()
def answers(model: nn.Module, inputs: Float[np.ndarray, "n *shape"]) -> Float64[Tensor, "n classes"]:
    """What a model answers in eval mode, in parts, as float64."""
    training = model.training
    model.eval()
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    found = torch.cat([model(part).double() for part in torch.tensor(inputs, dtype=dtype).split(ROWS)])
    model.train(training)
    return found
