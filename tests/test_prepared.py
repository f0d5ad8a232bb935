"""A prepared model computes the same: every rewriting against the model itself, in float64, and its refusals."""

import copy
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from disintegrate import (
    Capabilities,
    InvalidValue,
    LocalExplainer,
    Path,
    Request,
    Rewriting,
    integrated_gradients,
    prepare,
    riemann_right,
    rule_named,
    vanilla_gradient,
)
from disintegrate.gradients.dense import DenseConvolution, FlatLinear
from disintegrate.gradients.rewriting import rewrite
from disintegrate.paper.conditions import CONDITIONS, Untied
from disintegrate.paper.networks import NETWORKS, build
from tests import oracles
from tests.strategies import Case, cases


def settled(model: nn.Module) -> nn.Module:
    """Float64, with batch normalisation that has something to fold."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.double().eval()


class Views(nn.Module):
    """Flattens as many do, with a size that it reads off its input."""

    def __init__(self, *, by_shape: bool) -> None:
        super().__init__()
        self.by_shape, self.first, self.second = by_shape, nn.Linear(12, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.view(x.shape[0], -1) if self.by_shape else x.reshape(x.size(0), -1)
        out: Tensor = self.second(torch.relu(self.first(flat)))
        return out


class Twice(nn.Module):
    """Calls one layer, and one ReLU, twice, and reads the input of a ReLU again."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.relu, self.last = nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(x.flatten(1))
        hidden = self.relu(hidden) + hidden
        out: Tensor = self.last(self.relu(self.layer(hidden)))
        return out


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1))
        return out if bool(x.sum() > 0) else 2 * out


MODELS: dict[str, tuple[nn.Module, Path]] = {
    "two layers": (nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3)), Path.SPLIT),
    "views": (Views(by_shape=False), Path.SPLIT),
    "views by shape": (Views(by_shape=True), Path.SPLIT),
    "one layer twice": (Twice(), Path.SPLIT),
    "affine throughout": (nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(4, 3)), Path.SPLIT),
    "a softmax at the end": (nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Softmax(1)), Path.SPLIT),
    "normalised first": (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 2), nn.ReLU(), nn.Flatten(),
                                       nn.Linear(5, 3)), Path.SPLIT),
    "normalised linear": (nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3)),
                          Path.SPLIT),
    "small maps": (nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                                 nn.Conv2d(8, 4, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1),
                                 nn.ReLU(), nn.Flatten(), nn.Linear(4, 3)), Path.SPLIT),
    "flattened maps": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)), Path.SPLIT),
    "pooling": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(2), nn.Flatten(), nn.Tanh(), nn.Linear(4, 3)),
                Path.SPLIT),
    "a bend first": (nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)), Path.REWRITTEN),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_rewriting_computes_what_the_model_computes(name: str) -> None:
    model, path = settled(MODELS[name][0]), MODELS[name][1]
    x, b = torch.randn(2, 5, 3, 2, 2, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 1, 0])
    for measuring in (False, True):
        prepared = prepare(model, x, targets, measuring=measuring)
        assert prepared.path is path
        slow = torch.stack([oracles.gradient(model, one, int(t)) for one, t in zip(x, targets, strict=True)])
        torch.testing.assert_close(vanilla_gradient(prepared, x, targets), slow, rtol=1e-10, atol=1e-12)
        slow = torch.stack([
            oracles.integrated(model, one, start, int(t), 7) for one, start, t in zip(x, b, targets, strict=True)
        ])  # fmt: skip
        found = integrated_gradients(prepared, x, b, targets, riemann_right(7))
        torch.testing.assert_close(found, slow, rtol=1e-10, atol=1e-12)


@given(case=cases(images=3), steps=st.integers(1, 9), memory=st.sampled_from([1, 20_000, 2**27]))
def test_random_networks_prepared_and_not(case: Case, steps: int, memory: int) -> None:
    x, targets, rule = torch.tensor(case.inputs), torch.tensor(case.targets), rule_named("midpoint")(steps)
    prepared = prepare(case.model, x, targets, memory=memory, measuring=False)
    assert prepared.rewritten is not None
    b = torch.full_like(x, 0.25)
    expected = integrated_gradients(case.model, x, b, targets, rule)
    found = integrated_gradients(prepared, x, b, targets, rule)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


