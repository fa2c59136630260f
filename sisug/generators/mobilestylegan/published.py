"""The published MobileStyleGAN (generators): two OpenVINO graphs, walked from their ends to every weight.

The walk checks each operation that the result depends on, so that a graph which computes anything else is refused.
Sub-graphs that only compute shapes are not followed: the shapes are declared beside every output.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sisug.generators.mobilestylegan.network import CONSTANT_SIZE, EPSILON, LEAKY_SLOPE
from sisug.generators.mobilestylegan.openvino_ir import Graph, GraphError, Layer, whole_number

MOST_LAYERS = 32
"""Of the mapping network; the published one has 8."""

MOST_BLOCKS = 9
"""Up to 4096 px; the published network has 7."""

HALF = math.sqrt(0.5)


def mapping_weights(graph: Graph) -> dict[str, Tensor]:
    """Weights of the mapping network under our names; the gain after each leaky ReLU goes into them.

    Raises:
        GraphError: the graph is another one.
    """
    walk = _Walk(graph)
    found: list[tuple[Tensor, Tensor]] = []
    at = walk.end()
    while not walk.is_normalization(at):
        if len(found) == MOST_LAYERS:
            raise GraphError(f"it has more than {MOST_LAYERS} layers")
        at, gain = walk.with_constant(at, "Multiply")
        factor = _number(gain, at)
        if factor <= 0:
            raise GraphError(f"the gain after {at} is {factor:g}, not above 0")
        at, (weight, bias) = walk.linear(walk.activated(at))
        found.insert(0, (weight * factor, bias * factor))
    weights: dict[str, Tensor] = {}
    for i, pair in enumerate(found):
        weights |= _pair(f"mapping.layers.{i}", pair)
    return weights


def synthesis_weights(graph: Graph) -> dict[str, Tensor]:
    """Weights of the synthesis network under our names.

    Factors of styles and wavelets go into the weights before them, and the channels that a wavelet reads are put in the
    order of its four bands (the graph has the three details of a channel beside each other).

    Raises:
        GraphError: the graph is another one.
    """
    walk = _Walk(graph)
    at = walk.end()
    size = at.shape()[-1] // 2 if at.shape() else 0
    if at.shape() != (1, 3, 2 * size, 2 * size) or size > CONSTANT_SIZE << MOST_BLOCKS:
        raise GraphError(f"{at} gives {at.shape()}, no square image of three colors of at most 4096 px")
    at, bias = walk.with_constant(walk.wavelet(at), "Add")
    at, weight = walk.convolution(at, kernel=1)
    order = band_order(12)
    at, style = walk.styled(at)
    weights = {
        **_pair("colors.style", style),
        "colors.weight": _in_order(_tensor(weight), order) / 2,
        "colors.bias": _in_order(_tensor(bias).reshape(-1), order) / 2,
    }
    order = torch.arange(len(style[1]))  # of the channels that come next
    while size > CONSTANT_SIZE:
        block = f"blocks.{size.bit_length() - CONSTANT_SIZE.bit_length() - 1}"
        for name in (f"{block}.conv2", f"{block}.conv1"):
            at, noise, bias = walk.layer(at, size)
            at, pointwise = walk.convolution(at, kernel=1)
            at, depthwise = walk.convolution(at, kernel=3, depthwise=True)
            at, style = walk.styled(at)
            weights |= {
                **_pair(f"{name}.style", style),
                f"{name}.depthwise": _tensor(depthwise).flatten(0, 1),
                f"{name}.pointwise": _in_order(_tensor(pointwise), order),
                f"{name}.noise": _tensor(noise),
                f"{name}.bias": _in_order(_tensor(bias).reshape(-1), order),
            }
            order = torch.arange(len(style[1]))
        at, (rows, shift) = walk.styled(walk.wavelet(at))
        order = band_order(len(shift))
        weights |= _pair(f"{block}.style", (rows[order] / 2, shift[order] / 2))
        size //= 2
    if size != CONSTANT_SIZE:
        raise GraphError(f"its sizes halve to {size} px, and not to {CONSTANT_SIZE}")
    at, noise, bias = walk.layer(at, size)
    at, weight = walk.convolution(at, kernel=3)
    at, style = walk.styled(at)
    weights |= {
        **_pair("first.style", style),
        "first.weight": _in_order(_tensor(weight), order),
        "first.noise": _tensor(noise),
        "first.bias": _in_order(_tensor(bias).reshape(-1), order),
        "constant": _tensor(walk.start(at)),
    }
    return {name: value.contiguous() for name, value in weights.items()}


def band_order(channels: int) -> Tensor:
    """Where means, vertical, horizontal and diagonal details lie among a graph's channels.

    Raises:
        GraphError: they are not four bands.
    """
    if channels % 4 or not channels:
        raise GraphError(f"an inverse wavelet takes {channels} channels, which are not four bands")
    details = torch.arange(channels // 4, channels).reshape(-1, 3)
    return torch.cat([torch.arange(channels // 4), details.t().reshape(-1)])


class _Walk:
    """Steps from a layer to what it was computed from; each checks the operations that it passes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.latent = graph.only("Parameter")
        if len(self.latent.shape()) != 2:
            raise GraphError(f"its input has shape {self.latent.shape()}, not that of a batch of vectors")

    def end(self) -> Layer:
        """The layer that gives the result."""
        return self.inputs(self.graph.only("Result"), "Result", 1)[0]

    def inputs(self, layer: Layer, kind: str, count: int) -> list[Layer]:
        """What a layer of this type takes."""
        if layer.type != kind:
            raise GraphError(f"{layer} stands where {kind} was expected")
        return self.graph.inputs(layer, count)

    def with_constant(self, layer: Layer, kind: str) -> tuple[Layer, np.ndarray]:
        """A sum or product with a constant: the other side, and the constant."""
        sides = sorted(self.inputs(layer, kind, 2), key=lambda side: side.type == "Const")
        return sides[0], self.graph.constant(sides[1])

    def activated(self, layer: Layer) -> Layer:
        """What a leaky ReLU takes."""
        at, slope = self.inputs(layer, "PReLU", 2)
        found = _number(self.graph.constant(slope), slope)
        if not math.isclose(found, LEAKY_SLOPE, rel_tol=1e-6):
            raise GraphError(f"{layer} has slope {found:g}, not {LEAKY_SLOPE:g}")
        return at

    def linear(self, layer: Layer) -> tuple[Layer, tuple[Tensor, Tensor]]:
        """A product with a matrix, of one row for every number that comes out, and a row added to it."""
        sides = self.inputs(layer, "Add", 2)
        product, row = sides if sides[0].type == "MatMul" else sides[::-1]
        if row.type == "Reshape":
            row, _ = self.inputs(row, "Reshape", 2)
        at, weight = self.inputs(product, "MatMul", 2)
        if product.data.get("transpose_a") == "true" or product.data.get("transpose_b") != "true":
            raise GraphError(f"{product} turns other matrices than was expected")
        matrix, shift = _tensor(self.graph.constant(weight)), _tensor(self.graph.constant(row)).reshape(-1)
        if matrix.dim() != 2 or shift.shape != matrix.shape[:1]:
            raise GraphError(f"{weight} is {tuple(matrix.shape)}, and {len(shift)} numbers are added")
        return at, (matrix, shift)

    def styled(self, layer: Layer) -> tuple[Layer, tuple[Tensor, Tensor]]:
        """A product of features with a style: the features, and the linear layer from w to the style."""
        sides = self.inputs(layer, "Multiply", 2)
        style, at = sides if sides[0].shape()[2:] == (1, 1) else sides[::-1]
        factor = 1.0
        if style.type == "Multiply":
            style, value = self.with_constant(style, "Multiply")
            factor = _number(value, style)
        linear, _ = self.inputs(style, "Reshape", 2)
        w, (rows, shift) = self.linear(linear)
        if w is not self.latent:
            raise GraphError(f"{linear} makes a style of {w}, not of the input")
        if style.shape() != (1, len(shift), 1, 1) or at.shape()[:2] != (1, len(shift)):
            raise GraphError(f"{layer} modulates {at.shape()} with {len(shift)} numbers, shaped as {style.shape()}")
        return at, (rows * factor, shift * factor)

    def layer(self, layer: Layer, size: int) -> tuple[Layer, np.ndarray, np.ndarray]:
        """Features after a convolution: the convolution, its noise and its bias."""
        at, bias = self.with_constant(self.activated(layer), "Add")
        at, noise = self.with_constant(at, "Add")
        if noise.shape != (1, 1, size, size) or bias.shape != (1, bias.size, 1, 1):
            raise GraphError(f"{layer} has noise of shape {noise.shape} and a bias of {bias.shape} at {size} px")
        return at, noise, bias

    def convolution(self, layer: Layer, *, kernel: int, depthwise: bool = False) -> tuple[Layer, np.ndarray]:
        """A convolution that keeps the size."""
        at, weight = self.inputs(layer, "GroupConvolution" if depthwise else "Convolution", 2)
        values = self.graph.constant(weight)
        expected = {"strides": 1, "dilations": 1, "pads_begin": kernel // 2, "pads_end": kernel // 2}
        if layer.data.get("auto_pad", "explicit") != "explicit" or any(
            _pair_of(layer, name) != (number, number) for name, number in expected.items()
        ):
            raise GraphError(f"{layer} has other strides or paddings than was expected")
        fits = values.shape[1:3] == (1, 1) and values.ndim == 5 if depthwise else values.ndim == 4
        if not fits or values.shape[-2:] != (kernel, kernel):
            raise GraphError(f"{weight} has shape {values.shape}, no weight of {kernel} x {kernel}")
        return at, values

    def wavelet(self, layer: Layer) -> Layer:
        """An inverse Haar wavelet by transposed convolutions: what it takes.

        Means and vertical details make the even and odd rows of the left and right columns' mean, horizontal and
        diagonal ones those of their difference.
        """
        shape = layer.shape()
        if len(shape) != 4:
            raise GraphError(f"{layer} gives {shape}, no features")
        channels, height, width = shape[1], shape[2] // 2, shape[3] // 2
        (left, _), (right, _) = self._filtered(layer, channels, rows=False)
        bands = [*self._filtered(left, channels, rows=True), *self._filtered(right, channels, rows=True)]
        split, mean_port = bands[0]
        at = self._split(split, 1, (channels, 3 * channels))
        ports = sorted(split.outputs)
        parts: list[tuple[Layer, int]] = []
        for band, _ in bands[1:]:
            _, axes = self.inputs(band, "Squeeze", 2)
            if _number(self.graph.constant(axes), axes) != 2:
                raise GraphError(f"{band} takes away another dimension than was expected")
            parts.append(self.graph.sources(band)[0])
        reshaped = self._split(parts[0][0], 2, (1, 1, 1))
        expected = [(parts[0][0], port) for port in sorted(parts[0][0].outputs)]
        self.inputs(reshaped, "Reshape", 2)
        whole = self.graph.sources(reshaped)[0]
        if (
            mean_port != ports[0]
            or parts != expected
            or whole != (split, ports[1])
            or reshaped.shape() != (1, channels, 3, height, width)
            or at.shape() != (1, 4 * channels, height, width)
        ):
            raise GraphError(f"{layer} puts bands together in another way than was expected")
        return at

    def _filtered(self, layer: Layer, channels: int, *, rows: bool) -> tuple[tuple[Layer, int], tuple[Layer, int]]:
        """What a sum of a mean's and a difference's transposed convolution takes: the mean and the difference."""
        found: dict[float, tuple[Layer, int]] = {}
        for side in self.inputs(layer, "Add", 2):
            _, weight = self.inputs(side, "GroupConvolutionBackpropData", 2)
            values = self.graph.constant(weight)
            stride = (2, 1) if rows else (1, 2)
            expected = {"strides": stride, "dilations": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0)}
            if values.shape != (channels, 1, 1, *stride) or any(
                _pair_of(side, name) != numbers for name, numbers in expected.items()
            ):
                raise GraphError(f"{side} is no step of an inverse wavelet")
            taps = values.reshape(channels, 2)
            sign = -1.0 if taps[0, 1] < 0 else 1.0
            if not np.allclose(taps, [HALF, sign * HALF], rtol=1e-6):
                raise GraphError(f"{weight} is no filter of a Haar wavelet")
            found[sign] = self.graph.sources(side)[0]
        if len(found) != 2:
            raise GraphError(f"{layer} adds two means or two differences")
        return found[1.0], found[-1.0]

    def _split(self, layer: Layer, axis: int, lengths: tuple[int, ...]) -> Layer:
        """What is split along an axis into parts of these lengths."""
        at, where, sizes = self.inputs(layer, "VariadicSplit", 3)
        found = tuple(self.graph.constant(sizes).reshape(-1).tolist())
        if _number(self.graph.constant(where), where) != axis or found != lengths or len(layer.outputs) != len(lengths):
            raise GraphError(f"{layer} splits another dimension or into other parts than was expected")
        return at

    def start(self, layer: Layer) -> np.ndarray:
        """The learnt constant, behind layers that repeat it for a batch."""
        at = layer
        for kind in ("Tile", "Broadcast"):
            at, _ = self.inputs(at, kind, 2)
        values = self.graph.constant(at)
        if values.shape != layer.shape() or values.shape[2:] != (CONSTANT_SIZE, CONSTANT_SIZE) or len(values) != 1:
            raise GraphError(f"{at} has shape {values.shape}, no constant of {CONSTANT_SIZE} px")
        return values[0]

    def is_normalization(self, layer: Layer) -> bool:
        """Whether the latent is brought to a second moment of 1 here: x * (1 / sqrt(mean(x^2) + epsilon)).

        Raises:
            GraphError: something like it, with other numbers.
        """
        if layer.type != "Multiply" or self.latent not in (sides := self.graph.inputs(layer, 2)):
            return False
        (root,) = [side for side in sides if side is not self.latent] or [self.latent]
        inverse, one = self.with_constant(root, "Multiply")
        steps = [(one, 1.0)]
        at = inverse
        for kind, exponent in (("Power", -1.0), ("Power", 0.5), ("Add", EPSILON)):
            at, value = self.with_constant(at, kind)
            steps.append((value, exponent))
        mean, axes = self.inputs(at, "ReduceMean", 2)
        square, two = self.with_constant(mean, "Power")
        steps += [(two, 2.0), (self.graph.constant(axes), 1.0)]
        axis = _number(self.graph.constant(axes), axes)
        if axis == -1:
            steps.pop()
        if square is not self.latent or at.data.get("keep_dims") != "true":
            raise GraphError(f"{at} averages something else than the squares of the input")
        for value, expected in steps:
            if not math.isclose(_number(value, layer), expected, rel_tol=1e-5):
                raise GraphError(f"{layer} normalizes with {_number(value, layer):g} where {expected:g} was expected")
        return True


def _number(values: np.ndarray, layer: Layer) -> float:
    if values.size != 1:
        raise GraphError(f"{layer} has {values.size} numbers where one was expected")
    return float(values.reshape(()))


def _pair_of(layer: Layer, name: str) -> tuple[int, ...]:
    """A setting of two dimensions."""
    return tuple(whole_number(part, layer) for part in layer.data.get(name, "").split(","))


def _tensor(values: np.ndarray) -> Tensor:
    """A copy, since files are closed before long.

    Raises:
        GraphError: it holds no finite floating-point numbers.
    """
    tensor = torch.from_numpy(values.astype(np.float32, copy=True))
    if values.dtype.kind != "f" or not bool(tensor.isfinite().all()):
        raise GraphError("its weights are not finite floating-point numbers")
    return tensor


def _in_order(values: Tensor, order: Tensor) -> Tensor:
    if len(values) != len(order):
        raise GraphError(f"a layer gives {len(values)} channels where {len(order)} come next")
    return values[order]


def _pair(name: str, pair: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.weight": pair[0], f"{name}.bias": pair[1]}
