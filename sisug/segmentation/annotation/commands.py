"""`sisug annotate export` and `sisug annotate check` (stage 2): samples to paint, and what came back."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from sisug.errors import ConfigError, DataError, check_range, printable
from sisug.generators import load_generator
from sisug.labels.label_files import read_label_set
from sisug.labels.label_sets import LABEL_SETS
from sisug.labels.pictures import read_picture
from sisug.segmentation.annotation.folder import (
    AnnotationRecord,
    annotation_folder,
    check_new_folder,
    checked_scale,
    mask_path,
    no_masks,
    read_masks,
    read_record,
    write_annotations,
)
from sisug.segmentation.annotation.picking import first_samples, fit_codebook, pick_samples

logger = logging.getLogger(__name__)


def export(
    generator: str | dict[str, Any],
    out: Path,
    labels: str | None = None,
    samples: int = 4,
    pick: Literal["cover", "seed"] = "cover",
    seed: int = 0,
    truncation: float = 0.7,
    scale: int | None = None,
) -> str:
    """Write generator samples as pictures to paint over, with a palette and instructions.

    Args:
        generator: preset, file of any family, or class.
        out: folder to write; it must be new or empty.
        labels: name of a label set that comes with sisug, or a JSON file: {"sky": "#87ceeb", "house": "#c8503c"}.
            Left out, the label set that is named like the generator's preset.
        samples: how many to write; start with few.
        pick: `cover` for samples that together show as much as few can, `seed` for the first ones of the seed.
        seed: of the samples.
        truncation: of the samples; 1 for the generator's full range.
        scale: whole factor by which pictures are enlarged; left out, to 512 pixels or a little more.

    Returns:
        What to do next.

    Raises:
        CheckpointError: the generator cannot be loaded.
        ConfigError: the folder is not empty, or a number is out of range.
        DataError: the label set cannot be read.
    """
    check_new_folder(out)
    check_range(samples=samples, above=0)
    check_range(seed=seed, truncation=truncation)
    named = generator if isinstance(generator, str) else ""
    if labels is None and named not in LABEL_SETS:
        raise ConfigError(
            f"no label set is given for {generator}",
            f"only the presets {', '.join(LABEL_SETS)} have one of their own",
            'add --labels FILE, a JSON file of classes and colours: {"sky": "#87ceeb", "house": "#c8503c"}',
        )
    label_set = read_label_set(named if labels is None else labels)
    backbone = load_generator(generator)
    checked_scale(backbone.resolution, scale)
    if pick == "seed":
        z = first_samples(backbone, samples, seed=seed)
    else:
        logger.info("Picking %d samples that cover the codebook.", samples)
        codebook = fit_codebook(backbone, seed=seed)
        z = pick_samples(backbone, codebook, samples, candidates=max(512, samples), truncation=truncation, seed=seed)
    write_annotations(out, backbone, z, truncation, label_set, scale=scale, picked=f"{pick}, seed {seed}")
    return (
        f"{samples} samples in {out / 'images'}: paint them in the colours of {out / 'palette.gpl'}, save the masks in "
        f"{out / 'masks'}, then run `sisug annotate check {out}` ({out / 'README.txt'} says more)"
    )


def check(folder: Path, tolerance: int = 0) -> str:
    """Say of every painted mask whether it can be used, and how many pixels each class has.

    Args:
        folder: written by `sisug annotate export`, with masks painted; or the name of annotations that ship (faces).
        tolerance: largest difference per colour channel, 0 to 255, at which a pixel still counts as the nearest class.

    Returns:
        The report; it is printed before an error is raised, too.

    Raises:
        ConfigError: the tolerance is out of range.
        DataError: the folder is none of ours, no mask is painted, or masks cannot be used.
    """
    folder = annotation_folder(folder)
    record = read_record(folder)
    masks = read_masks(folder, record, tolerance)
    if not masks:
        raise no_masks(folder, record)
    good = {name: mask for name, mask in masks.items() if isinstance(mask, np.ndarray)}
    bad = [name for name in masks if name not in good]
    report = "\n".join([*_files(folder, record, masks), *_classes(record, good)])
    if bad:
        sys.stdout.write(printable(f"{report}\n\n", keep="\n"))
        raise DataError(
            f"{len(bad)} of {len(masks)} masks in {folder} cannot be used: {', '.join(bad)}",
            "the lines above say why",
            f"correct them and run `sisug annotate check {folder}` again; the others are fine",
        )
    return report


def _files(folder: Path, record: AnnotationRecord, masks: dict[str, np.ndarray | DataError]) -> list[str]:
    """A line for each sample, and for files that belong to none."""
    lines = []
    for name in record.names:
        found = masks.get(name)
        if found is None:
            lines.append(f"{name}  {'':>11}  no mask yet")
        elif isinstance(found, DataError):
            lines.append(f"{name}  {_size(mask_path(folder, name)):>11}  BAD: {found}")
        else:
            blank = float((found == record.labels.ignore).mean())
            lines.append(f"{name}  {_size(mask_path(folder, name)):>11}  good, {blank:.1%} without a label")
    expected = {mask_path(folder, name) for name in record.names}
    strangers = sorted(path for path in (folder / "masks").iterdir() if path not in expected)
    return lines + [f"{path.name} is not read: masks are named like their samples" for path in strangers]


def _size(path: Path) -> str:
    try:
        image = read_picture(path).image
    except DataError:
        return "unreadable"
    return f"{image.width}x{image.height}"


def _classes(record: AnnotationRecord, good: dict[str, np.ndarray]) -> list[str]:
    """Pixels of each class in each good mask, and the classes that none shows."""
    if not good:
        return []
    labels = record.labels
    counts: list[Int64[Tensor, " classes"]] = [labels.histogram(torch.from_numpy(mask)) for mask in good.values()]
    blank = [int((mask == labels.ignore).sum()) for mask in good.values()]
    width = max(len(name) for name in (*labels.classes, "without a label"))
    header = "  ".join(f"{name.removeprefix('sample-'):>7}" for name in (*good, "all"))
    lines = ["", f"pixels, at {record.resolution}x{record.resolution}", f"{'':<{width}}  {header}"]
    rows = [(name, [int(each[number]) for each in counts]) for number, name in enumerate(labels.classes)]
    for name, row in [*rows, ("without a label", blank)]:
        lines.append(f"{name:<{width}}  " + "  ".join(f"{value:>7,}" for value in (*row, sum(row))))
    unseen = [name for name, row in rows if not sum(row)]
    if unseen:
        lines += ["", f"No mask shows: {', '.join(unseen)}. A segmenter trained on these never names them."]
    return lines