# A proxy is no tensor, so the checks of shapes would refuse what torch.fx traces.
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rewriting", [Rewriting.ALL, Rewriting.BEHIND_POOLING])
def test_the_papers_networks(name: str, rewriting: Rewriting) -> None:
    model = settled(build(name))
    x, targets = torch.randn(2, 1, 28, 28, dtype=torch.float64), torch.tensor([3, 7])
    prepared = prepare(model, x, targets, rewriting=rewriting, measuring=False)
    pooled = not name.startswith("TwoLayerNet")
    assert prepared.path is (Path.REWRITTEN if pooled and rewriting is Rewriting.BEHIND_POOLING else Path.SPLIT)
    expected = integrated_gradients(model, x, 0 * x, targets, riemann_right(3))
    torch.testing.assert_close(
        integrated_gradients(prepared, x, 0 * x, targets, riemann_right(3)), expected, rtol=1e-8, atol=1e-9
    )


@pytest.mark.usefixtures("unchecked")
def test_behind_pooling_nothing_before_it_is_touched() -> None:
    model = settled(build("ResNet18"))
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    kept = rewrite(model, x, last=False, keep_pooling=True)
    stem = nn.Sequential(*list(model.children())[:4])
    found = kept.body
    names = [str(node.target) for node in found.graph.nodes]  # type: ignore[union-attr]
    assert names[1:5] == ["conv1", "bn1", "relu1", "pool1"]
    hidden = x
    for name in names[1:5]:
        hidden = found.get_submodule(name)(hidden)
    assert (hidden == stem(x)).all()
    assert sum(isinstance(module, nn.BatchNorm2d) for module in found.modules()) == 1


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(("size", "stride", "padding"), [(1, 1, 1), (2, 1, 1), (2, 2, 1)])
def test_a_small_convolution_is_its_matrix(size: int, stride: int, padding: int, last: bool) -> None:
    convolution = nn.Conv2d(3, 5, 3, stride, padding).double()
    x = torch.randn(4, 3, size, size, dtype=torch.float64)
    dense = DenseConvolution(convolution, x.shape, last=last)
    given = x.contiguous(memory_format=torch.channels_last) if last else x
    torch.testing.assert_close(dense(given), convolution(x))


def test_flattening_in_the_order_of_memory() -> None:
    linear, x = nn.Linear(12, 2).double(), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(FlatLinear(linear, x.shape)(x), linear(x.flatten(1)))


def test_what_cannot_be_rewritten_is_computed_as_it_is_and_says_so() -> None:
    x, targets = torch.randn(3, 12), torch.tensor([0, 1, 2])
    plain = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3)).eval()
    hooked, calls = copy.deepcopy(plain), []
    hooked[0].register_forward_hook(lambda *_: calls.append(1))
    found = {
        Path.ASKED: prepare(plain, x, targets, rewriting=Rewriting.NONE, measuring=False),
        Path.HOOKS: prepare(hooked, x, targets, measuring=False),
        Path.TRAINING: prepare(nn.Sequential(plain, nn.Dropout(0.0)), x, targets, measuring=False),
        Path.NOT_TRACED: prepare(Branching().eval(), x, targets, measuring=False),
    }
    for path, prepared in found.items():
        assert prepared.path is path
        expected = integrated_gradients(prepared.model, x, 0 * x, targets, riemann_right(4))
        assert (integrated_gradients(prepared, x, 0 * x, targets, riemann_right(4)) == expected).all()
    before = len(calls)
    vanilla_gradient(found[Path.HOOKS], x, targets)
    assert len(calls) > before


def test_random_numbers_inside_a_model_are_not_traced() -> None:
    model = Untied(nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3))).eval()
    assert prepare(model, torch.randn(3, 12), torch.tensor([0, 1, 2])).path is Path.NOT_TRACED


def test_a_rewriting_that_differs_is_refused_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, targets = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3)).eval(), torch.randn(4, 12), [0, 1]
    labels = torch.tensor(targets * 2)
    right = rewrite

    def slightly_wrong(*arguments: object, **options: object) -> object:
        rewritten = right(*arguments, **options)  # type: ignore[arg-type]
        assert rewritten.end is not None
        rewritten.end.weight.data[1] *= 1.001
        return rewritten

    monkeypatch.setattr("disintegrate.gradients.prepared.rewrite", slightly_wrong)
    with pytest.warns(UserWarning, match="differs from the model"):
        prepared = prepare(model, x, labels)
    assert prepared.path is Path.DIFFERS
    assert (vanilla_gradient(prepared, x, labels) == vanilla_gradient(model, x, labels)).all()


