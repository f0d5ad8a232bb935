"""Vertex' `:explain` on the wire: overrides, averaged baselines, all outputs, Google's errors."""

from typing import Any

import numpy as np
import pytest

from disintegrate import Capabilities, LocalExplainer, Request
from tests.server.running import CLASSES, Running, inputs, small_model

ENDPOINT = "/v1/projects/p/locations/l/endpoints/net"
X = inputs()
INSTANCES = [{"image": row} for row in X.tolist()]


def override(**parameters: Any) -> dict[str, Any]:
    return {"instances": INSTANCES, "explanationSpecOverride": {"parameters": parameters}}


def explainer() -> LocalExplainer:
    return LocalExplainer(small_model(), Capabilities("midpoint", dtype="float32"))


def test_steps_outputs_and_baselines_are_overrides(open_service: Running) -> None:
    begin = inputs(1, seed=4)[0]
    body = override(integratedGradientsAttribution={"stepCount": 6}, outputIndices=[2])
    body["explanationSpecOverride"]["metadata"] = {"inputs": {"image": {"inputBaselines": [begin.tolist()]}}}
    answer = open_service.post(f"{ENDPOINT}:explain", {**body, "deployedModelId": "7"}).json()
    assert answer["deployedModelId"] == "7"
    request = Request(X, np.broadcast_to(begin, X.shape).copy(), np.array([2, 2, 2]), 6)
    expected = explainer().explain(request)
    plain = open_service.post(f"{ENDPOINT}:predict", {"instances": [{"image": begin.tolist()}]}).json()["predictions"]
    for row, each in enumerate(answer["explanations"]):
        (found,) = each["attributions"]
        assert found["outputIndex"] == [2]
        assert found["instanceOutputValue"] == expected.output[row]
        assert found["baselineOutputValue"] == pytest.approx(plain[0][2], rel=1e-6)
        np.testing.assert_array_equal(found["featureAttributions"]["image"], expected.attribution[row])
        gap = found["instanceOutputValue"] - found["baselineOutputValue"]
        missed = abs(np.sum(found["featureAttributions"]["image"]) - gap)
        assert found["approximationError"] == pytest.approx(missed / abs(gap), rel=1e-6, abs=1e-12)


def test_several_baselines_are_averaged(open_service: Running) -> None:
    begins = inputs(2, seed=5)
    body = override(outputIndices=[0])
    body["explanationSpecOverride"]["metadata"] = {"inputs": {"image": {"inputBaselines": begins.tolist()}}}
    answer = open_service.post(f"{ENDPOINT}:explain", body).json()
    each = [
        explainer().explain(Request(X, np.broadcast_to(b, X.shape).copy(), np.zeros(3, int), 8)).attribution
        for b in begins
    ]
    found = [one["attributions"][0]["featureAttributions"]["image"] for one in answer["explanations"]]
    np.testing.assert_allclose(found, np.mean(each, axis=0, dtype=np.float64), rtol=1e-5, atol=1e-6)


def test_top_k_says_how_many_outputs_are_explained(open_service: Running) -> None:
    for k, count in ((-1, CLASSES), (2, 2), (0, 1), (100, CLASSES)):
        answer = open_service.post(f"{ENDPOINT}:explain", override(topK=k)).json()
        for row, each in enumerate(answer["explanations"]):
            largest = np.argsort(-np.array(answer["predictions"][row]), kind="stable")[:count]
            assert [a["outputIndex"] for a in each["attributions"]] == [[int(c)] for c in largest]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"instances": []}, "at least one"),
        ({"instances": [{"x": [1.0], "y": [2.0]}]}, "one feature"),
        ({"instances": [{"x": X[0].tolist()}, {"y": X[0].tolist()}]}, "one feature"),
        ({"instances": INSTANCES, "unknown": 1}, "no 'unknown' in the body"),
        (override(integratedGradientsAttribution={"stepCount": 101}), "1 to 100"),
        (override(integratedGradientsAttribution={"stepCount": -3}), "whole number"),
        (override(sampledShapleyAttribution={"pathCount": 3}), "method cannot be changed"),
        (override(integratedGradientsAttribution={"smoothGradConfig": {"noiseSigma": 1}}), "neither smooths"),
        (override(outputIndices=[4]), "0 to 3"),
        (override(outputIndices=3), "at least one index"),
        (override(outputIndices=[[0, 1], [1, 2]]), "flat list"),
        (override(topK=-2), "whole number"),
    ],
)
def test_bad_input_gets_googles_error(open_service: Running, body: object, sentence: str) -> None:
    answer = open_service.post(f"{ENDPOINT}:explain", body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert sentence in error["message"]


def test_the_endpoint_is_a_resource_and_others_are_not_found(open_service: Running) -> None:
    found = open_service.get(ENDPOINT).json()
    assert found["name"] == ENDPOINT.removeprefix("/v1/")
    assert found["deployedModels"][0]["id"] == "1"
    missing = open_service.post("/v1/projects/p/locations/l/endpoints/other:explain", {"instances": INSTANCES})
    assert missing.json()["error"]["status"] == "NOT_FOUND"
    assert open_service.get("/v1/projects/p/nowhere").json()["error"]["code"] == 404
