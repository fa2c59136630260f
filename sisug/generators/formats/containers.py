"""From a file to the tree of what it holds (generators): the kind of file is told by its first bytes, not its name."""

from __future__ import annotations

import mmap
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sisug.common.torch_files.arrays import LazyTensor, Number, NumpyArray
from sisug.common.torch_files.pickles import read_pickle
from sisug.common.torch_files.torch_legacy import MAGIC, read_legacy
from sisug.common.torch_files.torch_zip import read_zip
from sisug.errors import CheckpointError

REMEDY = "download or copy it again, and compare its size with its publisher's"
OTHER_FILES = {
    b"<": "a web page: the download gave a message instead of the file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"ustar": "a tar archive: unpack it first",
    b"version https://git-lfs": "a pointer of git-lfs: fetch the file itself with `git lfs pull`",
    b"\x89HDF": "an HDF5 file (Keras)",
}


MOST_HEADER = 10_000_000
"""Bytes of a safetensors file's header; a generator's has 20,000."""


class SafetensorsTensor:
    """A tensor of a safetensors file, not read yet.

    Args:
        file: the open file.
        name: of the tensor.
    """

    __slots__ = ("file", "name", "shape")

    def __init__(self, file: Any, name: str) -> None:
        self.file, self.name = file, name
        self.shape = tuple(int(size) for size in file.get_slice(name).get_shape())

    def tensor(self) -> Tensor:
        """Read it."""
        found: Tensor = self.file.get_tensor(self.name)
        return found


AnyTensor = LazyTensor | NumpyArray | SafetensorsTensor | Number
"""What all kinds of files describe their tensors with: `shape` at once, and `tensor()`, which reads."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The tree in a file: dictionaries, lists, numbers, stand-ins of known classes, and tensors that were not read.

    Tensors can be read as long as the block lasts.

    Args:
        path: the file.

    Raises:
        CheckpointError: it is missing, unreadable, damaged or of a kind that holds no generator.
    """
    if not path.is_file():
        cause = "it is a folder" if path.is_dir() else "there is no such file"
        raise CheckpointError(f"generator file {path} cannot be opened", cause, "check the path")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"generator file {path} is empty", "its copy or download did not finish", REMEDY)
    with path.open("rb") as file:
        # Closed by itself when the last tensor that was not read is gone.
        # Private, and so writable for tensors that look into it; nothing reaches the file.
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        try:
            yield _tree(path, file, content)
        except (pickle.UnpicklingError, SafetensorError) as error:
            raise CheckpointError(
                f"generator file {path} ({size:,} bytes) cannot be read", str(error)[:300], REMEDY
            ) from error


def _tree(path: Path, file: Any, content: memoryview) -> Any:
    start = bytes(content[:64])
    if start[:4] == b"PK\x03\x04":
        return read_zip(file, content)
    if start.startswith(MAGIC):
        return read_legacy(content)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= min(len(content), MOST_HEADER):
        weights = safe_open(path, framework="pt")
        names: list[str] = list(weights.keys())  # type: ignore[no-untyped-call]
        return {name: SafetensorsTensor(weights, name) for name in names}
    if start[:1] == b"\x80" and start[1:2] <= bytes([pickle.HIGHEST_PROTOCOL]):
        return read_pickle(content)[0]
    for mark, what in OTHER_FILES.items():
        if start.lstrip().startswith(mark) or (mark == b"ustar" and bytes(content[257:262]) == mark):
            raise CheckpointError(f"generator file {path} holds no generator", f"it is {what}", REMEDY)
    raise CheckpointError(
        f"generator file {path} cannot be read",
        f"it is neither a pickle nor a file of torch or safetensors (it begins with {start[:8].hex(' ')})",
        "copy it again, or give a StyleGAN2 .pkl, .pt, .pth or .safetensors file",
    )
