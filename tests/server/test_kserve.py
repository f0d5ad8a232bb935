"""KServe V1 on the wire: what is asked, what is answered."""

import numpy as np
import pytest
import torch

from disintegrate import Capabilities, LocalExplainer, Request
from disintegrate.server import Service
from tests.server.running import CLASSES, Running, inputs, serving, settings, small_model

EXPLAIN, PREDICT = "/v1/models/net:explain", "/v1/models/net:predict"


def local(rule: str = "midpoint") -> LocalExplainer:
    return LocalExplainer(small_model(), Capabilities(rule, dtype="float32", default_steps=8))


def test_explanations_are_those_of_the_engine_bit_for_bit(open_service: Running) -> None:
    x, targets = inputs(), np.array([0, 3, 1])
    baselines = inputs(seed=1)
    body = {
        "instances": x.tolist(),
        "parameters": {"n_steps": 5, "baselines": baselines.tolist(), "targets": targets.tolist()},
    }
    answers = open_service.post(EXPLAIN, body).json()["explanations"]
    expected = local().explain(Request(x, baselines, targets, 5))
    for row, answer in enumerate(answers):
        assert answer["target"] == targets[row]
        assert np.float32(answer["output"]) == expected.output[row]
        assert (np.array(answer["attributions"], np.float32) == expected.attribution[row]).all()


def test_without_parameters_the_services_own_hold_and_the_largest_output_is_explained(open_service: Running) -> None:
    x = inputs()
    answers = open_service.post(EXPLAIN, {"instances": x.tolist()}).json()["explanations"]
    outputs = open_service.post(PREDICT, {"instances": x.tolist()}).json()["predictions"]
    largest = np.argmax(outputs, axis=1)
    exact = local().explain(Request(x, 0 * x, largest, 8)).output
    np.testing.assert_array_equal(np.max(outputs, axis=1), exact.astype(np.float64))
    assert [answer["target"] for answer in answers] == largest.tolist()
    expected = local().explain(Request(x, 0 * x, largest, 8))
    np.testing.assert_array_equal([answer["attributions"] for answer in answers], expected.attribution)


def test_several_outputs_of_one_input_come_in_one_answer(open_service: Running) -> None:
    body = {"instances": inputs().tolist(), "parameters": {"top_outputs": -1}}
    answers = open_service.post(EXPLAIN, body).json()["explanations"]
    for several in answers:
        assert sorted(one["target"] for one in several) == list(range(CLASSES))
        values = [one["output"] for one in several]
        assert values == sorted(values, reverse=True)
    named = {"instances": inputs().tolist(), "parameters": {"targets": [[0, 1], [2, 3], [1, 0]]}}
    targets = [[one["target"] for one in row] for row in open_service.post(EXPLAIN, named).json()["explanations"]]
    assert targets == [[0, 1], [2, 3], [1, 0]]


def test_it_says_that_it_lives_and_is_ready(open_service: Running) -> None:
    assert open_service.get("/").json() == {"status": "alive"}
    assert open_service.get("/v1/models/net").json() == {"name": "net", "ready": True}
    assert open_service.get("/v1/models/other").status_code == 404


X = inputs().tolist()


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b'{"instances": [[', 400, "not JSON"),
        (b"[1, 2]", 400, "The body must be a JSON object."),
        ({"inputs": X}, 400, 'needs "instances"'),
        ({"instances": []}, 400, "at least one"),
        ({"instances": 0.1, "parameters": {"targets": [[0, 1]]}}, 400, "lists of numbers"),
        ({"instances": X, "parameters": {"baselines": 0.1, "targets": 1}}, 400, "lists of numbers"),
        ({"instances": [1.0, 2.0]}, 400, "a list of instances"),
        ({"instances": [[[1.0, 2.0]]]}, 400, "Each input must have the shape [2, 3]. Got [1, 2]."),
        ({"instances": [[[1, 2, 3], [1, 2]]]}, 400, "lists of numbers of equal length"),
        ({"instances": [[["1", "2", "3"]] * 2]}, 400, "must be lists of numbers"),
        ({"instances": [[[True, False, True]] * 2]}, 400, "must be lists of numbers"),
        ({"instances": [{"x": 1}]}, 400, "must be lists of numbers"),
        (b'{"instances": [[[NaN, 1, 2], [1, 2, 3]]]}', 400, "not JSON"),
        ({"instances": [[[1e39, 1, 2], [1, 2, 3]]]}, 400, "finite float32"),
        ({"instances": X, "parameters": {"n_steps": 101}}, 400, "steps in 1 to 100"),
        ({"instances": X, "parameters": {"n_steps": 0}}, 400, "whole number of at least 1"),
        ({"instances": X, "parameters": {"n_steps": 2.5}}, 400, "whole number of at least 1"),
        ({"instances": X, "parameters": {"n_steps": True}}, 400, "whole number of at least 1"),
        ({"instances": X, "parameters": {"n_steps": "5"}}, 400, "whole number of at least 1"),
        ({"instances": X, "parameters": {"targets": 4}}, 400, "0 to 3"),
        ({"instances": X, "parameters": {"targets": -1}}, 400, "0 to 3"),
        ({"instances": X, "parameters": {"targets": [0, 1]}}, 400, "a target for each input"),
        ({"instances": X, "parameters": {"targets": []}}, 400, "whole numbers"),
        ({"instances": X, "parameters": {"targets": "dog"}}, 400, "whole numbers"),
        ({"instances": X, "parameters": {"targets": [0.5, 1, 1]}}, 400, "whole numbers"),
        ({"instances": X, "parameters": {"baselines": [1.0]}}, 400, "one baseline of the shape of an input"),
        ({"instances": X, "parameters": {"baseline": X}}, 400, "There is no parameter 'baseline'"),
        ({"instances": X, "parameters": [1]}, 400, "The parameters must be a JSON object."),
        ({"instances": X * 400}, 413, "may ask for 1024 explanations. Got 1200."),
    ],
)
def test_bad_input_gets_a_sentence_in_the_protocols_body(
    open_service: Running, body: object, status: int, sentence: str
) -> None:
    answer = open_service.post(EXPLAIN, body)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]
    assert open_service.post(EXPLAIN, {"instances": X}).status_code == 200


