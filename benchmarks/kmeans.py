"""Time of the k-means backends side by side: `python benchmarks/kmeans.py` (stage 1, fitting the codebook)."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch

from sisug.common.provenance import machine
from sisug.errors import CodebookError
from sisug.proxies.kmeans import Backend, fit_kmeans

BACKENDS: tuple[Backend, ...] = ("faiss-cpu", "torch", "faiss-gpu")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of all backends that are there, measured in turns within one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=65536, help="feature vectors (64 samples at split 32)")
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--clusters", type=int, nargs="+", default=[25, 100])
    parser.add_argument("--iterations", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="where the rows lie: cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)

    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(60, args.channels, generator=generator)
    chosen = torch.randint(len(centres), (args.rows,), generator=generator)
    # Overlapping blobs: no backend converges before its iterations are used up.
    rows = centres[chosen] + 1.5 * torch.randn(args.rows, args.channels, generator=generator)
    rows = rows.to(args.device)

    facts = machine()
    say(f"{facts['cpu']}, {args.threads} threads, GPU {facts['gpu']}; {args.rows} rows of {args.channels} channels")
    say(f"{'clusters':>8} {'backend':>10} {'start s':>8} {'fit s':>8} {'rows/s':>12} {'inertia':>10} {'ratio':>6}")
    for clusters in args.clusters:
        seconds: dict[str, list[float]] = {}
        starts: dict[str, list[float]] = {}
        inertia: dict[str, float] = {}
        for repeat in range(
            args.repeats + 1
        ):  # the first one warms up; backends take turns, so that both see the same load
            for backend in BACKENDS:
                try:
                    begun = time.perf_counter()
                    # One iteration is nearly all k-means++; the rest of a full fit is Lloyd's.
                    fit_kmeans(rows, clusters, seed=0, iterations=1, backend=backend)
                    between = time.perf_counter()
                    fit = fit_kmeans(rows, clusters, seed=0, iterations=args.iterations, backend=backend)
                    ended = time.perf_counter()
                except CodebookError:  # a backend that this machine lacks
                    continue
                if repeat:
                    starts.setdefault(backend, []).append(between - begun)
                    seconds.setdefault(backend, []).append(ended - between)
                    inertia[backend] = fit.inertia
        base = statistics.median(seconds["torch"])
        for name, times in seconds.items():
            median = statistics.median(times)
            say(
                f"{clusters:>8} {name:>10} {statistics.median(starts[name]):>8.3f} {median:>8.3f} "
                f"{args.rows * args.iterations / median:>12,.0f} {inertia[name]:>10.4f} {base / median:>6.2f}"
            )
    say("start: centring, k-means++, one iteration; rows/s: rows times iterations; ratio: torch's time over this one's")


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201  # a benchmark's result is its output


if __name__ == "__main__":
    main()
