"""What `disintegrate audit` audits: an endpoint, a model behind a service of its own, or a Captum explainer."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from disintegrate.cli.planning import capabilities_of, steps_of
from disintegrate.cli.root import errors, names_endpoint
from disintegrate.errors import UnknownName

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from disintegrate import Explainer, Output, ProbeResult
    from disintegrate.audit import Said
    from disintegrate.cli.root import Bars


@dataclass(frozen=True)
class Words:
    """What the flags say of a service; None for what they leave open."""

    rule: str | None
    steps: str | None
    baseline: bool | None
    probabilities: bool | None
    digits: int | None

    def said(self) -> Said:
        """As the audit of a service confirms it; a library's name stands for its rule and its own steps."""
        from disintegrate.audit import Said
        from disintegrate.rules import PRESETS

        preset = PRESETS.get(self.rule or "")
        return Said(
            rule=preset.rule if preset else self.rule,
            steps=None if self.steps is None else steps_of(self.steps),
            own_steps=preset.steps if preset else None,
            baseline=self.baseline,
            output=None if self.probabilities is None else output_of(self.probabilities),
            significant_digits=self.digits,
        )


@dataclass(frozen=True)
class Asked:
    """Which inputs are wanted: a file or folder, so many of them, and how they are read."""

    source: Path | None
    images: int
    columns: tuple[str, ...] | None = None
    normalise: tuple[float, float] | None = None

    def read(self, shape: tuple[int, ...] | None) -> np.ndarray:
        """The inputs, each of a shape where a model names one; digits of MNIST where nothing is named."""
        from disintegrate.audit.inputs import read_inputs

        if self.source is not None:
            return read_inputs(self.source, shape, columns=self.columns, normalise=self.normalise, most=self.images)
        from disintegrate.paper import mnist

        return mnist.load("test").first(self.images).normalised()


@dataclass(frozen=True, eq=False)
class Subject:
    """What is audited."""

    explainer: Explainer
    inputs: np.ndarray
    targets: np.ndarray
    model: nn.Module | None = None
    said: Said | None = None
    probed: ProbeResult | None = None
    weights_sha256: str | None = None


@dataclass(frozen=True)
class Paid:
    """How a live endpoint is asked: with which key, and what keeps its answers."""

    key_file: Path | None
    journal: Path | None
    in_doubt: str


def subject_of(
    target: str, asked: Asked, words: Words, output: int, paid: Paid, architecture: str | None, trust: bool,
    seed: int, held: ExitStack, progress: Bars,
) -> Subject:  # fmt: skip
    """What a target on the command line stands for."""
    from disintegrate.explainers.captum import PREFIX

    if names_endpoint(target):
        return _endpoint(target, asked, words, output, paid, seed, held, progress)
    if target.startswith(PREFIX):
        return _captum(target, asked, words, output)
    return _model(target, asked, words, architecture, trust)


def _endpoint(
    target: str, asked: Asked, words: Words, output: int, paid: Paid, seed: int, held: ExitStack, progress: Bars
) -> Subject:
    import numpy as np

    from disintegrate.audit import first_look
    from disintegrate.clients import Doubt, Journal, Retrying, careful, connect, read_credentials

    said = words.said()
    remote = held.enter_context(connect(target, credentials=read_credentials(paid.key_file)))
    inputs = asked.read(None)
    targets = np.full(len(inputs), output)
    service: Explainer = Retrying(remote)
    # a probe asks questions twice on purpose, which a journal would not let out
    probed = first_look(service, inputs, targets, said=said, seed=seed, progress=progress)
    if paid.journal is not None:
        kept = held.enter_context(Journal(paid.journal))
        service = careful(remote, kept, target, in_doubt=Doubt(paid.in_doubt))
        counts = kept.counts()
        if counts.answered or counts.in_doubt:
            note = f"The journal holds {counts.answered} answers; {counts.in_doubt} queries are in doubt."
            errors.print(note)
    return Subject(service, inputs, targets, said=said, probed=probed)


def _captum(target: str, asked: Asked, words: Words, output: int) -> Subject:
    import numpy as np
    import torch

    from disintegrate.explainers.captum import METHODS, from_captum, made_by
    from disintegrate.models.weights import weights_sha256

    said = words.said()
    methods = {rule: method for method, rule in METHODS.items()}
    if said.rule is not None and said.rule not in methods:
        raise UnknownName("This is no rule of Captum's.", got=said.rule, instead=f"Choose from {', '.join(methods)}.")
    steps, fixed = said.steps, said.steps is not None and not said.free_steps
    service = from_captum(
        made_by(target),
        method=methods[said.rule or "captum_gausslegendre"],
        n_steps=steps[0] if steps and fixed else min(50, steps[1]) if steps else 50,
        steps=steps,
        baseline=bool(words.baseline),
        output=output_of(bool(words.probabilities)),
    )
    inputs = asked.read(None)
    targets = np.full(len(inputs), output)
    if service.model is not None:
        with torch.no_grad():
            outputs = service.model(torch.tensor(inputs))
        targets = outputs.argmax(1).numpy() if outputs.ndim == 2 else targets
    weights = None if service.model is None else weights_sha256(service.model)
    return Subject(service, inputs, targets, service.model, weights_sha256=weights)


def _model(target: str, asked: Asked, words: Words, architecture: str | None, trust: bool) -> Subject:
    import torch
    from torch import nn

    from disintegrate import LocalExplainer, Wire, Wired, load_model
    from disintegrate.models.weights import weights_sha256

    probabilities = bool(words.probabilities)
    loaded = load_model(target, architecture=architecture, trust=trust)
    model = nn.Sequential(loaded.module, nn.Softmax(1)).eval() if probabilities else loaded.module
    wire = Wire(significant_digits=words.digits)
    allowed = capabilities_of(
        words.rule or "captum", words.steps, baseline=bool(words.baseline), furthest=math.inf, dtype="float32",
        wire=Wire(),
    )  # fmt: skip
    inputs = asked.read(loaded.input_shape)
    with torch.no_grad():
        targets = model(torch.tensor(inputs)).argmax(1).numpy()
    local = LocalExplainer(model, replace(allowed, output=output_of(probabilities)))
    service = Wired(local, wire) if words.digits is not None else local
    return Subject(service, inputs, targets, model, weights_sha256=weights_sha256(loaded.module))


def output_of(probabilities: bool) -> Output:
    """The word for what is explained."""
    from disintegrate import Output

    return Output.PROBABILITIES if probabilities else Output.LOGITS
