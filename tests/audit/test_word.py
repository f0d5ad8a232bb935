"""What the owner says of a service: confirmed, contradicted, or left to the probe and to trying what is possible."""

import json
from dataclasses import replace

import pytest
from torch import nn

from disintegrate import (
    Capabilities,
    Explanation,
    InvalidValue,
    LocalExplainer,
    NotPermitted,
    Output,
    Request,
    UnknownName,
    Verdict,
    audit,
)
from disintegrate.audit import AuditResult, Said, choose, first_look
from disintegrate.probe.result import Finding, NamedRule, ProbeResult
from tests.audit.test_audit import network, questions

FREE = Capabilities("midpoint", 1, 100, baseline=False, dtype="float32", default_steps=12)
FIXED = replace(FREE, fewest_steps=12, most_steps=12)


class Service:
    """Does what its settings say, tells nothing of them, and refuses the rest."""

    capabilities = Capabilities("unknown", dtype="float32")

    def __init__(self, model: nn.Module, allowed: Capabilities) -> None:
        self.inside = LocalExplainer(model, allowed)
        self.queries = 0

    def explain(self, request: Request) -> Explanation:
        self.queries += len(request.inputs)
        if request.baselines is not None and not self.inside.capabilities.baseline:
            raise NotPermitted("The service does not take baselines.")
        return self.inside.explain(request)


def audited(allowed: Capabilities, said: Said | None, probed: ProbeResult | None = None) -> AuditResult:
    service, (x, targets) = Service(network(), allowed), questions(count=6)
    found = audit(service, x, targets, said=said, probed=probed)
    assert found.queries == service.queries + (probed.queries if probed else 0)
    return found


def nameless(allowed: Capabilities, possible: tuple[NamedRule, ...] = ()) -> ProbeResult:
    """What a probe found of a service whose rule it did not."""
    x, targets = questions()
    found = first_look(Service(network(), allowed), x, targets, said=Said(rule="midpoint"))
    return replace(found, rules=Finding(None, "two rules explain the answers alike"), possible=possible)


def test_a_true_word_is_confirmed_with_few_questions_and_nothing_is_added() -> None:
    found = audited(FREE, Said("midpoint", steps=(1, 100), baseline=False, output=Output.LOGITS))
    assert found.judgement.verdict is Verdict.LEAKS
    assert found.judgement.median_distance < 0.03
    assert found.notes == ()
    assert found.probed is not None
    assert found.probed.queries < 15


@pytest.mark.parametrize(
    ("allowed", "said", "sentence", "free"),
    [
        (FREE, Said("midpoint", steps=(12, 12)), "callers may not set steps, but they are honoured", True),
        (FIXED, Said("midpoint", steps=(1, 100)), "callers may set steps, but they are refused", False),
        (
            FIXED,
            Said("midpoint", steps=(12, 12), baseline=True),
            "callers may set a baseline, but",
            False,
        ),
        (
            FIXED,
            Said("midpoint", output=Output.PROBABILITIES),
            "probabilities are explained, but",
            False,
        ),
        (FIXED, Said("midpoint", significant_digits=3), "answers have 3 significant digits, but", False),
    ],
)
def test_a_contradiction_is_said_and_what_the_service_does_holds(
    allowed: Capabilities, said: Said, sentence: str, free: bool
) -> None:
    found = audited(allowed, said)
    assert len(found.notes) == 1
    assert f"It was said that {sentence}" in found.notes[0]
    assert found.capabilities is not None
    assert (found.capabilities.fewest_steps != found.capabilities.most_steps) is free
    assert json.loads(json.dumps(found.record()))["notes"] == list(found.notes)


def test_a_wrong_rule_does_not_hide_a_leak() -> None:
    found = audited(FREE, Said("riemann_right", steps=(1, 100)))
    assert found.judgement.verdict is Verdict.LEAKS
    assert found.judgement.median_distance < 0.03
    assert "It was said that the rule is riemann_right, but the plan that is exact for it" in found.notes[0]
    assert "The service's rule is not known" in found.notes[1]


