import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disintegrate import Cost, InvalidValue, Plan, Query, single_step
from tests.strategies import plans


@given(plan=plans, nudge=st.sampled_from((0.0, 1e-6, 0.5)))
def test_a_plan_survives_json(plan: Plan, nudge: float) -> None:
    nudged = replace(plan, nudge=nudge)
    assert Plan.from_json(nudged.to_json()) == nudged
    assert (nudged == plan) is (nudge == 0)


def test_a_plan_without_a_nudge_is_written_as_before_there_were_any() -> None:
    """Stored units are found by this text."""
    assert single_step().to_json() == '{"terms":[{"coefficient":1.0,"start":0.0,"stop":1.0,"steps":1}]}'


@pytest.mark.parametrize("nudge", [-1e-3, math.nan, math.inf])
def test_a_plan_refuses_a_nudge_that_is_no_distance(nudge: float) -> None:
    with pytest.raises(InvalidValue, match="A nudge is a distance"):
        Plan([(1, Query(0, 1, 5))], nudge=nudge)


def test_cost_and_amplification_are_those_of_the_terms() -> None:
    plan = Plan([(3, Query(0, 1, 50)), (-4, Query(0, 0.98, 49))])
    assert plan.cost == Cost(queries=2, gradients=99)
    assert plan.amplification == 5.0
    assert len(plan) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"terms": []}',
        '{"terms": [{"coefficient": 1, "start": 0, "stop": 1}]}',
        '{"terms": [{"coefficient": 1, "start": 0, "stop": 1, "steps": 0}]}',
        '{"terms": [{"coefficient": 1, "start": 1, "stop": 1, "steps": 2}]}',
        '{"terms": [{"coefficient": 1, "start": 0, "stop": 1, "steps": 2, "rule": "right"}]}',
    ],
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        Plan.from_json(text)


@pytest.mark.parametrize(
    ("start", "stop", "steps"), [(0, 0, 5), (0, math.inf, 5), (math.nan, 1, 5), (0, 1, 0), (0, 1, -1)]
)
def test_a_query_refuses_what_cannot_be_asked(start: float, stop: float, steps: int) -> None:
    with pytest.raises(InvalidValue, match="Use "):
        Query(start, stop, steps)


def test_a_plan_refuses_coefficients_that_are_no_numbers() -> None:
    with pytest.raises(InvalidValue, match="finite"):
        Plan([(math.nan, Query(0, 1, 5))])


def test_plans_measures_and_rules_need_no_torch() -> None:
    modules = "import disintegrate.closed_form, disintegrate.measure, disintegrate.rules, disintegrate.softmax"
    command = f"{modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
