"""Open Inference V2: an explainer is a model whose outputs are attributions; JSON tensors and binary ones.

Inputs "input" (floating point), and perhaps "baselines" and "targets" (whole numbers); parameters "n_steps" and
"top_outputs". Outputs "attributions", "output", "targets", and "predictions" where it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from disintegrate import __version__
from disintegrate.server.exchange import Asked, Told
from disintegrate.server.keys import Key
from disintegrate.server.kserve import json_object, mapping, own_baselines, top_outputs, whole
from disintegrate.server.refusals import bad
from disintegrate.server.service import Question, Service

HEADER = "inference-header-content-length"
DATATYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(dtype)
    for name, dtype in {
        "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
        "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    }.items()
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
OUTPUTS = ("attributions", "output", "targets", "predictions")
INPUTS = ("input", "baselines", "targets")
PARAMETERS = ("n_steps", "top_outputs", "binary_data_output")


@dataclass(frozen=True)
class Wanted:
    """An output that a caller asks for, and whether as binary data."""

    name: str
    binary: bool


async def infer(service: Service, asked: Asked, key: Key | None) -> Told:
    """Answer `infer`."""
    header, data = split(asked)
    given = json_object(header)
    parameters = mapping(given.get("parameters") or {}, "parameters")
    unknown = [name for name in parameters if name not in PARAMETERS]
    if unknown:
        raise bad(f"There is no parameter {unknown[0][:40]!r}. Choose from {', '.join(PARAMETERS)}.")
    tensors = read_tensors(given.get("inputs"), data)
    if "input" not in tensors:
        raise bad('The tensor "input" is missing.')
    wanted = outputs_wanted(given.get("outputs"), binary=parameters.get("binary_data_output") is True)
    inputs = service.numbers(tensors["input"], "input")
    found: dict[str, np.ndarray] = {}
    if any(each.name == "predictions" for each in wanted):
        if service.settings.top_outputs is not None:
            raise bad("This service does not show all outputs.")
        found["predictions"] = await service.predict(inputs)
    if any(each.name != "predictions" for each in wanted):
        found |= await _explained(service, tensors, parameters, inputs, key)
    return written(service, given.get("id"), wanted, found)


async def _explained(
    service: Service, tensors: dict[str, np.ndarray], parameters: dict[str, Any], inputs: np.ndarray, key: Key | None
) -> dict[str, np.ndarray]:
    targets = tensors.get("targets")
    if targets is not None and targets.ndim not in (1, 2):
        raise bad('The tensor "targets" must hold one number for each input, or as many for each.')
    if targets is not None:
        targets = np.clip(targets, -1, 2**31).astype(np.int64)
    answer = await service.explain(
        Question(
            inputs,
            own_baselines(service, tensors.get("baselines"), inputs),
            None if targets is None else targets.reshape(len(targets), -1),
            top=top_outputs(parameters.get("top_outputs")),
            steps=whole(parameters.get("n_steps"), "n_steps"),
        ),
        key,
    )
    several = parameters.get("top_outputs") is not None or (targets is not None and targets.ndim == 2)
    found = {"attributions": answer.attribution, "output": answer.output, "targets": answer.targets.astype(np.int64)}
    return found if several else {name: array[:, 0] for name, array in found.items()}


def split(asked: Asked) -> tuple[bytes, memoryview]:
    """The JSON and the binary data behind it.

    Raises:
        Refusal: the header lies about the length of the JSON.
    """
    length = asked.headers.get(HEADER)
    if length is None:
        return asked.body, memoryview(b"")
    if not (length.isascii() and length.isdigit()) or len(length) > 12 or int(length) > len(asked.body):
        raise bad("The Inference-Header-Content-Length does not fit the body.")
    return asked.body[: int(length)], memoryview(asked.body)[int(length) :]


def read_tensors(given: object, data: memoryview) -> dict[str, np.ndarray]:
    """The tensors of a request, by name.

    Raises:
        Refusal: a tensor that is not known, of another size than its shape, or binary data that are too few or many.
    """
    if not isinstance(given, list) or not given:
        raise bad('The body needs "inputs", a list of tensors.')
    tensors: dict[str, np.ndarray] = {}
    at = 0
    for entry in given:
        tensor = mapping(entry, "tensor")
        name = tensor.get("name")
        if name not in INPUTS or name in tensors:
            raise bad(f"The tensors of a request are {', '.join(INPUTS)}, each once.")
        dtype, shape = _form(tensor)
        size = mapping(tensor.get("parameters") or {}, "parameters").get("binary_data_size")
        if size is None:
            tensors[name] = _listed(tensor.get("data"), dtype, shape)
            continue
        count = int(np.prod(shape, dtype=object))
        if isinstance(size, bool) or not isinstance(size, int) or size != count * dtype.itemsize:
            raise bad(f"The binary_data_size of {name} does not fit its shape and datatype.")
        if at + size > len(data):
            raise bad(f"The binary data of {name} are cut off.")
        tensors[name] = np.frombuffer(data[at : at + size], dtype).reshape(shape)
        at += size
    if at != len(data):
        raise bad("There are more binary data than the tensors tell of.")
    return tensors


def _form(tensor: dict[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    dtype = DATATYPES.get(str(tensor.get("datatype")))
    kinds = "iu" if tensor["name"] == "targets" else "f"
    if dtype is None or dtype.kind not in kinds:
        known = [name for name, kind in DATATYPES.items() if kind.kind in kinds]
        raise bad(f"The datatype of {tensor['name']} must be one of {', '.join(known)}.")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not 1 <= len(shape) <= 8:
        raise bad(f"The shape of {tensor['name']} must be a list of sizes.")
    if any(isinstance(size, bool) or not isinstance(size, int) or not 0 < size < 2**31 for size in shape):
        raise bad(f"The sizes in the shape of {tensor['name']} must be whole numbers of at least 1.")
    return dtype, tuple(shape)


def _listed(data: object, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.asarray(data)
    except (ValueError, TypeError, OverflowError):
        raise bad("The data of a tensor must be lists of numbers of equal length.") from None
    if array.dtype.kind not in ("iu" if dtype.kind in "iu" else "fiu"):
        raise bad("The data of a tensor must be numbers of its datatype.")
    if array.size != int(np.prod(shape, dtype=object)):
        raise bad("The data of a tensor do not fit its shape.")
    with np.errstate(over="ignore"):
        return array.astype(dtype if dtype.kind == "f" else np.int64).reshape(shape)


def outputs_wanted(given: object, *, binary: bool) -> list[Wanted]:
    """The outputs that are asked for; all but the predictions where none are named."""
    if given is None or given == []:
        return [Wanted(name, binary) for name in OUTPUTS[:3]]
    if not isinstance(given, list):
        raise bad("The outputs must be a list.")
    wanted = []
    for entry in given:
        output = mapping(entry, "output")
        name = output.get("name")
        if name not in OUTPUTS:
            raise bad(f"The outputs are {', '.join(OUTPUTS)}.")
        own = mapping(output.get("parameters") or {}, "parameters").get("binary_data", binary)
        wanted.append(Wanted(name, own is True))
    return wanted


def written(service: Service, identity: object, wanted: list[Wanted], found: dict[str, np.ndarray]) -> Told:
    """The answer, with binary data behind the JSON where a caller wants any."""
    outputs, parts = [], []
    for each in wanted:
        array = _typed(service, found[each.name])
        tensor: dict[str, Any] = {"name": each.name, "datatype": NAMES[array.dtype], "shape": list(array.shape)}
        if each.binary:
            part = array.tobytes()
            tensor["parameters"] = {"binary_data_size": len(part)}
            parts.append(part)
        else:
            # Doubles hold every float32 exactly.
            tensor["data"] = array.ravel().astype(np.float64) if array.dtype.kind == "f" else array.ravel()
        outputs.append(tensor)
    answer = {"model_name": service.settings.name, "outputs": outputs}
    if isinstance(identity, str):
        answer["id"] = identity
    header = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if not parts:
        return Told(header)
    return Told(b"".join([header, *parts]), {HEADER: str(len(header))}, "application/octet-stream")


def _typed(service: Service, array: np.ndarray) -> np.ndarray:
    """In the type that the metadata tell of."""
    dtype = service.answered if array.dtype.kind == "f" else array.dtype
    return np.ascontiguousarray(array, dtype.newbyteorder("<"))


def model_metadata(service: Service) -> bytes:
    """What the model takes and answers."""
    shape = list(service.settings.input_shape or ())
    floating = NAMES[service.dtype.newbyteorder("<")]
    answered = NAMES[service.answered.newbyteorder("<")]
    return orjson.dumps(
        {
            "name": service.settings.name,
            "versions": ["1"],
            "platform": "disintegrate",
            "inputs": [
                {"name": "input", "datatype": floating, "shape": [-1, *shape]},
                {"name": "baselines", "datatype": floating, "shape": [-1, *shape]},
                {"name": "targets", "datatype": "INT64", "shape": [-1]},
            ],
            "outputs": [
                {"name": "attributions", "datatype": answered, "shape": [-1, *shape]},
                {"name": "output", "datatype": answered, "shape": [-1]},
                {"name": "targets", "datatype": "INT64", "shape": [-1]},
                {"name": "predictions", "datatype": answered, "shape": [-1, service.classes]},
            ],
        }
    )


SERVER_METADATA = orjson.dumps(
    {"name": "disintegrate", "version": __version__, "extensions": ["binary_tensor_data"]},
)
