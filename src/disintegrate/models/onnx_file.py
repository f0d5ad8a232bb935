"""ONNX files as torch modules: a small interpreter of the operators that piecewise-linear networks are made of.

The file is data only: external tensors, custom domains and control flow are refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor, nn

from disintegrate.errors import DamagedFile, InvalidValue
from disintegrate.models.onnx_operators import OPERATORS

DOMAINS = ("", "ai.onnx")


class OnnxGraph(nn.Module):
    """A graph whose nodes are computed in their order.

    Weights are buffers, so that they move with the module and change their type with it.

    Args:
        graph: the checked graph.

    Raises:
        InvalidValue: it holds an operator that is not known here, or takes more than one batch.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        super().__init__()
        self.names: dict[str, str] = {}
        for number, tensor in enumerate(graph.initializer):
            self._keep(tensor.name, f"tensor_{number}", np.array(numpy_helper.to_array(tensor)))
        self.nodes = []
        for number, node in enumerate(graph.node):
            if node.domain not in DOMAINS or node.op_type not in (*OPERATORS, "Constant"):
                raise InvalidValue(
                    "This operator of the ONNX file is not known here.",
                    got=f"{node.domain}{'.' if node.domain else ''}{node.op_type}",
                    instead=f"Known are {', '.join(sorted(OPERATORS))}; load other models from safetensors.",
                )
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                value = attributes.get("value")
                array = numpy_helper.to_array(value) if value is not None else np.array(next(iter(attributes.values())))
                self._keep(node.output[0], f"constant_{number}", np.array(array))
            else:
                self.nodes.append((node.op_type, list(node.input), node.output[0], attributes))
        inputs = [entry for entry in graph.input if entry.name not in self.names]
        if len(inputs) != 1 or not graph.output:
            raise InvalidValue("The ONNX file must take one batch of inputs.", got=f"{len(inputs)} inputs")
        self.input, self.output = inputs[0].name, graph.output[0].name

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the graph's first output."""
        values: dict[str, Tensor] = {name: getattr(self, kept) for name, kept in self.names.items()}
        values[self.input] = inputs
        for operator, names, output, attributes in self.nodes:
            arguments = [values[name] if name else None for name in names]
            values[output] = OPERATORS[operator](arguments, attributes)
        return values[self.output]

    def _keep(self, name: str, own: str, array: np.ndarray) -> None:
        self.names[name] = own
        self.register_buffer(own, torch.from_numpy(array))


def load_onnx(path: Path) -> tuple[nn.Module, tuple[int, ...] | None]:
    """Read a network of piecewise-linear operations, and the shape of one input.

    Raises:
        DamagedFile: it is no ONNX file, or a damaged one.
        InvalidValue: it holds an operator that is not known here, or tensors in other files.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        raise DamagedFile(f"{path} is not an ONNX file.", got=(str(error).splitlines() or [""])[0][:120]) from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise InvalidValue(f"{path} keeps tensors in other files.", instead="Save it as one file.")
    module = OnnxGraph(model.graph).eval()
    entry = next(entry for entry in model.graph.input if entry.name == module.input)
    sizes = [size.dim_value for size in entry.type.tensor_type.shape.dim][1:]
    return module, tuple(sizes) if sizes and all(sizes) else None
