"""The avatars drawn once and kept in a file: the fast form of the data set, for training at full speed."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import uuid
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from torch.utils.data import Dataset

from sisug.common.cache_folder import cache_folder
from sisug.data.avatars.dataset import AvatarSample, AvatarsDataset, Split, to_sample
from sisug.data.avatars.drawing import style_version
from sisug.errors import RunError
from sisug.labels.label_sets import AVATARS, LabelSet

logger = logging.getLogger(__name__)

IMAGES, MASKS = "images.npy", "masks.npy"

SMALL = 512
"""Up to this many avatars are drawn by the calling process: starting others would take longer."""


class MaterialisedAvatars(Dataset[AvatarSample]):
    """`AvatarsDataset` as two uint8 arrays on disk, mapped into memory; drawn at the first use.

    Everything that decides a pixel is part of the folder's name (split, length, resolution, drawing code, versions of
    style and rasteriser), so a cache is never out of date. It is written under a temporary name and renamed when
    complete: other processes see all of it or nothing. Opening checks sizes and draws three avatars again to compare,
    and whatever is damaged is rebuilt.

    Args:
        split: train, val or test.
        length: number of avatars.
        resolution: height and width in pixels.
        folder: where caches are kept; None for ``cache_folder()``.
        num_processes: processes that draw; None for one a CPU core.

    Raises:
        ConfigError: for a value out of range.
        RunError: when the folder is not writable or the disk is full.
    """

    label_set: LabelSet = AVATARS

    def __init__(
        self,
        split: Split = "train",
        length: int = 20_000,
        resolution: int = 64,
        folder: str | Path | None = None,
        num_processes: int | None = None,
    ) -> None:
        self.source = AvatarsDataset(split, length, resolution)
        self.split, self.length, self.resolution = split, length, resolution
        key = hashlib.sha256(f"{split}|{length}|{resolution}|{style_version()}".encode()).hexdigest()[:12]
        root = Path(folder) if folder is not None else cache_folder()
        self.folder = root / "avatars" / f"{split}-{length}x{resolution}px-{key}"
        self._arrays = self._open()
        if self._arrays is None:
            self._build(num_processes or len(os.sched_getaffinity(0)))
            self._arrays = self._open()
            if self._arrays is None:
                raise RunError(
                    f"the avatars cache {self.folder} is damaged again right after it was written",
                    "the file system returns other bytes than were written, or another program changes them",
                    "choose another cache folder with the environment variable SISUG_CACHE",
                )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> AvatarSample:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of {self.length} avatars")
        if self._arrays is None:  # unpickled in a data worker
            self._arrays = (self._load(IMAGES), self._load(MASKS))
        images, masks = self._arrays
        return to_sample(images[index], masks[index], index)

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memmap would carry its whole content to every data worker.
        return {**self.__dict__, "_arrays": None}

    def _load(self, name: str) -> np.ndarray:
        array: np.ndarray = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        return array

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        side = self.resolution
        return {IMAGES: (self.length, 3, side, side), MASKS: (self.length, side, side)}

    def _open(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The arrays, or None where there is no sound cache."""
        if not self.folder.is_dir():
            return None
        try:
            images, masks = self._load(IMAGES), self._load(MASKS)
        except (OSError, ValueError, EOFError) as error:  # missing, truncated or not an array
            logger.warning("the avatars cache %s is damaged (%s) and will be drawn again", self.folder, error)
            return None
        for array, shape in ((images, self._shapes()[IMAGES]), (masks, self._shapes()[MASKS])):
            if array.shape != shape or array.dtype != np.uint8:
                logger.warning("the avatars cache %s has another shape and will be drawn again", self.folder)
                return None
        for index in {0, self.length // 2, self.length - 1}:
            image, mask = self.source.draw(index)
            if not (np.array_equal(image, images[index]) and np.array_equal(mask, masks[index])):
                logger.warning("avatar %d of the cache %s is wrong: all will be drawn again", index, self.folder)
                return None
        return images, masks

    def _build(self, num_processes: int) -> None:
        """Draw everything into a temporary folder beside the final one, then rename it."""
        parent = self.folder.parent
        temporary: Path | None = None
        try:
            parent.mkdir(parents=True, exist_ok=True)
            # Ranks and runs that want the same cache wait for the first instead of drawing it too. The lock saves
            # work only: what keeps the cache whole is the rename, on file systems without locks too.
            with FileLock(parent / f"{self.folder.name}.lock"):
                if self._open() is not None:
                    return
                for abandoned in parent.glob(f".{self.folder.name}.*"):  # of a run that was killed
                    shutil.rmtree(abandoned, ignore_errors=True)
                temporary = parent / f".{self.folder.name}.{uuid.uuid4().hex}"
                temporary.mkdir()
                self._draw_into(temporary, num_processes)
                if self.folder.exists():
                    shutil.rmtree(self.folder)
                temporary.replace(self.folder)
        except OSError as error:
            raise RunError(
                f"the avatars cache {self.folder} cannot be written",
                f"{error.strerror or error}",
                "free some space, or choose another cache folder with the environment variable SISUG_CACHE",
            ) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def _draw_into(self, folder: Path, num_processes: int) -> None:
        logger.info("drawing %d avatars (%s, %d px), once", self.length, self.split, self.resolution)
        for name, shape in self._shapes().items():
            _allocate(folder / name, shape)
        if self.length <= SMALL or num_processes == 1:
            draw_range(folder, self.source, 0, self.length)
        else:
            self._draw_in_processes(folder, num_processes)
        for name in (IMAGES, MASKS):
            with (folder / name).open("rb+") as file:
                os.fsync(file.fileno())

    def _draw_in_processes(self, folder: Path, num_processes: int) -> None:
        """Plain child processes, not multiprocessing: forks inherit held locks, spawns need a main guard in scripts."""
        bounds = [self.length * part // num_processes for part in range(num_processes + 1)]
        arguments = [str(folder), self.split, str(self.length), str(self.resolution)]
        command = [sys.executable, "-m", "sisug.data.avatars", *arguments]
        with ExitStack() as cleanup:
            children = []
            for start, stop in pairwise(bounds):
                child = subprocess.Popen([*command, str(start), str(stop)], stderr=subprocess.PIPE)
                children.append(cleanup.enter_context(child))
                cleanup.callback(child.kill)  # runs before the wait; no effect on a child that has ended
            for child in children:
                _, messages = child.communicate()
                if child.returncode != 0:
                    raise RunError(
                        f"a process that draws avatars ended with code {child.returncode}",
                        messages.decode(errors="replace").strip()[-500:] or "it was killed, perhaps for memory",
                        "try again with num_processes=1",
                    )


def draw_range(folder: Path, source: AvatarsDataset, start: int, stop: int) -> None:
    """Draw a part of a cache that is being built.

    Args:
        folder: holds the allocated arrays.
        source: draws them.
        start: first index.
        stop: index after the last.
    """
    images, masks = (np.load(folder / name, mmap_mode="r+", allow_pickle=False) for name in (IMAGES, MASKS))
    for index in range(start, stop):
        images[index], masks[index] = source.draw(index)
    images.flush()
    masks.flush()


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    """Write zeros first: on a full disk that is an error with a number, while a mapped file would end the process."""
    block = np.zeros(shape[1:], dtype=np.uint8).tobytes()
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for _ in range(shape[0]):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
