"""What a copy costs: counts that are true, the change that an owner would make, and a record that goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, InvalidValue, LocalExplainer, Output, Recording, Verdict
from disintegrate.audit import Stop
from disintegrate.audit.changes import changes
from disintegrate.audit.faithfulness import Faithfulness
from disintegrate.audit.formulas import PaperFormula
from disintegrate.audit.verdict import Judgement
from disintegrate.extraction import Access, Training, costs, offers, suggested
from tests.test_cli import run

X = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
CAPTUM = Capabilities("captum_gausslegendre", 1, 100, baseline=False, dtype="float32")
SHORT = ("--queries", "4,9", "--held-out", "20", "--steps-trained", "3", "--steps", "1-100")


def linear() -> nn.Module:
    torch.manual_seed(5)
    return nn.Linear(12, 4).eval()


def judgement(verdict: Verdict, share: float, median: float) -> Judgement:
    return Judgement(verdict, share, median, 0.0, 1, 13.0, "")


def stop(words: str, found: Judgement, correlation: float = 0.5) -> Stop:
    shown = Faithfulness(correlation, 0.5, 0.5, 0.5)
    return Stop(words, found, measured=True, explanation=shown, paper=PaperFormula("3", found))


def test_queries_are_those_that_went_out() -> None:
    model = linear()
    service = Recording(LocalExplainer(model, CAPTUM))
    for offer in offers(service, classes=4, model=model):
        service.requests.clear()
        (row,) = costs(
            [offer], X[:9], X[9:], [9], classes=4, network=lambda: nn.Linear(12, 4), training=Training(steps=1)
        )
        asked = [line.tobytes() for request in service.requests for line in request.inputs]
        assert row.queries == len(asked)
        assert row.inputs == sum(line.tobytes() in asked for line in X)
        # it only explains, so that all four outputs of an input take four queries
        assert (
            len(asked) == {Access.AS_IS: 9 // offer.queries_each * offer.queries_each, Access.OUTPUTS: 8}[offer.access]
        )


def test_a_prediction_is_one_query() -> None:
    model = linear()
    offer = offers(LocalExplainer(model, CAPTUM), classes=4, model=model)[-1]
    (row,) = costs([offer], X[:9], X[9:], [9], classes=4, network=lambda: nn.Linear(12, 4), training=Training(steps=1))
    assert (row.queries, row.inputs) == (9, 9)


def test_explanations_make_a_better_copy_for_the_same_money() -> None:
    model = linear()
    found = offers(LocalExplainer(model, Capabilities("riemann_right", 1, 50)), classes=4, model=model)
    training = Training(steps=1500, batch=8, learning_rate=0.02)
    with_them, without = costs(found, X[:8], X[8:], [8], classes=4, network=lambda: nn.Linear(12, 4), training=training)
    # eight gradients are more than the four rows that there are; eight outputs leave four of twelve directions open
    assert with_them.agreement > 0.98
    assert without.agreement < 0.95


def test_an_owner_makes_the_change_that_stops_it_and_keeps_the_explanations() -> None:
    allowed = Capabilities("midpoint", 1, 100, baseline=False, furthest=1.0)
    words = [change.words for change in changes(allowed)]
    leaks, stopped = judgement(Verdict.LEAKS, 1, 1e-6), judgement(Verdict.NOT_SHOWN, 0, 0.5)
    stops = [stop("as it is", leaks), stop(words[0], stopped, 0.4), stop(words[1], stopped, 0.9), stop(words[2], leaks)]
    chosen = suggested(allowed, stops)
    assert chosen is not None
    assert chosen == changes(allowed)[1]
    # where none stops it: the fewest gradients, and these the farthest away
    partly = [judgement(Verdict.PARTLY, share, median) for share, median in ((0.5, 0.1), (0.2, 0.2), (0.2, 0.3))]
    assert (
        suggested(allowed, [stop(name, found) for name, found in zip(words, partly, strict=False)])
        == changes(allowed)[2]
    )
    assert suggested(allowed, [stop("as it is", leaks)]) is None


def test_the_suggested_settings_are_served() -> None:
    model, allowed = linear(), Capabilities("midpoint", 1, 100, baseline=False, furthest=1.0)
    change = next(change for change in changes(allowed) if change.words == "explain probabilities")
    asked = offers(LocalExplainer(model, allowed), classes=4, model=model, stricter=change)[1]
    assert asked.access is Access.SUGGESTED
    assert asked.explainer.capabilities.output is Output.PROBABILITIES
    assert asked.victim is not None
    assert torch.allclose(asked.victim(torch.tensor(X)).sum(1), torch.ones(len(X)))


def test_a_count_that_cannot_be_asked_gets_a_sentence() -> None:
    found = offers(LocalExplainer(linear(), CAPTUM), classes=4)
    with pytest.raises(InvalidValue, match="an input takes"):
        list(costs(found, X[:3], X[3:], [4], classes=4, network=linear))


def test_a_run_goes_on_behind_finished_copies_and_the_page_shows_the_curve(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, audit = tmp_path / "cost.json", tmp_path / "audit.json"
    arguments = ("cost", "TwoLayerNet", "--student", "TwoLayerNet", "--out", str(out), *SHORT, "--no-suggested")
    code, text, _ = run(capsys, monkeypatch, *arguments, "--price", "2000")
    assert code == 0
    first = json.loads(out.read_text())
    assert [(row["access"], row["queries"]) for row in first["rows"]] == [
        (access.value, queries)
        for access, counts in ((Access.AS_IS, (4, 8)), (Access.OUTPUTS, (4, 9)))
        for queries in counts
    ]
    assert "18.00" in text
    monkeypatch.setattr("disintegrate.extraction.costing.extract", None)
    picture = tmp_path / "cost.svg"
    code, text, _ = run(capsys, monkeypatch, *arguments, "--json", "--picture", str(picture))
    assert code == 0
    assert json.loads(text)["rows"] == first["rows"]
    assert picture.read_text().count("<svg") == 1
    code, _, told = run(capsys, monkeypatch, *arguments, "--seed", "1")
    assert code == 2
    assert "copies of another model" in " ".join(told.split())
    audited = ("audit", "TwoLayerNet", "--steps", "1-100", "--images", "2", "--no-remedies", "--fail-on", "never")
    assert run(capsys, monkeypatch, *audited, "--out", str(audit))[0] == 0
    assert run(capsys, monkeypatch, "report", str(audit), "--cost", str(out))[0] == 0
    page = audit.with_suffix(".html").read_text()
    assert "What a copy costs" in page
    assert all(f"{100 * row['agreement']:.1f}%" in page for row in first["rows"])
    code, _, told = run(capsys, monkeypatch, "report", str(audit), "--cost", str(audit))
    assert code == 1
    assert "is not the record of what a copy costs" in " ".join(told.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("TwoLayerNet", "--queries", "many"), "Queries are whole numbers above 0."),
        (("kserve+http://127.0.0.1:9/v1/models/m",), "for its owner alone"),
        (("TwoLayerNet", "--held-out", "20", "--student", "VGG"), "There is no such network."),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...],
    sentence: str,
) -> None:  # fmt: skip
    common = ("--student", "TwoLayerNet", "--out", str(tmp_path / "x.json"), "--no-suggested")
    code, _, told = run(capsys, monkeypatch, "cost", *common, *arguments)
    assert code == 2
    assert sentence in " ".join(told.split())
