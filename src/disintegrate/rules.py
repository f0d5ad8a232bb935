"""All rules by name, and what stands behind the explanation services in the field."""

from __future__ import annotations

from dataclasses import dataclass

from disintegrate import field_rules, quadrature
from disintegrate.errors import UnknownName
from disintegrate.quadrature import Rule

RULES: dict[str, Rule] = {
    "riemann_right": quadrature.riemann_right,
    "riemann_left": quadrature.riemann_left,
    "midpoint": quadrature.midpoint,
    "trapezoid": quadrature.trapezoid,
    "gauss_legendre": quadrature.gauss_legendre,
    "captum_riemann_left": field_rules.captum_riemann_left,
    "captum_riemann_right": field_rules.captum_riemann_right,
    "captum_riemann_middle": field_rules.captum_riemann_middle,
    "captum_riemann_trapezoid": field_rules.captum_riemann_trapezoid,
    "captum_gausslegendre": field_rules.captum_gausslegendre,
    "saliency": field_rules.saliency,
    "tensorflow_tutorial": field_rules.tensorflow_tutorial,
}


@dataclass(frozen=True)
class Preset:
    """What a library or a service does unless it is told otherwise: its rule, its steps, and whence we know.

    Every one of them explains from the zero baseline by default.
    """

    rule: str
    steps: int
    source: str


PRESETS: dict[str, Preset] = {
    "paper": Preset("riemann_right", 50, "equation (1) of the paper, section 4.2.3"),
    "captum": Preset("captum_gausslegendre", 50, "captum 0.9.0, IntegratedGradients.attribute"),
    "alibi": Preset(
        "gauss_legendre", 50, "alibi 0.9.6, explainers/integrated_gradients.py; utils/approximation_methods.py, float64"
    ),
    "saliency": Preset("saliency", 25, "saliency 0.2.1, core/integrated_gradients.py, GetMask"),
    "tensorflow_tutorial": Preset(
        "tensorflow_tutorial", 50, "tensorflow.org/tutorials/interpretability/integrated_gradients"
    ),
    "torchserve": Preset(
        "captum_gausslegendre", 15, "torchserve 0.12, ts/torch_handler/vision_handler.py, get_insights: n_steps=15"
    ),
    "vertex": Preset(
        "gauss_legendre",
        50,
        "Vertex AI documents Gaussian quadrature; the owner sets the step count at deployment, a caller 1 to 100",
    ),
}


def rule_named(name: str) -> Rule:
    """Look a rule up by its name.

    Raises:
        UnknownName: for a name that is not in `RULES`.

    Example:
        >>> rule_named(PRESETS["saliency"].rule)(25).steps == PRESETS["saliency"].steps
        True
    """
    if name not in RULES:
        known = ", ".join(RULES)
        raise UnknownName("There is no such quadrature rule.", got=repr(name), instead=f"Choose from {known}.")
    return RULES[name]
