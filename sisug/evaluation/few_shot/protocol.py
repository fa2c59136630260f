"""The few-shot protocol (evaluation): the paper's Table A, sisug and LinearGAN from the same labels, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from sisug.evaluation.few_shot.material import Material, gather
from sisug.evaluation.few_shot.measuring import ALONE, BACKGROUND
from sisug.evaluation.few_shot.parts import METHODS, Parts
from sisug.evaluation.few_shot.settings import FewShotSettings
from sisug.evaluation.few_shot.sheets import write_sheet
from sisug.evaluation.few_shot.tables import Results, class_table, main_table, summary
from sisug.evaluation.protocol import Protocol
from sisug.evaluation.report import Report
from sisug.evaluation.workspace import Workspace
from sisug.mapper.teaching import SHOWN_AT

FULL = {"repeats": 5, "targets": 100, "samples": 10}
"""Counts of the published protocol."""


@dataclass(frozen=True)
class FewShot(FewShotSettings, Protocol):
    """The paper's Table A: how well images follow masks that were taught by a few labels.

    For every number of labels and every repeat, the same samples with the same masks teach both methods: sisug trains a
    mapper, LinearGAN its linear extractor. Both then make images of the same targets, as many of each, with the same
    seeds, and one judge, which also made the labels, reads them.

    The arguments are those of `FewShotSettings`.

    Source: the sampling protocol of Xu and Zheng 2021 by its published program, which the paper's Table A rests on. Our
        choice: labelled samples are picked to cover the codebook, and have truncation 0.7 (theirs are drawn by chance,
        with 0.5); each target occurs once (theirs are drawn with replacement).
    """

    name: ClassVar[str] = "few-shot"

    def identity(self) -> Mapping[str, Any]:
        found = self._material
        return {
            "fingerprints": found.fingerprints,
            "targets": found.targets.digest,
            "classes": list(found.labels.classes),
        }

    def run(self, work: Workspace, device: torch.device) -> Report:
        parts = Parts(self, self._material, work, device)
        results: dict[tuple[int, int, Any], Any] = {}
        for repeat in range(self.repeats):  # outside: an interrupted run has whole tables of fewer repeats
            for shots in self.shots:
                for method in METHODS:
                    results[shots, repeat, method] = parts.measurement(shots, repeat, method)
        return Report(
            protocol=self.name,
            summary=summary(results, self.shots),
            tables=[
                main_table(results, self.shots, self._notes(results)),
                class_table(results, self.shots, self._material.labels),
            ],
            record=self._record(results),
            pictures=self._pictures(parts),
        )

    @cached_property
    def _material(self) -> Material:
        return gather(self)

    def _notes(self, results: Results) -> list[str]:
        found = self._material
        data = f"{found.targets.record['images']} of {found.targets.record['name']}, split {self.split}"
        background = f"{BACKGROUND} left out" if BACKGROUND in found.labels.classes else "all classes counted"
        if self.repeats > 1:
            interval = f"{self.repeats} repeats, which differ in labels, first weights and training samples"
        elif self.samples > 1:
            interval = f"the {self.samples} sampling seeds of one training; it says nothing of other labels"
        else:
            interval = "nothing: one repeat of one seed has no interval"
        machines = sorted({part.machine for part in results.values()})
        reduced = [
            f"{name} {getattr(self, name)} of {full}" for name, full in FULL.items() if getattr(self, name) < full
        ]
        return [
            *([f"REDUCED COUNTS, less than the published protocol: {', '.join(reduced)}."] if reduced else []),
            f"mIoU as in LinearGAN's sampling protocol: IoU of each class in each image, classes that an image neither "
            f"wants nor shows skipped, averaged over images, then over classes ({background}). Data-set mIoU: one "
            "confusion matrix over all images, all classes.",
            f"±: 95 % interval of the mean by Student's t, over {interval}.",
            f"Both methods learn from the same samples (picked to cover the codebook, truncation {SHOWN_AT:g}), "
            f"labelled by {found.judge.name}, which reads the results too, and make {self.samples} images of each of "
            f"{self.targets} targets ({data}) with the seeds 0 to {self.samples - 1}.",
            f"LinearGAN: {self.lineargan.epochs} epochs; the best of {self.lineargan.draws} draws, then "
            f"{self.lineargan.steps} steps. sisug: mappers {', '.join(_mappers(results))}; looks of truncation "
            f"{found.truncation:g}.",
            f"Seconds: from mask to image, models loaded and trained, on {', '.join(machines)}. One image: nothing is "
            f"shared with others, as in the published protocol (median of {ALONE}). In batches of {self.batch_size}: "
            "what serves several images is done once, LinearGAN's draws of a seed, sisug's reading of a mask and "
            "sample of a seed.",
            "Published: the paper's Table A on FFHQ (photographs, another judge, 15 classes), with its own ± (spread "
            "over repeats). These are other data: ratios compare, values do not.",
        ]

    def _record(self, results: Results) -> dict[str, Any]:
        found = self._material
        return {
            "metric": "mIoU per image, per class, then over classes (SCS); absent classes skipped",
            "background": BACKGROUND if BACKGROUND in found.labels.classes else None,
            "segmenter": found.judge.name,
            "label set": found.labels.name,
            "targets": dict(found.targets.record) | {"sha256_of_masks": found.targets.digest},
            "split": self.split,
            "counts": {name: getattr(self, name) for name in FULL} | {"labels": list(self.shots)},
            "published counts": FULL,
            "resize": {"targets": found.targets.record["resize"], "images": "none before the judge's own"},
            "seeds": {"first repeat": self.seed, "looks and draws": f"0 to {self.samples - 1}"},
            "truncation": {"labelled samples": SHOWN_AT, "sisug": found.truncation, "LinearGAN": "none"},
            "batch size": self.batch_size,
            "LinearGAN": asdict(self.lineargan),
            "mapper training": asdict(self.mapper) | {"trained on": self.mapper.total},
            "mappers": _mappers(results),
            "fingerprints": found.fingerprints,
            "labels": {
                f"{shots}, repeat {repeat}": part.details["labels"]
                for (shots, repeat, method), part in results.items()
                if method == "sisug"
            },
            "sources": {
                "rearranger": Path(self.rearranger).name,
                "generator": Path(found.rearranger.generator.source).name,
            },
        }

    def _pictures(self, parts: Parts) -> dict[str, str]:
        """A sheet for each number of labels, of the first repeat."""
        captions = {}
        for shots in self.shots:
            kept = [parts.pictures_of(shots, 0, method) for method in ("sisug", "LinearGAN")]
            if not all(path.is_file() for path in kept):
                continue  # somebody tidied up
            name = f"sheet-{shots}.png"
            write_sheet(parts.work.folder / name, self._material.targets, self._material.labels, *kept)
            captions[name] = f"N = {shots}: targets, sisug's images, LinearGAN's images."
        return captions


def _mappers(results: Results) -> list[str]:
    """Where the mappers come from, each way once."""
    return sorted({str(part.details["mapper"]) for part in results.values() if "mapper" in part.details})
