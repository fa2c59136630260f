"""Protocol `supervised` (evaluation of stage 2): the paper's Table B, our images beside the published rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sisug.common.image_grid import save_grid
from sisug.errors import ConfigError
from sisug.evaluation.layout import LayoutScores
from sisug.evaluation.realism import FIGURES, LEAST, AgainstData, heads, is_official
from sisug.evaluation.report import Cell, Report, Table
from sisug.evaluation.sampled import SampledProtocol
from sisug.evaluation.samples import Conditions, Samples
from sisug.evaluation.workspace import Workspace
from sisug.labels.label_maps import LabelMap, match_labels
from sisug.labels.label_sets import LabelSet, label_set
from sisug.segmentation.judges import PartialJudge, RelabelledJudge, judge_for
from sisug.types import Images, Masks

PICTURE = "supervised.png"

SHOWN = 8
"""Columns of the picture."""

PUBLISHED_ON = "celebamask-hq"

PUBLISHED_MASKS, PUBLISHED_RESOLUTION = 2000, 256


class Published(NamedTuple):
    """A row of the paper's Table B, in percent but for the FID.

    Args:
        method: its name.
        fid: against photos.
        miou: against the input mask.
        accuracy: share of pixels; None where the table has none.
    """

    method: str
    fid: float
    miou: float
    accuracy: float | None


PUBLISHED = (
    Published("SEAN", 28.1, 75.9, 92.3),
    Published("OASIS", 20.2, 74.0, 91.5),
    Published("INADE", 21.5, 74.1, 93.2),
    Published("SDM", 18.8, 77.0, None),
    Published("OASIS (1-shot)", 25.5, 45.5, 82.7),
    Published("INADE (1-shot)", 28.1, 44.3, 83.8),
    Published("the paper (1-shot)", 18.5, 53.1, 88.2),
)
"""Chae et al., "Semantic image synthesis with unconditional generator" (2023), on CelebAMask-HQ."""


@dataclass(frozen=True, kw_only=True)
class Supervised(SampledProtocol):
    """Realism and layout of images made from held-out masks, one look each, against these masks and their photos.

    On CelebAMask-HQ the rows of the paper's Table B stand beside ours, marked as published; on other data they do not,
    since none of them compares. Beside our rows stands what the judge reads in the held-out images themselves, which is
    as much as any layout can score. Other settings: see `SampledProtocol`.

    Args:
        masks: that images are made of, and photos that they are compared with.

    Raises:
        ConfigError: a value out of range.

    Source: Chae et al. (2023), Table B, as far as it can be told; what the sources leave open stands in the notes.
    """

    name: ClassVar[str] = "supervised"

    masks: int = PUBLISHED_MASKS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.masks < LEAST:
            raise ConfigError(
                f"masks {self.masks}",
                f"the scores need {LEAST} at the least, and hundreds to mean something",
                "raise it",
            )

    def check(self) -> None:
        self.held_out.check(self.masks)
        Conditions(self.needed_mapper(), self.held_out)
        _ = self.extractor, self.reader

    def counts(self) -> dict[str, Any]:
        return {"masks": self.masks, "looks of each": 1, "held-out images": self.masks}

    def record(self) -> dict[str, Any]:
        return super().record() | {
            "extractor": self.extractor_record(),
            "segmenter": self.judge_record(),
            "classes of the segmenter": self._class_map().to_dict(),
            "label_set": self.data_labels.name,
            "data": self.held_out.record(0, self.masks),
            "condition": self.needed_mapper().condition.to_dict()["name"],
            "labels that the mapper learnt from": self.needed_mapper().lesson.get("shots"),
        }

    @property
    def data_labels(self) -> LabelSet:
        """Of the held-out masks.

        Raises:
            ConfigError: the data has none.
        """
        if self.held_out.labels is None:
            raise ConfigError(
                f"{self.held_out.name} without masks",
                "images are scored against the masks that they were made from",
                "give a folder with images/ and masks/, or CelebAMask-HQ as published",
            )
        return self.held_out.labels

    @cached_property
    def reader(self) -> RelabelledJudge | PartialJudge:
        """The judge, in the label set of the data; a partial one in its own.

        Raises:
            DataError: it knows other classes.
        """
        judge = self.opened_judge
        return judge if isinstance(judge, PartialJudge) else judge_for(judge, self.data_labels)

    def _class_map(self) -> LabelMap:
        """Which class of the judge counts as which of the data, or the other way round where the judge is partial."""
        if isinstance(self.reader, RelabelledJudge):
            return self.reader.map
        return match_labels(self.data_labels, self.reader.labels, rest="ignore", allow_unseen=True)

    def run(self, work: Workspace, device: torch.device) -> Report:
        self.move(device)
        self.reader.to(device)
        against = AgainstData(self.extractor, self.held_out, self.masks, self.batch_size, device)
        made = _Made(self, device)
        ours = [work.part(f"seed{seed}", partial(self._measure, made, against, seed)) for seed in self.seeds]
        themselves = work.part("held-out", partial(self._themselves, device))
        self._picture(work, made)
        return self._report(ours, themselves)

    def _measure(self, made: _Made, against: AgainstData, seed: int) -> dict[str, Any]:
        layout, rows = LayoutScores(self.reader, self.data_labels, made.device), []
        for images, masks, _ in made.batches(seed, self.masks):
            layout.update(images, masks)
            rows.append(self.extractor.rows(images, "synthesised images").float())
        return layout.compute() | against.scores(torch.cat(rows))

    def _themselves(self, device: torch.device) -> dict[str, Any]:
        layout = LayoutScores(self.reader, self.data_labels, device)
        for batch in self.held_out.batches(0, self.masks, self.batch_size):
            assert batch.masks is not None
            layout.update(batch.images.to(device), batch.masks.to(device))
        return layout.compute()

    def _picture(self, work: Workspace, made: _Made) -> None:
        images, masks, photos = next(made.batches(self.seeds[0], min(SHOWN, self.masks, self.batch_size)))
        labels = self.data_labels
        rows = [photos, labels.colorize(masks.cpu()), images, labels.colorize(self.reader.segment(images).cpu())]
        save_grid(rows, work.folder / PICTURE, ["held out", "its mask", "made of it", "as judged"])

    def _report(self, ours: list[dict[str, Any]], themselves: dict[str, Any]) -> Report:
        data = self.held_out
        return Report(
            self.name,
            f"Images made from {self.masks:,} held-out masks of {data.name} ({data.split}), one look each.",
            [
                self._main_table(ours, themselves),
                self._other_figures(ours, themselves),
                self._classes(ours, themselves),
            ],
            self.record(),
            {PICTURE: "The first masks in their first look, not chosen."},
        )

    def _main_table(self, ours: list[dict[str, Any]], themselves: dict[str, Any]) -> Table:
        official, published = is_official(self.extractor), self.compares_with_published()
        realism = ["FID"] if official or published else []
        realism += [] if official else [f"Fréchet ({self.extractor.name})"]
        shots = self.needed_mapper().lesson.get("shots")
        measured = self.interval(part["frechet"] for part in ours)
        cells: list[Cell] = [measured] if len(realism) == 1 else [None, measured]
        rows: list[list[Cell]] = [
            [
                "sisug" + (f" ({shots}-shot)" if shots else ""),
                *cells,
                self.interval(100 * part["miou"] for part in ours),
                self.interval(100 * part["accuracy"] for part in ours),
                "measured",
            ],
            [
                "the held-out images themselves",
                *["-"] * len(realism),
                100 * themselves["miou"],
                100 * themselves["accuracy"],
                "measured",
            ],
        ]
        if published:
            blank: list[Cell] = ["-"] * (len(realism) - 1)
            rows += [
                [row.method, row.fid, *blank, row.miou, "-" if row.accuracy is None else row.accuracy, "published"]
                for row in PUBLISHED
            ]
        title = "Table B: images made from held-out masks" if published else "Images made from held-out masks"
        columns = ("method", *realism, "mIoU, %", "accuracy, %", "source")
        return Table(title, columns, rows, self._notes(published))

    def compares_with_published(self) -> bool:
        """Whether the data is that of the published rows: photos with CelebAMask-HQ's 19 classes."""
        return set(self.data_labels.classes) == set(label_set(PUBLISHED_ON).classes)

    def _notes(self, published: bool) -> tuple[str, ...]:
        notes = [
            self.intervals_note(),
            f"mIoU and accuracy: masks of {self.opened_judge.name} against the input masks, one confusion matrix over "
            "the set; a class in neither is left out of the mean, one that is only predicted counts 0.",
        ]
        if not is_official(self.extractor):
            notes.append(f"The features are those of {self.extractor.name}, not of Inception: no FID of ours.")
        if not published:
            return (
                *notes,
                "No published row stands here: the paper's Table B is on CelebAMask-HQ, and its numbers compare with "
                f"none on {self.held_out.name}.",
            )
        notes.append(
            "Published rows: Chae et al. (2023), Table B, as printed. Their segmenter, looks and sets of photos are "
            "not known in full, and differ between rows (INADE: training photos; SDM, OASIS: test photos)."
        )
        wanted = {
            f"{PUBLISHED_MASKS:,} masks": self.masks == PUBLISHED_MASKS,
            f"{PUBLISHED_RESOLUTION} px": self.held_out.resolution == PUBLISHED_RESOLUTION,
            "Inception's published weights": is_official(self.extractor),
        }
        missed = [name for name, met in wanted.items() if not met]
        if missed:
            notes.append(f"Published rows rest on {', '.join(missed)}; ours do not: they do not compare.")
        return tuple(notes)

    def _other_figures(self, ours: list[dict[str, Any]], themselves: dict[str, Any]) -> Table:
        rows: list[tuple[Cell, ...]] = [
            (head, self.interval(part[figure] for part in ours), "-")
            for head, figure in zip(heads(self.extractor), FIGURES, strict=True)
        ]
        rows.append(
            (
                "mIoU image by image (SCS), %",
                self.interval(100 * part["miou_per_image"] for part in ours),
                100 * themselves["miou_per_image"],
            )
        )
        return Table(
            f"Other figures of the same images; realism in the features of {self.extractor.name}",
            ("figure", "sisug", "the held-out images themselves"),
            rows,
            (
                "SCS is LinearGAN's protocol: IoU of each class and image, averaged over the images that show the "
                "class, then over classes without the background.",
            ),
        )

    def _classes(self, ours: list[dict[str, Any]], themselves: dict[str, Any]) -> Table:
        rows: list[tuple[Cell, ...]] = []
        for name in self.data_labels.classes:
            known = [100 * part["iou"][name] for part in ours if part["iou"][name] is not None]
            own = themselves["iou"][name]
            rows.append(
                (
                    name,
                    100 * themselves["share"][name],
                    self.interval(known) if known else "absent",
                    "absent" if own is None else 100 * own,
                )
            )
        return Table(
            "Intersection over union by class",
            ("class", "share of pixels, %", "sisug, %", "the held-out images themselves, %"),
            rows,
        )


class _Made:
    """Images made from held-out masks; a seed and a number give one."""

    def __init__(self, protocol: Supervised, device: torch.device) -> None:
        self.protocol, self.device = protocol, device
        self.rearranger = protocol.needed_mapper().rearranger
        self.samples = Samples(protocol.models.generator, protocol.samples_truncation, device)
        self.conditions = Conditions(protocol.needed_mapper(), protocol.held_out)

    def batches(self, seed: int, count: int) -> Iterator[tuple[Images, Masks, Tensor]]:
        """Images, their masks, and the photos that these belong to.

        Args:
            seed: of the looks.
            count: from the first mask on.
        """
        for batch in self.protocol.held_out.batches(0, count, self.protocol.batch_size):
            assert batch.masks is not None
            ws = self.samples.styles(batch.index, seed, "look")
            images = self.samples.laid_out(self.rearranger, ws, self.conditions.layouts(batch, self.device))
            yield images, batch.masks.to(self.device), batch.images