def test_unknown_models_paths_and_methods_are_told(open_service: Running) -> None:
    for answer, status in (
        (open_service.post("/v1/models/other:explain", {"instances": X}), 404),
        (open_service.post("/nowhere", {}), 404),
        (open_service.post(f"{EXPLAIN}/", {}), 404),
        (open_service.get(EXPLAIN), 405),
    ):
        assert answer.status_code == status
        assert list(answer.json()) == ["error"]


def test_what_callers_may_not_set_is_refused_or_ignored() -> None:
    asked = {"instances": X, "parameters": {"n_steps": 3}}
    pinned = {"instances": X, "parameters": {"baselines": X}}
    with serving(Service(small_model(), settings())) as fixed:
        assert "does not let its callers set the steps" in fixed.post(EXPLAIN, asked).json()["error"]
        assert "does not let its callers set the baseline" in fixed.post(EXPLAIN, pinned).json()["error"]
        plain = fixed.post(EXPLAIN, {"instances": X}).json()
    with serving(Service(small_model(), settings(overrides="ignore"))) as deaf:
        assert deaf.post(EXPLAIN, asked).json() == plain
        assert deaf.post(EXPLAIN, pinned).json() == plain


def test_values_outside_the_bounds_are_refused() -> None:
    with serving(Service(small_model(), settings(smallest_value=0, largest_value=1))) as images:
        assert images.post(EXPLAIN, {"instances": np.abs(inputs()).clip(0, 1).tolist()}).status_code == 200
        assert "Stay within 0 to 1" in images.post(EXPLAIN, {"instances": X}).json()["error"]


def test_only_the_largest_outputs_are_shown_and_explained_where_the_settings_say_so() -> None:
    with serving(Service(small_model(), settings(top_outputs=2))) as running:
        shown = running.post(PREDICT, {"instances": X}).json()["predictions"]
        assert [len(row) for row in shown] == [2, 2, 2]
        body = {"instances": X, "parameters": {"top_outputs": -1}}
        explained = running.post(EXPLAIN, body).json()["explanations"]
        assert [[one["target"] for one in row] for row in explained] == [[o["output"] for o in row] for row in shown]
        hidden = next(c for c in range(CLASSES) if c not in [o["output"] for o in shown[0]])
        refused = running.post(EXPLAIN, {"instances": X[:1], "parameters": {"targets": hidden}})
        assert "Only the 2 largest outputs" in refused.json()["error"]


def test_probabilities_digits_and_the_services_own_baseline() -> None:
    own = inputs(1, seed=9)[0]
    chosen = settings(output="probabilities", significant_digits=3)
    with serving(Service(small_model(), chosen, own_baseline=own)) as running:
        rows = running.post(EXPLAIN, {"instances": X, "parameters": {"top_outputs": -1}}).json()["explanations"]
        at_own = running.post(EXPLAIN, {"instances": [own.tolist()]}).json()["explanations"][0]
    for row in rows:
        assert sum(one["output"] for one in row) == pytest.approx(1, abs=0.01)
        for number in np.array([one["attributions"] for one in row]).ravel():
            assert float(f"{number:.2e}") == number
    assert not np.array(at_own["attributions"]).any()


def test_numbers_beyond_float32_are_refused_whole() -> None:
    large = small_model()
    with torch.no_grad():
        for parameter in large.parameters():
            parameter.fill_(100)
    with serving(Service(large, settings())) as running:
        for path in (EXPLAIN, PREDICT):
            answer = running.post(path, {"instances": [[[1e38, 1e38, 1e38]] * 2]})
            assert answer.status_code == 400
            assert "NaN or infinity for these values" in answer.json()["error"]
