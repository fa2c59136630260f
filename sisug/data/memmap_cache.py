"""Arrays on disk that are made once and mapped into memory (data): whole or not there, whatever ends a process."""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from sisug.errors import RunError

logger = logging.getLogger(__name__)


class MemmapCache:
    """A folder of uint8 arrays, made at the first use.

    It is written under a temporary name and renamed when complete: other processes see all of it or nothing.

    Args:
        folder: where it lies in the end; a name that holds everything that decides its content is never out of date.
        files: names of its ``.npy`` files.
        title: what messages call it, like "image cache".
        again: what happens to a damaged one in messages, like "made again".
    """

    def __init__(self, folder: Path, files: Sequence[str], title: str, again: str) -> None:
        self.folder, self.files = folder, tuple(files)
        self.title, self.again = title, again
        self._arrays: tuple[np.ndarray, ...] | None = None

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The arrays in the order of ``files``, mapped into memory for reading."""
        if self._arrays is None:
            self._arrays = tuple(open_array(self.folder / name) for name in self.files)
        return self._arrays

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memmap would carry its whole content to every data worker.
        return {**self.__dict__, "_arrays": None}

    def have(self, fault: Callable[[], str | None], make: Callable[[Path], bool]) -> bool:
        """Use what lies there if it is sound; else make it.

        Args:
            fault: says what is wrong with the cache that lies there, None for nothing; it may raise what reading
                damaged files raises.
            make: writes all files into the folder that it is given; False where they are not worth keeping.

        Returns:
            Whether there is a cache now.

        Raises:
            RunError: the folder is not writable, the disk is full, or what was written is damaged at once.
        """
        if self._is_sound(fault):
            return True
        if not self._build(fault, make):
            return False
        if not self._is_sound(fault):
            raise RunError(
                f"the {self.title} {self.folder} is damaged again right after it was written",
                "the file system returns other bytes than were written, or another program changes them",
                "choose another cache folder with the environment variable SISUG_CACHE",
            )
        return True

    def has_shapes(self, *shapes: tuple[int, ...]) -> bool:
        """Whether the arrays are uint8 of these shapes.

        Args:
            shapes: of each array.
        """
        found = [(array.shape, array.dtype) for array in self.arrays]
        return found == [(shape, np.dtype(np.uint8)) for shape in shapes]

    def _is_sound(self, fault: Callable[[], str | None]) -> bool:
        self._arrays = None
        if not self.folder.is_dir():
            return False
        try:
            cause = fault()
        except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
            cause = str(error) or type(error).__name__
        if cause is not None:
            self._arrays = None
            logger.warning("the %s %s cannot be used (%s) and will be %s", self.title, self.folder, cause, self.again)
        return cause is None

    def _build(self, fault: Callable[[], str | None], make: Callable[[Path], bool]) -> bool:
        parent = self.folder.parent
        temporary: Path | None = None
        try:
            parent.mkdir(parents=True, exist_ok=True)
            # Ranks and runs that want the same cache wait for the first instead of making it too. The lock saves
            # work only: what keeps the cache whole is the rename, on file systems without locks too.
            with FileLock(parent / f"{self.folder.name}.lock"):
                if self._is_sound(fault):
                    return True
                for abandoned in parent.glob(f".{self.folder.name}.*"):  # of a run that was killed
                    shutil.rmtree(abandoned, ignore_errors=True)
                temporary = parent / f".{self.folder.name}.{uuid.uuid4().hex}"
                temporary.mkdir()
                if not make(temporary):
                    return False
                for path in temporary.iterdir():
                    with path.open("rb+") as file:
                        os.fsync(file.fileno())
                if self.folder.exists():
                    shutil.rmtree(self.folder)
                temporary.replace(self.folder)
                return True
        except OSError as error:
            raise RunError(
                f"the {self.title} {self.folder} cannot be written",
                f"{error.strerror or error}",
                "free some space, or choose another cache folder with the environment variable SISUG_CACHE",
            ) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)


def open_array(path: Path, *, writable: bool = False) -> np.memmap:
    """An array on disk, mapped into memory.

    Args:
        path: a ``.npy`` file.
        writable: whether changes go to the file.
    """
    array: np.memmap = np.load(path, mmap_mode="r+" if writable else "r", allow_pickle=False)
    return array


def allocate(path: Path, shape: tuple[int, ...]) -> None:
    """Make an array of zeros on disk whose whole space is taken.

    A full disk then shows before any work is done, and as an error with a number; while a mapped file is written, it
    would end the process.

    Args:
        path: the ``.npy`` file.
        shape: of the array.

    Raises:
        OSError: the disk is full.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, _header(shape))
        file.flush()
        try:
            _reserve(file.fileno(), file.tell() + math.prod(shape))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            # The file system cannot reserve: write.
            block = bytes(math.prod(shape[1:]))
            for _ in range(shape[0]):
                file.write(block)


def shorten(path: Path, length: int) -> None:
    """Cut an array on disk to its first rows.

    Args:
        path: a file of `allocate`.
        length: number of rows to keep.
    """
    with path.open("rb+") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, _header((length, *shape[1:])))
        assert file.tell() == start  # NumPy leaves room for the first axis to change
        file.truncate(start + length * math.prod(shape[1:]))


def _header(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"descr": "|u1", "fortran_order": False, "shape": shape}


def _reserve(descriptor: int, size: int) -> None:
    if not hasattr(os, "posix_fallocate"):  # macOS
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    os.posix_fallocate(descriptor, 0, size)
