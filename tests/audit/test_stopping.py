"""What stops a leak, and what it costs the explanation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, LocalExplainer, Output, Recording, Verdict, Wire, Wired, audit
from disintegrate.audit import changes, exact_attributions, faithfulness, what_stops
from disintegrate.audit.stopping import TRIED


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 4)).eval()


def questions(count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(count, 20)).astype(np.float32), generator.integers(0, 4, count)


FREE = Capabilities("riemann_right", 1, 100, baseline=True, default_steps=50, dtype="float32")


def test_every_change_takes_something_away() -> None:
    found = {change.words: change.changed for change in changes(FREE)}
    assert found["freeze the steps at 50"].fewest_steps == found["freeze the steps at 50"].most_steps == 50
    assert found["refuse fewer than 20 steps"].fewest_steps == 20
    assert not found["pin the baseline"].baseline
    assert found["pin the baseline"].fewest_steps == 1
    assert found["refuse points beyond a true input"].furthest == 1
    assert found["explain probabilities"].output is Output.PROBABILITIES
    assert found["round answers to 3 significant digits"].wire == Wire(significant_digits=3)
    assert found["answer in float16"].wire.dtype == "float16"
    strict = found["all of it, and round to 3 digits"]
    assert (strict.fewest_steps, strict.most_steps, strict.baseline, strict.furthest) == (50, 50, False, 1)
    tight = Capabilities("midpoint", 50, 50, baseline=False, furthest=1, output=Output.PROBABILITIES,
                         wire=Wire(significant_digits=3))  # fmt: skip
    assert changes(tight) == ()


def test_a_change_that_only_stops_the_papers_formula_is_shown_for_what_it_is() -> None:
    model, (x, targets) = network(), questions()
    rows = {stop.words: stop for stop in what_stops(FREE, x, targets, model=model)}
    # The caller's baseline still lies close to the input.
    assert rows["freeze the steps at 50"].judgement.verdict is Verdict.LEAKS
    # One step is still enough.
    assert rows["pin the baseline"].judgement.verdict is Verdict.LEAKS
    assert rows["explain probabilities"].judgement.verdict is Verdict.LEAKS
    both = rows["freeze the steps and pin the baseline"].judgement
    assert both.median_distance > 1000 * rows["as it is"].judgement.median_distance
    assert all(stop.measured for stop in rows.values())
    # Equation (4) asks for 50 and 49 steps, which freezing refuses; (2) and (3) are no more than estimates here.
    assert rows["as it is"].record()["paper_formula"]["equation"] == "(4)"
    assert rows["as it is"].record()["paper_formula"]["verdict"] == "leaks"
    frozen = rows["freeze the steps at 50"].record()
    assert frozen["verdict"] == "leaks"
    assert frozen["paper_formula"]["equation"] in ("(2)", "(3)")
    assert frozen["paper_formula"]["median_distance"] > 1000 * frozen["median_distance"]
    assert frozen["paper_formula"]["stopped_alone"] is (frozen["paper_formula"]["verdict"] != "leaks")


def test_the_papers_formula_is_as_printed_whatever_the_rule() -> None:
    model, (x, targets) = network(), questions()
    wide = replace(FREE, rule="gauss_legendre")
    rows = {stop.words: stop for stop in what_stops(wide, x, targets, model=model)}
    # It is derived for the right Riemann sum; one step or a baseline of the caller's is enough under any rule.
    assert rows["as it is"].judgement.verdict is Verdict.LEAKS
    assert rows["as it is"].stops_the_formula_alone
    assert rows["as it is"].paper.judgement.median_distance > 0.1


def test_without_the_model_the_planner_predicts() -> None:
    x, targets = questions()
    rows = {stop.words: stop for stop in what_stops(FREE, x, targets)}
    assert not any(stop.measured or stop.explanation for stop in rows.values())
    assert rows["freeze the steps at 50"].judgement.verdict is Verdict.LEAKS
    assert rows["as it is"].judgement.median_distance < 1e-5
    assert rows["freeze the steps and pin the baseline"].judgement.median_distance > 0.05
    assert rows["as it is"].paper.equation == "(4)"
    assert rows["as it is"].paper.judgement.median_distance < 1e-4
    assert rows["freeze the steps at 50"].paper.equation == "(2)"  # the plain answer is nearer than (3) at 0.98
    assert rows["freeze the steps at 50"].stops_the_formula_alone


def test_what_hangs_on_the_model_is_tried_on_the_service_itself_within_what_the_change_permits() -> None:
    model, (x, targets) = network(), questions(24)
    smooth = nn.Sequential(nn.Linear(20, 50), nn.GELU(), nn.Linear(50, 4)).eval()
    for one in (model, smooth):
        asked = Recording(LocalExplainer(one, FREE))
        rows = {stop.words: stop for stop in what_stops(FREE, x, targets, service=asked)}
        measured = {stop.words: stop for stop in what_stops(FREE, x, targets, model=one)}
        tried = [row for row in rows.values() if row.measured]
        # what is exact is foretold and costs nothing
        assert not rows["pin the baseline"].measured
        assert {row.words for row in tried} >= {"freeze the steps and pin the baseline", "all of it but digits"}
        assert sum(row.queries for row in tried) == sum(len(request.inputs) for request in asked.requests)
        for request in asked.requests:
            # one step, or a baseline, where digits alone are fewer: those are still permitted then
            assert request.steps in (None, 1, 50)
            assert request.steps == 1 or request.baselines is None
        for row in tried:
            if row.words.startswith(("round", "answer in")):
                # what rounded outputs can confirm is what an audit of a service that rounds says
                digits = int(row.words.split()[3]) if "digits" in row.words else None
                wire = Wire("float16" if digits is None else None, significant_digits=digits)
                there = Wired(LocalExplainer(one, FREE), wire)
                said = audit(there, x[:TRIED], targets[:TRIED]).judgement
                assert (row.judgement.verdict, row.judgement.median_distance) == (said.verdict, said.median_distance)
                continue
            true = measured[row.words].judgement.median_distance
            # an upper estimate, and a coarser one where few digits of the outputs are left
            most = 2.5 if "digits" in row.words and "but digits" not in row.words else 1.6
            assert 0.6 * true < row.judgement.median_distance < most * true + 0.01, row.words
    assert rows["freeze the steps and pin the baseline"].judgement.median_distance < 0.03  # the smooth one's


def test_digits_cost_the_explanation_little_and_noise_much() -> None:
    model, (x, targets) = network(), questions()
    exact = exact_attributions(model, x, 0 * x, targets)
    perfect = faithfulness(model, x, 0 * x, targets, exact, exact)
    assert perfect.rank_correlation == pytest.approx(1)
    assert perfect.top_overlap == 1
    rounded = faithfulness(model, x, 0 * x, targets, Wire(significant_digits=3).round(exact), exact)
    assert rounded.rank_correlation > 0.99
    noise = np.random.default_rng(1).normal(size=exact.shape)
    unrelated = faithfulness(model, x, 0 * x, targets, noise, exact)
    assert abs(unrelated.rank_correlation) < 0.3
    assert unrelated.top_overlap < 0.6
    assert perfect.deletion < unrelated.deletion
    assert perfect.insertion > unrelated.insertion


def test_ranks_and_curves_of_a_linear_model_in_closed_form() -> None:
    model = nn.Linear(10, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.arange(1.0, 11.0)[None])
    x, targets = np.ones((1, 10)), np.array([0])
    exact = exact_attributions(model, x, 0 * x, targets)
    np.testing.assert_allclose(exact[0], np.arange(1, 11), rtol=1e-12)
    backwards = faithfulness(model, x, 0 * x, targets, -exact, exact)
    assert backwards.rank_correlation == pytest.approx(-1)
    assert backwards.top_overlap == 1  # the largest by size
    found = faithfulness(model, x, 0 * x, targets, exact, exact)
    # after k of ten the largest k have gone: what is left is (10 - k)(11 - k) / 110
    left = np.mean([(10 - k) * (11 - k) / 110 for k in range(1, 10)])
    assert found.deletion == pytest.approx(left)
    assert found.insertion == pytest.approx(np.mean([1 - (10 - k) * (11 - k) / 110 for k in range(1, 10)]))
