"""From a few labels to a reader of images (stage 2): which samples are labelled, by whom, and what was learnt."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from sisug.common.seeding import fixed_latents
from sisug.errors import ConfigError
from sisug.generators import GeneratorBackbone
from sisug.labels.label_sets import LabelSet
from sisug.mapper.few_shot import FewShotSegmenter, LabelTransfer, NeighborSegmenter, train_few_shot
from sisug.mapper.few_shot.reader import Reader, teach
from sisug.mapper.few_shot.transfer import named, resized
from sisug.metrics import SegmentationScore
from sisug.proxies.codebook import Codebook
from sisug.rearranger.network import Rearranger
from sisug.segmentation.annotation.folder import read_annotations
from sisug.segmentation.annotation.picking import pick_samples
from sisug.segmentation.annotation.samples import LabelledSamples, judged_samples
from sisug.segmentation.judge import Judge
from sisug.segmentation.loading import load_judge
from sisug.types import Masks, Styles

logger = logging.getLogger(__name__)

LabelTransferKind = Literal["attention", "neighbors"]

SHOWN_AT = 0.7
"""Truncation of labelled samples: what is drawn clearly is labelled clearly."""

LEAST = 0.1
"""Belief below which no few-shot segmenter is trained: it would change nothing."""

CHECKED = 256
"""Samples on which a reader is compared with the judge."""


@dataclass(frozen=True)
class Lesson:
    """What the labels were, and how well the reader learnt from them.

    Args:
        shots: labelled samples; 0 for labels without limit.
        seen: pixels of each class among them, by name.
        miou: of the reader against the judge, over all classes; None without a judge of these classes.
        miou_seen: over the classes that the labels show.
        accuracy: share of pixels.
    """

    shots: int
    seen: dict[str, int]
    miou: float | None
    miou_seen: float | None
    accuracy: float | None


def teach_reader(
    reader: Reader,
    generator: GeneratorBackbone,
    codebook: Codebook,
    rearranger: nn.Module,
    labels: LabelSet,
    *,
    annotations: Path | None,
    annotated: int | None,
    judge: str | None,
    shots: int,
    label_transfer: LabelTransferKind | None,
    segmenter_shots: float,
    looks: int,
    steps: int,
    images: int,
    truncation: float,
    seed: int,
) -> Lesson:
    """Train a reader from labelled samples, in place.

    Args:
        reader: to train.
        generator: frozen.
        codebook: decides which samples the judge labels.
        rearranger: carries their labels to others, where it is one of attention at the split.
        labels: label set.
        annotations: a folder of ``sisug annotate``, or the name of annotations that ship; None lets the judge label
            (the research protocol).
        annotated: how many of the annotations are used, in the folder's order; None for all.
        judge: name or file of a judge with these classes; None for none.
        shots: samples that the judge labels; 0 lets it label all that the reader learns from.
        label_transfer: what carries the labels to other samples: the rearranger's attention, or the nearest neighbors
            in the generator's features (see `NeighborSegmenter`), beside which no few-shot segmenter is trained; None
            for attention where the rearranger has it.
        segmenter_shots: labels with which a few-shot segmenter is believed as much as what the rearranger carries.
        looks: in which the few-shot segmenter sees each labelled sample.
        steps: of the few-shot segmenter's training with one label; a tenth more for each further one.
        images: that the reader learns from.
        truncation: of the samples.
        seed: of all draws.

    Raises:
        ConfigError: neither annotations nor a judge, or a judge of other classes.
        DataError: annotations that cannot be used.
    """
    device = next(reader.parameters()).device
    examiner = None if judge is None else load_judge(judge).to(device)
    if examiner is not None and examiner.labels != labels:
        raise ConfigError(
            f"judge {judge!r} with label set {labels.name!r}",
            f"it names the classes of {examiner.labels.name!r}",
            "take a judge of these classes, or annotations and no judge",
        )
    if annotations is None and examiner is None:
        raise ConfigError(
            "no labels",
            "there are neither annotations nor a judge that could make some",
            "label a few samples (`sisug annotate export`) and give the folder as annotations",
        )
    seen = torch.zeros(labels.num_classes, dtype=torch.int64)
    if annotations is None and shots == 0:
        assert examiner is not None
        judged = examiner
        teacher = _by_judge(generator, judged)
    else:
        samples = _samples(generator, codebook, annotations, annotated, examiner, shots, seed)
        if samples.labels != labels:
            raise ConfigError(
                f"annotations of label set {samples.labels.name!r}", f"the run has {labels.name!r}", "name the same one"
            )
        ws = samples.styles(generator)
        masks = samples.masks.to(device)
        seen, shots = labels.histogram(samples.masks), len(ws)
        kind = label_transfer or ("attention" if isinstance(rearranger, Rearranger) else "neighbors")
        transfer: LabelTransfer | NeighborSegmenter
        if kind == "neighbors":
            transfer = NeighborSegmenter(generator, ws, masks, labels, truncation=truncation, seed=seed)
        elif isinstance(rearranger, Rearranger):
            transfer = LabelTransfer(generator, codebook, rearranger, ws, masks, labels)
        else:
            raise ConfigError(
                "label_transfer attention with a rearranger inside the generator",
                "no attention reaches from the split to the split there, which could carry labels",
                "leave label_transfer out, or choose neighbors",
            )
        believed = shots / (shots + segmenter_shots)
        segmenter: FewShotSegmenter | None = None
        if kind == "attention" and believed >= LEAST:
            steps = steps * (9 + shots) // 10
            segmenter = train_few_shot(generator, ws, masks, labels, looks=looks, steps=steps, seed=seed)

        def teacher(ws: Styles) -> Masks:
            shares = transfer.probabilities(ws)
            if segmenter is not None:
                other = segmenter.probabilities(generator, ws)
                shares = torch.lerp(resized(shares, other.shape[-1]), other, believed)
            return named(resized(shares, reader.size), labels)

    teach(reader, generator, teacher, labels, images=images, truncation=truncation, seed=seed)
    return _examined(reader, generator, labels, examiner, shots, seen, truncation, seed)


def _samples(
    generator: GeneratorBackbone,
    codebook: Codebook,
    annotations: Path | None,
    annotated: int | None,
    judge: Judge | None,
    shots: int,
    seed: int,
) -> LabelledSamples:
    if annotations is not None:
        samples = read_annotations(annotations, generator)
        return samples if annotated is None else samples.first(annotated)
    assert judge is not None
    z = pick_samples(generator, codebook, shots, truncation=SHOWN_AT, seed=seed)
    return judged_samples(generator, judge, z, SHOWN_AT)


def _by_judge(generator: GeneratorBackbone, judge: Judge) -> Callable[[Styles], Masks]:
    def teacher(ws: Styles) -> Masks:
        return judge.segment(generator.images(ws))

    return teacher


@torch.no_grad()
def _examined(
    reader: Reader,
    generator: GeneratorBackbone,
    labels: LabelSet,
    judge: Judge | None,
    shots: int,
    seen: torch.Tensor,
    truncation: float,
    seed: int,
) -> Lesson:
    counts = {name: int(count) for name, count in zip(labels.classes, seen.tolist(), strict=True)}
    if judge is None:
        return Lesson(shots, counts, None, None, None)
    score = SegmentationScore(labels.num_classes, labels.ignore)
    # The first rank alone teaches and examines: the others wait for its reader, and would not answer.
    score.distributed_available_fn = lambda: False
    device = next(reader.parameters()).device
    for start in range(0, CHECKED, 32):
        part = torch.arange(start, start + 32, device=device)
        ws = generator.map(fixed_latents(part, generator.z_dim, seed=seed, purpose="reader check"), truncation)
        images = generator.images(ws)
        score.update(reader(images).argmax(dim=1).cpu(), judge.segment(images).cpu())
    result = score.compute()
    shown = seen > 0 if bool(seen.any()) else torch.ones_like(seen, dtype=torch.bool)
    lesson = Lesson(
        shots,
        counts,
        float(result.miou),
        float(result.iou[shown].nanmean()),
        float(result.accuracy),
    )
    logger.info("The reader has learnt: %s", lesson)
    return lesson
