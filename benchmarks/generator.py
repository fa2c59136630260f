"""Speed of the generator's forward pass: `python benchmarks/generator.py` (every stage draws its images with it).

sisug's synthesis network beside the same network written as the papers say (convolutions with weights of each sample's
own in groups, transposed convolutions and a FIR filter, float32 in PyTorch's default layout), with the same random
weights. How freed memory is kept is a matter of the whole process, so there are two: one as sisug's commands have it,
one as PyTorch comes. All sides take turns within one run, so that a busy machine slows them alike, and medians are
printed. The peak is what a large matrix product reaches in the same turns.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from plain.stylegan2 import plain_images
from torch import Tensor, nn

from sisug.common.memory import keep_freed_memory
from sisug.common.provenance import machine
from sisug.generators import Generator
from sisug.generators.stylegan2 import SynthesisLayer, SynthesisNetwork
from sisug.generators.stylegan2_backbone import StyleGAN2Backbone

MATRIX = 2048  # rows and columns of the product that gives the peak
BAR = 1.5
BOUNDS = {"sisug fp32": 1e-5, "sisug bf16": 0.05, "plain bf16": 0.2}  # of the largest value of an image


def generator_of(resolution: int, channel_base: int, channel_max: int, mapping_layers: int) -> Generator:
    """Random weights, with noise that shows."""
    torch.manual_seed(0)
    sizes = [4 * 2**i for i in range((resolution // 4).bit_length())]
    channels = {size: min(channel_max, channel_base // size) for size in sizes}
    generator = Generator(512, 512, channels, mapping_layers=mapping_layers)
    for layer in generator.modules():
        if isinstance(layer, SynthesisLayer):
            nn.init.constant_(layer.noise_strength, 0.3)
    return generator.requires_grad_(False)


def multiply_adds(synthesis: SynthesisNetwork) -> int:
    """Multiplications with an addition that one image takes, by formula: convolutions, styles, FIR filters."""
    total = 0
    for resolution in synthesis.resolutions:
        block, pixels = synthesis.block(resolution), resolution**2
        for layer in [block.conv1] if block.first else [block.conv0, block.conv1]:
            out, into, height, width = layer.weight.shape
            # A transposed convolution of stride 2 goes over the smaller input.
            total += out * into * height * width * (pixels // 4 if layer.upsample else pixels)
            total += layer.affine.weight.numel() + out * into * height * width  # styles, demodulation
            if layer.upsample:
                total += out * layer.resample_filter.numel() * pixels
        if block.torgb is not None:
            total += block.torgb.weight.numel() * pixels + block.torgb.affine.weight.numel()
            if not block.first:
                # Zeros between pixels are left out.
                total += synthesis.img_channels * block.resample_filter.numel() * pixels // 4
    return total


def sides(generator: Generator, ws: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Calls that draw the same images, by name; the last is what the others are compared with."""
    plain = copy.deepcopy(generator.synthesis)
    half_plain = copy.deepcopy(generator.synthesis).bfloat16()
    sisug = StyleGAN2Backbone(copy.deepcopy(generator))
    half = StyleGAN2Backbone(copy.deepcopy(generator), split=4, precision="bf16")
    return {
        "sisug fp32": lambda: sisug.generator.synthesis(ws),
        "sisug bf16": lambda: half.render(half.features(ws), ws),
        "plain bf16": lambda: plain_images(half_plain, ws.bfloat16(), transposed=True).float(),
        "plain fp32": lambda: plain_images(plain, ws, transposed=True),
    }


def differences(calls: dict[str, Callable[[], Tensor]]) -> dict[str, float]:
    """Largest difference of each side's images from the last one's, relative to the largest value.

    Raises:
        AssertionError: they are not the same function.
    """
    *others, reference = calls
    expected = calls[reference]()
    found = {name: float((calls[name]() - expected).abs().max() / expected.abs().max()) for name in others}
    for name, difference in found.items():
        assert difference < BOUNDS[name], f"{name} differs from {reference} by {difference:.1e}"
    return found


