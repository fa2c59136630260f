"""Protocol `quality` (evaluation of both stages): realism of plain, rearranged and synthesised images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sisug.common.image_grid import save_grid
from sisug.errors import ConfigError
from sisug.evaluation.realism import FIGURES, LEAST, AgainstData, heads, is_official, rows_of, scores
from sisug.evaluation.report import Report, Table
from sisug.evaluation.sampled import SampledProtocol
from sisug.evaluation.samples import Conditions, Samples, blocks
from sisug.evaluation.workspace import Workspace
from sisug.types import Images

PICTURE = "quality.png"

SHOWN = 8
"""Images of a row of the picture."""


class Comparison(NamedTuple):
    """A row of the table.

    Args:
        key: of its parts.
        images: what is scored.
        against: what it is compared with.
    """

    key: str
    images: str
    against: str


PLAIN = Comparison("plain", "plain samples", "held-out images")
SYNTHESISED = Comparison("synthesised", "synthesised from conditions of held-out images", "held-out images")
DATA = Comparison("data", "other held-out images", "held-out images")
REARRANGED = Comparison("rearranged", "samples laid out as other samples", "plain samples")
AGAIN = Comparison("again", "plain samples", "other plain samples")


@dataclass(frozen=True, kw_only=True)
class Quality(SampledProtocol):
    """Fréchet and kernel distance, precision, recall, density and coverage of a generator's images.

    Rows: plain samples, and images synthesised from conditions of held-out images, against held-out images; samples
    laid out as other samples against plain ones. What chance alone gives stands beside them: other held-out images
    against held-out images where there are enough, plain samples against other plain samples. All three kinds of
    images have the same looks. Other settings: see `SampledProtocol`.

    Args:
        images: of each set; every score depends on their number.
        rearranger: of the rearranged images: checkpoint of stage 1, a file of `sisug rearranger export`, or the name of
            one that ships; None for the mapper's own.

    Raises:
        ConfigError: a value out of range.

    Source: our choice of rows; the scores' sources are named in `sisug.metrics`.
    """

    name: ClassVar[str] = "quality"

    images: int = 2000
    rearranger: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images < LEAST:
            raise ConfigError(
                f"images {self.images}",
                f"the scores need {LEAST} at the least, and hundreds to mean something",
                "raise it",
            )

    def check(self) -> None:
        self.held_out.check(self.images)
        _ = self.extractor
        if self.models.mapper is not None:
            Conditions(self.models.mapper, self.held_out)

    def named_rearranger(self) -> str | None:
        return self.rearranger

    def counts(self) -> dict[str, Any]:
        first = self.first_condition()
        return {
            "images of each set": self.images,
            "held-out images": f"0 to {self.images - 1}",
            "conditions of": f"{first} to {first + self.images - 1}",
        }

    def record(self) -> dict[str, Any]:
        last = self.first_condition() + self.images
        if DATA in self._rows():
            last = (2 + len(self.seeds)) * self.images
        return super().record() | {
            "extractor": self.extractor_record(),
            "data": self.held_out.record(0, last),
            "condition": None if self.models.mapper is None else self.models.mapper.condition.to_dict()["name"],
        }

    def run(self, work: Workspace, device: torch.device) -> Report:
        self.move(device)
        sets = _Sets(self, device)
        against = AgainstData(self.extractor, self.held_out, self.images, self.batch_size, device)
        rows = self._rows()
        found: dict[Comparison, list[dict[str, Any]]] = {row: [] for row in rows}
        for position, seed in enumerate(self.seeds):
            # Each set passes through the extractor once a seed, however many rows it is in.
            features = cache(partial(self._features, sets, seed, position))
            for row in rows:
                part = work.part(f"{row.key}-seed{seed}", partial(self._measure, row, features, against))
                found[row].append(part)
        save_grid(*sets.picture(work, self.seeds[0]))
        return self._report(rows, found)

    def first_condition(self) -> int:
        """Place of the first held-out image that gives a condition: after those compared with, if there are enough."""
        return self.images if len(self.held_out) >= 2 * self.images else 0

    def _rows(self) -> list[Comparison]:
        rows = [PLAIN]
        if self.models.mapper is not None:
            rows.append(SYNTHESISED)
        if len(self.held_out) >= (2 + len(self.seeds)) * self.images:
            rows.append(DATA)
        if self.models.rearranger is not None:
            rows += [REARRANGED, AGAIN]
        return rows

    def _features(self, sets: _Sets, seed: int, position: int, kind: str) -> Tensor:
        return rows_of(self.extractor, sets.make(kind, seed, position))

    def _measure(self, row: Comparison, features: Callable[[str], Tensor], against: AgainstData) -> dict[str, float]:
        if row is REARRANGED:
            return scores(self.extractor, features("other"), features("rearranged"))
        if row is AGAIN:
            return scores(self.extractor, features("other"), features("plain"))
        return against.scores(features(row.key))

    def _report(self, rows: list[Comparison], found: dict[Comparison, list[dict[str, Any]]]) -> Report:
        name = self.extractor.name
        notes = [self.intervals_note()]
        if not is_official(self.extractor):
            notes.append(f"The features are those of {name}, not of Inception: these distances are no FID and no KID.")
        if SYNTHESISED in rows:
            notes.append(
                "Conditions come from other held-out images than those compared with."
                if self.first_condition()
                else "Conditions come from the very held-out images compared with, as is usual in semantic image "
                "synthesis: there are too few for two sets."
            )
        if DATA not in rows:
            notes.append("There are too few held-out images to compare them among themselves.")
        table = Table(
            f"Realism in the features of {name}, {self.images:,} images a side",
            ("images", "against", *heads(self.extractor)),
            [
                (
                    row.images,
                    row.against,
                    *(self.interval(part[figure] for part in found[row]) for figure in FIGURES),
                )
                for row in rows
            ],
            notes,
        )
        return Report(
            self.name,
            f"Realism of {self.subject}: plain, rearranged and synthesised images beside "
            f"{self.held_out.name} ({self.held_out.split}).",
            [table],
            self.record(),
            {PICTURE: "The first images of the first seed, not chosen; columns share their look."},
        )


class _Sets:
    """The sets of images that are compared; a kind, a seed and a number give an image."""

    def __init__(self, protocol: Quality, device: torch.device) -> None:
        self.protocol, self.device, self.models = protocol, device, protocol.models
        self.samples = Samples(self.models.generator, protocol.samples_truncation, device)
        self.conditions = None
        if self.models.mapper is not None:
            self.conditions = Conditions(self.models.mapper, protocol.held_out)

    def make(self, kind: str, seed: int, position: int, count: int | None = None) -> Iterator[Images]:
        """Batches of a set.

        Args:
            kind: plain, other (plain too), rearranged, synthesised or data.
            seed: of the samples.
            position: of the seed among the repeats: other held-out images for each.
            count: images; None for all.
        """
        images, size = self.protocol.images if count is None else count, self.protocol.batch_size
        first = self.protocol.first_condition()
        if kind == "data":
            start = (2 + position) * self.protocol.images
            for batch in self.protocol.held_out.batches(start, start + images, size):
                yield batch.images.to(self.device)
        elif kind == "synthesised":
            assert self.models.mapper is not None
            assert self.conditions is not None
            for batch in self.protocol.held_out.batches(first, first + images, size):
                ws = self.samples.styles(batch.index - first, seed, "look")
                target = self.conditions.layouts(batch, self.device)
                yield self.samples.laid_out(self.models.mapper.rearranger, ws, target)
        else:
            for numbers in blocks(images, size):
                yield self._samples(kind, seed, numbers)

    def _samples(self, kind: str, seed: int, numbers: Tensor) -> Images:
        ws = self.samples.styles(numbers, seed, "other" if kind == "other" else "look")
        if kind != "rearranged":
            return self.samples.plain(ws)
        assert self.models.rearranger is not None
        target = self.samples.styles(numbers, seed, "target")
        return self.samples.laid_out(self.models.rearranger, ws, self.samples.layouts(self.models.rearranger, target))

    def picture(self, work: Workspace, seed: int) -> tuple[list[Images], Any, list[str]]:
        """What `save_grid` takes: the first images of each kind."""
        kinds = ["plain"]
        kinds += ["rearranged"] if self.models.rearranger is not None else []
        kinds += ["synthesised"] if self.models.mapper is not None else []
        count = min(SHOWN, self.protocol.images)
        rows = [torch.cat(list(self.make(kind, seed, 0, count))) for kind in kinds]
        return rows, work.folder / PICTURE, kinds
