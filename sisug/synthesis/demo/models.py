"""Models of the page (demo): the mappers that ship and those named at start-up, loaded when first drawn for."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sisug.conditions.label_condition import LabelCondition
from sisug.errors import ConfigError
from sisug.labels.label_sets import LabelSet
from sisug.mapper.trained import SHIPPED
from sisug.segmentation.judges.landmark_judge import LANDMARKS
from sisug.segmentation.judges.opening import open_judge
from sisug.segmentation.judges.protocol import JudgeProtocol
from sisug.segmentation.loading import JUDGES
from sisug.synthesis.synthesizer import Synthesizer

logger = logging.getLogger(__name__)

KINDS = ("seg", "scribble", "sketch", "edges")
"""Conditions that can be drawn by hand, in the order of the page. Depth is not: nobody paints distances."""

MOST_LOADED = 6
"""Models held in memory; the one used longest ago goes first."""

SMALL_CANVAS, LARGE_CANVAS = 256, 512
"""Height and width of the canvas, for generators of up to 256 pixels and for larger ones."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """The values used last; safe between threads.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """A value that is kept, else None.

        Args:
            key: of it.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Key, value: Value) -> Value:
        """Keep a value, and forget the one used longest ago if there are too many.

        Args:
            key: of it.
            value: to keep.
        """
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self.most:
                self._values.popitem(last=False)
        return value

    def find(self, key: Key, make: Callable[[], Value]) -> Value:
        """A value, made if it is not kept.

        Args:
            key: of it.
            make: makes it.
        """
        found = self.get(key)
        return self.put(key, make()) if found is None else found

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True)
class Reader:
    """A mapper that can be chosen on the page.

    Args:
        family: of the model, as the page calls it: "avatars".
        kind: of its condition.
        source: what `sisug generate --mapper` is given: the name of one that ships, or a file.
        shown: the same without folders, for those who look at the page.
        generator: file or preset in place of the one that it names.
    """

    family: str
    kind: str
    source: str
    shown: str
    generator: str | None = None


class Models:
    """All that can be chosen.

    Args:
        readers: the mappers.
        device: see `Synthesizer`.
    """

    def __init__(self, readers: Iterable[Reader], device: str = "auto") -> None:
        self.readers = {(reader.family, reader.kind): reader for reader in readers}
        self.device = device
        self._loaded: Kept[tuple[str, str], Synthesizer] = Kept(MOST_LOADED)
        self._judges: dict[str, JudgeProtocol | None] = {}
        self._lock = threading.Lock()

    def families(self) -> dict[str, list[str]]:
        """The kinds of each model, in the order of the page."""
        found: dict[str, list[str]] = {}
        for family, kind in self.readers:
            found.setdefault(family, []).append(kind)
        return {family: sorted(kinds, key=KINDS.index) for family, kinds in found.items()}

    def reader(self, family: str, kind: str) -> Reader:
        """The mapper for what was chosen.

        Args:
            family: name of the model.
            kind: of drawing.

        Raises:
            ConfigError: there is none.
        """
        reader = self.readers.get((family, kind))
        if reader is None:
            raise ConfigError("this model and kind of drawing", "the page has no such pair", "choose another")
        return reader

    def synthesizer(self, reader: Reader) -> Synthesizer:
        """The trained pieces, from memory or from their files.

        Args:
            reader: one of `readers`.

        Raises:
            SisugError: a file is missing or damaged.
        """
        with self._lock:  # two visitors of one model: it is read once
            return self._loaded.find(
                (reader.family, reader.kind), lambda: Synthesizer.load(reader.source, reader.generator, self.device)
            )

    def keep(self, reader: Reader, synthesizer: Synthesizer) -> None:
        """Keep what was loaded elsewhere.

        Args:
            reader: one of `readers`.
            synthesizer: of it.
        """
        self._loaded.put((reader.family, reader.kind), synthesizer)

    def judge(self, labels: LabelSet | None) -> JudgeProtocol | None:
        """What finds the classes in a picture, where something that ships does.

        Args:
            labels: classes to find.
        """
        if labels is None or labels.name not in (*JUDGES, LANDMARKS):
            return None
        with self._lock:
            if labels.name not in self._judges:
                try:
                    judge = open_judge(labels.name)
                except Exception as error:  # a package or a download is missing: the page works without
                    logger.warning("no masks of samples and photos for %s: %s", labels.name, error)
                    self._judges[labels.name] = None
                else:
                    self._judges[labels.name] = judge if judge.labels.classes == labels.classes else None
            return self._judges[labels.name]

    def describe(self, reader: Reader) -> dict[str, Any]:
        """What the page has to know to draw for a mapper.

        Args:
            reader: one of `readers`.

        Raises:
            SisugError: it cannot be loaded.
        """
        synthesizer = self.synthesizer(reader)
        assert synthesizer.mapper is not None
        condition = synthesizer.mapper.condition
        described: dict[str, Any] = {
            "canvas": canvas_size(synthesizer),
            "resolution": synthesizer.generator.resolution,
            "layered": synthesizer.generator.layered_styles,
            "labels": None,
            "samples": not condition.needs_masks or self.judge(condition.labels) is not None,
        }
        if isinstance(condition, LabelCondition):
            seen = synthesizer.mapper.lesson.get("seen") or {}
            described |= {
                "labels": [
                    {
                        "name": name.replace("_", " "),
                        "color": list(color),
                        "known": not any(seen.values()) or bool(seen.get(name)),
                    }
                    for name, color in zip(condition.labels.classes, condition.labels.palette, strict=True)
                ],
                "blank": {"number": condition.labels.ignore, "color": list(condition.blank)},
            }
        return described


def canvas_size(synthesizer: Synthesizer) -> int:
    """Height and width of the canvas, pixels.

    Args:
        synthesizer: that reads it.
    """
    return SMALL_CANVAS if synthesizer.generator.resolution <= SMALL_CANVAS else LARGE_CANVAS


def shipped_readers() -> list[Reader]:
    """The mappers that come with the project and can be drawn for."""
    found = []
    for name, path in SHIPPED.items():
        kind = _kind(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
        if kind in KINDS:
            found.append(Reader(name.removesuffix(f"-{kind}"), kind, name, name))
    return found


def own_reader(path: str, generator: str | None, device: str) -> tuple[Reader, Synthesizer]:
    """A mapper named at start-up.

    Args:
        path: checkpoint of `make train-mapper`, or file of `sisug mapper export`.
        generator: file or preset in place of the one that it names.
        device: see `Synthesizer`.

    Raises:
        SisugError: it cannot be loaded.
        ConfigError: its condition cannot be drawn.
    """
    synthesizer = Synthesizer.load(path, generator, device)
    assert synthesizer.mapper is not None
    kind = synthesizer.mapper.condition.name
    if kind not in KINDS:
        raise ConfigError(
            f"the mapper {path} reads {kind!r}", f"the page has {', '.join(KINDS)}", "use `sisug generate` for it"
        )
    return Reader(f"{Path(path).stem} (yours)", kind, path, Path(path).name, generator), synthesizer


def _kind(record: Mapping[str, Any]) -> str:
    return str(record["condition"]["name"])
