"""KServe V1: `:explain`, `:predict`, readiness and liveness, bodies of free JSON under its conventions.

A request is `{"instances": [...], "parameters": {"n_steps": 20, "baselines": [...], "targets": [...]}}`; each
explanation is `{"attributions": [...], "output": 1.5, "target": 3}`, or a list of such where a caller asks for several.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from jaxtyping import Float

from disintegrate.server.exchange import Asked, Told
from disintegrate.server.keys import Key
from disintegrate.server.refusals import bad
from disintegrate.server.service import Answer, Question, Service

PARAMETERS = ("n_steps", "baselines", "targets", "top_outputs")


async def explain(service: Service, asked: Asked, key: Key | None) -> Told:
    """Answer `:explain`."""
    given = json_object(asked.body)
    parameters = mapping(given.get("parameters") or {}, "parameters")
    unknown = [name for name in parameters if name not in PARAMETERS]
    if unknown:
        raise bad(f"There is no parameter {unknown[0][:40]!r}. Choose from {', '.join(PARAMETERS)}.")
    inputs = service.numbers(instances(given), "instances")
    targets = parameters.get("targets")
    question = Question(
        inputs,
        own_baselines(service, parameters.get("baselines"), inputs),
        None if targets is None else target_indices(targets, len(inputs)),
        top=top_outputs(parameters.get("top_outputs")),
        steps=whole(parameters.get("n_steps"), "n_steps"),
    )
    answer = await service.explain(question, key)
    several = parameters.get("top_outputs") is not None or (targets is not None and np.ndim(targets) == 2)
    content = {"explanations": explanations(answer, several=several)}
    return Told(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))


async def predict(service: Service, asked: Asked, key: Key | None) -> Told:
    """Answer `:predict`: all outputs, or the largest ones with their indices where the service shows no more."""
    inputs = service.numbers(instances(json_object(asked.body)), "instances")
    outputs = await service.predict(inputs)
    return Told(orjson.dumps({"predictions": shown(service, outputs)}, option=orjson.OPT_SERIALIZE_NUMPY))


def error_body(status: int, sentence: str) -> bytes:
    """The protocol's error: one sentence."""
    return orjson.dumps({"error": sentence})


def explanations(answer: Answer, *, several: bool) -> list[Any]:
    """An explanation for each input, or a list of them."""
    # Doubles: every float32 arrives bit for bit, whatever the reader rounds through.
    output, attribution = answer.output.astype(np.float64), np.ascontiguousarray(answer.attribution, np.float64)
    rows = [
        [
            {"attributions": attribution[row, rank], "output": output[row, rank], "target": int(target)}
            for rank, target in enumerate(targets)
        ]
        for row, targets in enumerate(answer.targets)
    ]
    return rows if several else [row[0] for row in rows]


def shown(service: Service, outputs: Float[np.ndarray, "n classes"]) -> Any:
    """Outputs as a caller may see them."""
    limit = service.settings.top_outputs
    if limit is None:
        # Doubles: every float32 arrives bit for bit.
        return np.ascontiguousarray(outputs, np.float64)
    order = np.argsort(-outputs, axis=1, kind="stable")[:, :limit]
    return [
        [{"output": int(c), "value": float(row[c])} for c in best] for row, best in zip(outputs, order, strict=True)
    ]


def json_object(body: bytes) -> dict[str, Any]:
    """A JSON object, or a refusal that says where it breaks off."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad(f"The body is not JSON: {error.msg} at character {error.pos}.") from None
    return mapping(given, "body")


def mapping(given: object, what: str) -> dict[str, Any]:
    """The same, if it is a JSON object."""
    if not isinstance(given, dict):
        raise bad(f"The {what} must be a JSON object.")
    return given


def instances(given: dict[str, Any]) -> object:
    """The instances of a request."""
    if "instances" not in given:
        raise bad('The body needs "instances", a list of inputs.')
    return given["instances"]


def whole(given: object, what: str) -> int | None:
    """A whole number of at least 1, or None."""
    if given is None:
        return None
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given < 2**31:
        raise bad(f"The {what} must be a whole number of at least 1.")
    return given


def top_outputs(given: object) -> int | None:
    """How many of the largest outputs: -1 stands for all, which is None."""
    if given in (-1, -1.0):
        return None
    return whole(given, "number of outputs (or -1 for all)") or 1


def target_indices(given: object, count: int) -> np.ndarray:
    """One target for all, one for each input, or several for each."""
    try:
        targets = np.asarray(given)
    except (ValueError, TypeError, OverflowError):
        raise bad("The targets must be whole numbers, as many for each input.") from None
    if targets.dtype.kind == "f" and np.isfinite(targets).all() and (targets == np.round(targets)).all():
        targets = np.clip(targets, -1, 2**31).astype(np.int64)
    if targets.dtype.kind not in "iu" or targets.ndim > 2 or targets.size == 0:
        raise bad("The targets must be whole numbers, as many for each input.")
    targets = np.clip(targets, -1, 2**31).astype(np.int64)
    return np.full((count, 1), targets) if targets.ndim == 0 else targets.reshape(len(targets), -1)


def own_baselines(service: Service, given: object, inputs: np.ndarray) -> np.ndarray | None:
    """A baseline for each input, out of one for all or one for each."""
    if given is None:
        return None
    baselines = service.numbers(given, "baselines")
    if baselines.shape == inputs.shape[1:]:
        baselines = np.broadcast_to(baselines, inputs.shape)
    if baselines.shape != inputs.shape:
        raise bad("There must be one baseline of the shape of an input, or one for each input.")
    return np.ascontiguousarray(baselines)[:, None]
