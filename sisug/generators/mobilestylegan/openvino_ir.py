"""OpenVINO's model files, read as data (generators): a graph in XML, numbers beside it; nothing in them is run.

Format: https://docs.openvino.ai/2025/documentation/openvino-ir-format.html (version 10 of it is read here).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

import numpy as np

MOST_XML = 4 << 20
"""Bytes; the published graphs have 0.4 MB."""

MOST_ELEMENTS = 100_000
MOST_DEPTH = 12
MOST_DIMENSIONS = 8
TYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "i64": np.dtype("<i8"), "i32": np.dtype("<i4")}


class GraphError(Exception):
    """The file is damaged or hostile, or another graph than was expected; the message says why, as a cause."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A node of the graph.

    Args:
        name: as the exporter called it.
        type: its operation.
        data: settings of the operation.
        outputs: shapes by port.
        sources: for every input port, in order, whose output it takes: the layer's id and that one's port.
    """

    name: str
    type: str
    data: dict[str, str] = field(default_factory=dict)
    outputs: dict[int, tuple[int, ...]] = field(default_factory=dict)
    sources: dict[int, tuple[str, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"layer {self.name[:60]!r} ({self.type[:40]})"

    def shape(self, port: int | None = None) -> tuple[int, ...]:
        """Of an output; None for the only one.

        Raises:
            GraphError: there is no such output, or several where one was expected.
        """
        if port is None and len(self.outputs) == 1:
            (port,) = self.outputs
        if port not in self.outputs:
            raise GraphError(f"{self} has outputs {sorted(self.outputs)[:8]}, not the one that is needed")
        return self.outputs[port]


@dataclass(frozen=True)
class Graph:
    """A model: its layers by id, and the numbers that constants point into."""

    layers: Mapping[str, Layer]
    numbers: memoryview

    def only(self, kind: str) -> Layer:
        """The one layer of a type.

        Raises:
            GraphError: there is none, or several.
        """
        found = [layer for layer in self.layers.values() if layer.type == kind]
        if len(found) != 1:
            raise GraphError(f"the graph has {len(found)} layers of type {kind}, not one")
        return found[0]

    def inputs(self, layer: Layer, count: int) -> list[Layer]:
        """Layers that a layer takes, in the order of its ports.

        Raises:
            GraphError: there are more or fewer.
        """
        if len(layer.sources) != count:
            raise GraphError(f"{layer} takes {len(layer.sources)} inputs, not {count}")
        return [source for source, _ in self.sources(layer)]

    def sources(self, layer: Layer) -> list[tuple[Layer, int]]:
        """Layers that a layer takes, and which output of each, in the order of its ports."""
        return [(self.layers[source], port) for _, (source, port) in sorted(layer.sources.items())]

    def constant(self, layer: Layer) -> np.ndarray:
        """Numbers of a constant, where they lie in the file.

        Raises:
            GraphError: it is none, or does not lie within the file.
        """
        if layer.type != "Const":
            raise GraphError(f"{layer} stands where a constant was expected")
        kind = TYPES.get(layer.data.get("element_type", ""))
        if kind is None:
            raise GraphError(f"{layer} holds numbers of type {layer.data.get('element_type', 'none')[:20]!r}")
        shape = tuple(whole_number(part, layer) for part in layer.data.get("shape", "").split(",") if part.strip())
        if len(shape) > MOST_DIMENSIONS:
            raise GraphError(f"{layer} has {len(shape)} dimensions")
        offset, size = (whole_number(layer.data.get(name, ""), layer) for name in ("offset", "size"))
        if math.prod(shape) * kind.itemsize != size:
            raise GraphError(f"{layer} has shape {shape} and {size} bytes, which do not agree")
        if offset + size > len(self.numbers):
            raise GraphError(
                f"{layer} ends at byte {offset + size} of its numbers, which are {len(self.numbers):,} bytes long"
            )
        return np.frombuffer(self.numbers, kind, math.prod(shape), offset).reshape(shape)


def read_graph(markup: bytes, numbers: bytes) -> Graph:
    """A graph from the contents of its two files.

    Document types and entities are refused, as are depth and size beyond any model of ours.

    Args:
        markup: the graph, in XML.
        numbers: what its constants point into.

    Raises:
        GraphError: the XML is damaged, hostile or no graph of version 10.
    """
    if len(markup) > MOST_XML:
        raise GraphError(f"the graph has {len(markup):,} bytes of XML, and at most {MOST_XML:,} are read")
    content = _Content()
    parser = expat.ParserCreate()
    parser.StartElementHandler = content.start
    parser.EndElementHandler = content.end
    parser.CharacterDataHandler = content.text
    parser.StartDoctypeDeclHandler = content.refuse_document_type
    parser.EntityDeclHandler = content.refuse_document_type
    try:
        parser.Parse(markup, True)
    except expat.ExpatError as error:
        raise GraphError(f"its XML is damaged ({error})") from error
    except (ValueError, LookupError) as error:  # an encoding that is none
        raise GraphError(f"its XML cannot be read ({str(error)[:100]})") from error
    return Graph(content.finished(), memoryview(numbers))


class _Content:
    """What the parser meets, of which layers and edges are kept."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.elements = 0
        self.layers: dict[str, Layer] = {}
        self.edges: list[dict[str, str]] = []
        self.layer: Layer | None = None
        self.port: int | None = None
        self.dimension = ""

    def refuse_document_type(self, *_: object) -> None:
        raise GraphError("its XML declares a document type or entities, which no graph needs")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.elements += 1
        self.path.append(tag)
        if self.elements > MOST_ELEMENTS or len(self.path) > MOST_DEPTH:
            raise GraphError(f"its XML has more than {MOST_ELEMENTS:,} elements, or more than {MOST_DEPTH} in another")
        match self.path:
            case ["net"]:
                if attributes.get("version") != "10":
                    raise GraphError(f"it is of version {attributes.get('version', 'none')[:20]!r}, not 10")
            case ["net", "layers", "layer"]:
                identity = attributes.get("id", "")
                if identity in self.layers:
                    raise GraphError(f"two layers have the id {identity[:20]!r}")
                self.layer = Layer(attributes.get("name", ""), attributes.get("type", ""))
                self.layers[identity] = self.layer
            case ["net", "layers", "layer", "data"] if self.layer:
                self.layer.data.update(attributes)
            case ["net", "layers", "layer", "output", "port"] if self.layer:
                self.port = whole_number(attributes.get("id", ""), self.layer)
                self.layer.outputs[self.port] = ()
            case ["net", "edges", "edge"]:
                self.edges.append(attributes)
            case [first, *_] if first != "net":
                raise GraphError(f"it is a document of <{first[:40]}>, not of <net>")

    def text(self, characters: str) -> None:
        if self.path[-1] == "dim" and len(self.dimension) < 20:
            self.dimension += characters

    def end(self, tag: str) -> None:
        if self.path == ["net", "layers", "layer", "output", "port", "dim"] and self.layer and self.port is not None:
            shape = self.layer.outputs[self.port]
            if len(shape) == MOST_DIMENSIONS:
                raise GraphError(f"{self.layer} has more than {MOST_DIMENSIONS} dimensions")
            self.layer.outputs[self.port] = (*shape, whole_number(self.dimension, self.layer))
        self.dimension = ""
        self.path.pop()

    def finished(self) -> dict[str, Layer]:
        """Layers that know their inputs."""
        for edge in self.edges:
            source, target = edge.get("from-layer", ""), edge.get("to-layer", "")
            if source not in self.layers or target not in self.layers:
                raise GraphError(f"an edge goes from layer {source[:20]!r} to {target[:20]!r}, and one is not there")
            layer = self.layers[target]
            port = whole_number(edge.get("to-port", ""), layer)
            if port in layer.sources:
                raise GraphError(f"two edges lead to input {port} of {layer}")
            layer.sources[port] = source, whole_number(edge.get("from-port", ""), layer)
        return self.layers


def whole_number(text: str, layer: Layer) -> int:
    """A number of a file.

    Raises:
        GraphError: it is none, or beyond any size.
    """
    text = text.strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise GraphError(f"{layer} has {text[:20]!r} where a size was expected")
    return int(text)
