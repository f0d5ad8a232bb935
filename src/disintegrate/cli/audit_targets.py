"""What `disintegrate audit` audits: an endpoint, a model behind a service of its own, or a Captum explainer."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from disintegrate.cli.engines import Asking, asked_endpoint, asked_model
from disintegrate.cli.planning import capabilities_of, steps_of
from disintegrate.cli.root import names_endpoint
from disintegrate.errors import UnknownName

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from disintegrate import Explainer, Output, ProbeResult
    from disintegrate.audit import Said
    from disintegrate.audit.engines import Source
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
    source: Source | None = None


def subject_of(
    target: str, asked: Asked, words: Words, output: int, asking: Asking, architecture: str | None, trust: bool,
    seed: int, held: ExitStack, progress: Bars,
) -> Subject:  # fmt: skip
    """What a target on the command line stands for."""
    from disintegrate.explainers.captum import PREFIX

    if names_endpoint(target):
        return _endpoint(target, asked, words, output, asking, seed, held, progress)
    if target.startswith(PREFIX):
        return _captum(target, asked, words, output)
    return _model(target, asked, words, asking, architecture, trust, held)


def _endpoint(
    target: str, asked: Asked, words: Words, output: int, asking: Asking, seed: int, held: ExitStack, progress: Bars
) -> Subject:
    import numpy as np

    from disintegrate.audit import first_look

    said = words.said()
    service = asked_endpoint(target, asking, held)
    inputs = asked.read(None)
    targets = np.full(len(inputs), output)
    probed = first_look(service.probing, inputs, targets, said=said, seed=seed, progress=progress)
    return Subject(service.explainer, inputs, targets, said=said, probed=probed, source=service.source)


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


def _model(
    target: str, asked: Asked, words: Words, asking: Asking, architecture: str | None, trust: bool, held: ExitStack
) -> Subject:
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
    service = asked_model(Wired(local, wire) if words.digits is not None else local, model, asking, held)
    weights = weights_sha256(loaded.module)
    return Subject(service.explainer, inputs, targets, model, source=service.source, weights_sha256=weights)


def output_of(probabilities: bool) -> Output:
    """The word for what is explained."""
    from disintegrate import Output

    return Output.PROBABILITIES if probabilities else Output.LOGITS
