"""A real kserve.ModelServer with a Captum explainer: `python kserve_server.py PORT`."""

from __future__ import annotations

import sys
from typing import Any

import torch
from captum.attr import IntegratedGradients
from kserve import Model, ModelServer

from disintegrate.paper.networks import build


class CaptumExplainer(Model):
    """LeNet behind Captum, with the parameters that our client sends by default."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        torch.set_num_threads(1)
        self.model = build("LeNet").eval()
        self.explainer = IntegratedGradients(self.model)
        self.ready = True

    async def predict(self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None) -> Any:
        """All outputs."""
        with torch.no_grad():
            return {"predictions": self.model(torch.tensor(payload["instances"])).tolist()}

    async def explain(self, payload: dict[str, Any], headers: Any = None) -> Any:
        """Captum's Integrated Gradients of the named targets."""
        parameters = payload.get("parameters", {})
        inputs = torch.tensor(payload["instances"])
        targets = torch.tensor(parameters["targets"])
        baselines = torch.tensor(parameters["baselines"]) if "baselines" in parameters else None
        attributions = self.explainer.attribute(
            inputs, baselines, target=targets, n_steps=parameters.get("n_steps", 50)
        )
        with torch.no_grad():
            outputs = self.model(inputs).gather(1, targets[:, None])[:, 0]
        pairs = zip(attributions.tolist(), outputs.tolist(), strict=True)
        return {"explanations": [{"attributions": row, "output": output} for row, output in pairs]}


if __name__ == "__main__":
    port = int(sys.argv[1])
    ModelServer(http_port=port, enable_grpc=False, workers=1).start([CaptumExplainer("lenet")])
