"""Pairs a second of the drawn avatars, drawn and cached: `python benchmarks/avatars.py` (data of all stages)."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from sisug.common.provenance import machine
from sisug.data.avatars import AvatarsDataset, MaterialisedAvatars


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each way to get avatars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=2000, help="avatars")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw or read")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    say(f"{machine()['cpu']}; {args.length} avatars of {args.resolution} px, batches of {args.batch}")
    drawn = AvatarsDataset("test", args.length, args.resolution)
    report("drawn in this process", drawn, args.batch, 0)
    report(f"drawn by {args.workers} workers", drawn, args.batch, args.workers)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        cached = MaterialisedAvatars("test", args.length, args.resolution, Path(folder), num_processes=args.workers)
        rate("written to the cache", args.length, time.perf_counter() - start)
        report("cached, read in this process", cached, args.batch, 0)
        report(f"cached, read by {args.workers} workers", cached, args.batch, args.workers)


def report(name: str, dataset: Dataset[Any], batch: int, workers: int) -> None:
    """Time one pass; the start of workers is left out, as they live for a whole training."""
    loader = DataLoader(dataset, batch_size=batch, num_workers=workers, persistent_workers=workers > 0)
    if workers:
        next(iter(loader))
    start = time.perf_counter()
    pairs = sum(len(batch["image"]) for batch in loader)
    rate(name, pairs, time.perf_counter() - start)


def rate(name: str, pairs: int, seconds: float) -> None:
    """Print a rate."""
    say(f"{name:<30} {pairs / seconds:>8.0f} image+mask pairs/s")


def say(line: str) -> None:
    """Print a line of the result."""
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