@pytest.mark.parametrize("rule", ["riemann_right", "captum_gausslegendre", "captum_riemann_left"])
def test_where_the_rule_is_unknown_and_steps_are_free_an_exact_plan_is_found(rule: str) -> None:
    allowed = replace(FREE, rule=rule)
    found = audited(allowed, None, nameless(allowed))
    assert found.judgement.verdict is Verdict.LEAKS
    assert found.choice is not None
    assert found.judgement.median_distance < 0.03
    distances = [tried.distance for tried in found.choice.tried]
    assert distances == sorted(distances)
    assert distances[1] > distances[0]
    assert found.record()["choice"]["tried"][0]["rule"] == found.choice.capabilities.rule
    assert found.record()["queries"]["choice"] == found.queries_for_choice >= found.choice.queries


def test_where_all_is_fixed_the_plans_of_what_is_possible_are_tried_on_the_same_answers() -> None:
    possible = (NamedRule("midpoint", 12), NamedRule("riemann_left", 11))
    found = audited(FIXED, None, nameless(FIXED, possible))
    known = audited(FIXED, Said("midpoint", steps=(12, 12)))
    assert found.choice is not None
    assert {("midpoint", 12), ("riemann_left", 11)} <= {(tried.rule, tried.steps) for tried in found.choice.tried}
    assert found.proposal is not None
    # four inputs, nine outputs of each and the first plan's points
    assert found.choice.queries <= 4 * (9 + 10)
    assert found.judgement.median_distance < 1.5 * known.judgement.median_distance


def test_the_fewest_steps_that_are_taken_are_looked_for() -> None:
    allowed = replace(FREE, rule="riemann_right", fewest_steps=20, default_steps=None)
    found = audited(allowed, Said("riemann_right"))
    assert found.capabilities is not None
    assert found.capabilities.fewest_steps == 20
    assert found.judgement.queries_per_gradient == 2
    assert found.judgement.verdict is Verdict.LEAKS
    wrong = audited(allowed, Said("riemann_right", steps=(5, 100)))
    assert wrong.capabilities == replace(found.capabilities, most_steps=100)
    assert wrong.notes == ("It was said that callers may ask for 5 steps or more, but fewer than 20 are refused.",)
    kinks = 4 * 9  # looked for at four inputs
    assert (
        audited(FREE, Said("midpoint")).queries_for_choice == 2 + 4 * (1 + 9) + kinks
    )  # two bounds; a plan and its check


def test_where_values_beyond_the_inputs_are_refused_the_plan_stays_within() -> None:
    x, _ = questions(count=6)
    allowed = replace(FIXED, smallest_value=float(x.min()), largest_value=float(x.max()))
    found = audited(allowed, Said("midpoint", steps=(12, 12)))
    assert found.proposal is not None
    assert max(term.query.stop for term in found.proposal.plan) <= 1.01
    assert found.queries_for_plan == 6 * len(found.proposal.plan)


def test_a_service_that_takes_no_plan_is_said_to() -> None:
    service, (x, targets) = Service(network(), FIXED), questions(count=2)
    with pytest.raises(NotPermitted):
        service.explain(Request(x, None, targets, 5))
    free = Capabilities("midpoint", 5, 5, baseline=False, dtype="float32")
    sure = choose(service, x, targets, [free], starts=0 * x, budget=3)
    assert sure.tried[0].steps == 5  # its own steps are not sent
    with pytest.raises(ValueError, match="takes no plan"):
        choose(service, x, targets, [replace(free, most_steps=9)], starts=0 * x, budget=3)


def test_a_rule_that_is_none_is_refused() -> None:
    with pytest.raises(UnknownName, match="There is no such quadrature rule"):
        Said("simpson")
    with pytest.raises(InvalidValue, match="leave nothing to ask. Got 9 to 3"):
        Said(steps=(9, 3))
