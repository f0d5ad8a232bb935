"""A TorchServe handler that explains as the library's own VisionHandler does, without its image pipeline."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import IntegratedGradients
from ts.torch_handler.base_handler import BaseHandler

from disintegrate.paper.networks import build


class ExplainingHandler(BaseHandler):
    """LeNet; `get_insights` is VisionHandler's: Captum's defaults, 15 steps, the target of the first row for all."""

    def initialize(self, context: Any) -> None:
        """Build the model; there are no files."""
        torch.set_num_threads(1)
        self.context = context
        self.manifest = context.manifest
        self.device = torch.device("cpu")
        self.model = build("LeNet").eval()
        self.ig = IntegratedGradients(self.model)
        self.initialized = True

    def preprocess(self, data: list[dict[str, Any]]) -> torch.Tensor:
        """The rows that the JSON envelope hands over."""
        return torch.tensor([row["data"] for row in data])

    def get_insights(self, tensor_data: torch.Tensor, _: Any, target: int = 0) -> list[Any]:
        """Attributions as lists."""
        return self.ig.attribute(tensor_data, target=target, n_steps=15).tolist()

    def postprocess(self, data: torch.Tensor) -> list[Any]:
        """Outputs as lists."""
        return data.tolist()
