"""Statistics of the real images, computed once and kept on disk for every later evaluation (evaluation)."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch.distributed as dist
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sisug.common.atomic_file import atomic_write
from sisug.errors import DataError, RunError
from sisug.metrics.frechet import FrechetDistance
from sisug.metrics.kernel import KernelDistance
from sisug.metrics.manifold import ManifoldScores
from sisug.metrics.realism import RealismScores

logger = logging.getLogger(__name__)

FORMAT = "sisug-real-statistics-1"


def fill_real_side(
    metric: FrechetDistance | KernelDistance | ManifoldScores | RealismScores,
    batches: Iterable[Float[Tensor, "_batch 3 _height _width"]],
    *,
    data: str,
    protocol: Mapping[str, str | int | float],
    folder: str | Path | None,
) -> int:
    """Fill a metric's real side from the cache; where there is none, from the images, and write one.

    A file in the cache carries what it was made of: fingerprint of the data, name and fingerprint of the extractor,
    kind of statistics, protocol. One whose content does not fit is said to be so in the log, and made again. A
    Fréchet distance keeps sums (Inception: 34 MB); the others keep the features, 8 kB an image.

    Every rank must call it. Both sides are emptied first. A metric that is reset between sets of generated images
    needs `keep_real=True`.

    Args:
        metric: whose real side to fill.
        batches: the real images of this rank in [-1, 1]; looked at only where the cache does not have them.
        data: fingerprint of the real images: whatever changes when one of them does (`fingerprint_files`).
        protocol: everything else that decides the statistics, such as split, number and resize filter.
        folder: where files are kept; None keeps none.

    Returns:
        Number of real images over all ranks.

    Raises:
        DataError: there is no real image.
    """
    metric.forget_real()
    key = _key(metric, data, protocol)
    file = None if folder is None else Path(folder) / _file_name(metric, key)
    first = not dist.is_initialized() or dist.get_rank() == 0
    state = _read(file, key) if first and file is not None else None
    if _from_first(state is not None):
        if state is not None:  # the other ranks' share is nothing: sides are added up over ranks
            metric.load_real_state(state)
        return _from_first(metric.real_samples)
    for images in batches:
        metric.update(images.to(metric.device), real=True)
    state = metric.real_state()
    count = _count(state)
    if not count:
        raise DataError("no real image", "the loader of the real images gave none", "check the data and its split")
    if first and file is not None:
        _write(file, key, state)
    return count


def fingerprint_files(files: Iterable[Path], root: Path) -> str:
    """SHA-256 over names and contents of files, whatever their order: the fingerprint of data that lies in a folder.

    Args:
        files: that are the data.
        root: names are relative to it, so that the same data gives the same value elsewhere.

    Raises:
        DataError: a file cannot be read, or lies outside the root.
    """
    digest = hashlib.sha256()
    for name, file in sorted((file.relative_to(root).as_posix(), file) for file in files):
        try:
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{file} cannot be read", str(error), "check the file, or leave it out") from error
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def _key(metric: object, data: str, protocol: Mapping[str, str | int | float]) -> dict[str, str]:
    assert isinstance(metric, (FrechetDistance, KernelDistance, ManifoldScores, RealismScores))
    return {
        "format": FORMAT,
        "kind": _kind(metric),
        "data": data,
        "extractor": metric.name,
        "extractor_sha256": metric.extractor.fingerprint,
        "protocol": json.dumps(dict(protocol), sort_keys=True),
    }


def _kind(metric: FrechetDistance | KernelDistance | ManifoldScores | RealismScores) -> str:
    """What is kept of the images: kernel and manifold keep the same."""
    if isinstance(metric, FrechetDistance):
        return "moments"
    return "both" if isinstance(metric, RealismScores) else "features"


def _file_name(
    metric: FrechetDistance | KernelDistance | ManifoldScores | RealismScores, key: Mapping[str, str]
) -> str:
    code = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    readable = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in metric.name)
    return f"{readable}-{_kind(metric)}-{code}.safetensors"


def _read(file: Path, key: Mapping[str, str]) -> dict[str, Tensor] | None:
    """The statistics of a file; None where there is none, or none that fits."""
    if not file.is_file():
        logger.info("no statistics of the real images in %s yet: computing them", file.parent)
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            found = opened.metadata() or {}
            wrong = sorted(name for name in key if found.get(name) != key[name])
            if wrong:
                logger.warning(
                    "%s holds statistics of another %s than asked for: it is not used, and made again from the images",
                    file,
                    " and ".join(wrong),
                )
                return None
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        logger.warning("%s cannot be read (%s): it is made again from the images", file, error)
        return None
    return state if _count(state) else None


def _write(file: Path, key: dict[str, str], state: Mapping[str, Tensor]) -> None:
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    try:
        with atomic_write(file) as opened:
            opened.write(save(tensors, metadata=key))
    except (
        OSError,
        RunError,
        SafetensorError,
    ) as error:  # only the next run must compute them again
        logger.warning("the statistics of the real images are not kept: %s cannot be written (%s)", file, error)


def _count(state: Mapping[str, Tensor]) -> int:
    """Number of images behind statistics."""
    return len(state["features"]) if "features" in state else int(state["real_features_num_samples"])


def _from_first(value: int) -> int:
    """The first rank's value, on every rank."""
    if not dist.is_initialized():
        return value
    holder = [value]
    dist.broadcast_object_list(holder, src=0)
    return holder[0]
