"""The harness counts, limits and scores, whatever the method says."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import (
    BudgetSpent,
    Capabilities,
    Explainer,
    InvalidValue,
    LocalExplainer,
    Output,
    Recording,
    Request,
    single_step,
    step_count,
)
from disintegrate.extraction import Copy, Learnt, Training, extract, likeness, one_hidden_layer, student

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def victim() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()


def service(model: nn.Module) -> LocalExplainer:
    return LocalExplainer(model, Capabilities(rule="riemann_right"))


def thief(explainer: Explainer, inputs: np.ndarray, budget: int | None) -> Copy:
    """Asks one point twice and another once, and says that it asked nothing."""
    for target, row in ((0, 0), (1, 0), (1, 1)):
        explainer.explain(Request(inputs[[row]], None, np.array([target]), None))
    return Copy(nn.Linear(4, 2), {"queries": 0})


def test_points_are_different_inputs_and_explanations_are_counted_by_class() -> None:
    model = victim()
    found = extract(thief, service(model), X, X, model, name="liar")
    assert (found.points, found.queries, found.explanations) == (2, 3, {0: 1, 1: 2})
    assert found.record()["queries"] == 3


@pytest.mark.parametrize(
    "method",
    [
        partial(one_hidden_layer, classes=2, plan=single_step()),
        partial(one_hidden_layer, classes=2, plan=step_count(3)),
        partial(student, classes=2, network=lambda: nn.Linear(4, 2), plan=step_count(3), learnt=Learnt.GRADIENTS,
                training=Training(steps=1)),
        partial(student, classes=2, network=lambda: nn.Linear(4, 2), plan=single_step(), learnt=Learnt.ANSWERS,
                asked=1, training=Training(steps=1)),
    ],
    ids=["theft", "theft with two queries", "student", "student of one class"],
)  # fmt: skip
def test_the_count_is_what_a_recording_explainer_saw(method: partial[Copy]) -> None:
    model = victim()
    recording = Recording(service(model))
    found = extract(method, recording, X, X, model, name="counted")
    seen = Counter(int(target) for request in recording.requests for target in request.targets)
    points = {row.tobytes() for request in recording.requests for row in request.inputs}
    assert found.explanations == seen
    assert found.points == len(points)


def test_a_budget_is_not_exceeded_and_what_was_found_within_it_is_kept() -> None:
    model = victim()
    recording = Recording(service(model))
    method = partial(one_hidden_layer, classes=2, plan=single_step())
    found = extract(method, recording, X, X, model, name="short", budget=9)
    assert not found.complete
    assert sum(len(request.inputs) for request in recording.requests) == found.queries <= 9


def test_a_method_that_overruns_its_budget_is_stopped_before_the_service_is_asked() -> None:
    recording = Recording(service(victim()))
    with pytest.raises(BudgetSpent):
        extract(thief, recording, X, X, victim(), name="spender", budget=2)
    assert len(recording.requests) == 2


def test_likeness_is_the_difference_of_the_logits_and_of_the_names() -> None:
    model, other = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    other.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    with torch.no_grad():
        other.bias[0] += 0.5
    labels = model(torch.tensor(X).double()).argmax(1).numpy()
    found = likeness(other, model, X, labels)
    assert found.largest_error == pytest.approx(0.5)
    assert found.mean_error == pytest.approx(0.5 / 3)
    assert found.victim_accuracy == 1
    named = other(torch.tensor(X).double()).argmax(1).numpy()
    assert found.accuracy == found.agreement == (named == labels).mean()


def test_logits_are_held_against_probabilities_by_their_logarithms() -> None:
    model = nn.Linear(4, 3)
    with torch.no_grad():
        shifted = nn.Linear(4, 3)
        shifted.weight.copy_(model.weight)
        shifted.bias.copy_(model.bias + 7)
    explainer = LocalExplainer(
        nn.Sequential(model, nn.Softmax(1)), Capabilities(rule="riemann_right", output=Output.PROBABILITIES)
    )
    told = extract(lambda *_: Copy(shifted), explainer, X, X, nn.Sequential(model, nn.Softmax(1)), name="told")
    assert told.likeness.largest_error < 1e-5


def test_a_service_whose_model_is_not_at_hand_is_asked_for_the_score_and_that_is_counted_apart() -> None:
    model = victim()
    recording = Recording(service(model))
    found = extract(lambda *_: Copy(model), recording, X, X, None, name="told")
    assert found.likeness.largest_error < 1e-6
    assert found.queries == 0
    assert found.scoring == sum(len(request.inputs) for request in recording.requests) == 12


@pytest.mark.usefixtures("unchecked")
def test_held_out_inputs_and_labels_must_belong_together() -> None:
    model = victim()
    with pytest.raises(InvalidValue, match="one label each"):
        extract(thief, service(model), X, X, model, name="odd", labels=np.zeros(5, int))
    with pytest.raises(InvalidValue, match="shape of the query inputs"):
        extract(thief, service(model), X, X[:, :3], model, name="odd")
