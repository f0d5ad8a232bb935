"""Copies without data: the generator's gradient is that of the loss, and every query is counted."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from disintegrate import Capabilities, Explainer, InvalidValue, LocalExplainer, Output, Recording, single_step
from disintegrate.extraction import Game, Seeking, data_free, extract, image_generator
from disintegrate.extraction.data_free import NOISE, _Player

SIZE, CLASSES = 6, 4
OPEN = Capabilities("riemann_right", 1, 50)


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(SIZE, 9), nn.ReLU(), nn.Linear(9, CLASSES)).eval()


def served(*, probabilities: bool) -> tuple[nn.Module, LocalExplainer]:
    model = network(1)
    if probabilities:
        soft = nn.Sequential(model, nn.Softmax(1)).eval()
        allowed = Capabilities("riemann_right", 1, 50, output=Output.PROBABILITIES)
        return soft, LocalExplainer(soft, allowed)
    return model, LocalExplainer(model, OPEN)


def player(explainer: Explainer, seeking: Seeking, game: Game) -> _Player:
    return _Player(explainer, CLASSES, network(2), nn.Linear(NOISE, SIZE), seeking, single_step(), game, 10**9)


def slope(model: nn.Module, student: nn.Module, points: Tensor, *, probabilities: bool) -> Tensor:
    """The gradient of `mean_c |s_c - v_c|`, by automatic differentiation of both."""
    leaf = points.clone().requires_grad_()
    theirs, ours = model(leaf), student(leaf)
    if probabilities:
        theirs = theirs.log()
        theirs, ours = (values - values.mean(1, keepdim=True) for values in (theirs, ours))
    (found,) = torch.autograd.grad((ours - theirs).abs().mean(1).sum(), leaf)
    return found


@pytest.mark.parametrize("probabilities", [False, True])
def test_explanations_of_all_classes_give_the_slope_of_the_loss(probabilities: bool) -> None:
    model, service = served(probabilities=probabilities)
    asking = player(service, Seeking.EXPLANATIONS, Game(classes_each=CLASSES))
    points = torch.randn(20, SIZE, generator=torch.Generator().manual_seed(0))
    wanted = slope(model, asking.student, points, probabilities=probabilities)
    torch.testing.assert_close(asking._by_explanations(points), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("seeking", "game"),
    [(Seeking.EXPLANATIONS, Game(classes_each=1)), (Seeking.OUTPUTS, Game(directions=3))],
    ids=["one class each", "differences"],
)
def test_what_is_drawn_gives_the_slope_in_the_mean(seeking: Seeking, game: Game) -> None:
    model, service = served(probabilities=False)
    asking = player(service, seeking, game)
    torch.manual_seed(0)
    point = torch.randn(1, SIZE)
    wanted = slope(model, asking.student, point, probabilities=False)[0]
    points = point.repeat(4000, 1)
    found = asking._by_explanations(points) if seeking is Seeking.EXPLANATIONS else asking._by_outputs(points)
    error = found.std(0) / len(points) ** 0.5
    assert ((found.mean(0) - wanted).abs() < 5 * error + 1e-3).all()
    assert (found.mean(0) - 2 * wanted).norm() > 0.5 * wanted.norm()


@pytest.mark.parametrize("seeking", list(Seeking))
@pytest.mark.parametrize("probabilities", [False, True])
def test_every_query_is_counted_and_the_budget_holds(seeking: Seeking, probabilities: bool) -> None:
    model, service = served(probabilities=probabilities)
    method = partial(
        data_free, classes=CLASSES, network=lambda: network(3), generator=lambda: nn.Linear(NOISE, SIZE),
        seeking=seeking, plan=single_step(), game=Game(batch=5, student_steps=2, directions=2, classes_each=3),
    )  # fmt: skip
    nothing, held_out = np.zeros((0, SIZE), np.float32), np.ones((3, SIZE), np.float32)
    found = extract(method, service, nothing, held_out, model, name="game", budget=200)
    compared = 5 if probabilities else 0
    seek = 5 * 3 if seeking is Seeking.OUTPUTS else 5 * 3 + compared
    assert found.queries == found.notes["queries"] == 200 // (10 + seek) * (10 + seek)
    # a service that only explains tells four outputs by four explanations
    asked = Recording(service)
    made = method(asked, nothing, 400)
    assert sum(len(request.inputs) for request in asked.requests) == made.notes["queries"]
    assert 0 < sum(len(request.inputs) for request in asked.requests) <= 400


def test_a_student_learns_without_data() -> None:
    model, service = served(probabilities=False)
    held_out = np.random.default_rng(0).normal(size=(500, SIZE)).astype(np.float32)
    method = partial(
        data_free, classes=CLASSES, network=lambda: network(3), plan=single_step(), seeking=Seeking.EXPLANATIONS,
        generator=lambda: nn.Sequential(nn.Linear(NOISE, 32), nn.ReLU(), nn.Linear(32, SIZE)),
        game=Game(batch=32, student_rate=1e-2),
    )  # fmt: skip
    short, long = (
        extract(method, service, held_out[:0], held_out, model, name="game", budget=budget).likeness.mean_error
        for budget in (200, 40_000)
    )
    # a student that did not learn would stay where 200 queries left it
    assert long < 0.5 * short


def test_a_game_needs_a_budget() -> None:
    model, service = served(probabilities=False)
    with pytest.raises(InvalidValue, match="no end of its own"):
        data_free(
            service, np.zeros((0, SIZE), np.float32), None, classes=CLASSES, network=lambda: model,
            generator=lambda: image_generator(0, 1), seeking=Seeking.OUTPUTS, plan=single_step(),
        )  # fmt: skip
