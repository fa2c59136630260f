"""From the published wheel of MobileStyleGAN to a file of sisug's own (generators): once, into the cache folder."""

from __future__ import annotations

import hashlib
import logging
import zipfile
import zlib
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor

from sisug.common.atomic_file import disk_is_full
from sisug.common.cache_folder import cache_folder
from sisug.errors import CheckpointError
from sisug.generators.mobilestylegan.native import write_native
from sisug.generators.mobilestylegan.openvino_ir import GraphError, read_graph
from sisug.generators.mobilestylegan.published import mapping_weights, synthesis_weights

logger = logging.getLogger(__name__)

FOLDER = "random_face/data"
LARGEST_MEMBER = 64 << 20
"""Bytes that a file in the wheel may unpack to; the largest has 32 MB."""

UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, EOFError, OverflowError)
"""What zipfile raises for archives that are damaged, encrypted or packed in other ways."""


def converted(wheel: Path, target: Path, **description: Any) -> Path:
    """Sisug's file of a wheel, made now if it is not there yet.

    Args:
        wheel: the published wheel.
        target: the file, ending in .safetensors; it gets its name only when it is whole.
        description: further entries of the sidecar, JSON values.

    Returns:
        `target`.

    Raises:
        CheckpointError: the wheel is damaged, hostile or another one, or the file cannot be written.
    """
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            if not target.is_file():  # another process may have made it meanwhile
                weights = read_wheel(wheel)
                with wheel.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                write_native(target, weights, source=wheel.name, source_sha256=digest, **description)
                logger.info("%s was converted to %s", wheel.name, target)
    except OSError as error:
        full = disk_is_full(error)
        raise CheckpointError(
            f"{wheel.name} could not be converted to {target}",
            "the disk is full" if full else f"{error.filename or target.parent}: {error.strerror or error}",
            "free some space and give the same command again"
            if full
            else "choose a cache folder that can be written to with the environment variable SISUG_CACHE",
        ) from error
    return target


def beside_others(wheel: Path) -> Path:
    """Where the converted file of a wheel of the user's belongs: in the cache folder, named by its content.

    Raises:
        CheckpointError: the wheel cannot be read.
    """
    try:
        with wheel.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{wheel} cannot be read", str(error), "check the path") from error
    return cache_folder() / "generators" / f"mobilestylegan-{digest[:16]}.safetensors"


def read_wheel(wheel: Path) -> dict[str, Tensor]:
    """All weights of a published MobileStyleGAN, under our names; nothing in the wheel is run.

    Raises:
        CheckpointError: it is damaged, hostile, or holds other networks.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return {
                **mapping_weights(read_graph(*_pair(archive, "MappingNetwork"))),
                **synthesis_weights(read_graph(*_pair(archive, "SynthesisNetwork"))),
            }
    except GraphError as error:
        cause = str(error)
    except (OSError, *UNREADABLE) as error:
        cause = f"it is no whole wheel ({str(error)[:200] or type(error).__name__})"
    raise CheckpointError(
        f"{wheel} holds no MobileStyleGAN that sisug reads",
        cause,
        "give the wheel random-face 2021.7.21.1 as the package index has it: `python -m pip download --no-deps "
        "random-face==2021.7.21.1`",
    )


def _pair(archive: zipfile.ZipFile, name: str) -> tuple[bytes, bytes]:
    """Contents of a graph's two files.

    Raises:
        GraphError: one is missing or too large.
    """
    return _member(archive, f"{FOLDER}/{name}.xml"), _member(archive, f"{FOLDER}/{name}.bin")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise GraphError(f"it has no file {name}") from None
    if info.file_size > LARGEST_MEMBER:
        raise GraphError(f"{name} would take {info.file_size:,} bytes, and at most {LARGEST_MEMBER:,} are read")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise GraphError(f"{name} is packed in a way that wheels do not use")
    return archive.read(info)
