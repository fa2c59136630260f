"""Files that appear whole or not at all (every stage): a temporary name in the same folder, then a rename."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sisug.errors import RunError


@contextmanager
def atomic_write(path: Path, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; it gets its content only when the block ends without an exception.

    Until then the bytes go to `path` with `.tmp` appended, in the same folder, since a rename is atomic only within
    one file system. They are forced to the disk before the rename, so that a power cut cannot leave an empty file
    under the final name. The folder is made if need be.

    Args:
        path: the file to write or replace.
        shared: whether other processes may write the same file at the same time; each then has a temporary file of its
            own, which a process that is killed leaves behind.

    Raises:
        RunError: the disk is full; an earlier file of that name is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp" if shared else path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if disk_is_full(error):
            raise RunError(
                f"{path} could not be written",
                "the disk is full",
                "free some space and give the same command again (a training run goes on with `--ckpt_path last`); "
                "an earlier file of that name is whole",
            ) from error
        raise


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an exception, or what it was raised from, says that a disk or quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False
