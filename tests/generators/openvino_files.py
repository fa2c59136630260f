"""Writes small files of MobileStyleGAN as its authors published it (generators): OpenVINO graphs in a wheel."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

Output = tuple[int, int]
"""Number of a layer and of its port."""

CHANNELS = {4: 16, 8: 16, 16: 8, 32: 8}
WIDTH = 12
FOLDER = "random_face/data"


class GraphWriter:
    """Puts a graph together layer by layer.

    Args:
        name: of the graph.
        seed: of its weights.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.net = ElementTree.Element("net", name=name, version="10")
        self.layers = ElementTree.SubElement(self.net, "layers")
        self.edges = ElementTree.SubElement(self.net, "edges")
        self.numbers = bytearray()
        self.random = np.random.default_rng(seed)
        self.shapes: dict[Output, tuple[int, ...]] = {}

    def add(
        self, kind: str, inputs: Sequence[Output], shapes: Sequence[Sequence[int]], name: str = "", **data: str
    ) -> Output:
        """A layer; its first output is returned."""
        number = len(self.layers)
        layer = ElementTree.SubElement(
            self.layers, "layer", id=str(number), name=name or f"{kind}_{number}", type=kind, version="opset1"
        )
        if data:
            ElementTree.SubElement(layer, "data", data)
        for port, source in enumerate(inputs):
            place = {"from-layer": str(source[0]), "from-port": str(source[1])}
            ElementTree.SubElement(self.edges, "edge", place | {"to-layer": str(number), "to-port": str(port)})
        output = ElementTree.SubElement(layer, "output") if shapes else None
        for port, shape in enumerate(shapes, start=len(inputs)):
            assert output is not None
            element = ElementTree.SubElement(output, "port", id=str(port), precision="FP32")
            for size in shape:
                ElementTree.SubElement(element, "dim").text = str(size)
            self.shapes[number, port] = tuple(shape)
        return number, len(inputs)

    def constant(self, values: np.ndarray | float | Sequence[int], name: str = "") -> Output:
        array = np.asarray(values)
        array = array.astype("<i8" if array.dtype.kind == "i" else "<f4")
        offset = len(self.numbers)
        self.numbers += array.tobytes()
        kind = "i64" if array.dtype.kind == "i" else "f32"
        place = {"offset": str(offset), "size": str(array.nbytes), "shape": ", ".join(map(str, array.shape))}
        return self.add("Const", [], [array.shape], name, element_type=kind, **place)

    def normal(self, *shape: int, name: str = "") -> Output:
        """A constant of random numbers."""
        return self.constant(self.random.standard_normal(shape) / max(1, np.prod(shape[1:])) ** 0.5, name)

    def linear(self, source: Output, into: int, out: int) -> Output:
        product = self.add(
            "MatMul", [source, self.normal(out, into)], [(1, out)], transpose_a="false", transpose_b="true"
        )
        return self.add("Add", [product, self.constant(1 + 0.3 * self.random.standard_normal((1, out)))], [(1, out)])

    def reshape(self, source: Output, shape: Sequence[int]) -> Output:
        return self.add("Reshape", [source, self.constant(list(shape))], [shape], special_zero="true")

    def product(self, one: Output, other: Output) -> Output:
        """Element by element; the larger one gives the shape."""
        shape = max(self.shapes[one], self.shapes[other], key=lambda shape: (len(shape), int(np.prod(shape))))
        return self.add("Multiply", [one, other], [shape], auto_broadcast="numpy")

    def sum(self, one: Output, other: Output) -> Output:
        shape = max(self.shapes[one], self.shapes[other], key=lambda shape: (len(shape), int(np.prod(shape))))
        return self.add("Add", [one, other], [shape], auto_broadcast="numpy")

    def leaky(self, source: Output, name: str = "") -> Output:
        return self.add("PReLU", [source, self.constant([0.2])], [self.shapes[source]], name)

    def result(self, source: Output) -> None:
        self.add("Result", [source], [])

    def files(self) -> tuple[bytes, bytes]:
        return ElementTree.tostring(self.net, xml_declaration=True, encoding="utf-8"), bytes(self.numbers)


def mapping_graph(seed: int = 0, layers: int = 2, gain: float = 2**0.5) -> GraphWriter:
    """Z to w, of 12 numbers each."""
    graph = GraphWriter("MappingNetwork", seed)
    start = graph.add("Parameter", [], [(1, WIDTH)], "var", shape=f"1, {WIDTH}", element_type="f32")
    square = graph.add("Power", [start, graph.constant(np.full((1, 1), 2.0))], [(1, WIDTH)])
    mean = graph.add("ReduceMean", [square, graph.constant([1])], [(1, 1)], keep_dims="true")
    root = graph.sum(mean, graph.constant(np.full((1, 1), 1e-8)))
    for exponent in (0.5, -1.0):
        root = graph.add("Power", [root, graph.constant(np.full((1, 1), exponent))], [(1, 1)])
    at = graph.product(start, graph.product(graph.constant(np.ones((1, 1))), root))
    for _ in range(layers):
        product = graph.add(
            "MatMul",
            [at, graph.normal(WIDTH, WIDTH)],
            [(1, WIDTH)],
            transpose_a="false",
            transpose_b="true",
        )
        bias = graph.reshape(graph.normal(WIDTH), (1, WIDTH))
        at = graph.product(graph.leaky(graph.sum(product, bias)), graph.constant(np.full((1, 1), gain)))
    graph.result(at)
    return graph


