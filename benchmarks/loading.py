"""Time to load a generator of 256 px from every family's file, beside a bare `torch.load` of the same tensors:
`python benchmarks/loading.py` (before stage 1).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from sisug.common.provenance import machine
from sisug.generators import load_generator
from sisug.generators.loading import load_network

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from generators.checkpoint_files import FAMILIES, large_model  # the tests' writers of such files

MEASURED = ("native", "rosinality-exported", "rosinality-legacy", "psp", "genforce", "tensorflow-4", "ada-3")
BAR = 3.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table: the network by itself, and the backbone with its fingerprint and memory layout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", default=MEASURED, choices=sorted(FAMILIES), metavar="FAMILY")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)

    facts = machine()
    say(f"{facts['cpu']}, {args.threads} threads; the best of {args.repeats} tries in turns, files in the page cache")
    model = large_model()
    bare, network, backbone = "torch.load", "load_network", "load_generator"
    best: dict[str, dict[str, float]] = {}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        tensors = Path(folder) / "tensors.pt"
        torch.save(model.generator, tensors)
        for family in args.families:
            path = FAMILIES[family](Path(folder) / "file", model)
            sizes[family] = path.stat().st_size
            works: dict[str, Callable[[], object]] = {
                bare: lambda: torch.load(tensors, weights_only=True),
                network: lambda path=path: load_network(path),
                backbone: lambda path=path: load_generator(path),
            }
            times = best.setdefault(family, dict.fromkeys(works, float("inf")))
            for _ in range(args.repeats + 1):  # the first try warms up, and counts where it is the best
                for name, work in works.items():
                    times[name] = min(times[name], seconds(work))
            path.unlink()
    # One file for all of them, so one best: what other programs do meanwhile only ever makes it slower.
    base = min(times[bare] for times in best.values())
    say(f"torch.load of the generator's tensors: {base:.3f} s; a ratio of at most {BAR:g} is asked for")
    say(f"{'family':>22} {'file MB':>8} {network:>14} {'ratio':>6} {backbone:>16} {'ratio':>6}")
    for family, times in best.items():
        columns = [
            f"{times[name]:>{width}.3f} {times[name] / base:>6.2f}" for name, width in ((network, 14), (backbone, 16))
        ]
        say(f"{family:>22} {sizes[family] / 1e6:>8.0f} {' '.join(columns)}")


def seconds(work: Callable[[], object]) -> float:
    """Time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201  # a benchmark's result is its output


if __name__ == "__main__":
    main()
