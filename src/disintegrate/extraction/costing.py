"""What a copy costs its maker: how like the model it gets by how many queries, under which settings of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from torch import nn

from disintegrate.audit.changes import Change, changes
from disintegrate.audit.stopping import Stop, changed_model, changed_service
from disintegrate.audit.verdict import Verdict
from disintegrate.errors import InvalidValue
from disintegrate.explainers.protocol import Capabilities, Explainer
from disintegrate.extraction.curve import Access, Cost
from disintegrate.extraction.harness import Extraction, extract, predictor_of
from disintegrate.extraction.lessons import Learnt
from disintegrate.extraction.students import Training, student
from disintegrate.extraction.tangents import with_output
from disintegrate.plan import Plan, Query
from disintegrate.planner import Proposal, propose
from disintegrate.progress import SILENT, Progress

USUAL = Training()


@dataclass(frozen=True, eq=False)
class Offer:
    """A service as the maker of a copy finds it, and how it is asked.

    Attributes:
        access: what may be asked.
        settings: what the owner changed, in words.
        explainer: the service.
        victim: what it explains; None where that is not at hand.
        plan: how a gradient is asked for, or an output.
        queries_each: for one input.
    """

    access: Access
    settings: str
    explainer: Explainer
    victim: nn.Module | None
    plan: Plan | Proposal
    queries_each: int

    @property
    def learnt(self) -> Learnt:
        """What a student learns of the answers."""
        return Learnt.LOGITS if self.access is Access.OUTPUTS else Learnt.GRADIENTS

    @property
    def classes_each(self) -> int | None:
        """Classes that are asked about at one input; None for all, which one prediction tells."""
        return None if self.access is Access.OUTPUTS else 1


def offers(
    explainer: Explainer,
    *,
    classes: int,
    model: nn.Module | None = None,
    stricter: Change | None = None,
    baseline: Float[np.ndarray, "*shape"] | None = None,
) -> tuple[Offer, ...]:
    """The service as it is, with stricter settings where its model is at hand, and asked for outputs alone.

    Args:
        explainer: the service.
        classes: the model's outputs; a service that does not predict tells them by as many explanations.
        model: what it explains now; None where it is not at hand, and then nothing can be changed.
        stricter: the change to set beside it.
        baseline: the service's own baseline where it is not zero.

    Example:
        >>> from disintegrate.explainers import LocalExplainer
        >>> model = nn.Linear(3, 2)
        >>> found = offers(LocalExplainer(model, Capabilities("midpoint")), classes=2, model=model)
        >>> [offer.access.name for offer in found] == ["AS_IS", "OUTPUTS"]
        True
    """
    plan = propose(explainer.capabilities)
    found = [Offer(Access.AS_IS, "as it is", explainer, model, plan, len(with_output(plan)))]
    if model is not None and stricter is not None:
        served = changed_model(model, explainer.capabilities, stricter)
        service = changed_service(served, stricter, baseline)
        plan = propose(stricter.changed)
        found.append(Offer(Access.SUGGESTED, stricter.words, service, served, plan, len(with_output(plan))))
    # the output comes with any explanation of the input itself
    output = Plan([(1.0, Query(0, 1, explainer.capabilities.own_steps))])
    each = classes if predictor_of(explainer) is None else 1
    found.append(Offer(Access.OUTPUTS, "as it is", explainer, model, output, each))
    return tuple(found)


def suggested(allowed: Capabilities, stops: Sequence[Stop]) -> Change | None:
    """The change that an owner would make: of those that stop the leak the one that keeps the explanations best.

    Where none stops it, that which leaves the fewest gradients, and these the farthest from the truth. None where
    there is nothing to change.

    Args:
        allowed: the settings as they are.
        stops: every change tried, as `what_stops` gives them.

    Example:
        >>> suggested(Capabilities("midpoint"), ()) is None
        True
    """
    known = {change.words: change for change in changes(allowed)}
    tried = [stop for stop in stops if stop.words in known]
    stopping = [stop for stop in tried if stop.judgement.verdict is Verdict.NOT_SHOWN]
    if stopping:
        best = max(stopping, key=lambda stop: stop.explanation.rank_correlation if stop.explanation else 0.0)
        return known[best.words]
    if not tried:
        return None
    least = min(tried, key=lambda stop: (stop.judgement.share_recovered, -stop.judgement.median_distance))
    return known[least.words]


def costs(
    found: Sequence[Offer],
    inputs: Float[np.ndarray, "n *shape"],
    held_out: Float[np.ndarray, "m *shape"],
    counts: Sequence[int],
    *,
    classes: int,
    network: Callable[[], nn.Module],
    labels: Int[np.ndarray, " m"] | None = None,
    training: Training = USUAL,
    seed: int = 0,
    known: Sequence[Cost] = (),
    progress: Progress = SILENT,
) -> Iterator[Cost]:
    """Train a student for each offer and count of queries, and yield what each came to, those already known first.

    A student of explanations asks about one class at each input, drawn at random, for that tells it most for its
    money; a student of outputs asks once for all of them.

    Args:
        found: what may be asked.
        inputs: to ask about.
        held_out: to score on.
        counts: of queries.
        classes: the model's outputs.
        network: makes the untrained student.
        labels: of the held-out inputs.
        training: of each student.
        seed: of weights, classes and batches.
        known: points of the curve from an earlier run; they are not trained again.
        progress: where to show bars.

    Raises:
        InvalidValue: a count that does not pay for one input, or asks about more inputs than there are.

    Example:
        >>> from disintegrate import Capabilities, LocalExplainer
        >>> model, x = nn.Linear(3, 2), np.eye(3, dtype=np.float32)
        >>> service = LocalExplainer(model, Capabilities("riemann_right", 1, 50))
        >>> rows = list(costs(offers(service, classes=2, model=model), x, x, [2], classes=2,
        ...                   network=lambda: nn.Linear(3, 2), training=Training(steps=5)))
        >>> [row.queries for row in rows] == [2, 2]
        True
    """
    for offer in found:
        for count in counts:
            if not 1 <= count // offer.queries_each <= len(inputs):
                raise InvalidValue(
                    f"Asked for {offer.access.value}, an input takes {offer.queries_each} queries.",
                    got=f"{count} queries and {len(inputs)} inputs",
                    instead=f"Ask between {offer.queries_each} and {len(inputs) * offer.queries_each} queries.",
                )
    done = {(row.access, row.settings, row.queries): row for row in known}
    bar = progress.task("copies", len(found) * len(counts))
    for offer in found:
        for count in counts:
            spent = count // offer.queries_each * offer.queries_each
            row = done.get((offer.access, offer.settings, spent))
            if row is None:
                method = partial(
                    student, classes=classes, network=network, plan=offer.plan, training=training, seed=seed,
                    progress=progress, learnt=offer.learnt, asked=offer.classes_each,
                )  # fmt: skip
                asked = inputs[: count // offer.queries_each]
                made = extract(
                    method, offer.explainer, asked, held_out, offer.victim, name=offer.access.value, labels=labels
                )
                row = _cost(offer, made, len(asked))
            yield row
            bar.advance(1, f"{row.agreement:.1%} by {row.queries}")


def _cost(offer: Offer, made: Extraction, inputs: int) -> Cost:
    like = made.likeness
    return Cost(
        access=offer.access, settings=offer.settings, queries=made.queries, inputs=inputs,
        agreement=like.agreement, accuracy=like.accuracy, mean_error=like.mean_error, held_out=like.inputs,
        seconds=made.seconds,
    )  # fmt: skip
