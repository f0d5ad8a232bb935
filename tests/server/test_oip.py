"""Open Inference V2 on the wire: tensors as JSON and as binary data, and headers that lie."""

import json
from typing import Any

import numpy as np
import pytest

from disintegrate import Capabilities, LocalExplainer, Request
from tests.server.running import Running, inputs, small_model

INFER = "/v2/models/net/infer"
HEADER = "Inference-Header-Content-Length"


def tensor(name: str, array: np.ndarray, **fields: Any) -> dict[str, Any]:
    datatype = "INT64" if array.dtype.kind == "i" else f"FP{8 * array.itemsize}"
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.tolist(), **fields}


def test_json_tensors_are_answered_with_the_names_and_shapes_of_the_metadata(open_service: Running) -> None:
    x, targets = inputs(), np.array([0, 1, 2])
    body = {
        "id": "42",
        "inputs": [tensor("input", x), tensor("targets", targets)],
        "parameters": {"n_steps": 4},
    }
    answer = open_service.post(INFER, body).json()
    assert answer["model_name"] == "net"
    assert answer["id"] == "42"
    found = {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in answer["outputs"]}
    explainer = LocalExplainer(small_model(), Capabilities("midpoint", dtype="float32"))
    expected = explainer.explain(Request(x, 0 * x, targets, 4))
    np.testing.assert_array_equal(found["attributions"], expected.attribution)
    np.testing.assert_array_equal(found["output"], expected.output)
    np.testing.assert_array_equal(found["targets"], targets)
    metadata = open_service.get("/v2/models/net").json()
    kinds = {each["name"]: each["datatype"] for each in metadata["outputs"]}
    assert all(kinds[each["name"]] == each["datatype"] for each in answer["outputs"])


def test_binary_tensors_go_and_come_bit_for_bit(open_service: Running) -> None:
    x = inputs()
    entry = {"name": "input", "shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    body = {"inputs": [entry], "outputs": [{"name": "predictions", "parameters": {"binary_data": True}}]}
    header = json.dumps(body).encode()
    answer = open_service.post(INFER, header + x.tobytes(), headers={HEADER: str(len(header))})
    length = int(answer.headers[HEADER])
    told = json.loads(answer.content[:length])["outputs"][0]
    found = np.frombuffer(answer.content[length:], "<f4").reshape(told["shape"])
    plain = open_service.post("/v1/models/net:predict", {"instances": x.tolist()}).json()["predictions"]
    np.testing.assert_array_equal(found, np.array(plain, np.float32))


X = tensor("input", inputs())
SIZED = {"name": "input", "shape": [3, 2, 3], "datatype": "FP32", "parameters": {"binary_data_size": 72}}


@pytest.mark.parametrize(
    ("given", "data", "length", "sentence"),
    [
        ({"inputs": [SIZED]}, b"\0" * 72, 1_000_000, "does not fit the body"),
        ({"inputs": [SIZED]}, b"\0" * 72, "-1", "does not fit the body"),
        ({"inputs": [SIZED]}, b"\0" * 72, "²", "does not fit the body"),
        ({"inputs": [SIZED]}, b"\0" * 72, 10, "not JSON"),
        ({"inputs": [SIZED]}, b"\0" * 71, None, "are cut off"),
        ({"inputs": [SIZED]}, b"\0" * 73, None, "more binary data"),
        ({"inputs": [{**SIZED, "shape": [3, 2, 4]}]}, b"\0" * 72, None, "does not fit its shape"),
        ({"inputs": [{**SIZED, "shape": [2**31 - 1] * 8}]}, b"\0" * 72, None, "does not fit its shape"),
        ({"inputs": [{**SIZED, "shape": []}]}, b"\0" * 72, None, "list of sizes"),
        ({"inputs": [{**SIZED, "shape": [-3, 2, 3]}]}, b"\0" * 72, None, "whole numbers of at least 1"),
        ({"inputs": [{**SIZED, "datatype": "INT64"}]}, b"\0" * 72, None, "must be one of FP16, FP32, FP64"),
        ({"inputs": [{**SIZED, "datatype": "BYTES"}]}, b"\0" * 72, None, "must be one of FP16, FP32, FP64"),
        ({"inputs": [SIZED]}, b"\xff" * 72, None, "finite float32"),
        ({"inputs": []}, b"", None, 'needs "inputs"'),
        ({"inputs": [X, X]}, b"", None, "each once"),
        ({"inputs": [{**X, "name": "image"}]}, b"", None, "each once"),
        ({"inputs": [{**X, "data": [1.0]}]}, b"", None, "do not fit its shape"),
        ({"inputs": [{**X, "data": "abc"}]}, b"", None, "numbers of its datatype"),
        ({"inputs": [{**X, "data": None}]}, b"", None, "numbers of its datatype"),
        ({"inputs": [tensor("targets", np.array([0]))]}, b"", None, '"input" is missing'),
        ({"inputs": [X, tensor("targets", np.array([0.5, 1, 2]))]}, b"", None, "datatype of targets"),
        ({"inputs": [X, tensor("targets", np.array([0, 1, 9]))]}, b"", None, "0 to 3"),
        ({"inputs": [X, tensor("targets", np.array([0, 1]))]}, b"", None, "a target for each input"),
        ({"inputs": [X], "outputs": [{"name": "gradient"}]}, b"", None, "The outputs are attributions"),
        ({"inputs": [X], "outputs": {"name": "output"}}, b"", None, "must be a list"),
        ({"inputs": [X], "parameters": {"n_steps": 1000}}, b"", None, "steps in 1 to 100"),
        ({"inputs": [X], "parameters": {"steps": 10}}, b"", None, "no parameter 'steps'"),
    ],
)
def test_tensors_that_are_wrong_and_headers_that_lie_get_a_sentence(
    open_service: Running, given: object, data: bytes, length: object, sentence: str
) -> None:
    header = json.dumps(given).encode()
    told = str(len(header) if length is None else length).encode()
    answer = open_service.post(INFER, header + data, headers={HEADER.encode(): told})
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert open_service.post(INFER, {"inputs": [X]}).status_code == 200


def test_metadata_and_health(open_service: Running) -> None:
    assert "binary_tensor_data" in open_service.get("/v2").json()["extensions"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/net/ready"):
        assert open_service.get(path).status_code == 200
    assert open_service.get("/v2/models/other").status_code == 404
    assert open_service.get("/v2/models/other/ready").status_code == 404
