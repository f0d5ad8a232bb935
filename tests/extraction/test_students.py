"""Students learn what the service answers: their lessons are the victim's, and a training goes on where it stopped."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from disintegrate import Capabilities, InvalidValue, LocalExplainer, Output, single_step
from disintegrate.extraction import Copy, Extraction, Learnt, Pause, Training, extract, student
from disintegrate.extraction.lessons import lessons_of, said_by
from disintegrate.plan import Plan, Query

X = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
ALL = np.tile(np.arange(3), (7, 1))


def smooth() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).eval()


def service(model: nn.Module, output: Output = Output.LOGITS) -> LocalExplainer:
    head: nn.Module = nn.Sequential(model, nn.Softmax(1)) if output is Output.PROBABILITIES else model
    return LocalExplainer(head, Capabilities(rule="riemann_right", output=output))


@pytest.mark.parametrize("output", list(Output))
@pytest.mark.parametrize("learnt", [Learnt.GRADIENTS, Learnt.ANSWERS])
def test_the_victim_itself_has_nothing_to_learn(learnt: Learnt, output: Output) -> None:
    """A recovered gradient is one point of the ray, a raw answer all nodes of it: both are measured alike."""
    model = smooth()
    plan = single_step() if learnt is Learnt.GRADIENTS else Plan([(1.0, Query(0, 1, 7))])
    lessons = lessons_of(service(model, output), X, ALL, plan, learnt)
    rows, mix = torch.arange(7), torch.randn(7, 3)
    assert lessons.measured is not None
    wanted = torch.einsum("bc,bcd->bd", mix, lessons.measured)
    said = said_by(model, lessons, rows, mix)
    torch.testing.assert_close(said.measured, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(said.outputs, lessons.outputs, rtol=1e-4, atol=1e-5)
    assert len(lessons.positions) == (1 if learnt is Learnt.GRADIENTS else 7)


@pytest.mark.parametrize("asked", [1, 3])
def test_lessons_of_probabilities_are_in_closed_form(asked: int) -> None:
    """One class tells of the logarithm of its probability, several of the differences of their logits."""
    model = nn.Linear(5, 3)
    lessons = lessons_of(service(model, Output.PROBABILITIES), X, ALL[:, :asked], single_step(), Learnt.GRADIENTS)
    weight, p = model.weight.detach(), model(torch.tensor(X)).softmax(1).detach()
    common = torch.einsum("nj,jd->nd", p, weight)[:, None] if asked == 1 else weight.mean(0).expand(7, 1, 5)
    assert lessons.measured is not None
    torch.testing.assert_close(lessons.measured, (weight - common)[:, :asked], rtol=1e-4, atol=1e-5)


def taught(model: nn.Module, learnt: Learnt, *, images: int = 7, steps: int = 300, asked: int | None = None,
           pause: Pause | None = None, budget: int | None = None) -> Extraction:  # fmt: skip
    method = partial(
        student, classes=3, network=lambda: nn.Linear(5, 3), plan=single_step(), learnt=learnt, asked=asked,
        training=Training(steps=steps, learning_rate=0.05), pause=pause, seed=1,
    )  # fmt: skip
    held_out = np.random.default_rng(1).normal(size=(200, 5)).astype(np.float32)
    return extract(method, service(model), X[:images], held_out, model, name=learnt.value, budget=budget)


def test_one_explained_image_teaches_a_linear_model_that_outputs_of_it_do_not() -> None:
    model = nn.Linear(5, 3)
    explained, told = taught(model, Learnt.GRADIENTS, images=1), taught(model, Learnt.LOGITS, images=1)
    # one prediction tells all three outputs, of which each takes an explanation of its own
    assert (explained.queries, told.queries) == (3, 1)
    assert explained.likeness.largest_error < 0.05
    assert told.likeness.largest_error > 0.5


@pytest.mark.parametrize("learnt", [Learnt.LABELS, Learnt.PROBABILITIES, Learnt.LOGITS])
def test_outputs_alone_teach_as_well(learnt: Learnt) -> None:
    before, after = (taught(nn.Linear(5, 3), learnt, steps=steps).likeness.agreement for steps in (1, 300))
    assert after > max(before, 0.6)


def test_one_class_an_image_costs_one_explanation_each() -> None:
    found = taught(nn.Linear(5, 3), Learnt.GRADIENTS, asked=1)
    assert found.queries == found.points == 7
    assert found.likeness.agreement > 0.9


def test_a_budget_covers_so_many_images() -> None:
    assert taught(nn.Linear(5, 3), Learnt.GRADIENTS, budget=13, steps=1).points == 4
    assert taught(nn.Linear(5, 3), Learnt.LOGITS, budget=5, steps=1).points == 5


def test_a_training_that_is_stopped_again_and_again_ends_in_the_same_weights(tmp_path: Path) -> None:
    model = smooth()
    whole = taught(model, Learnt.GRADIENTS, steps=5)
    pieces, sessions = taught(model, Learnt.GRADIENTS, steps=5, pause=Pause(tmp_path / "kept", -1)), 1
    while not pieces.complete:
        pieces, sessions = taught(model, Learnt.GRADIENTS, steps=5, pause=Pause(tmp_path / "kept", -1)), sessions + 1
    assert sessions == 5
    for ours, theirs in zip(pieces.copy.parameters(), whole.copy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_labels_of_a_part_of_the_classes_are_refused() -> None:
    with pytest.raises(InvalidValue, match="all classes"):
        taught(nn.Linear(5, 3), Learnt.LABELS, asked=1)


def test_a_copy_is_handed_in_ready_to_use() -> None:
    copy = student(
        service(smooth()), X, classes=3, network=lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 3)),
        plan=single_step(), learnt=Learnt.LOGITS, training=Training(steps=1),
    )  # fmt: skip
    assert isinstance(copy, Copy)
    assert not copy.model.training
