"""Files of torch since 1.6 (every stage): a zip archive with one pickle, and an entry for each storage."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from typing import Any, BinaryIO

from sisug.common.torch_files.arrays import LazyStorage
from sisug.common.torch_files.pickles import read_pickle
from sisug.common.torch_files.torch_legacy import described
from sisug.errors import CheckpointError

MOST_DIRECTORY = 4_000_000
"""Bytes of an archive's directory: 40,000 entries."""

HEADER = 30
"""Bytes of an entry's header before its name."""


def read_zip(file: BinaryIO, content: memoryview, *, strict: bool = False) -> Any:
    """The object in such a file.

    Args:
        file: the file, open.
        content: the whole of it; entries are read from it when they are needed.
        strict: of ``read_pickle``.

    Raises:
        CheckpointError: the file names something that is not on the list, or is a program.
        pickle.UnpicklingError: it is damaged, or torch did not write it.
    """
    if directory_size(content) > MOST_DIRECTORY:
        raise pickle.UnpicklingError("a zip archive of more entries than any checkpoint has")
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError) as error:
        raise pickle.UnpicklingError(f"a zip archive that is cut short or damaged ({error})") from error
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise pickle.UnpicklingError("a zip archive that torch did not write")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries or any(name.startswith(f"{root}code/") for name in entries):
        raise CheckpointError(
            "the file is a TorchScript program",
            "opening it would run what it contains, and its weights have no names that sisug knows",
            "give the checkpoint that it was made from",
        )
    order = entries.get(f"{root}byteorder")
    if order is not None and bytes(entry_bytes(content, order)) != b"little":
        raise pickle.UnpicklingError("numbers in the byte order of other machines")
    storages: dict[str, LazyStorage] = {}

    def storage_of(pid: object) -> LazyStorage:
        key, dtype, elements = described(pid)
        entry = entries.get(f"{root}data/{key}")
        if entry is None or entry.file_size != elements * dtype.itemsize:
            found = "none" if entry is None else f"{entry.file_size:,} bytes"
            raise pickle.UnpicklingError(f"storage {key[:20]} of {elements:,} elements has an entry of {found}")
        made = storages.setdefault(key, LazyStorage(dtype, elements, lambda: entry_bytes(content, entry)))
        if made.dtype != dtype:
            raise pickle.UnpicklingError(f"storage {key[:20]} is described in two ways")
        return made

    return read_pickle(entry_bytes(content, entries[pickles[0]]), storage_of, strict=strict)[0]


def directory_size(content: memoryview) -> int:
    """Bytes of the archive's directory, which is read as a whole.

    Raises:
        pickle.UnpicklingError: there is none.
    """
    start = max(0, len(content) - 2**16 - 22)
    tail = bytes(content[start:])
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise pickle.UnpicklingError("a zip archive that is cut short: it has no directory")
    size = int.from_bytes(tail[at + 12 : at + 16], "little")
    if tail[at - 20 : at - 16] != b"PK\x06\x07":
        return size
    large = int.from_bytes(tail[at - 12 : at - 4], "little")  # where the record of a large archive lies
    return max(size if size < 2**32 - 1 else 0, int.from_bytes(content[large + 40 : large + 48], "little"))


def entry_bytes(content: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """Bytes of an entry, checked against its checksum.

    Raises:
        pickle.UnpicklingError: it is compressed, reaches beyond the file or is damaged.
    """
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise pickle.UnpicklingError("a compressed zip archive, which torch does not write")
    header = content[entry.header_offset : entry.header_offset + HEADER]
    if len(header) < HEADER or bytes(header[:4]) != b"PK\x03\x04":
        raise pickle.UnpicklingError(f"a damaged entry {entry.filename[:50]}")
    start = entry.header_offset + HEADER
    start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    found = content[start : start + entry.file_size]
    if len(found) != entry.file_size or zlib.crc32(found) != entry.CRC:
        raise pickle.UnpicklingError(f"a damaged entry {entry.filename[:50]}: its checksum does not fit")
    return found
