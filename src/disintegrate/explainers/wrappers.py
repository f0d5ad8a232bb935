"""Explainers around an explainer: each adds one thing and passes the rest on."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from disintegrate.explainers.protocol import Capabilities, Explainer, Explanation, Request
from disintegrate.explainers.wire import Wire


class Recording:
    """Keeps every request that goes out, in order.

    Example:
        >>> from disintegrate.explainers.local import LocalExplainer
        >>> from torch import nn
        >>> import numpy as np
        >>> explainer = Recording(LocalExplainer(nn.Linear(3, 1), Capabilities(rule="midpoint")))
        >>> x = np.ones((1, 3), np.float32)
        >>> _ = explainer.explain(Request(x, 0 * x, np.array([0]), steps=8))
        >>> [request.steps for request in explainer.requests] == [8]
        True
    """

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer
        self.requests: list[Request] = []

    @property
    def capabilities(self) -> Capabilities:
        """Those of the explainer inside."""
        return self.explainer.capabilities

    def explain(self, request: Request) -> Explanation:
        """Note the request and pass it on."""
        self.requests.append(request)
        return self.explainer.explain(request)


class Remembering:
    """Asks no question twice: a request with the same content gets the answer that came before.

    Two plans that share a query pay for it once. For deterministic services only.
    """

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer
        self._answers: dict[bytes, Explanation] = {}

    @property
    def capabilities(self) -> Capabilities:
        """Those of the explainer inside."""
        return self.explainer.capabilities

    def explain(self, request: Request) -> Explanation:
        """Answer from memory, or pass the request on and remember."""
        key = content_key(request)
        if key not in self._answers:
            self._answers[key] = self.explainer.explain(request)
        return self._answers[key]


class Wired:
    """Rounds and disturbs the answers of the explainer inside, as a wire or a defence does.

    Noise is drawn from a generator of the given seed, so that a run can be repeated; a deterministic wire draws it
    from the request's content as well, so that the same question gets the same noise.

    Example:
        >>> from disintegrate.explainers.local import LocalExplainer
        >>> from torch import nn
        >>> explainer = Wired(LocalExplainer(nn.Linear(3, 1), Capabilities(rule="midpoint")), Wire(decimals=2))
        >>> x = np.ones((1, 3), np.float32)
        >>> answer = explainer.explain(Request(x, None, np.array([0]), None)).attribution
        >>> bool((answer == np.round(answer, 2)).all())
        True
    """

    def __init__(self, explainer: Explainer, wire: Wire, *, seed: int = 0) -> None:
        self.explainer = explainer
        self.wire = wire
        self.seed = seed
        self._generator = np.random.default_rng(seed)

    @property
    def capabilities(self) -> Capabilities:
        """Those of the explainer inside, with this wire."""
        return replace(self.explainer.capabilities, wire=self.wire)

    def explain(self, request: Request) -> Explanation:
        """Answer as the explainer inside, rounded and with noise."""
        answer = self.explainer.explain(request)
        attribution = np.asarray(answer.attribution, np.float64)
        if self.wire.noise:
            generator = self._generator
            if self.wire.deterministic:
                generator = np.random.default_rng([self.seed, *content_key(request)])
            attribution = attribution + self.wire.noise * generator.standard_normal(attribution.shape)
        return Explanation(self.wire.round(answer.output), self.wire.round(attribution))


class Deaf:
    """Silently ignores what its callers set: their steps, their baseline, or both.

    Its capabilities are what the service says of itself, not what it does.
    """

    def __init__(self, explainer: Explainer, *, steps: bool, baseline: bool) -> None:
        self.explainer = explainer
        self.steps = steps
        self.baseline = baseline

    @property
    def capabilities(self) -> Capabilities:
        """Those of the explainer inside."""
        return self.explainer.capabilities

    def explain(self, request: Request) -> Explanation:
        """Pass the request on without what is ignored."""
        if self.steps:
            request = replace(request, steps=None)
        if self.baseline:
            request = replace(request, baselines=None)
        return self.explainer.explain(request)


def content_key(request: Request) -> bytes:
    """Checksum of all that a request asks: arrays with their shapes and dtypes, and the steps."""
    digest = hashlib.sha256(str(request.steps).encode())
    for array in (request.inputs, request.baselines, request.targets):
        if array is None:
            digest.update(b"the service's own")
            continue
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.digest()