@pytest.mark.usefixtures("unchecked")
def test_the_callers_model_is_left_as_it_is() -> None:
    model = build("ResNet18").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(2, 1, 28, 28)
    assert prepare(model, x, torch.tensor([1, 2]), measuring=False).path is Path.SPLIT
    assert all((value == before[name]).all() for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(value.is_contiguous() for value in model.state_dict().values())


@pytest.mark.usefixtures("unchecked")
def test_bad_input_gets_a_sentence() -> None:
    model = nn.Linear(3, 2).eval()
    with pytest.raises(InvalidValue, match="does not take inputs of this shape"):
        prepare(model, torch.zeros(2, 5), torch.tensor([0, 0]))
    prepared = prepare(model, torch.zeros(2, 3), torch.tensor([0, 0]))
    with pytest.raises(InvalidValue, match="Use 0 to 1"):
        vanilla_gradient(prepared, torch.zeros(2, 3), torch.tensor([0, 2]))
    with pytest.raises(InvalidValue, match="at least one byte"):
        prepare(model, torch.zeros(2, 3), torch.tensor([0, 0]), memory=0)


def test_a_large_sum_is_not_taken_for_infinity() -> None:
    x = torch.full((2, 3), 3e38)
    assert vanilla_gradient(nn.Linear(3, 2), x, torch.tensor([0, 1])).isfinite().all()


def test_a_first_batch_that_overflows_does_not_decide_the_path() -> None:
    model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2)).eval()
    nn.init.ones_(next(iter(model.parameters())))
    huge = torch.full((2, 4), 3e38)
    assert not model(huge).isfinite().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared = prepare(model, huge, torch.tensor([0, 1]), measuring=False)
    assert prepared.path is Path.SPLIT


@pytest.mark.parametrize("seed", range(20))
def test_a_single_row_within_rounding_of_a_kink_does_not_decide_the_path(seed: int) -> None:
    # folded, batch normalisation is rounded otherwise, and a unit that is 0 comes out on either side of it
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(30, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 2))
    settled(model).float()
    x = torch.randn(1, 30)
    model[1].bias.data -= model[:2](x)[0].detach()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepare(model, x, torch.tensor([0]), measuring=False).path is Path.SPLIT


def test_a_local_service_prepares_once_and_measures_only_when_asked() -> None:
    model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2))
    x, targets = np.ones((100, 4), np.float32), np.zeros(100, np.int64)
    one, none = torch.zeros(1, 4), torch.zeros(1, dtype=torch.long)
    for measuring in (False, True):
        explainer = LocalExplainer(model, Capabilities(rule="midpoint"), measuring=measuring)
        explainer.explain(Request(x, None, targets, 50))
        first = explainer.prepared(one, none)
        assert (first.path, first.measured) == (Path.SPLIT, measuring)
        explainer.explain(Request(x, None, targets, 50))
        assert explainer.prepared(one, none) is first


def test_a_local_service_answers_the_same_whatever_it_was_asked_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 90), nn.ReLU(), nn.Linear(90, 5))
    x, targets = np.random.default_rng(0).normal(size=(300, 40)).astype(np.float32), np.arange(300) % 5
    question = Request(x, None, targets, 50)
    fresh, used = (LocalExplainer(model, Capabilities(rule="midpoint")) for _ in range(2))
    used.explain(Request(x[:3], None, targets[:3], 7))
    used.explain(Request(x, x / 2, targets, 20))
    assert (fresh.explain(question).attribution == used.explain(question).attribution).all()


def test_the_conditions_about_ties_keep_the_models_own_sums() -> None:
    x, targets = torch.randn(2, 1, 28, 28), torch.tensor([3, 7])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, condition in CONDITIONS.items():
            service = condition.service(build("LeNet"), "cpu")
            prepared = service.prepared(x.to(service.dtype), targets)
            touched = prepared.rewritten is not None and prepared.rewritten.beginning is not None
            assert touched is (name in {"as_served", "noisy_inputs", "softmax"}), name
