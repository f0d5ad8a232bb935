"""Explainers around an explainer: each adds one thing and passes the rest on."""

from __future__ import annotations

import hashlib

from disintegrate.explainers.protocol import Capabilities, Explainer, Explanation, Request


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


def content_key(request: Request) -> bytes:
    """Checksum of all that a request asks: arrays with their shapes and dtypes, and the steps."""
    digest = hashlib.sha256(str(request.steps).encode())
    for array in (request.inputs, request.baselines, request.targets):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.digest()
