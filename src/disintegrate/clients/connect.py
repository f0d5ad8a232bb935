"""From a URL such as `kserve+http://127.0.0.1:8080/v1/models/lenet` to an explainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from disintegrate.clients.credentials import Credentials
from disintegrate.clients.dialect import Dialect
from disintegrate.clients.json_dialect import JsonDialect, Route
from disintegrate.clients.link import Link, shown
from disintegrate.clients.oip import OipDialect
from disintegrate.clients.remote import RemoteExplainer
from disintegrate.clients.templates import read_template
from disintegrate.clients.vertex import VertexDialect
from disintegrate.errors import InvalidValue, UnknownName
from disintegrate.explainers.protocol import Capabilities

UNKNOWN_RULE = "unknown"


def kserve(url: str) -> Dialect:
    """KServe V1 with the parameters that our own service takes; others are an `http-json` template away."""
    body = {
        "instances": "$inputs",
        "parameters": {"n_steps": "$steps", "baselines": "$baselines", "targets": "$targets"},
    }
    explain = Route(f"{url}:explain", body, "explanations[*].attributions")
    return JsonDialect(explain, outputs="explanations[*].output")


def torchserve(url: str) -> Dialect:
    """TorchServe behind its JSON envelope: attributions from `/explanations/NAME`, outputs from `/predictions/NAME`.

    Its handlers explain the target of the first instance for all of them.
    """
    each = {"instances": {"$each": {"data": "$input", "target": "$target"}}}
    explain = Route(url, each, "explanations || predictions || @")
    predictions = url.replace("/explanations/", "/predictions/").replace(":explain", ":predict")
    return JsonDialect(explain, predict=Route(predictions, each, "predictions || @"), one_target=True)


@dataclass(frozen=True)
class Scheme:
    """A protocol: its dialect for a URL, and what it lets a caller do as far as the protocol says."""

    dialect: Callable[[str], Dialect]
    capabilities: Capabilities


UNTOLD = Capabilities(UNKNOWN_RULE, dtype="float32")
SCHEMES: dict[str, Scheme] = {
    "kserve": Scheme(kserve, UNTOLD),
    "oip": Scheme(OipDialect, UNTOLD),
    "vertex": Scheme(VertexDialect, replace(UNTOLD, most_steps=100)),
    "torchserve": Scheme(
        torchserve, Capabilities("captum_gausslegendre", 15, 15, baseline=False, default_steps=15, dtype="float32")
    ),
}
TEMPLATE = "http-json:"


def connect(
    target: str,
    *,
    capabilities: Capabilities | None = None,
    credentials: Credentials | None = None,
    link: Link | None = None,
    rows: int = 32,
) -> RemoteExplainer:
    """An explainer for a live endpoint; nothing is sent yet.

    Args:
        target: the protocol and the URL, such as `kserve+http://127.0.0.1:8080/v1/models/lenet`, or `http-json:FILE`
            with a template in TOML.
        capabilities: what the service is known to allow; None for what the protocol allows, with an unknown rule.
        credentials: the key that the service wants; None for none.
        link: the way there; None for the network.
        rows: the most rows of one exchange.

    Raises:
        UnknownName: there is no such protocol.
        InvalidValue: the URL cannot be used, or holds a password.

    Example:
        >>> explainer = connect("kserve+http://127.0.0.1:8080/v1/models/lenet")
        >>> explainer.capabilities.rule == UNKNOWN_RULE
        True
    """
    way = link or Link(credentials)
    if target.startswith(TEMPLATE):
        described = read_template(Path(target.removeprefix(TEMPLATE)))
        checked(described.explain.url)
        return RemoteExplainer(described, capabilities or UNTOLD, way, rows=rows)
    name, found, rest = target.partition("+")
    if not found or name not in SCHEMES:
        raise UnknownName(
            "There is no such protocol.",
            got=repr(shown(target) if "@" in target else target),
            instead=f"Name a target as PROTOCOL+URL, with one of {', '.join(SCHEMES)}, or {TEMPLATE}FILE.",
        )
    scheme = SCHEMES[name]
    return RemoteExplainer(scheme.dialect(checked(rest)), capabilities or scheme.capabilities, way, rows=rows)


def checked(url: str) -> str:
    """A URL that can be asked.

    Raises:
        InvalidValue: it is none, or holds a user or a password.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise InvalidValue("This is no URL.", got=repr(url[:60]), instead="Use http://host:port/path.") from None
    if parsed.userinfo:
        raise InvalidValue(
            "A URL must not hold a user or a password.",
            got=shown(url),
            instead="Set DISINTEGRATE_KEY, or give --key-file FILE.",
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidValue(
            "This is no URL that can be asked.", got=repr(shown(url)), instead="Use http:// or https://."
        )
    return url.rstrip("/")
