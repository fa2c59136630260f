"""Everything that the few-shot protocol's settings name, read and checked before anything is computed (evaluation)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sisug.common.fingerprint import fingerprint
from sisug.conditions.label_condition import LabelCondition
from sisug.errors import ConfigError
from sisug.evaluation.few_shot.settings import FewShotSettings
from sisug.evaluation.few_shot.targets import Targets, find_targets
from sisug.labels.label_files import read_label_set
from sisug.labels.label_sets import LabelSet
from sisug.mapper.trained import TrainedMapper, load_mapper
from sisug.rearranger.trained import TrainedRearranger, load_rearranger, tensors_of
from sisug.segmentation.annotation.samples import LabelledSamples
from sisug.segmentation.judges import JudgeProtocol, open_judge

OTHER_LABELS = 0.02
"""Share of labelled pixels in which a given mapper's labels may differ from the protocol's: half precision moves a
border now and then."""


@dataclass(frozen=True)
class Material:
    """What there is to begin with.

    Args:
        rearranger: with generator and codebook.
        judge: labels and scores.
        labels: of masks.
        targets: to synthesise.
        mappers: those that are given, by number of labels and repeat.
        truncation: of sisug's looks.
    """

    rearranger: TrainedRearranger
    judge: JudgeProtocol
    labels: LabelSet
    targets: Targets
    mappers: Mapping[tuple[int, int], TrainedMapper]
    truncation: float

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of all networks that are read, not trained."""
        prints = {
            "generator": self.rearranger.generator.fingerprint,
            "rearranger": fingerprint(tensors_of(self.rearranger)),
            "judge": self.judge.fingerprint,
        }
        for (shots, repeat), trained in self.mappers.items():
            tensors = tensors_of(trained.rearranger)
            tensors |= {f"mapper.{name}": value for name, value in trained.network.state_dict().items()}
            prints[f"mapper of {shots} labels, repeat {repeat}"] = fingerprint(tensors)
        return prints


def gather(settings: FewShotSettings) -> Material:
    """Read what the settings name.

    Args:
        settings: of the protocol.

    Raises:
        SisugError: a file cannot be used, or something does not fit the rest.
    """
    labels = read_label_set(settings.labels)
    judge = open_judge(settings.judge)
    if judge.labels.classes != labels.classes:
        raise ConfigError(
            f"the judge {judge.name} with label set {labels.name!r}",
            f"it names the classes of {judge.labels.name!r}",
            "take a judge of these classes, or sisug.segmentation.judges.RelabelledJudge as its class_path",
        )
    rearranger = load_rearranger(settings.rearranger, settings.generator)
    mappers = {
        (shots, repeat): _given_mapper(file, settings.generator, shots, labels, rearranger)
        for shots, files in (settings.mappers or {}).items()
        for repeat, file in enumerate(files)
    }
    resolution = rearranger.generator.resolution
    targets = find_targets(settings.data, settings.split, settings.targets, labels, settings.labels, resolution)
    truncation = rearranger.truncation if settings.truncation is None else settings.truncation
    return Material(rearranger, judge, labels, targets, mappers, truncation)


def _given_mapper(
    file: str, generator: str | dict[str, Any] | None, shots: int, labels: LabelSet, rearranger: TrainedRearranger
) -> TrainedMapper:
    """A mapper to use in the place of training."""
    trained = load_mapper(file, generator)
    reads = trained.condition
    cause = None
    if reads.name != "seg":
        cause = f"it reads {reads.name}, not masks"
    elif isinstance(reads, LabelCondition) and reads.labels.classes != labels.classes:
        cause = f"it reads masks of {reads.labels.name!r}, not of {labels.name!r}"
    elif trained.lesson.get("shots") != shots:
        cause = f"it learnt from {trained.lesson.get('shots', 0)} labels"
    elif trained.rearranger.generator.fingerprint != rearranger.generator.fingerprint:
        cause = "it belongs to another generator"
    if cause is not None:
        raise ConfigError(
            f"the mapper {file} for {shots} labels", cause, "name another, or leave it out to train one here"
        )
    return trained


def check_lesson(trained: TrainedMapper, samples: LabelledSamples, seed: int) -> None:
    """Refuse a given mapper that learnt from other labels than LinearGAN is to learn from.

    Args:
        trained: the mapper.
        samples: what LinearGAN learns from.
        seed: of those.

    Raises:
        ConfigError: its record counts other pixels.
    """
    counts = samples.labels.histogram(samples.masks).tolist()
    there = [int(trained.lesson.get("seen", {}).get(name, 0)) for name in samples.labels.classes]
    differ = sum(abs(one - other) for one, other in zip(counts, there, strict=True)) / 2
    if differ > OTHER_LABELS * sum(counts):
        raise ConfigError(
            f"the mapper {trained.source}",
            f"it learnt from other labels than those of seed {seed}: its record says {there} pixels of the classes, "
            f"where these have {counts}",
            "both methods learn from the same labels: leave it out to train one here, or set the seed of its training",
        )
