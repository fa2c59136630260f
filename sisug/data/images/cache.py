"""Images of a folder brought to training form once and kept in a file (data of generator training)."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import zlib
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset

from sisug.common.cache_folder import cache_folder
from sisug.data.images.scan import WHITE, FolderReport, check_form, examine_all
from sisug.data.memmap_cache import MemmapCache, allocate, open_array, shorten
from sisug.labels.image_files import VERSION, Colour, Examined
from sisug.labels.image_folders import ImageFile, digest, list_images

logger = logging.getLogger(__name__)

IMAGES, RECORD = "images.npy", "record.json"


class ImageBatch(TypedDict):
    """Images in [-1, 1], and which ones they are."""

    image: Float[Tensor, "batch 3 height width"]
    index: Int64[Tensor, " batch"]


class PreparedImages(Dataset[dict[str, Any]]):
    """The images of a folder at one resolution: a uint8 array on disk, mapped into memory; made at the first use.

    Everything that decides a pixel is part of the cache's name (the folder's path; name, size and time of change of
    each file; resolution, background, version of the code), so a cache is never out of date. It is written under a
    temporary name and renamed when complete: other processes see all of it or nothing. Opening checks sizes and the
    checksums of three images, and whatever is damaged is rebuilt.

    Indices from ``len(self)`` to twice that are the same images mirrored, as in StyleGAN2-ADA's data sets.

    Args:
        folder: where the images lie; folders in it count.
        resolution: height and width in pixels.
        background: colour behind transparent parts: red, green and blue, 0 to 255.
        skip_bad: leave out images that are unreadable or smaller than the resolution, instead of refusing the folder.
        caches: where caches are kept; None for ``cache_folder()``.

    Attributes:
        report: what the folder holds, and what was converted.
        names: relative name of each image.
        digest: SHA-256 of names and sizes of the images.

    Raises:
        DataError: no images, or unusable ones without ``skip_bad``.
        ConfigError: a resolution or colour out of range.
        RunError: the cache is not writable or the disk is full.
    """

    def __init__(
        self,
        folder: str | Path,
        resolution: int,
        background: Colour = WHITE,
        skip_bad: bool = False,
        caches: str | Path | None = None,
    ) -> None:
        check_form(resolution, background)
        self.source = Path(folder).expanduser()
        self.resolution, self.background = resolution, background
        files, others = list_images(self.source)
        self.report = FolderReport(self.source.resolve().name, resolution, background, others=others)
        root = Path(caches) if caches is not None else cache_folder()
        self.folder = root / "images" / self._name(files)
        self.names: list[str] = []
        self.digest = ""
        self._cache = MemmapCache(self.folder, (IMAGES,), "image cache", "made again")
        # A cache is kept where some images are unusable too: with `skip_bad` it is what is wanted, and without it
        # the next try need not decode the others again.
        self._cache.have(self._fault, lambda place: self._prepare_into(place, files))
        self.report.check(self.source, skip_bad)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = self.__getitems__([index])
        return {"image": batch["image"][0], "index": int(batch["index"][0])}

    def __getitems__(self, indices: list[int]) -> ImageBatch:
        """A whole batch at once, which is many times faster than one image after the other (torch asks for this)."""
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < 2 * len(self):
            raise IndexError(f"indices {rows.min()} to {rows.max()} of {len(self)} images and their mirrored ones")
        mirrored, rows = rows >= len(self), rows % len(self)
        images = self._cache.arrays[0][rows]
        if mirrored.any():
            images[mirrored] = images[mirrored, ..., ::-1]
        return {"image": torch.from_numpy(images).float().div_(127.5).sub_(1), "index": torch.from_numpy(rows)}

    def _name(self, files: list[ImageFile]) -> str:
        """Name of the cache: readable parts, and a hash of everything that decides a pixel."""
        listed = [(file.name, file.size, file.mtime_ns) for file in files]
        key = json.dumps([VERSION, str(self.source.resolve()), self.resolution, list(self.background), listed])
        readable = re.sub(r"[^\w.-]", "_", self.source.resolve().name, flags=re.ASCII)[:40]
        return f"{readable or 'images'}-{self.resolution}px-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def _fault(self) -> str | None:
        """What is wrong with the cache that lies there; fills in names and report from it."""
        record = json.loads((self.folder / RECORD).read_text())
        names, sums = list(record["names"]), list(record["crc32"])
        report, sha256 = FolderReport.from_dict(record["report"]), str(record["sha256"])
        side = self.resolution
        if not names or len(sums) != len(names) or not self._cache.has_shapes((len(names), 3, side, side)):
            return "it has another shape"
        for index in {0, len(names) // 2, len(names) - 1}:
            if zlib.crc32(self._cache.arrays[0][index].tobytes()) != sums[index]:
                return f"image {index} is wrong"
        self.names, self.report, self.digest = names, report, sha256
        return None

    def _prepare_into(self, folder: Path, files: list[ImageFile]) -> bool:
        logger.info("preparing %s images of %s at %d px, once", f"{len(files):,}", self.source, self.resolution)
        used: list[ImageFile] = []
        sums: list[int] = []
        allocate(folder / IMAGES, (len(files), 3, self.resolution, self.resolution))
        images = open_array(folder / IMAGES, writable=True)

        def keep(file: ImageFile, examined: Examined) -> None:
            self.report.add(file.name, examined)
            if examined.pixels is not None:
                images[len(used)] = examined.pixels
                sums.append(zlib.crc32(examined.pixels.tobytes()))
                used.append(file)

        examine_all(self.source, files, self.resolution, self.background, keep)
        images.flush()
        shorten(folder / IMAGES, len(used))
        record = {
            "names": [file.name for file in used],
            "crc32": sums,
            "sha256": digest(used),
            "report": self.report.to_dict(),
        }
        (folder / RECORD).write_text(json.dumps(record))
        return bool(used)
