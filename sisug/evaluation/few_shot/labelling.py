"""The few labels of the few-shot protocol (evaluation): picked once, judged once, read by both methods from one folder.

The folder is an annotation folder as `sisug annotate export` writes them, with the judge as its painter.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

import torch
from PIL import Image

from sisug.common.atomic_file import atomic_write
from sisug.errors import DataError
from sisug.evaluation.few_shot.material import Material
from sisug.evaluation.few_shot.settings import CANDIDATES
from sisug.mapper.teaching import SHOWN_AT
from sisug.segmentation.annotation.folder import RECORD, mask_path, read_annotations, write_annotations
from sisug.segmentation.annotation.picking import pick_samples
from sisug.segmentation.annotation.samples import LabelledSamples, sample_names
from sisug.types import Latents

log = logging.getLogger(__name__)


def label_folder(home: Path, material: Material, shots: int, seed: int) -> Path:
    """Where labels lie: a folder named after all that decides them.

    Args:
        home: of all labels of an evaluation.
        material: generator, codebook and judge decide them.
        shots: samples.
        seed: of the candidates.
    """
    networks = [material.fingerprints[name] for name in ("generator", "rearranger", "judge")]
    key = hashlib.sha256(repr([networks, material.labels]).encode()).hexdigest()[:8]
    return home / f"shots-{shots}-seed-{seed}-{key}"


@torch.no_grad()
def labelled_samples(folder: Path, material: Material, shots: int, seed: int) -> LabelledSamples:
    """Samples that `MapperModule` would have labelled, with the judge's masks; those in the folder, once it is written.

    Args:
        folder: of `label_folder`, for the same arguments.
        material: generator, codebook and judge on one device.
        shots: samples.
        seed: of the candidates.

    Raises:
        DataError: the folder was changed.
    """
    generator, codebook = material.rearranger.generator, material.rearranger.codebook
    if not (folder / RECORD).is_file():
        log.info("Labelling %d samples of seed %d", shots, seed)
        z = pick_samples(generator, codebook, shots, candidates=CANDIDATES, truncation=SHOWN_AT, seed=seed)
        _write(folder, material, z, seed)
    samples = read_annotations(folder, generator)
    if len(samples.z) != shots or samples.labels != material.labels:
        raise DataError(
            f"{folder} holds {len(samples.z)} labelled samples of {samples.labels.name!r}",
            f"{shots} of {material.labels.name!r} were written: it was changed",
            "delete that folder; the labels are made again",
        )
    return samples


def _write(folder: Path, material: Material, z: Latents, seed: int) -> None:
    """Write picture and mask of each sample; the folder has its name only when it is whole."""
    generator, judge, labels = material.rearranger.generator, material.judge, material.labels
    device = next(generator.parameters()).device
    partial = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    write_annotations(partial, generator, z, SHOWN_AT, labels, picked=f"cover, seed {seed}; labelled by {judge.name}")
    for name, latent in zip(sample_names(len(z)), z, strict=True):
        image = generator(latent[None].to(device), SHOWN_AT).float().clamp(-1, 1)
        colours = labels.colorize(judge.segment(image).cpu())[0].permute(1, 2, 0).numpy()
        with atomic_write(mask_path(partial, name)) as file:
            Image.fromarray(colours).save(file, format="PNG")
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def digest_of(samples: LabelledSamples) -> str:
    """SHA-256 of latents and masks: which labels these are.

    Args:
        samples: on the CPU.
    """
    return hashlib.sha256(samples.z.numpy().tobytes() + samples.masks.numpy().tobytes()).hexdigest()
