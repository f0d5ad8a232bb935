"""Services to audit, each from its settings alone: in process, over three protocols, by Captum, like TorchServe."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients
from jaxtyping import Float, Int
from torch import Tensor, nn

from disintegrate import (
    Capabilities,
    Explainer,
    Explanation,
    LocalExplainer,
    NotPermitted,
    Output,
    Request,
    Wire,
    Wired,
)
from disintegrate.clients import Retrying, connect
from disintegrate.models import load_model
from disintegrate.paper import mnist
from disintegrate.server import Service, Settings, in_background

MODELS = Path(__file__).parents[1] / "results" / "reproduction" / "models"
PAPERS = ("TwoLayerNet", "LeNet", "ResNet18", "TwoLayerNet_nobias", "LeNet_nobias")
CAPTUM_METHODS = {
    "captum_gausslegendre": "gausslegendre", "captum_riemann_right": "riemann_right",
    "captum_riemann_left": "riemann_left", "captum_riemann_middle": "riemann_middle",
    "captum_riemann_trapezoid": "riemann_trapezoid",
}  # fmt: skip
PATHS = {
    "kserve": "kserve+{url}/v1/models/7",
    "oip": "oip+{url}/v2/models/7",
    "vertex": "vertex+{url}/v1/projects/p/locations/l/endpoints/7",
}


@dataclass(frozen=True)
class Setting:
    """All that a service does.

    Attributes:
        network: the model's name.
        rule: the quadrature rule.
        steps: of a request that names none.
        free: the fewest and the most steps that a caller may ask for; None where the service fixes them.
        baseline: whether a caller may give a baseline.
        softmax: whether probabilities are explained.
        digits: significant digits of answers; None for all.
        answers: the type of answers, such as "float16".
        decimals: digits behind the point.
        noise: standard deviation of noise on every attribution, a function of the question.
        fresh: whether noise is drawn anew for every answer instead.
        values: the smallest and the largest coordinate that is taken.
        furthest: how far out on a ray through a true input points are taken.
    """

    network: str
    rule: str
    steps: int
    free: tuple[int, int] | None = None
    baseline: bool = False
    softmax: bool = False
    digits: int | None = None
    answers: str | None = None
    decimals: int | None = None
    noise: float = 0.0
    fresh: bool = False
    values: tuple[float, float] | None = None
    furthest: float = math.inf

    def capabilities(self) -> Capabilities:
        """What a caller may set, as the owner knows it."""
        fewest, most = self.free or (self.steps, self.steps)
        low, high = self.values or (-math.inf, math.inf)
        return Capabilities(
            self.rule, fewest, most, baseline=self.baseline, dtype="float32", default_steps=self.steps,
            smallest_value=low, largest_value=high, furthest=self.furthest, output=self.output, wire=self.wire,
        )  # fmt: skip

    @property
    def output(self) -> Output:
        """Logits or probabilities."""
        return Output.PROBABILITIES if self.softmax else Output.LOGITS

    @property
    def wire(self) -> Wire:
        """What is done to the numbers of an answer."""
        return Wire(self.answers, self.digits, self.decimals, self.noise, deterministic=not self.fresh)


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with questions of its callers, and others of the same kind that no audit sees."""

    model: nn.Module
    inputs: Float[np.ndarray, "n *shape"]
    targets: Int[np.ndarray, " n"]
    others: Float[np.ndarray, "k *shape"]
    other_targets: Int[np.ndarray, " k"]


class Residual(nn.Module):
    """A block with a shortcut around it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Add the block's answer to its input."""
        out: Tensor = x + self.inner(x)
        return out


def _smooth() -> nn.Module:
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 5))


def _tabular() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 32), Residual(32), nn.ReLU(), Residual(32), nn.ReLU(), nn.Linear(32, 3))


def _rough() -> nn.Module:
    wide = [part for _ in range(5) for part in (nn.Linear(80, 80), nn.ReLU())]
    model = nn.Sequential(*wide, nn.Linear(80, 4))
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(0, 2 / 80**0.5)
                layer.bias.normal_(0, 2)
    return model


def _linear() -> nn.Module:
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -1.0, 1.0, 1.0], [1.0, 1.0, -1.0, 1.0]]))
    return model


# Networks that the paper does not have, with fresh weights from a seed, and the shape of an input.
OWN: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "GELU and tanh": (_smooth, 24),
    "residual, tabular": (_tabular, 12),
    "rough": (_rough, 80),
    "linear": (_linear, 4),
}


OTHERS = {"LeNet": 5, "LeNet_nobias": 5, "ResNet18": 3}


@cache
def subject(network: str, count: int) -> Subject:
    """A network by name, with so many inputs to ask about and others, fewer where a gradient takes long."""
    generator, others = np.random.default_rng(20261), OTHERS.get(network, 12)
    if network in PAPERS:
        model = load_model(str(next(MODELS.glob(f"{network}-*.safetensors"))), architecture=network).module
        inputs = mnist.load("test").first(count + others).normalised()
    else:
        make, size = OWN[network]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = make()
        inputs = generator.normal(size=(count + others, size)).astype(np.float32)
        if network == "linear":
            inputs = np.sign(inputs)
    with torch.no_grad():
        classes = model.eval()(torch.tensor(inputs[:1])).shape[1]
    targets = generator.integers(0, classes, len(inputs))
    return Subject(model, inputs[:count], targets[:count], inputs[count:], targets[count:])


