import disintegrate
from disintegrate import clients, errors, explainers, extraction, models, server


def test_every_public_name_is_there_and_no_other() -> None:
    for package in (disintegrate, clients, explainers, extraction, models, server):
        assert set(package.__all__) <= set(dir(package))
        for name in package.__all__:
            assert getattr(package, name) is not None


def test_the_public_names_are_these() -> None:
    assert sorted(disintegrate.__all__) == [
        "AuditResult", "BadAnswer", "BudgetSpent", "Capabilities", "Cost", "DamagedFile", "Deaf", "DisintegrateError",
        "DistanceSummary", "Exactness", "Explainer", "Explanation", "InDoubt", "InvalidValue", "KeyRefused", "Kink",
        "LocalExplainer", "LogitDifference", "LogitGradients", "Measure", "Misuse", "Noise", "NotPermitted", "Output",
        "PRESETS", "Path", "Plan", "PlanErrors", "Prepared", "Preset", "ProbeResult", "Proposal", "Quadrature",
        "Query", "RULES", "Recording", "Recovery", "Regions", "Remembering", "Request", "Rewriting", "Rule",
        "TargetChanged", "Term", "Unit", "UnknownName", "Unreachable", "Untrusted", "UnwritableOutput", "Verdict",
        "Walk", "Way", "Wire", "Wired", "WorkerLost", "audit", "baseline_window", "bias_free", "carry_out", "connect",
        "distance", "estimate", "exact_integrated_gradients", "exact_recovery", "from_captum", "gauss_legendre",
        "integrated_gradients", "krige", "load_model", "midpoint", "nearest_kinks", "noise_of", "nudged",
        "plan_errors", "plots", "predicted_distance", "prepare", "probe", "propose", "ray_regions", "recover",
        "recover_logits", "riemann_left", "riemann_right", "rule_named", "shared_piece", "single_step",
        "single_step_beyond", "step_count", "summarise", "trapezoid", "vanilla_gradient",
    ]  # fmt: skip


def test_the_exceptions_are_one_tree_drawn_in_its_docstring() -> None:
    classes = [thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, Exception)]
    assert len(classes) == 15
    for exception in classes:
        assert issubclass(exception, errors.DisintegrateError)
        assert exception.__name__ in (errors.__doc__ or "")
        assert exception.exit_code == (2 if issubclass(exception, errors.Misuse) else 1)
