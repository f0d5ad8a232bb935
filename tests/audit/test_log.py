"""What a log gives away, against a slow search for rays and the formulas."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from disintegrate import (
    Capabilities,
    Exactness,
    LocalExplainer,
    Request,
    Verdict,
    distance,
    rule_named,
    vanilla_gradient,
)
from disintegrate.audit import Check, Log, audit_log, read_log
from disintegrate.audit.rays import same_rays
from disintegrate.errors import DamagedFile, InvalidValue, UnknownName
from tests.test_cli import run

D = 12


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 30), nn.Tanh(), nn.Linear(30, 3)).double().eval()


def recorded(
    rule: str, rows: list[tuple[np.ndarray, np.ndarray, int, int]], dtype: type[np.floating] = np.float64
) -> Log:
    """Answers of a service to rows of (baseline, input, target, steps)."""
    service = LocalExplainer(network(), Capabilities(rule))
    b, x = (np.array([row[part] for row in rows]).astype(dtype).astype(np.float64) for part in (0, 1))
    targets, steps = np.array([row[2] for row in rows]), np.array([row[3] for row in rows])
    asked = []
    for i in range(len(rows)):
        one = slice(i, i + 1)
        asked.append(service.explain(Request(x[one], b[one], targets[one], int(steps[i]))))
    attribution = np.concatenate([answer.attribution for answer in asked])
    return Log(x, attribution, steps, targets, b, np.concatenate([answer.output for answer in asked]))


def truth(log: Log) -> np.ndarray:
    found = vanilla_gradient(network(), torch.tensor(log.inputs), torch.tensor(log.targets)).numpy()
    return np.asarray(found)


def mixed(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray, int, int]]:
    """Two rays with several rows, one of them with two targets, a mirrored row, a window, and rows that stand alone."""
    generator = np.random.default_rng(seed)
    u, v, w = generator.normal(size=(3, D))
    zero = np.zeros(D)
    return [
        (zero, u, 0, 50),
        (zero, 49 / 50 * u, 0, 49),
        (zero, u, 1, 50),
        (zero, v, 2, 50),
        (zero, v, 2, 1),
        (zero, w, 0, 50),
        (zero, -0.5 * u, 0, 20),
        (0.9 * u, 1.2 * u, 0, 10),
        (0.99 * w + 0.001 * v, w, 0, 10),
    ]


def slow_places(log: Log) -> list[set[tuple[int, float, float]]]:
    """Every row against every other, coordinate by coordinate: is it `b + t (x - b)` for some t at both its ends?"""
    found = []
    for i in range(len(log.inputs)):
        b, x = log.baselines[i], log.inputs[i]
        unit = (x - b) / np.sqrt(sum((x - b) ** 2))
        whole = np.sqrt(sum(x**2))  # from the baseline of most rows, which is zero
        here = set()
        for j in range(len(log.inputs)):
            if log.targets[j] != log.targets[i]:
                continue
            ends = []
            for point in (log.baselines[j], log.inputs[j]):
                along = sum((point - x) * unit)
                if max(abs(point - x - along * unit)) < 1e-5:
                    ends.append(round(1 + along / whole, 5) + 0.0)
            if len(ends) == 2:
                here.add((j, *ends))
        found.append(here)
    return found


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_on_one_ray_are_those_of_a_slow_search(dtype: type[np.floating]) -> None:
    log = recorded("riemann_right", mixed(), dtype)
    found = [
        {(place.row, round(place.start, 5) + 0.0, round(place.stop, 5) + 0.0) for place in places}
        for places in same_rays(log)
    ]
    assert found == slow_places(log)
    assert [len(places) for places in found] == [4, 4, 1, 2, 2, 1, 4, 4, 1]


def test_equation_4_and_a_single_step_are_found_in_the_log_and_are_exact() -> None:
    log = recorded("riemann_right", mixed())
    found = audit_log(log, "riemann_right", model=network())
    exact = [row.exactness is Exactness.EVERY_MODEL for row in found.rows]
    assert exact[3]
    assert exact[4]
    assert not exact[2]
    assert not exact[5]
    assert found.check is Check.MODEL
    apart = distance(truth(log), found.gradient)
    np.testing.assert_allclose(found.distance, apart, atol=1e-12)
    assert apart[[3, 4]].max() < 1e-9
    # equation (4), and what else lies on that ray
    assert apart[0] < 1e-4
    pair = replace_rows(log, [0, 1])
    alone = audit_log(pair, "riemann_right", model=network())
    coefficients = {term.query.steps: term.coefficient for term in alone.rows[0].plan}
    assert coefficients == {50: pytest.approx(50, rel=1e-4), 49: pytest.approx(-50, rel=1e-4)}
    assert alone.distance[0] < 1e-3


def replace_rows(log: Log, rows: list[int]) -> Log:
    return Log(*(getattr(log, name)[rows] for name in Log.__dataclass_fields__))


def test_the_gradient_is_the_plans_sum_of_answers_divided_by_what_was_moved() -> None:
    log = recorded("gauss_legendre", mixed(3))
    found = audit_log(log, "gauss_legendre")
    places = slow_places(log)
    for number, row in enumerate(found.rows):
        by_row = {place[0]: place[1:] for place in places[number]}
        assert set(row.rows) <= set(by_row)
        total = np.zeros(D)
        for used, term in zip(row.rows, row.plan, strict=True):
            start, stop = by_row[used]
            assert (term.query.start, term.query.stop) == pytest.approx((start, stop), abs=1e-5)
            assert term.query.steps == log.steps[used]
            for i in range(D):
                moved = log.inputs[used, i] - log.baselines[used, i]
                total[i] += term.coefficient * (stop - start) * log.attribution[used, i] / moved
        np.testing.assert_allclose(found.gradient[number], total, rtol=1e-3, atol=1e-3 * np.abs(total).max())
        assert found.distance[number] == pytest.approx(min(row.predicted, np.sqrt(2)))
        assert row.plan.measure(rule_named("gauss_legendre")).exactness is row.exactness
    assert found.check is None


def test_a_window_close_to_the_input_says_more_than_a_ray_from_far_off() -> None:
    found = audit_log(recorded("midpoint", mixed()), "midpoint")
    assert found.rows[8].predicted < 0.3 * found.rows[5].predicted


def test_what_is_in_a_log_decides_the_verdict() -> None:
    rows = mixed()
    assert audit_log(recorded("riemann_right", [rows[4]] * 3), "riemann_right").judgement.verdict is Verdict.LEAKS
    generator = np.random.default_rng(1)
    alone = [(np.zeros(D), generator.normal(size=D), 0, 2) for _ in range(3)]
    found = audit_log(recorded("riemann_left", alone), "riemann_left")
    assert found.judgement.verdict is not Verdict.LEAKS
    assert "0 rows have others on their ray" in found.judgement.sentence


def test_an_input_at_its_baseline_tells_nothing() -> None:
    rows = mixed()
    log = recorded("riemann_right", [rows[4], (rows[4][1], rows[4][1], 2, 1)])
    found = audit_log(log, "riemann_right")
    assert not found.observed[1].any()
    assert found.distance[1] == pytest.approx(np.sqrt(2))


def test_every_kind_of_file_is_the_same_log(tmp_path: Path) -> None:
    log = recorded("riemann_right", mixed())
    columns = {
        "input": log.inputs, "attribution": log.attribution, "steps": log.steps, "target": log.targets,
        "baseline": log.baselines, "output": log.output,
    }  # fmt: skip
    np.savez(
        tmp_path / "log.npz", input=log.inputs, attribution=log.attribution, steps=log.steps, target=log.targets,
        baseline=log.baselines, output=log.output,
    )  # fmt: skip
    pq.write_table(pa.table({name: array.tolist() for name, array in columns.items()}), tmp_path / "log.parquet")
    lines = [json.dumps({name: array[i].tolist() for name, array in columns.items()}) for i in range(len(log.inputs))]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    for kind in ("npz", "parquet", "jsonl"):
        found = read_log(tmp_path / f"log.{kind}", own_steps=7)
        for name in Log.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(found, name), getattr(log, name), err_msg=f"{kind} {name}")
    np.savez(tmp_path / "bare.npz", input=log.inputs, attribution=log.attribution)
    found = read_log(tmp_path / "bare.npz", own_steps=7)
    assert (found.steps == 7).all()
    assert not found.baselines.any()
    assert np.isnan(found.output).all()


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("{", DamagedFile, "is not a .jsonl log"),
        ('{"input": [1, 2]}', InvalidValue, "needs inputs and attributions"),
        ('{"input": [1, 2], "attribution": [1]}', InvalidValue, "an attribution for each of its coordinates"),
        ('{"input": [1, 2], "attribution": [1, "b"]}', InvalidValue, "do not match"),
        ('{"input": [1], "attribution": [1]}\n{"input": [1, 2], "attribution": [1, 2]}', InvalidValue, "do not match"),
        ('{"input": [1], "attribution": [1], "steps": 0}', InvalidValue, "Steps are at least 1"),
    ],
)
def test_logs_that_are_none_get_a_sentence(tmp_path: Path, text: str, error: type[Exception], sentence: str) -> None:
    (tmp_path / "log.jsonl").write_text(text + "\n")
    with pytest.raises(error, match=sentence):
        read_log(tmp_path / "log.jsonl", own_steps=50)


def test_the_command_reads_a_log_and_asks_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = recorded("riemann_right", mixed()[3:5])
    np.savez(tmp_path / "log.npz", input=log.inputs, attribution=log.attribution, steps=log.steps, target=log.targets)
    record = tmp_path / "record.json"
    arguments = ("audit", "--log", str(tmp_path / "log.npz"), "--rule", "riemann_right", "--out", str(record))
    code, text, _ = run(capsys, monkeypatch, *arguments)
    assert code == 3
    assert "100% of the gradients at the 2 logged inputs can be recovered from the log alone" in " ".join(text.split())
    kept = json.loads(record.read_text())
    assert (kept["verdict"], kept["kind"]) == ("leaks", "audit of a log")
    assert [entry["rows"] for entry in kept["inputs"]] == [[0, 1], [1, 0]]
    code, text, _ = run(capsys, monkeypatch, *arguments, "--json", "--fail-on", "never")
    assert code == 0
    assert json.loads(text) == kept
    code, _, told = run(capsys, monkeypatch, "audit", "--log", str(tmp_path / "none.npz"))
    assert code == 2
    assert "There is no such log." in told
    code, _, told = run(capsys, monkeypatch, "audit")
    assert code == 2
    assert "There is nothing to audit." in told
    with pytest.raises(UnknownName):
        audit_log(replace(log), "simpson")