class Worker:
    """A process that draws images when it is told to and is idle otherwise.

    Args:
        keep: keep freed memory, as sisug's commands do.
        threads: of PyTorch.
        sizes: arguments of `generator_of`.
    """

    def __init__(self, keep: bool, threads: int, sizes: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        context.Process(target=serve, args=(end, keep, threads, sizes), daemon=True).start()
        end.close()

    def ask(self, what: str | int) -> Any:
        """An answer of the process."""
        self.pipe.send(what)
        return self.pipe.recv()


@torch.inference_mode()
def serve(pipe: Connection, keep: bool, threads: int, sizes: Sequence[int]) -> None:
    """The worker's process, which ends with its parent. A number is a batch size to prepare, and the largest
    differences come back; a name is a call to time.
    """
    torch.set_num_threads(threads)
    if keep:
        keep_freed_memory()
    generator = generator_of(*sizes)
    matrices = {"peak fp32": torch.randn(MATRIX, MATRIX), "peak bf16": torch.randn(MATRIX, MATRIX).bfloat16()}
    products = {name: partial(torch.matmul, matrix, matrix) for name, matrix in matrices.items()}
    drawn: dict[str, Callable[[], Tensor]] = {}
    while True:
        try:
            what = pipe.recv()
        except EOFError:
            return
        if isinstance(what, int):
            z = torch.randn(what, generator.z_dim, generator=torch.Generator().manual_seed(1))
            drawn = sides(generator, generator.mapping(z))
            pipe.send(differences(drawn))
        else:
            call = (drawn | products)[what]
            begun = time.perf_counter()
            call()
            pipe.send(time.perf_counter() - begun)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for every batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=256, help="pixels")
    parser.add_argument("--channel-base", type=int, default=16384)
    parser.add_argument("--channel-max", type=int, default=512)
    parser.add_argument("--mapping-layers", type=int, default=8)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=20.0, help="measuring time of a batch size")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)

    facts = machine()
    say(f"{facts['cpu']}, {args.threads} of {facts['cores']} cores; torch {torch.__version__}")
    sizes = (args.resolution, args.channel_base, args.channel_max, args.mapping_layers)
    with torch.device("meta"):
        operations = multiply_adds(generator_of(*sizes).synthesis)
    say(f"{args.resolution} px: {operations / 1e9:.2f} G multiply-adds an image, two operations each")
    keeping, plain = (Worker(keep, args.threads, sizes) for keep in (True, False))
    for batch in args.batch:
        report(keeping, plain, batch, operations, args.seconds)


def report(keeping: Worker, plain: Worker, batch: int, operations: int, seconds: float) -> None:
    """The table of one batch size."""
    found = keeping.ask(batch)
    plain.ask(batch)
    say("")
    say(f"batch {batch}; largest difference from plain fp32, of the largest value: {listed(found)}")
    rows = {
        "sisug fp32": (keeping, "sisug fp32"),
        "sisug bf16": (keeping, "sisug bf16"),
        "plain fp32": (plain, "plain fp32"),
        "plain bf16": (plain, "plain bf16"),
        "sisug fp32, giving memory back": (plain, "sisug fp32"),
        "plain fp32, keeping memory": (keeping, "plain fp32"),
    }
    times = in_turns(rows | {name: (keeping, name) for name in ("peak fp32", "peak bf16")}, seconds)
    peaks = {name[-4:]: 2 * MATRIX**3 / min(times[name]) for name in ("peak fp32", "peak bf16")}
    base = statistics.median(times["plain fp32"])
    say(f"{'':<31} {'images/s':>9} {'ms/image':>9} {'ratio':>6} {'GFLOP/s':>8} {'of peak':>8} {'spread':>7} calls")
    for name, (_, call) in rows.items():
        median = statistics.median(times[name])
        rate = 2 * operations * batch / median
        say(
            f"{name:<31} {batch / median:>9.2f} {1000 * median / batch:>9.1f} {base / median:>6.2f} "
            f"{rate / 1e9:>8.0f} {rate / peaks[call[-4:]]:>8.0%} {spread(times[name]):>7.0%} {len(times[name]):>5}"
        )
    ratio = base / statistics.median(times["sisug fp32"])
    reached = ", ".join(f"{name} {peak / 1e9:.0f}" for name, peak in peaks.items())
    say(f"peak, of a product of matrices of {MATRIX} x {MATRIX} in the same turns (the best one): {reached} GFLOP/s")
    say(f"fp32: {ratio:.2f} times as fast as plain; the bar is {BAR:g}: {'met' if ratio >= BAR else 'NOT met'}")


def in_turns(tasks: dict[str, tuple[Worker, str]], seconds: float) -> dict[str, list[float]]:
    """Seconds of each call, never two at once, until the time is up; three rounds at least, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for worker, call in tasks.values():
        worker.ask(call)
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or min(map(len, times.values())) < 3:
        for name, (worker, call) in tasks.items():
            times[name].append(worker.ask(call))
    return times


def spread(times: Sequence[float]) -> float:
    """Middle half of the calls, in shares of the median."""
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return (high - low) / median


def listed(values: dict[str, float]) -> str:
    """Names and numbers in a line."""
    return ", ".join(f"{name} {value:.0e}" for name, value in values.items())


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201  # a benchmark's result is its output


if __name__ == "__main__":
    main()
