"""Vertex AI's `:explain`: steps, baseline and output are overrides that hold for all instances of a request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from jaxtyping import Int

from disintegrate.clients.dialect import chunks, doubles, numbers, parsed
from disintegrate.clients.link import Link, Message, shown
from disintegrate.errors import BadAnswer
from disintegrate.explainers.protocol import Explanation, Request


@dataclass(frozen=True)
class VertexDialect:
    """A Vertex endpoint, real or alike.

    Attributes:
        url: the endpoint's URL, which `:explain` stands behind.
        feature: the name of the input in instances and attributions.
    """

    url: str
    feature: str = "x"

    def parts(self, request: Request, rows: int) -> Iterator[Int[np.ndarray, " r"]]:
        """Rows of the same target and baseline, since a request has one of each."""
        groups: dict[tuple[int, bytes], list[int]] = {}
        for row, target in enumerate(request.targets.tolist()):
            begin = b"" if request.baselines is None else request.baselines[row].tobytes()
            groups.setdefault((target, begin), []).append(row)
        for group in groups.values():
            own = np.array(group)
            for part in chunks(len(own), rows):
                yield own[part]

    def ask(self, link: Link, request: Request) -> Explanation:
        """One `:explain`.

        Raises:
            BadAnswer: the answer lacks an instance, or explains another output.
        """
        target = shown(self.url)
        answer = parsed(link.post(self._message(request)).content, target)
        found = answer.get("explanations") if isinstance(answer, dict) else None
        if not isinstance(found, list) or len(found) != len(request.inputs):
            raise BadAnswer(f"{target} answered another number of explanations than it was asked.")
        chosen = [self._chosen(each, int(request.targets[0]), target) for each in found]
        attributions = [_within(each, "featureAttributions", self.feature) for each in chosen]
        outputs = [each.get("instanceOutputValue", 0.0) for each in chosen]
        return Explanation(
            numbers(outputs, request.targets.shape, "outputs", target),
            numbers(attributions, request.inputs.shape, "attributions", target),
        )

    def _message(self, request: Request) -> Message:
        parameters: dict[str, Any] = {"outputIndices": [int(request.targets[0])]}
        if request.steps is not None:
            parameters["integratedGradientsAttribution"] = {"stepCount": request.steps}
        override: dict[str, Any] = {"parameters": parameters}
        if request.baselines is not None:
            inputs = {self.feature: {"inputBaselines": doubles(request.baselines[:1])}}
            override["metadata"] = {"inputs": inputs}
        instances = [{self.feature: row} for row in doubles(request.inputs)]
        body = {"instances": instances, "explanationSpecOverride": override}
        return Message(f"{self.url}:explain", orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))

    def _chosen(self, explanation: object, index: int, target: str) -> dict[str, Any]:
        """The attribution of the output that was asked for."""
        several = explanation.get("attributions") if isinstance(explanation, dict) else None
        for each in several if isinstance(several, list) else []:
            if isinstance(each, dict) and each.get("outputIndex") in ([index], index):
                return each
        raise BadAnswer(f"{target} explained another output than it was asked.", got=f"none for output {index}")


def _within(found: object, *names: str) -> object:
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found
