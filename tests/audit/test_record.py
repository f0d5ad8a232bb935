"""The record of an audit: what it holds besides figures, and what is read back."""

import copy
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from disintegrate import Capabilities, DamagedFile, InvalidValue, LocalExplainer, Recording, UnknownName, audit
from disintegrate.audit import provenance, read_record, record_of, written
from disintegrate.audit.examples import block_of, chosen, means_over_blocks
from disintegrate.audit.provenance import without_secrets
from tests.audit.test_audit import network, questions


def small_record() -> dict[str, Any]:
    model, (x, targets) = network(), questions()
    service = LocalExplainer(model, Capabilities(rule="riemann_right"))
    found = audit(service, x, targets, model=model, examples=3)
    return json.loads(json.dumps(found.record()))  # type: ignore[no-any-return]


def test_examples_are_asked_for_as_a_user_asks_and_are_counted() -> None:
    model, (x, targets) = network(), questions()
    service = Recording(LocalExplainer(model, Capabilities("riemann_right", 1, 100, default_steps=40)))
    found = audit(service, x, targets, model=model, examples=3)
    assert found.queries == sum(len(request.inputs) for request in service.requests)
    last = service.requests[-1]
    assert (last.steps, last.baselines, len(last.inputs)) == (None, None, 3)
    order = np.argsort(found.distance, kind="stable")
    assert [example.index for example in found.examples] == [order[0], order[6], order[-1]]
    for example, answered in zip(found.examples, service.explain(last).attribution, strict=True):
        np.testing.assert_array_equal(example.explanation, answered)
        np.testing.assert_array_equal(example.recovered, found.gradient[example.index])
        assert example.distance == found.distance[example.index]
        assert example.truth is not None
        leaf = torch.tensor(x[example.index][None], requires_grad=True)
        (slope,) = torch.autograd.grad(model(leaf)[0, example.target], leaf)
        np.testing.assert_allclose(example.truth, slope[0].numpy(), rtol=1e-5, atol=1e-7)
    record = found.record()
    assert record["queries"]["examples"] == 3
    assert record["queries"]["all"] == found.queries
    rounded = record["examples"][0]
    np.testing.assert_allclose(rounded["explanation"], found.examples[0].explanation, rtol=5e-4)
    assert rounded["shape"] == [20]


def test_the_nearest_and_the_farthest_are_always_shown() -> None:
    assert chosen(np.array([0.5, 0.1]), 6) == [1, 0]
    assert chosen(np.array([3.0, 1.0, 2.0, 0.0]), 2) == [3, 0]


def test_large_inputs_are_kept_as_means_over_blocks() -> None:
    assert block_of((1, 28, 28)) == (1, 1, 1)
    assert block_of((3, 224, 100)) == (1, 4, 4)
    assert block_of((224, 224, 3)) == (4, 4, 1)
    assert block_of((5000,)) == (5,)
    assert block_of((7, 9, 2000)) == (124,)
    image = np.arange(12.0).reshape(1, 3, 4)
    assert means_over_blocks(image, (1, 2, 2)).tolist() == [[[2.5, 4.5], [8.5, 10.5]]]


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    values, path = small_record(), tmp_path / "audit.json"
    path.write_text(written(values))
    assert json.loads(path.read_text()) == values
    # arrays stand on one line each
    assert len(path.read_text().splitlines()) < 300
    found = read_record(path)
    assert found.distances.tolist() == [row["distance"] for row in values["inputs"]]
    example = found.examples[0].example()
    assert example.point.ravel().tolist() == values["examples"][0]["input"]
    # what a later version adds is left aside
    assert record_of({**values, "more": 1}) == found
    # a record from before there were examples
    old = {name: value for name, value in values.items() if name not in ("examples", "format")}
    assert record_of(old).examples == ()


def test_brackets_in_words_are_left_alone() -> None:
    values = {"words": "[ 1 ]\n[\n 2\n]", "numbers": [[1, None], [2.5, 3]], "none": []}
    assert json.loads(written(values)) == values


def changed(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The record with one value replaced; removed where the new one is `...`."""
    found = copy.deepcopy(values)
    *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place: Any = found
    for part in way:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return found


@pytest.mark.parametrize(
    ("path", "value", "kind", "sentence"),
    [
        ("kind", "cell", DamagedFile, "is not the record of an audit of a service. Got kind 'cell'."),
        ("kind", ..., DamagedFile, "is not the record of an audit of a service. Got no record."),
        ("format", 2, InvalidValue, "was written by a later version. Got format 2. Install a newer"),
        ("verdict", "safe", DamagedFile, "is damaged. Got Input should be 'leaks', 'partly' or 'not shown' at verdict"),
        ("median_distance", "small", DamagedFile, "valid number at median_distance"),
        ("queries.all", 1.5, DamagedFile, "at queries.all"),
        ("inputs", [], DamagedFile, "at inputs"),
        ("inputs.0.distance", ..., DamagedFile, "Field required at inputs.0.distance"),
        ("plan.atoms", [], DamagedFile, "at plan.atoms"),
        ("examples.0.input", [1.0], DamagedFile, "not of the shape that is told at examples.0"),
        ("median_distance", float("nan"), DamagedFile, "at median_distance"),
    ],
)
def test_what_is_no_whole_record_gets_one_sentence(
    path: str, value: object, kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind) as raised:
        record_of(changed(small_record(), path, value), "a.json")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]", b"7", b'{"kind": ["audit"]}', b"[" * 100_000])
def test_a_file_of_something_else_gets_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"is not JSON|is not the record of an audit"):
        read_record(path)


def test_a_missing_file_gets_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="There is no such record"):
        read_record(tmp_path)


def test_the_provenance_can_be_checked_and_tells_no_secrets(tmp_path: Path) -> None:
    x, model = np.arange(6, dtype=np.float32).reshape(2, 3), tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    told = provenance(["audit", "kserve+http://host/v1/models/m?key=abc", "--seed", "3"], str(model), x, "ab")
    assert told["command"] == "disintegrate audit kserve+http://host/v1/models/m --seed 3"

    assert told["inputs"]["sha256"] == hashlib.sha256(struct.pack("<6f", *range(6))).hexdigest()
    assert told["inputs"]["sha256"] == provenance([], "", x.astype(">f4"), None)["inputs"]["sha256"]
    assert told["inputs"]["sha256"] != provenance([], "", x + 1, None)["inputs"]["sha256"]
    assert told["model"] == {
        "weights_sha256": "ab",
        "file_sha256": hashlib.sha256(b"weights").hexdigest(),
    }
    assert without_secrets("--key-file") == "--key-file"
    assert without_secrets("json+weights") == "json+weights"
