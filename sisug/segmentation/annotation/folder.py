"""Annotation folders (stage 2): generator samples as pictures to paint over, and the painted masks read back.

`images/` holds the samples, `masks/` what the user paints (nothing at first: a template would look like a finished
mask), `annotation.json` the latents to the bit, `palette.gpl` and `palette.png` the colours, `README.txt` what to do.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sisug.common.atomic_file import atomic_write
from sisug.common.image_bytes import to_bytes
from sisug.errors import ConfigError, DataError, FingerprintMismatch, check_local, check_range
from sisug.generators import GeneratorBackbone
from sisug.labels.label_sets import LabelSet
from sisug.segmentation.annotation.painted import read_painted
from sisug.segmentation.annotation.palette_files import gimp_palette, swatches
from sisug.segmentation.annotation.samples import LabelledSamples, sample_names
from sisug.types import Latents

log = logging.getLogger(__name__)

FORMAT = "sisug-annotation-1"

RECORD = "annotation.json"

COMFORTABLE = 512
"""Pixels below which pictures are enlarged where nothing else is asked for: small ones are hard to paint."""

SHIPPED: Mapping[str, Path] = {"faces": Path(__file__).parent / "assets" / "faces"}
"""Annotations that come with the project, by the name of their generator's preset."""

LARGEST = 8192
"""Height of the largest pictures that are written, pixels."""

README = """1. Open images/sample-000.png in a paint program and load palette.gpl \
(palette.png shows colours and class names).
2. On a new layer, paint every part in its class's colour, with a hard brush (no smooth edges); \
do not crop or scale the picture.
3. Hide the picture's layer and save the paint alone as masks/sample-000.png; go on with the next picture. \
Some are enough to begin with.
4. Leave what you are not sure of transparent (or paint it magenta, #ff00ff). Pictures are shown {scale} times \
enlarged: masks of {resolution}x{resolution} pixels or any whole multiple are taken, \
by the commonest class of each block.
5. Run `sisug annotate check` with the path of this folder: it lists what is wrong and how many pixels each class has.
"""


@dataclass(frozen=True)
class AnnotationRecord:
    """What `annotation.json` says.

    Args:
        source: file or preset of the generator.
        fingerprint: of the generator.
        resolution: height and width of its images, pixels.
        truncation: of the samples.
        labels: label set of the masks.
        names: one a sample.
        z: latents of the samples.
        w: their styles after truncation, where the record holds them to the bit; None where it does not.
    """

    source: str
    fingerprint: str
    resolution: int
    truncation: float
    labels: LabelSet
    names: tuple[str, ...]
    z: Latents
    w: Float[Tensor, "batch w_dim"] | None = None


def default_scale(resolution: int) -> int:
    """Factor that makes pictures comfortable to paint: 8 at 64 px, 1 from 512 px."""
    return max(1, math.ceil(COMFORTABLE / resolution))