def synthesis_graph(seed: int = 1, channels: dict[int, int] | None = None) -> GraphWriter:
    """W to an image of twice the finest features' size; features after a block are named block_SIZE."""
    channels = CHANNELS if channels is None else channels
    graph = GraphWriter("SynthesisNetwork", seed)
    w = graph.add("Parameter", [], [(1, WIDTH)], "style", shape=f"1, {WIDTH}", element_type="f32")

    def modulated(x: Output, *, scaled: bool) -> Output:
        count = graph.shapes[x][1]
        style = graph.reshape(graph.linear(w, WIDTH, count), (1, count, 1, 1))
        if scaled:
            style = graph.product(style, graph.constant(np.full((1, 1, 1, 1), 0.7)))
            return graph.product(style, x)
        return graph.product(style, x)

    def convolution(x: Output, out: int, kernel: int) -> Output:
        _, into, height, width = graph.shapes[x]
        return graph.add(
            "Convolution",
            [x, graph.normal(out, into, kernel, kernel)],
            [(1, out, height, width)],
            **keeping(kernel),
        )

    def depthwise(x: Output) -> Output:
        shape = graph.shapes[x]
        weight = graph.constant(graph.random.standard_normal((shape[1], 1, 1, 3, 3)) / 3)
        return graph.add("GroupConvolution", [x, weight], [shape], **keeping(3))

    def ended(x: Output, name: str = "") -> Output:
        _, count, size, _ = graph.shapes[x]
        x = graph.sum(x, graph.constant(0.2 * graph.random.standard_normal((1, 1, size, size))))
        bias = graph.constant(0.2 * graph.random.standard_normal((1, count, 1, 1)))
        return graph.leaky(graph.sum(x, bias), name)

    def wavelet(x: Output) -> Output:
        _, count, height, width = graph.shapes[x]
        c = count // 4
        means = graph.add(
            "VariadicSplit",
            [x, graph.constant(1), graph.constant([c, 3 * c])],
            [(1, c, height, width), (1, 3 * c, height, width)],
        )
        details = graph.reshape((means[0], means[1] + 1), (1, c, 3, height, width))
        parts = graph.add(
            "VariadicSplit", [details, graph.constant(2), graph.constant([1, 1, 1])], [(1, c, 1, height, width)] * 3
        )
        vertical, horizontal, diagonal = (
            graph.add("Squeeze", [(parts[0], parts[1] + i), graph.constant([2])], [(1, c, height, width)])
            for i in range(3)
        )

        def joined(low: Output, high: Output, *, rows: bool) -> Output:
            _, c, height, width = graph.shapes[low]
            shape = (1, c, 2 * height, width) if rows else (1, c, height, 2 * width)
            sides = []
            for source, sign in ((low, 1.0), (high, -1.0)):
                taps = np.tile(np.array([1.0, sign]) * 0.5**0.5, (c, 1))
                kernel = graph.constant(taps.reshape(c, 1, 1, *((2, 1) if rows else (1, 2))))
                stride = "2, 1" if rows else "1, 2"
                sides.append(
                    graph.add(
                        "GroupConvolutionBackpropData",
                        [source, kernel],
                        [shape],
                        strides=stride,
                        dilations="1, 1",
                        pads_begin="0, 0",
                        pads_end="0, 0",
                    )
                )
            return graph.sum(*sides)

        left = joined(means, vertical, rows=True)
        right = joined(horizontal, diagonal, rows=True)
        return joined(left, right, rows=False)

    sizes = sorted(channels)
    constant = graph.normal(1, channels[4], 4, 4, name="m.input.input")
    repeats = graph.constant([1, 1, 1, 1])
    x = graph.add("Broadcast", [constant, repeats], [(1, channels[4], 4, 4)], mode="bidirectional")
    x = graph.add("Tile", [x, repeats], [(1, channels[4], 4, 4)])
    x = ended(convolution(modulated(x, scaled=True), channels[4], 3), "block_4")
    for size in sizes[1:]:
        x = wavelet(modulated(x, scaled=False))
        x = ended(convolution(depthwise(modulated(x, scaled=True)), channels[size], 1))
        x = ended(convolution(depthwise(modulated(x, scaled=True)), channels[size], 1), f"block_{size}")
    x = convolution(modulated(x, scaled=True), 12, 1)
    graph.result(wavelet(graph.sum(x, graph.constant(0.2 * graph.random.standard_normal((1, 12, 1, 1))))))
    return graph


def keeping(kernel: int) -> dict[str, str]:
    """Settings of a convolution that keeps the size."""
    pad = f"{kernel // 2}, {kernel // 2}"
    return {"strides": "1, 1", "dilations": "1, 1", "pads_begin": pad, "pads_end": pad, "auto_pad": "explicit"}


def members(mapping: GraphWriter | None = None, synthesis: GraphWriter | None = None) -> dict[str, bytes]:
    """Files of a wheel by their names in it."""
    contents = {}
    for name, graph in (
        ("MappingNetwork", mapping or mapping_graph()),
        ("SynthesisNetwork", synthesis or synthesis_graph()),
    ):
        markup, numbers = graph.files()
        contents |= {f"{FOLDER}/{name}.xml": markup, f"{FOLDER}/{name}.bin": numbers}
    return contents


def write_wheel(path: Path, contents: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A wheel of these files; of the small networks where none are given."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in (members() if contents is None else contents).items():
            archive.writestr(name, content)
    return path
