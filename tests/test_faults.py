"""The study of faults, scaled down: a proxy that misbehaves, clients that are killed, journals that hold."""

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
