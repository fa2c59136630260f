"""The avatars drawn once and kept in a file: the fast form of the data set, for training at full speed."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from sisug.common.cache_folder import cache_folder
from sisug.data.avatars.dataset import AvatarSample, AvatarsDataset, Split, to_sample
from sisug.data.avatars.drawing import style_version
from sisug.data.memmap_cache import MemmapCache, allocate, open_array
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
        self._cache = MemmapCache(self.folder, (IMAGES, MASKS), "avatars cache", "drawn again")
        processes = num_processes or len(os.sched_getaffinity(0))
        self._cache.have(self._fault, lambda place: self._draw_into(place, processes))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> AvatarSample:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of {self.length} avatars")
        images, masks = self._cache.arrays
        return to_sample(images[index], masks[index], index)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        side = self.resolution
        return {IMAGES: (self.length, 3, side, side), MASKS: (self.length, side, side)}

    def _fault(self) -> str | None:
        """What is wrong with the cache that lies there."""
        if not self._cache.has_shapes(*self._shapes().values()):
            return "it has another shape"
        images, masks = self._cache.arrays
        for index in {0, self.length // 2, self.length - 1}:
            image, mask = self.source.draw(index)
            if not (np.array_equal(image, images[index]) and np.array_equal(mask, masks[index])):
                return f"avatar {index} is wrong"
        return None

    def _draw_into(self, folder: Path, num_processes: int) -> bool:
        logger.info("drawing %d avatars (%s, %d px), once", self.length, self.split, self.resolution)
        for name, shape in self._shapes().items():
            allocate(folder / name, shape)
        if self.length <= SMALL or num_processes == 1:
            draw_range(folder, self.source, 0, self.length)
        else:
            self._draw_in_processes(folder, num_processes)
        return True

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
    images, masks = (open_array(folder / name, writable=True) for name in (IMAGES, MASKS))
    for index in range(start, stop):
        images[index], masks[index] = source.draw(index)
    images.flush()
    masks.flush()
