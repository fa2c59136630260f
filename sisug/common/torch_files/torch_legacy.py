"""Files of torch before 1.6, and storages within pickles, which have the same layout (every stage): five pickles in a
row, then the storages.
"""

from __future__ import annotations

import pickle
from typing import Any

import torch

from sisug.common.torch_files.arrays import LazyStorage, StorageType, bytes_of
from sisug.common.torch_files.pickles import read_pickle

MAGIC = bytes.fromhex("80028a0a6cfc9c46f920 6aa850192e".replace(" ", ""))
"""The first pickle: a number that marks the file."""


def read_legacy(content: memoryview, *, strict: bool = False) -> Any:
    """The object in such a file.

    Args:
        content: the whole file.
        strict: of ``read_pickle``.

    Raises:
        CheckpointError: the file names something that is not on the list.
        pickle.UnpicklingError: it is damaged.
    """
    storages: dict[str, LazyStorage] = {}

    def storage_of(pid: object) -> LazyStorage:
        key, dtype, elements = described(pid)
        known = storages.setdefault(key, LazyStorage(dtype, elements, lambda: b""))
        if known.dtype != dtype or known.elements != elements:
            raise pickle.UnpicklingError(f"storage {key} is described in two ways")
        return known

    parts: list[Any] = []
    at = 0
    for number in range(5):
        part, length = read_pickle(content[at:], storage_of if number == 3 else None, strict=strict)
        parts.append(part)
        at += length
    _, protocol, system, found, keys = parts
    if protocol != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise pickle.UnpicklingError("it has another layout or byte order")
    if not isinstance(keys, list) or {str(key) for key in keys} != set(storages):
        raise pickle.UnpicklingError("its list of storages does not fit")
    for key in keys:
        storage = storages[str(key)]
        assert storage.dtype is not None
        declared = int.from_bytes(content[at : at + 8], "little")
        start, size = at + 8, storage.elements * storage.dtype.itemsize
        at = start + size
        if declared != storage.elements or at > len(content):
            raise pickle.UnpicklingError(f"storage {key} has {declared:,} elements, not {storage.elements:,}")
        storage.read = lambda start=start, end=at: content[start:end]  # type: ignore[misc]
    return found


def described(pid: object) -> tuple[str, torch.dtype, int]:
    """Key, type and elements of a storage that lies outside of a pickle.

    Raises:
        pickle.UnpicklingError: it is no such description.
    """
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], StorageType):
        raise pickle.UnpicklingError("it refers to something that is no storage")
    key, elements = pid[2], pid[4]
    if not isinstance(key, (str, int)):
        raise pickle.UnpicklingError("a storage without a name")
    if type(elements) is not int or not 0 <= elements < 2**40:
        raise pickle.UnpicklingError("a storage without a size")
    if len(pid) > 5 and pid[5] is not None:
        raise pickle.UnpicklingError("a storage within a storage")
    return str(key), pid[1].dtype, elements


def embedded_storage(content: object) -> LazyStorage:
    """A storage whose file lies within a pickle, as NVIDIA's files have them.

    Raises:
        pickle.UnpicklingError: it is something else.
    """
    data = memoryview(bytes_of(content))

    def open_storage() -> LazyStorage:
        storage = read_legacy(data)
        if not isinstance(storage, LazyStorage):
            raise pickle.UnpicklingError("an embedded file without a storage")
        return storage

    # Opened when it is read: two of the three networks in such a file are not. It has fewer elements than bytes.
    return LazyStorage(None, len(data), lambda: b"", open_storage)
