"""The service's OpenAPI description, drawn from its settings."""

from __future__ import annotations

from typing import Any

from disintegrate import __version__
from disintegrate.server.oip import DATATYPES, INPUTS, OUTPUTS
from disintegrate.server.service import Service

Schema = dict[str, Any]


def description(service: Service) -> Schema:
    """OpenAPI 3.1 of all routes."""
    point, name = _nested(list(service.settings.input_shape or ())), service.settings.name
    v1, v2 = f"/v1/models/{name}", f"/v2/models/{name}"
    vertex = "/v1/projects/{project}/locations/{location}/endpoints/" + name
    index = {"type": "integer", "minimum": 0, "maximum": service.classes - 1}
    instances = {"type": "array", "minItems": 1, "items": point}
    kserve = _object(
        {
            "instances": instances,
            "parameters": _object(
                {
                    "n_steps": _steps(service),
                    "baselines": {"anyOf": [point, instances]},
                    "targets": {"anyOf": [index, {"type": "array", "items": index}]},
                    "top_outputs": {"type": "integer", "minimum": -1},
                }
            ),
        },
        "instances",
    )
    told = {
        "/": "Alive.",
        v1: "Ready.",
        "/v2": "About the server.",
        "/v2/health/live": "Alive.",
        "/v2/health/ready": "Ready.",
        v2: "What the model takes and answers.",
        f"{v2}/ready": "Ready.",
        "/metrics": "Prometheus' metrics.",
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Explanations of {name}", "version": __version__},
        "paths": {
            f"{v1}:explain": _post("Explain instances (KServe V1).", kserve),
            f"{v1}:predict": _post("Predict instances (KServe V1).", _object({"instances": instances}, "instances")),
            f"{v2}/infer": _post("Explain or predict (Open Inference V2).", _infer(service)),
            f"{vertex}:explain": _vertex("Explain instances (Vertex AI).", point, _override(point, index)),
            f"{vertex}:predict": _vertex("Predict instances (Vertex AI).", point, {}),
            **{path: {"get": {"summary": summary, "responses": _responses()}} for path, summary in told.items()},
        },
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _steps(service: Service) -> Schema:
    allowed = service.capabilities
    return {"type": "integer", "minimum": allowed.fewest_steps, "maximum": allowed.most_steps}


def _nested(shape: list[int]) -> Schema:
    schema: Schema = {"type": "number"}
    for size in reversed(shape):
        schema = {"type": "array", "minItems": size, "maxItems": size, "items": schema}
    return schema


def _object(properties: Schema, *required: str) -> Schema:
    return {
        "type": "object", "properties": properties, "required": list(required), "additionalProperties": False,
    }  # fmt: skip


def _responses() -> Schema:
    answers = {"200": "The answer.", "400": "Wrong in itself.", "401": "A key is required.", "403": "Budget spent.",
               "404": "Not known.", "408": "Too slow.", "413": "Too large.", "429": "Come back later."}  # fmt: skip
    return {status: {"description": sentence} for status, sentence in answers.items()}


def _post(summary: str, schema: Schema, parameters: list[Schema] | None = None) -> Schema:
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {
        "parameters": parameters or [],
        "post": {"summary": summary, "requestBody": body, "responses": _responses(), "security": [{"key": []}, {}]},
    }


def _vertex(summary: str, point: Schema, more: Schema) -> Schema:
    text = {"type": "string", "pattern": "^[a-z0-9-]+$"}
    parameters = [{"name": n, "in": "path", "required": True, "schema": text} for n in ("project", "location")]
    instances = {"type": "array", "minItems": 1, "items": {"anyOf": [point, _object({"x": point}, "x")]}}
    return _post(summary, _object({"instances": instances, **more}, "instances"), parameters)


def _override(point: Schema, index: Schema) -> Schema:
    method = _object({"stepCount": {"type": "integer", "minimum": 1, "maximum": 100}})
    parameters = _object(
        {
            "integratedGradientsAttribution": method,
            "topK": {"type": "integer", "minimum": -1},
            "outputIndices": {"type": "array", "minItems": 1, "items": index},
        }
    )
    begin = _object({"inputBaselines": {"type": "array", "items": point}})
    metadata = _object({"inputs": _object({"x": begin})})
    return {
        "explanationSpecOverride": _object({"parameters": parameters, "metadata": metadata}),
        "deployedModelId": {"type": "string"},
    }


def _infer(service: Service) -> Schema:
    size = {"type": "integer", "minimum": 1}
    tensor = _object(
        {
            "name": {"enum": list(INPUTS)},
            "shape": {"type": "array", "minItems": 1, "items": size},
            "datatype": {"enum": list(DATATYPES)},
            "data": {"type": "array"},
            "parameters": _object({"binary_data_size": size}),
        },
        "name", "shape", "datatype",
    )  # fmt: skip
    wanted = _object(
        {"name": {"enum": list(OUTPUTS)}, "parameters": _object({"binary_data": {"type": "boolean"}})}, "name"
    )
    parameters = _object(
        {
            "n_steps": _steps(service),
            "top_outputs": {"type": "integer", "minimum": -1},
            "binary_data_output": {"type": "boolean"},
        }
    )
    return _object(
        {
            "id": {"type": "string"},
            "inputs": {"type": "array", "minItems": 1, "items": tensor},
            "outputs": {"type": "array", "items": wanted},
            "parameters": parameters,
        },
        "inputs",
    )
