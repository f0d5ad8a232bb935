"""Captum's own explainers as services, against Captum itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from disintegrate import (
    BadAnswer,
    Capabilities,
    InvalidValue,
    LocalExplainer,
    NotPermitted,
    Request,
    UnknownName,
    Verdict,
    audit,
    from_captum,
)
from disintegrate.explainers.captum import METHODS
from tests.test_cli import run


def network(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, outputs)).eval()


def questions(count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(count, 8)).astype(np.float32), generator.integers(0, 3, count)


@pytest.mark.parametrize("method", METHODS)
def test_it_answers_what_captum_answers_and_what_our_rule_of_that_name_says(method: str) -> None:
    model, (x, targets) = network(), questions()
    service = from_captum(IntegratedGradients(model), method=method, n_steps=7)
    answer = service.explain(Request(x, None, targets, None))
    theirs = IntegratedGradients(model).attribute(
        torch.tensor(x), target=torch.tensor(targets), n_steps=7, method=method
    )
    np.testing.assert_allclose(answer.attribution, theirs.detach().numpy(), rtol=1e-5, atol=1e-7)
    ours = LocalExplainer(model, Capabilities(METHODS[method], default_steps=7))
    expected = ours.explain(Request(x, None, targets, 7))
    np.testing.assert_allclose(answer.attribution, expected.attribution, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(answer.output, expected.output, rtol=1e-6)


def test_its_defaults_are_captums_and_callers_may_set_nothing() -> None:
    model, (x, targets) = network(), questions(2)
    service = from_captum(IntegratedGradients(model))
    answer = service.explain(Request(x, None, targets, None)).attribution
    theirs = IntegratedGradients(model).attribute(torch.tensor(x), target=torch.tensor(targets))
    np.testing.assert_allclose(answer, theirs.detach().numpy(), rtol=1e-6)
    with pytest.raises(NotPermitted):
        service.explain(Request(x, None, targets, 3))
    with pytest.raises(NotPermitted):
        service.explain(Request(x, x, targets, None))


def test_a_caller_who_may_set_steps_or_a_baseline_has_the_gradient() -> None:
    model, (x, targets) = network(), questions(5)
    for service in (
        from_captum(IntegratedGradients(model), steps=(1, 100)),
        from_captum(IntegratedGradients(model), baseline=True),
    ):
        found = audit(service, x, targets, model=service.model)
        assert found.judgement.verdict is Verdict.LEAKS
        assert found.judgement.queries_per_gradient == 1
        assert found.judgement.median_distance < 1e-4


def test_gradients_that_are_not_multiplied_by_inputs_are() -> None:
    model, (x, targets) = network(), questions(3)
    local = from_captum(IntegratedGradients(model, multiply_by_inputs=False))
    usual = from_captum(IntegratedGradients(model))
    question = Request(x, None, targets, None)
    np.testing.assert_allclose(
        local.explain(question).attribution, usual.explain(question).attribution, rtol=1e-5, atol=1e-7
    )


def test_a_model_of_one_output_and_a_function_of_the_users_own() -> None:
    model, (x, targets) = network(1), questions(3)
    ig = IntegratedGradients(lambda inputs: model(inputs)[:, 0])
    one = from_captum(ig).explain(Request(x, None, 0 * targets, None))
    np.testing.assert_allclose(one.output, model(torch.tensor(x))[:, 0].detach().numpy(), rtol=1e-6)

    def explained(inputs: Tensor, n_steps: int) -> tuple[Tensor, Tensor]:
        return ig.attribute(inputs, n_steps=n_steps), model(inputs)[:, 0]

    own = from_captum(explained).explain(Request(x, None, 0 * targets, None))
    np.testing.assert_allclose(own.attribution, one.attribution, rtol=1e-6)
    np.testing.assert_allclose(own.output, one.output, rtol=1e-6)
    silent = from_captum(lambda inputs: ig.attribute(inputs, n_steps=50))
    with pytest.raises(BadAnswer, match="tells no outputs"):
        audit(silent, x, 0 * targets)


def test_what_is_no_captum_explainer_gets_a_sentence() -> None:
    x, targets = questions(2)
    with pytest.raises(InvalidValue, match="This is no Captum explainer"):
        from_captum(network())
    with pytest.raises(UnknownName, match="Captum has no such method"):
        from_captum(IntegratedGradients(network()), method="simpson")
    with pytest.raises(BadAnswer, match="one attribution for each coordinate"):
        from_captum(lambda inputs: inputs.sum()).explain(Request(x, None, targets, None))
    with pytest.raises(NotPermitted, match="Captum refuses"):
        from_captum(IntegratedGradients(network()), method="riemann_left", n_steps=1).explain(
            Request(x, None, targets, None)
        )


SOURCE = """
import torch
from captum.attr import IntegratedGradients

def explainer():
    torch.manual_seed(0)
    return IntegratedGradients(torch.nn.Sequential(torch.nn.Linear(8, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3)))

def broken():
    raise RuntimeError("no weights")
"""


def test_the_command_imports_it_from_the_current_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "my_captum_service.py").write_text(SOURCE)
    np.save(tmp_path / "x.npy", questions(4)[0])
    monkeypatch.chdir(tmp_path)
    arguments = ("audit", "captum:my_captum_service:explainer", "--inputs", "x.npy", "--no-remedies")
    code, text, _ = run(capsys, monkeypatch, *arguments, "--steps", "1-100")
    assert code == 3
    assert text.startswith("Leaks: 100% of the gradients were recovered, by 1 query for each")
    for name, problem in (
        ("captum:my_captum_service:broken", "does not run. Got RuntimeError: no weights"),
        ("captum:my_captum_service:nothing", "There is no such function."),
        ("captum:my_captum_service", "A factory is a module and a function."),
    ):
        code, _, told = run(capsys, monkeypatch, "audit", name, "--inputs", "x.npy")
        assert code == 2
        assert problem in " ".join(told.split())
    code, _, told = run(capsys, monkeypatch, *arguments, "--rule", "saliency")
    assert code == 2
    assert "This is no rule of Captum's." in " ".join(told.split())
