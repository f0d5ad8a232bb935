"""What `disintegrate extract` and `disintegrate cost` copy: a model served in this process, or an owner's endpoint."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from disintegrate.cli.planning import capabilities_of
from disintegrate.cli.root import names_endpoint
from disintegrate.cli.terminal import errors
from disintegrate.errors import InvalidValue, NotPermitted

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from disintegrate import Capabilities, Explainer


@dataclass(frozen=True)
class Settings:
    """What the flags say of the service that is copied."""

    rule: str
    steps: str | None
    baseline: bool
    probabilities: bool

    def capabilities(self) -> Capabilities:
        """As the plans take them."""
        from disintegrate import Output, Wire

        allowed = capabilities_of(
            self.rule, self.steps, baseline=self.baseline, furthest=math.inf, dtype="float32", wire=Wire()
        )
        return replace(allowed, output=Output.PROBABILITIES if self.probabilities else Output.LOGITS)


@dataclass(frozen=True)
class Reached:
    """How a target is reached.

    Attributes:
        own: whether the user says that an endpoint's model is theirs.
        key_file: a file with an endpoint's key.
        journal: where an endpoint's answers are kept.
        architecture: what a model file's weights are for.
        trust: whether a file that could run code is loaded.
    """

    own: bool
    key_file: Path | None
    journal: Path | None
    architecture: str | None
    trust: bool


@dataclass(frozen=True, eq=False)
class Copied:
    """What is copied, and the model behind it where that is at hand."""

    explainer: Explainer
    model: nn.Module | None = None
    shape: tuple[int, ...] | None = None
    weights_sha256: str | None = None


@dataclass(frozen=True, eq=False)
class Points:
    """Inputs to ask about, and others to score a copy on, with labels where these are known."""

    asked: np.ndarray
    held_out: np.ndarray
    labels: np.ndarray | None


def copied(target: str, settings: Settings, reached: Reached, held: ExitStack) -> Copied:
    """The service behind a target, for as long as the stack holds it.

    Raises:
        NotPermitted: an endpoint of which the user does not say that it is theirs.
    """
    allowed = settings.capabilities()
    if not names_endpoint(target):
        return _model(target, allowed, reached)
    if not reached.own:
        raise NotPermitted(
            "A model behind an endpoint is copied for its owner alone.",
            got=target,
            instead="Say --i-own-this-model if it is yours to copy.",
        )
    return _endpoint(target, allowed, reached, held)


def points(source: Path | None, asked: int, held_out: int, shape: tuple[int, ...] | None) -> Points:
    """The first inputs of a file, or digits of MNIST where none is named, and those behind them.

    Raises:
        InvalidValue: none are left to score a copy on.
    """
    from disintegrate.audit.inputs import read_inputs
    from disintegrate.paper import mnist

    labels = None
    if source is not None:
        found = read_inputs(source, shape)[: asked + held_out]
    else:
        digits = mnist.load("test").first(asked + held_out)
        found, labels = digits.normalised(), digits.labels[asked:].astype("int64")
    if len(found) <= asked:
        raise InvalidValue(
            "No inputs are left to score the copy on.", got=f"{len(found)} inputs", instead="Ask about fewer."
        )
    return Points(found[:asked], found[asked:], labels)


def untrained(name: str, seed: int) -> nn.Module:
    """A student with weights of its own."""
    from disintegrate.models.factory import PREFIX, made_by
    from disintegrate.paper.networks import build

    return made_by(name) if name.startswith(PREFIX) else build(name, seed + 1)


def _endpoint(target: str, allowed: Capabilities, reached: Reached, held: ExitStack) -> Copied:
    from disintegrate.clients import Journal, Retrying, careful, connect, read_credentials

    credentials = read_credentials(reached.key_file)
    remote = held.enter_context(connect(target, capabilities=allowed, credentials=credentials))
    if reached.journal is None:
        return Copied(Retrying(remote))
    kept = held.enter_context(Journal(reached.journal))
    counts = kept.counts()
    if counts.answered or counts.in_doubt:
        errors().print(f"The journal holds {counts.answered} answers; {counts.in_doubt} queries are in doubt.")
    return Copied(careful(remote, kept, target))


def _model(target: str, allowed: Capabilities, reached: Reached) -> Copied:
    from torch import nn

    from disintegrate import LocalExplainer, Output, load_model
    from disintegrate.models.weights import weights_sha256

    loaded = load_model(target, architecture=reached.architecture, trust=reached.trust)
    soft = allowed.output is Output.PROBABILITIES
    model = nn.Sequential(loaded.module, nn.Softmax(1)).eval() if soft else loaded.module
    return Copied(LocalExplainer(model, allowed), model, loaded.input_shape, weights_sha256(loaded.module))
