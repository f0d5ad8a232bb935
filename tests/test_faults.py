"""The studies of faults and of nonsense, scaled down."""

import sys
from pathlib import Path

import pytest

from disintegrate.server import Service
from tests.server.running import SHAPE, serving, settings, small_model
from tests.test_studies import ROOT, study


@pytest.fixture(autouse=True)
def _studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "studies"), *sys.path])


def test_no_answer_is_lost_or_paid_twice_through_faults_and_kills(tmp_path: Path) -> None:
    faults = study("faults")
    with serving(Service(small_model(), settings(together=False))) as running:
        record = faults.disturbed(
            running.port, "/v1/models/net", SHAPE, tmp_path, queries=250, kills=2, writers=2, seed=1
        )
    assert record["answers_equal_to_the_undisturbed_runs"] == 250
    assert record["small_budget"]["spent"] == record["small_budget"]["limit"] == 150
    assert record["in_doubt_by_faults"] > 5
    assert len(record["faults"]) > 8


def test_nonsense_is_answered_below_500() -> None:
    fuzz = study("fuzz")
    chosen = settings(name="model", steps_allowed=(1, 100), caller_baseline=True, limits={"send_seconds": 0.3})
    with serving(Service(small_model(), chosen)) as running:
        record = fuzz.fuzzed(running.port, 7, 4, 2)
    assert record["bad_cases"] == []
    assert record["answers_afterwards"]
    assert record["cases"] > 100
    assert {"200", "400", "404", "405"} <= set(record["statuses"])


def test_a_case_hangs_on_its_number_alone() -> None:
    fuzz = study("fuzz")
    late = fuzz.case(1, 60)
    assert [fuzz.case(1, n) for n in range(600)] == [fuzz.case(1, n) for n in range(600)]
    assert fuzz.case(1, 60) == late
    assert len({fuzz.case(1, n) for n in range(50)}) > 40
