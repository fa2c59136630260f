"""Files that appear whole or not at all (every stage): a temporary name in the same folder, then a rename."""

from __future__ import annotations

import errno
import glob
import os
import re
import socket
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from sisug.errors import DiskFullError

ABANDONED = 3600.0
"""Seconds without a byte after which a temporary file of another machine belongs to no one. Our choice."""

_TEMPORARY = re.compile(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp")


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; it gets its content only when the block ends without an exception.

    Until then the bytes go to a name of this writer alone, in the same folder, since a rename is atomic only within
    one file system; of several that write one file at a time, the last one wins. They are forced to the disk before
    the rename, so that a power cut cannot leave an empty file under the final name. The folder is made if need be, and
    what a writer of this file has left that was killed is removed.

    Args:
        path: the file to write or replace.

    Raises:
        DiskFullError: the disk is full; an earlier file of that name is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    _remove_abandoned(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if disk_is_full(error):
            raise DiskFullError(
                f"{path} could not be written",
                "the disk is full",
                "free some space and give the same command again (a training run goes on with `--ckpt_path last`); "
                "an earlier file of that name is whole",
            ) from error
        raise


def temporary_beside(path: Path) -> Path:
    """A name in the same folder that nobody else uses.

    Args:
        path: what is to be written.
    """
    tail = f".{_here()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
    # Names may have 255 bytes, and a final one that long is allowed.
    return path.with_name(os.fsdecode(os.fsencode(path.name)[: 255 - len(tail)]) + tail)


@cache
def _here() -> str:
    """Tells this machine's process numbers from those of others that share the folder, containers included."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{zlib.crc32(f'{socket.gethostname()} {space}'.encode()):08x}"


def _remove_abandoned(path: Path) -> None:
    """Remove what killed writers of a file have left beside it."""
    try:
        for left in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
            found = _TEMPORARY.fullmatch(left.name[len(path.name) :])
            if found is None:
                continue
            dead = found[1] == _here() and not _is_alive(int(found[2]))
            if dead or time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink(missing_ok=True)
    except OSError:  # another process was faster
        return


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an exception, or what it was raised from, says that a disk or quota is full."""
    seen: set[int] = set()  # an error that is raised again from one that it caused makes a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False
