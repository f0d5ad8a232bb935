"""Open Inference V2: tensors in, tensors out, as binary data (every float32 bit by bit) or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from jaxtyping import Int

from disintegrate.clients.dialect import chunks, doubles, numbers, parsed
from disintegrate.clients.link import Link, Message, Reply, shown
from disintegrate.errors import BadAnswer
from disintegrate.explainers.protocol import Explanation, Request

HEADER = "inference-header-content-length"
DATATYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
NAMES = {"float16": "FP16", "float32": "FP32", "float64": "FP64"}


@dataclass(frozen=True)
class OipDialect:
    """An explainer that is a model of the Open Inference Protocol.

    Attributes:
        url: the model's URL, which `/infer` stands behind.
        binary: whether tensors travel as binary data.
    """

    url: str
    binary: bool = True

    def parts(self, request: Request, rows: int) -> Iterator[Int[np.ndarray, " r"]]:
        """Consecutive rows."""
        return chunks(len(request.inputs), rows)

    def ask(self, link: Link, request: Request) -> Explanation:
        """One inference.

        Raises:
            BadAnswer: the answer lacks a tensor, or its binary data do not fit.
        """
        target = shown(self.url)
        found = self._tensors(link.post(self._message(request)), target)
        attribution = numbers(found.get("attributions"), request.inputs.shape, "attributions", target)
        return Explanation(numbers(found.get("output"), request.targets.shape, "outputs", target), attribution)

    def _message(self, request: Request) -> Message:
        tensors = [("input", request.inputs), ("targets", request.targets.astype("<i8"))]
        if request.baselines is not None:
            tensors.append(("baselines", request.baselines))
        listed, parts = [], []
        for name, array in tensors:
            datatype = "INT64" if name == "targets" else NAMES[array.dtype.name]
            tensor: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype}
            if self.binary:
                part = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
                tensor["parameters"] = {"binary_data_size": len(part)}
                parts.append(part)
            else:
                tensor["data"] = array.ravel() if name == "targets" else doubles(array).ravel()
            listed.append(tensor)
        parameters: dict[str, Any] = {"binary_data_output": True} if self.binary else {}
        if request.steps is not None:
            parameters["n_steps"] = request.steps
        outputs = [{"name": "attributions"}, {"name": "output"}]
        body = {"inputs": listed, "outputs": outputs, "parameters": parameters}
        header = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        if not self.binary:
            return Message(f"{self.url}/infer", header)
        kind = {HEADER: str(len(header)), "content-type": "application/octet-stream"}
        return Message(f"{self.url}/infer", b"".join([header, *parts]), kind)

    def _tensors(self, reply: Reply, target: str) -> dict[str, Any]:
        length = reply.headers.get(HEADER)
        at = len(reply.content)
        if length is not None:
            if not (length.isascii() and length.isdigit()) or int(length) > at:
                raise BadAnswer(f"{target} lies about the length of its JSON.", got=length[:20])
            at = int(length)
        answer = parsed(reply.content[:at], target)
        outputs = answer.get("outputs") if isinstance(answer, dict) else None
        found = {}
        for tensor in outputs if isinstance(outputs, list) else []:
            if not isinstance(tensor, dict):
                continue
            own = tensor.get("parameters")
            size = own.get("binary_data_size") if isinstance(own, dict) else None
            if size is None:
                found[str(tensor.get("name"))] = tensor.get("data")
                continue
            found[str(tensor.get("name"))] = _binary(reply.content, at, size, tensor.get("datatype"), target)
            at += size
        return found


def _binary(content: bytes, at: int, size: object, datatype: object, target: str) -> np.ndarray | None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 0 or at + size > len(content):
        raise BadAnswer(f"{target} answered binary data that are cut off.", got=str(size)[:20])
    if datatype not in DATATYPES:
        return None
    dtype = np.dtype(DATATYPES[str(datatype)])
    if size % dtype.itemsize:
        raise BadAnswer(f"{target} answered binary data that do not fit their datatype.", got=size)
    return np.frombuffer(content, dtype, size // dtype.itemsize, at)
