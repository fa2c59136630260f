"""Evaluates an OpenVINO graph operation by operation (generators): what our own network is compared with.

It shares nothing with sisug's reader: ElementTree reads the files, and every operation is what its specification says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = {"f32": "<f4", "i64": "<i8", "i32": "<i4"}


class Evaluation:
    """A graph that can be evaluated.

    Args:
        markup: its XML.
        numbers: what its constants point into.
    """

    def __init__(self, markup: bytes, numbers: bytes) -> None:
        root = ElementTree.fromstring(markup)
        self.numbers = numbers
        self.layers = {layer.attrib["id"]: layer for layer in root.findall("layers/layer")}
        self.sources: dict[str, dict[int, tuple[str, int]]] = {}
        for edge in root.findall("edges/edge"):
            place = edge.attrib
            self.sources.setdefault(place["to-layer"], {})[int(place["to-port"])] = (
                place["from-layer"],
                int(place["from-port"]),
            )

    def __call__(self, value: Tensor, *names: str) -> list[Tensor]:
        """What layers of these names give, or the result where none is named.

        Args:
            value: of the one parameter.
            names: of layers with one output.
        """
        order: list[str] = []
        stack = [(key, False) for key, layer in self.layers.items() if layer.attrib["type"] == "Result"]
        while stack:
            key, ready = stack.pop()
            if ready:
                order.append(key)
            elif key not in order:
                stack.append((key, True))
                stack += [(source, False) for source, _ in self.sources.get(key, {}).values()]
        values: dict[tuple[str, int], Tensor] = {}
        found: dict[str, Tensor] = {}
        for key in dict.fromkeys(order):
            layer = self.layers[key]
            inputs = [values[source] for _, source in sorted(self.sources.get(key, {}).items())]
            if layer.attrib["type"] == "Result":
                return [found[name] for name in names] if names else inputs
            outputs = self.outputs(layer, inputs, value)
            ports = [int(port.attrib["id"]) for port in layer.findall("output/port")]
            values |= {(key, port): output for port, output in zip(ports, outputs, strict=True)}
            found[layer.attrib["name"]] = outputs[0]
        raise AssertionError("the graph has no result")

    def outputs(self, layer: ElementTree.Element, x: list[Tensor], value: Tensor) -> list[Tensor]:
        """Of one operation."""
        element = layer.find("data")
        data: Mapping[str, Any] = {} if element is None else element.attrib

        def pair(name: str) -> list[int]:
            return [int(part) for part in data[name].split(",")]

        match layer.attrib["type"]:
            case "Const":
                kind = np.dtype(KINDS[data["element_type"]])
                start, size = int(data["offset"]), int(data["size"])
                shape = [int(part) for part in data["shape"].split(",") if part.strip()]
                values = np.frombuffer(self.numbers[start : start + size], kind).reshape(shape).copy()
                return [torch.from_numpy(values)]
            case "Parameter":
                return [value]
            case "Add":
                return [x[0] + x[1]]
            case "Multiply":
                return [x[0] * x[1]]
            case "Power":
                return [x[0] ** x[1]]
            case "ReduceMean":
                return [x[0].mean(x[1].tolist(), keepdim=data["keep_dims"] == "true")]
            case "MatMul":
                assert (data["transpose_a"], data["transpose_b"]) == ("false", "true")
                return [x[0] @ x[1].t()]
            case "PReLU":
                return [torch.where(x[0] < 0, x[0] * x[1], x[0])]
            case "ShapeOf":
                return [torch.tensor(x[0].shape)]
            case "Gather":
                return [x[0].index_select(int(x[2]), x[1].reshape(-1).long()).reshape(x[1].shape)]
            case "Unsqueeze":
                return [x[0].unsqueeze(int(x[1]))]
            case "Squeeze":
                return [x[0].squeeze(int(x[1]))]
            case "Concat":
                return [torch.cat(x, int(data["axis"]))]
            case "Broadcast":
                sizes = torch.broadcast_shapes(tuple(x[0].shape), tuple(x[1].tolist()))
                return [x[0].expand(sizes)]
            case "Tile":
                return [x[0].repeat(x[1].tolist())]
            case "Reshape":
                return [x[0].reshape([size or x[0].shape[i] for i, size in enumerate(x[1].tolist())])]
            case "VariadicSplit":
                return list(torch.split(x[0], x[2].tolist(), int(x[1])))
            case "Convolution":
                return [F.conv2d(x[0], x[1], padding=pair("pads_begin"), stride=pair("strides"))]
            case "GroupConvolution":
                weight = x[1].flatten(0, 1)
                return [F.conv2d(x[0], weight, padding=pair("pads_begin"), groups=len(x[1]))]
            case "GroupConvolutionBackpropData":
                weight = x[1].flatten(0, 1)
                return [F.conv_transpose2d(x[0], weight, stride=pair("strides"), groups=len(x[1]))]
        raise AssertionError(f"no rule for {layer.attrib['type']}")
