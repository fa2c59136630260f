"""Throughput and memory of the scores beside their bare extractors: `python benchmarks/metrics.py` (evaluation)."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from sisug.common.provenance import machine
from sisug.metrics import FrechetDistance, InceptionFeatures, NamedExtractor, RealismScores
from sisug.segmentation.loading import judge_features

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "metrics"))
from inception_file import write_random_inception  # the tests' writer of such a file

BAR = 0.9


def main(arguments: Sequence[str] | None = None) -> None:
    """Print images a second of the bare network and of the scores, in turns within one run, then memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inception", type=Path, help="Inception's weights; random ones, as fast, where not given")
    parser.add_argument("--resolution", type=int, nargs="+", default=[64])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)

    facts = machine()
    say(f"{facts['cpu']}, {args.threads} threads, GPU {facts['gpu']}, on {args.device}; batches of {args.batch}")
    memory()  # first, while nothing else has made the process large
    with tempfile.TemporaryDirectory() as folder:
        inception = InceptionFeatures(args.inception or write_random_inception(Path(folder) / "random.pth"))
    say(f"best of {args.repeats} tries in turns; the Fréchet path is asked for {BAR:g} of the bare extractor or more")
    say(f"{'extractor':>28} {'px':>5} {'bare img/s':>11} {'frechet':>9} {'share':>6} {'all scores':>11} {'share':>6}")
    for network in (inception, judge_features()):
        for size in args.resolution:
            rates = throughput(network, size, args)
            bare, frechet, realism = rates.values()
            say(
                f"{NamedExtractor(network).name:>28} {size:>5} {bare:>11.1f} {frechet:>9.1f} {frechet / bare:>6.3f} "
                f"{realism:>11.1f} {realism / bare:>6.3f}"
            )


def throughput(network: nn.Module, size: int, args: argparse.Namespace) -> dict[str, float]:
    """Images a second of the network alone, of the Fréchet distance and of all scores."""
    network = network.to(args.device).eval()
    images = torch.rand(args.batch, 3, size, size, device=args.device) * 2 - 1
    frechet, realism = (kind(network).to(args.device) for kind in (FrechetDistance, RealismScores))

    @torch.no_grad()
    def bare() -> None:
        network(images)

    works: dict[str, Callable[[], object]] = {
        "bare": bare,
        "frechet": lambda: frechet.update(images, real=True),
        "realism": lambda: realism.update(images, real=True),
    }
    # On one core its own time counts, which other programs take nothing of.
    clock = time.process_time if args.device == "cpu" and args.threads == 1 else time.perf_counter
    best = dict.fromkeys(works, 0.0)
    calls = 1
    for turn in range(args.repeats + 1):  # the first one warms up
        for name, work in works.items():
            begun = clock()
            for _ in range(calls):
                work()
            if args.device != "cpu":
                torch.cuda.synchronize()
            passed = clock() - begun
            if turn:
                best[name] = max(best[name], calls * args.batch / passed)
            elif name == "bare":
                calls = max(1, round(1.0 / passed))  # about a second a try
    return best


def memory() -> None:
    """Peak memory after few and after many images: flat for the Fréchet distance, features' size for all scores."""
    for kind in (FrechetDistance, RealismScores):
        score = kind(Pixels())
        images = torch.rand(64, 3, 64, 64) * 2 - 1
        peaks = []
        for _ in range(3):
            for _ in range(50):
                score.update(images, real=True)
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        grown = (peaks[2] - peaks[0]) * 1024 / (100 * len(images))
        features = Pixels.num_features * 4 / 1024
        say(f"{kind.__name__}: {grown:.2f} kB of peak memory an image; features of one are {features:g} kB")


class Pixels(nn.Module):
    """As many features as Inception's, at no cost."""

    name, num_features = "pixels", 2048

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :2048]


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201  # a benchmark's result is its output


if __name__ == "__main__":
    main()