def served_model(setting: Setting, model: nn.Module) -> nn.Module:
    """What is explained."""
    return nn.Sequential(model, nn.Softmax(1)).eval() if setting.softmax else model.eval()


class Fenced:
    """A service that knows its callers' true inputs, and refuses whatever lies further out on a ray through one."""

    def __init__(self, inside: Explainer, inputs: Float[np.ndarray, "n *shape"], furthest: float) -> None:
        self._inside = inside
        self._known = inputs.reshape(len(inputs), -1).astype(np.float64)
        self._furthest = furthest

    @property
    def capabilities(self) -> Capabilities:
        """Those of the service inside."""
        return self._inside.capabilities

    def explain(self, request: Request) -> Explanation:
        """Refuse, or pass on."""
        asked = request.inputs.reshape(len(request.inputs), -1).astype(np.float64)
        scale = asked @ self._known.T / (self._known**2).sum(1)
        for row, scales in zip(asked, scale, strict=True):
            off = np.linalg.norm(row - scales[:, None] * self._known, axis=1)
            if ((off < 1e-5 * np.linalg.norm(row)) & (scales > self._furthest * (1 + 1e-5))).any():
                raise NotPermitted("The service does not take points beyond an input.")
        return self._inside.explain(request)


@contextmanager
def in_process(setting: Setting, about: Subject) -> Iterator[Explainer]:
    """The local explainer, behind its wire and its fence."""
    inside = replace(setting.capabilities(), wire=Wire())
    found: Explainer = LocalExplainer(served_model(setting, about.model), inside)
    if setting.wire != Wire():
        found = Wired(found, setting.wire)
    yield Fenced(found, about.inputs, setting.furthest) if math.isfinite(setting.furthest) else found


@contextmanager
def over_http(setting: Setting, about: Subject, protocol: str, *, told: bool = False) -> Iterator[Explainer]:
    """Our own service on loopback; its settings are told to the caller, or must be found out."""
    low, high = setting.values or (-math.inf, math.inf)
    settings = Settings(
        name="7", rule=setting.rule, steps=setting.steps, steps_allowed=setting.free, caller_baseline=setting.baseline,
        output=setting.output, significant_digits=setting.digits, answers=setting.answers,  # type: ignore[arg-type]
        decimals=setting.decimals, noise=setting.noise, smallest_value=low, largest_value=high,
        input_shape=about.inputs.shape[1:],
    )  # fmt: skip
    with in_background(Service(about.model, settings)) as url:
        target = PATHS[protocol].format(url=url)
        with connect(target, capabilities=setting.capabilities() if told else None) as remote:
            yield Retrying(remote)


class Captums:
    """Captum's own `IntegratedGradients`, as a user of it calls it."""

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        self.capabilities = setting.capabilities()
        self._model = served_model(setting, model)
        self._captum = IntegratedGradients(self._model)
        self._method = CAPTUM_METHODS[setting.rule]

    def explain(self, request: Request) -> Explanation:
        """One `attribute`."""
        if request.steps is not None:
            self.capabilities.check_steps(request.steps)
        if request.baselines is not None:
            self.capabilities.check_baselines(request.baselines)
        inputs, targets = torch.tensor(request.inputs), torch.tensor(request.targets)
        named = request.baselines if self.capabilities.baseline else None
        baselines = None if named is None else torch.tensor(named)
        steps = request.steps or self.capabilities.own_steps
        found = self._captum.attribute(inputs, baselines, target=targets, n_steps=steps, method=self._method)
        with torch.no_grad():
            output = self._model(inputs).gather(1, targets[:, None])[:, 0]
        return Explanation(output.numpy(), found.detach().numpy())


@contextmanager
def by_captum(setting: Setting, about: Subject) -> Iterator[Explainer]:
    """Captum in process."""
    yield Captums(setting, about.model)


@contextmanager
def like_torchserve(setting: Setting, about: Subject, *, shape: str) -> Iterator[Explainer]:
    """TorchServe's vision handler by its JSON envelope: Captum's defaults with 15 steps, nothing but the target set.

    It explains the target of the first instance for all rows and tells no output beside an explanation; the answer is a
    bare list, or stands under "explanations", or under "predictions", as versions of it do.
    """
    model = served_model(setting, about.model)
    captum = IntegratedGradients(model)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            rows = body["instances"]
            inputs = torch.tensor([row["data"] for row in rows])
            if "/explanations/" in self.path:
                target = int(rows[0].get("target", 0))
                found = captum.attribute(inputs, target=target, n_steps=15).detach().tolist()
                self._answer(found if shape == "bare" else {shape: found})
            else:
                with torch.no_grad():
                    self._answer({"predictions": model(inputs).tolist()})

        def _answer(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with connect(f"torchserve+http://127.0.0.1:{server.server_port}/explanations/7") as remote:
            yield Retrying(remote)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
