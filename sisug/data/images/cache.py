"""Images of a folder brought to training form once and kept in a file (data of generator training)."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import uuid
import zlib
from pathlib import Path
from typing import IO, Any, TypedDict

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset

from sisug.common.cache_folder import cache_folder
from sisug.data.images.scan import WHITE, FolderReport, check_form, examine_all
from sisug.errors import RunError
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
        self._images = self._open()
        if self._images is None:
            self._build(files)
            if not self.report.usable:
                self.report.check(self.source, skip_bad)
            self._images = self._open()
            if self._images is None:
                raise RunError(
                    f"the image cache {self.folder} is damaged again right after it was written",
                    "the file system returns other bytes than were written, or another program changes them",
                    "choose another cache folder with the environment variable SISUG_CACHE",
                )
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
        if self._images is None:  # unpickled in a data worker
            self._images = self._load()
        mirrored, rows = rows >= len(self), rows % len(self)
        images = self._images[rows]
        if mirrored.any():
            images[mirrored] = images[mirrored, ..., ::-1]
        return {"image": torch.from_numpy(images).float().div_(127.5).sub_(1), "index": torch.from_numpy(rows)}

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memmap would carry its whole content to every data worker.
        return {**self.__dict__, "_images": None}

    def _name(self, files: list[ImageFile]) -> str:
        """Name of the cache: readable parts, and a hash of everything that decides a pixel."""
        listed = [(file.name, file.size, file.mtime_ns) for file in files]
        key = json.dumps([VERSION, str(self.source.resolve()), self.resolution, list(self.background), listed])
        readable = re.sub(r"[^\w.-]", "_", self.source.resolve().name, flags=re.ASCII)[:40]
        return f"{readable or 'images'}-{self.resolution}px-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def _load(self) -> np.ndarray:
        array: np.ndarray = np.load(self.folder / IMAGES, mmap_mode="r", allow_pickle=False)
        return array

    def _open(self) -> np.ndarray | None:
        """The array, or None where there is no sound cache; fills in names and report."""
        if not self.folder.is_dir():
            return None
        try:
            images = self._load()
            record = json.loads((self.folder / RECORD).read_text())
            names, sums = list(record["names"]), list(record["crc32"])
            report, sha256 = FolderReport.from_dict(record["report"]), str(record["sha256"])
        except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
            logger.warning("the image cache %s is damaged (%s) and will be made again", self.folder, error)
            return None
        side = self.resolution
        shape = (len(names), 3, side, side)
        if not names or len(sums) != len(names) or images.shape != shape or images.dtype != np.uint8:
            logger.warning("the image cache %s has another shape and will be made again", self.folder)
            return None
        for index in {0, len(names) // 2, len(names) - 1}:
            if zlib.crc32(images[index].tobytes()) != sums[index]:
                logger.warning("image %d of the cache %s is wrong: all will be made again", index, self.folder)
                return None
        self.names, self.report, self.digest = names, report, sha256
        return images

    def _build(self, files: list[ImageFile]) -> None:
        """Prepare everything into a temporary folder beside the final one, then rename it.

        A cache is kept where some images are unusable too: with ``skip_bad`` it is what is wanted, and without it
        the next try need not decode the others again.
        """
        parent = self.folder.parent
        temporary: Path | None = None
        try:
            parent.mkdir(parents=True, exist_ok=True)
            # Ranks and runs that want the same cache wait for the first instead of making it too. The lock saves
            # work only: what keeps the cache whole is the rename, on file systems without locks too.
            with FileLock(parent / f"{self.folder.name}.lock"):
                if self._open() is not None:
                    return
                for abandoned in parent.glob(f".{self.folder.name}.*"):  # of a run that was killed
                    shutil.rmtree(abandoned, ignore_errors=True)
                temporary = parent / f".{self.folder.name}.{uuid.uuid4().hex}"
                temporary.mkdir()
                self._prepare_into(temporary, files)
                if not self.report.usable:
                    return
                if self.folder.exists():
                    shutil.rmtree(self.folder)
                temporary.replace(self.folder)
        except OSError as error:
            raise RunError(
                f"the image cache {self.folder} cannot be written",
                f"{error.strerror or error}",
                "free some space, or choose another cache folder with the environment variable SISUG_CACHE",
            ) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def _prepare_into(self, folder: Path, files: list[ImageFile]) -> None:
        logger.info("preparing %s images of %s at %d px, once", f"{len(files):,}", self.source, self.resolution)
        used: list[ImageFile] = []
        sums: list[int] = []
        with (folder / IMAGES).open("wb") as output:
            start = output.write(self._header(len(files)))
            _reserve(output, start + len(files) * 3 * self.resolution**2)

            def keep(file: ImageFile, examined: Examined) -> None:
                self.report.add(file.name, examined)
                if examined.pixels is not None:
                    content = examined.pixels.tobytes()
                    output.write(content)
                    sums.append(zlib.crc32(content))
                    used.append(file)

            examine_all(self.source, files, self.resolution, self.background, keep)
            output.truncate()
            output.seek(0)
            output.write(self._header(len(used)))
            output.flush()
            os.fsync(output.fileno())
        record = {
            "names": [file.name for file in used],
            "crc32": sums,
            "sha256": digest(used),
            "report": self.report.to_dict(),
        }
        with (folder / RECORD).open("w") as output_text:
            json.dump(record, output_text)
            output_text.flush()
            os.fsync(output_text.fileno())

    def _header(self, images: int) -> bytes:
        """The beginning of a .npy file, equally long for every number of images that a folder may have."""
        content = {"descr": "|u1", "fortran_order": False, "shape": (images, 3, self.resolution, self.resolution)}
        text = f"{content!r}".ljust(117) + "\n"
        return np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text.encode()


def _reserve(file: IO[bytes], size: int) -> None:
    """Ask for the whole space first: a full disk is to show before an hour of decoding, not after it."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    file.flush()
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
