"""Which weights these are (generators), and whether a file is whole."""

from __future__ import annotations

import hashlib
import mmap
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

CHUNK = 2**22
"""Bytes of a file that are summed up at a time."""


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values in float32: the same weights give the same value in every file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().float().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(path: Path) -> str:
    """CRC-32 of every 4 MB of a file, and of those together: quick enough for every load, which SHA-256 is not.

    It finds damage, not intent.

    Args:
        path: the file.
    """
    size = path.stat().st_size
    if size == 0:
        return "00000000"
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ThreadPoolExecutor(max_workers=torch.get_num_threads()) as threads,
    ):
        parts = list(threads.map(lambda at: _crc32(mapped, at), range(0, size, CHUNK)))
    return f"{zlib.crc32(b''.join(part.to_bytes(4, 'little') for part in parts)):08x}"


def _crc32(mapped: mmap.mmap, at: int) -> int:
    with memoryview(mapped) as whole, whole[at : at + CHUNK] as part:
        return zlib.crc32(part)
