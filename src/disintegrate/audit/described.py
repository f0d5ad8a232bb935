"""An explainer as it was found to be."""

from __future__ import annotations

from dataclasses import replace

from disintegrate.explainers.protocol import Capabilities, Explainer, Explanation, Request


class Described:
    """An explainer with capabilities that were found out about it; what it does not take is not sent."""

    def __init__(self, explainer: Explainer, capabilities: Capabilities) -> None:
        self._explainer = explainer
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """What was found out."""
        return self._capabilities

    def explain(self, request: Request) -> Explanation:
        """Pass the request on, without steps and baselines that a caller may not set."""
        allowed = self._capabilities
        steps = None if allowed.fewest_steps == allowed.most_steps else request.steps
        baselines = request.baselines if allowed.baseline else None
        return self._explainer.explain(replace(request, steps=steps, baselines=baselines))