def check_new_folder(folder: Path) -> None:
    """Refuse a folder that holds something: painted masks are work that nothing may overwrite.

    Args:
        folder: to be written.

    Raises:
        ConfigError: it is a file, or not empty.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"folder {folder} is not empty", "masks in it could be lost", "choose a new folder")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file", "samples are written to a folder", "choose a new folder")


@torch.no_grad()
def write_annotations(
    folder: Path,
    generator: GeneratorBackbone,
    z: Latents,
    truncation: float,
    labels: LabelSet,
    *,
    scale: int | None = None,
    picked: str = "",
) -> None:
    """Write samples as a folder to be painted; `annotation.json` comes last, so a folder with it is whole.

    Args:
        folder: new or empty.
        generator: makes the images.
        z: latents of the samples.
        truncation: 1 for the generator's full range, 0 for the mean image.
        labels: what to paint.
        scale: whole factor by which pictures are enlarged (smoothly: parts are easier seen than blocks of pixels);
            None for 512 pixels or a little more.
        picked: how the samples were chosen, for readers of the record.

    Raises:
        ConfigError: the folder is not empty, or a number is out of range.
    """
    check_new_folder(folder)
    factor = checked_scale(generator.resolution, scale)
    check_range(truncation=truncation)
    names = sample_names(len(z))
    device = next(generator.parameters()).device
    size = factor * generator.resolution
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    for name, latent in zip(names, z, strict=True):
        image = generator(latent[None].to(device), truncation)[0]
        pixels = to_bytes(image).permute(1, 2, 0).cpu().numpy()
        picture = Image.fromarray(pixels)
        if factor > 1:
            picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        _save(picture, folder / "images" / f"{name}.png")
    _save(swatches(labels), folder / "palette.png")
    _write(folder / "palette.gpl", gimp_palette(labels))
    _write(folder / "README.txt", README.format(scale=factor, resolution=generator.resolution))
    record = {
        "format": FORMAT,
        "generator": {
            "source": generator.source,
            "fingerprint": generator.fingerprint,
            "resolution": generator.resolution,
            "split": generator.split,
        },
        "truncation": truncation,
        "picked": picked,
        "scale": factor,
        "label_set": labels.to_dict(),
        "latents": "float32, little-endian, base64",
        "samples": [{"name": name, "z": _encode(latent)} for name, latent in zip(names, z, strict=True)],
    }
    _write(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def checked_scale(resolution: int, scale: int | None) -> int:
    """The factor by which pictures are enlarged.

    Args:
        resolution: of the generator, pixels.
        scale: asked for, or None for `default_scale`.

    Raises:
        ConfigError: it is not positive, or makes pictures too large.
    """
    factor = default_scale(resolution) if scale is None else scale
    check_range(scale=factor, above=0)
    if factor > 1 and factor * resolution > LARGEST:
        raise ConfigError(
            f"scale {factor}",
            f"pictures of {resolution} px would have {factor * resolution}, more than {LARGEST}",
            f"choose at most {LARGEST // resolution}",
        )
    return factor


def annotation_folder(folder: Path) -> Path:
    """The folder itself, or that of the annotations that ship under this name.

    Args:
        folder: folder of `sisug annotate`, or a key of `SHIPPED`.
    """
    return SHIPPED.get(str(folder), folder) if not folder.exists() else folder


def read_annotations(folder: Path, generator: GeneratorBackbone, *, tolerance: int = 0) -> LabelledSamples:
    """The painted samples of a folder, on the CPU; those without a mask are left out, with a line in the log.

    Args:
        folder: as `write_annotations` made it, with masks painted by the user; or a key of `SHIPPED`.
        generator: the one that made the samples.
        tolerance: largest difference per colour channel, 0 to 255, at which a pixel still counts as the nearest class.

    Raises:
        FingerprintMismatch: another generator.
        DataError: no such folder, no mask yet, or masks that cannot be used: all of them are named.
    """
    folder = annotation_folder(folder)
    record = read_record(folder)
    if generator.fingerprint != record.fingerprint:
        raise FingerprintMismatch(
            f"the samples in {folder} are of the generator {record.source} ({record.fingerprint[:12]})",
            f"this one is {generator.source} ({generator.fingerprint[:12]}), which makes other images of their latents",
            "give the generator that they were exported from",
        )
    masks = read_masks(folder, record, tolerance)
    errors = [mask for mask in masks.values() if isinstance(mask, DataError)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DataError(
            f"{len(errors)} masks in {folder} cannot be used",
            "; ".join(error.state for error in errors),
            f"`sisug annotate check {folder}` says of each what to do",
        )
    painted = {name: mask for name, mask in masks.items() if isinstance(mask, np.ndarray)}
    if not painted:
        raise no_masks(folder, record)
    missing = [name for name in record.names if name not in painted]
    if missing:
        log.info(
            "%s: %d of %d samples are painted; without a mask: %s.",
            folder, len(painted), len(record.names), ", ".join(missing),
        )  # fmt: skip
    rows = [record.names.index(name) for name in painted]
    stacked = torch.from_numpy(np.stack(list(painted.values())))
    w = None if record.w is None else record.w[rows]
    return LabelledSamples(record.z[rows], record.truncation, stacked, record.labels, tuple(painted), w)


def read_masks(folder: Path, record: AnnotationRecord, tolerance: int) -> dict[str, np.ndarray | DataError]:
    """Every mask that is there, by the name of its sample: class numbers, or the error that says what is wrong with it.

    Args:
        folder: annotation folder.
        record: its record.
        tolerance: see `read_annotations`.

    Raises:
        ConfigError: the tolerance is out of range.
    """
    if not 0 <= tolerance <= 255:
        raise ConfigError(f"tolerance {tolerance}", "colour values run from 0 to 255", "use a small number, or 0")
    masks: dict[str, np.ndarray | DataError] = {}
    for name in record.names:
        path = mask_path(folder, name)
        if path.exists():
            try:
                masks[name] = read_painted(path, record.labels, record.resolution, tolerance=tolerance)
            except DataError as error:
                masks[name] = error
    return masks


def mask_path(folder: Path, name: str) -> Path:
    """Where the mask of a sample is expected."""
    return folder / "masks" / f"{name}.png"


def no_masks(folder: Path, record: AnnotationRecord) -> DataError:
    """The error about a folder in which nothing is painted."""
    return DataError(
        f"{folder / 'masks'} holds no mask",
        f"none of {', '.join(f'{name}.png' for name in record.names)} is there",
        f"paint at least one, as {folder / 'README.txt'} says",
    )


def read_record(folder: Path) -> AnnotationRecord:
    """What a folder's `annotation.json` says, checked.

    Args:
        folder: annotation folder.

    Raises:
        DataError: it is missing, damaged or of something else.
    """
    check_local(folder, "the folder of annotations")
    path = folder / RECORD

    def refuse(cause: str) -> DataError:
        return DataError(f"{folder} cannot be used as annotations", cause, "export it again by `sisug annotate export`")

    if not path.is_file():
        raise refuse(f"there is no {RECORD} in it")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise refuse(f"{RECORD} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise refuse(f"{RECORD} is not of the format {FORMAT}")
    try:
        generator, samples = content["generator"], content["samples"]
        names = tuple(str(sample["name"]) for sample in samples)
        if not names or len(set(names)) < len(names) or not all(re.fullmatch(r"[\w-]+", name) for name in names):
            raise ValueError("names of samples are missing, repeated or no file names")
        z = torch.stack([_decode(sample["z"]) for sample in samples])
        return AnnotationRecord(
            source=str(generator["source"]),
            fingerprint=str(generator["fingerprint"]),
            resolution=int(generator["resolution"]),
            truncation=float(content["truncation"]),
            labels=LabelSet.from_dict(content["label_set"]),
            names=names,
            z=z,
            w=torch.stack([_decode(sample["w"]) for sample in samples]) if "w" in samples[0] else None,
        )
    except (KeyError, TypeError, ValueError, RuntimeError, DataError) as error:
        raise refuse(f"{RECORD} is damaged: {type(error).__name__}: {error}") from error


def _encode(latent: torch.Tensor) -> str:
    return base64.b64encode(latent.float().cpu().numpy().astype("<f4").tobytes()).decode()


def _decode(text: str) -> torch.Tensor:
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    if not values.size or not np.isfinite(values).all():
        raise ValueError("a latent is empty or not finite")
    return torch.from_numpy(values)


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_write(path) as file:
        picture.save(file, format="PNG")


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())
