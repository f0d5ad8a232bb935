"""Vertex AI's `:explain` and `:predict`: the caller may override steps, baselines and outputs within the settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from disintegrate.server.exchange import Asked, Told
from disintegrate.server.keys import Key
from disintegrate.server.kserve import instances, json_object, mapping, shown, target_indices, whole
from disintegrate.server.refusals import STATUS_NAMES, bad
from disintegrate.server.service import Answer, Question, Service

MOST_STEPS = 100
BODY = ("instances", "parameters", "explanationSpecOverride", "deployedModelId", "concurrentExplanationSpecOverride")
METHOD = "integratedGradientsAttribution"
OTHER_METHODS = ("sampledShapleyAttribution", "xraiAttribution", "examples")
PLAIN = "x"


async def explain(service: Service, asked: Asked, key: Key | None) -> Told:
    """Answer `:explain`."""
    given = _known(json_object(asked.body), BODY, "the body")
    name, listed = features(instances(given))
    inputs = service.numbers(listed, "instances")
    override = mapping(given.get("explanationSpecOverride") or {}, "explanationSpecOverride")
    parameters = mapping(override.get("parameters") or {}, "parameters")
    baselines = _baselines(service, override, name, inputs)
    targets = parameters.get("outputIndices")
    question = Question(
        inputs,
        baselines,
        None if targets is None else _everyone(targets, len(inputs)),
        top=_top(parameters.get("topK")),
        steps=_steps(parameters),
    )
    answer = await service.explain(question, key)
    predictions = await service.predict(inputs)
    begin = service.own_baselines(inputs)[:, None] if baselines is None else baselines
    at_baseline = await service.predict(begin.reshape(-1, *inputs.shape[1:]))
    at_baseline = at_baseline.reshape(*begin.shape[:2], -1).mean(axis=1)
    content = {
        "explanations": _explanations(service, answer, at_baseline, name),
        "deployedModelId": _deployed(given),
        "predictions": shown(service, predictions),
    }
    return Told(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))


async def predict(service: Service, asked: Asked, key: Key | None) -> Told:
    """Answer `:predict`."""
    given = json_object(asked.body)
    outputs = await service.predict(service.numbers(features(instances(given))[1], "instances"))
    content = {"predictions": shown(service, outputs), "deployedModelId": _deployed(given)}
    return Told(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))


def error_body(status: int, sentence: str) -> bytes:
    """Google's error: a code, a sentence, and the name of the status."""
    named = STATUS_NAMES.get(status, "UNKNOWN")
    return orjson.dumps({"error": {"code": status, "message": sentence, "status": named}})


def endpoint_resource(service: Service, path: str) -> bytes:
    """What a GET on the endpoint tells."""
    model = {"id": "1", "displayName": service.settings.name, "model": "projects/0/locations/local/models/1"}
    return orjson.dumps({"name": path, "displayName": service.settings.name, "deployedModels": [model]})


def features(given: object) -> tuple[str, list[Any]]:
    """The feature's name, and its values for all instances: `{"x": [...]}` each, or bare lists."""
    if not isinstance(given, list) or not given:
        raise bad("The instances must be a list of at least one.")
    if not isinstance(given[0], dict):
        return PLAIN, given
    names = {name for each in given if isinstance(each, dict) for name in each}
    if len(names) != 1 or not all(isinstance(each, dict) and len(each) == 1 for each in given):
        raise bad('Each instance must hold one feature, the same in all, such as {"x": [...]}.')
    (name,) = names
    return name, [each[name] for each in given]


def _known(given: dict[str, Any], names: tuple[str, ...], where: str) -> dict[str, Any]:
    unknown = [name for name in given if name not in names]
    if unknown:
        raise bad(f"There is no {unknown[0][:40]!r} in {where}.")
    return given


def _everyone(given: object, count: int) -> np.ndarray:
    """The same outputs for all inputs."""
    if not isinstance(given, list) or not given:
        raise bad("The outputIndices must be a list of at least one index.")
    one = target_indices(given, 1)
    if one.shape[1] != 1:
        raise bad("The outputIndices must be a flat list.")
    return np.repeat(one.reshape(1, -1), count, axis=0)


def _top(given: object) -> int | None:
    # Protobuf's 0 is the same as not set.
    if given in (None, 0):
        return 1
    return None if given == -1 else whole(given, "topK (or -1 for all)")


def _steps(parameters: dict[str, Any]) -> int | None:
    if any(parameters.get(name) for name in OTHER_METHODS):
        raise bad("The method cannot be changed: this service explains by Integrated Gradients.")
    method = mapping(parameters.get(METHOD) or {}, METHOD)
    if any(method.get(name) for name in ("smoothGradConfig", "blurBaselineConfig")):
        raise bad("This service neither smooths gradients nor blurs baselines.")
    if method.get("stepCount") in (None, 0):
        return None
    steps = whole(method["stepCount"], "stepCount")
    if steps is not None and steps > MOST_STEPS:
        raise bad(f"The stepCount must lie in 1 to {MOST_STEPS}.")
    return steps


def _baselines(service: Service, override: dict[str, Any], name: str, inputs: np.ndarray) -> np.ndarray | None:
    metadata = mapping(override.get("metadata") or {}, "metadata")
    named = mapping(metadata.get("inputs") or {}, "inputs")
    unknown = [each for each in named if each != name]
    if unknown:
        raise bad(f"There is no feature {unknown[0][:40]!r} in the instances.")
    given = mapping(named.get(name) or {}, "input").get("inputBaselines")
    if not given:
        return None
    baselines = service.numbers(given, "inputBaselines")
    if baselines.shape[1:] != inputs.shape[1:]:
        raise bad("The inputBaselines must be a list of points of the shape of an input.")
    return np.ascontiguousarray(np.broadcast_to(baselines, (len(inputs), *baselines.shape)))


def _deployed(given: dict[str, Any]) -> str:
    named = given.get("deployedModelId")
    return named[:40] if isinstance(named, str) and named else "1"


def _explanations(service: Service, answer: Answer, at_baseline: np.ndarray, name: str) -> list[dict[str, Any]]:
    # Doubles hold every float32 exactly.
    attribution = np.ascontiguousarray(answer.attribution, np.float64)
    output = answer.output.astype(np.float64)
    found = []
    for row, targets in enumerate(answer.targets):
        attributions = []
        for rank, target in enumerate(targets):
            instance, baseline = float(output[row, rank]), float(at_baseline[row, target])
            gap = instance - baseline
            error = abs(float(attribution[row, rank].sum()) - gap) / abs(gap) if gap else 0.0
            attributions.append(
                {
                    "baselineOutputValue": baseline,
                    "instanceOutputValue": instance,
                    "featureAttributions": {name: attribution[row, rank]},
                    "outputIndex": [int(target)],
                    "outputDisplayName": str(target),
                    "approximationError": error,
                    "outputName": service.settings.output.value,
                }
            )
        found.append({"attributions": attributions})
    return found
