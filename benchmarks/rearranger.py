"""Throughput of each part of the rearranger's training, and its memory: `python benchmarks/rearranger.py` (stage 1).

First a table of parts, on the shipped generator with the default settings of RearrangerModule and OnlineClustering.
Float32 and bf16-mixed take turns within one run, so that a busy machine slows both alike; medians are printed. Then
time and peak memory of a training step by split and precision, each in a fresh process.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from sisug.common.provenance import machine
from sisug.data.latents import LatentDataModule
from sisug.generators import Features
from sisug.generators.losses import discriminator_adversarial_loss, r1_penalty
from sisug.proxies import OnlineClustering, fit_kmeans
from sisug.rearranger import RearrangerModule

PRECISIONS = ("32-true", "bf16-mixed")
KMEANS_ITERATIONS = 10
SPLITS = (32, 64)


@dataclass
class Part:
    """One line of the table.

    Args:
        name: what is timed.
        call: does it once under a precision, and gives the seconds that it took.
        count: images, or rows times iterations, of a call.
        unit: of the count.
        precisions: under which it is timed; one where the code itself keeps to float32.
    """

    name: str
    call: Callable[[str], float]
    count: int
    unit: str = "images"
    precisions: tuple[str, ...] = PRECISIONS


def timed(work: Callable[[], object], *, gradients: bool = False) -> Callable[[str], float]:
    """A call that times some work."""

    def call(precision: str) -> float:
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"),
            torch.set_grad_enabled(gradients),
        ):
            begun = time.perf_counter()
            work()
            return time.perf_counter() - begun

    return call


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--seconds", type=float, default=4.0, help="measuring time of a line, each precision")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    prepare(args.threads)

    facts = machine()
    where = f"{facts['cpu']}, {args.threads} of {facts['cores']} cores"
    say(f"{where}; torch {torch.__version__}; {args.batch} images a step")
    module = RearrangerModule()
    take_turns(parts_of(module, args.batch), args.seconds)
    say("rows/s: rows times iterations; spread: middle half of the float32 calls, in shares of the median")
    say("")
    say(f"{'training step':<14} {'precision':<12} {'ms/image':>9} {'peak MB':>9} {'of that training':>17}")
    for split in SPLITS:
        for precision in PRECISIONS:
            # A fresh process: the peak of a process never falls.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                case = (split, precision, args.batch, args.threads, args.seconds)
                seconds, before, peak = pool.apply(step_in_a_fresh_process, case)
            per_image = 1000 * seconds / args.batch
            say(f"split {split:<8} {precision:<12} {per_image:>9.1f} {peak:>9,.0f} {peak - before:>17,.0f}")


def parts_of(module: RearrangerModule, batch: int) -> list[Part]:
    """Every part of a training step, on features of random samples and a codebook fitted to them."""
    clustering = OnlineClustering()
    trainer = quiet_trainer("32-true")
    module.trainer = trainer
    trainer.strategy.connect(module)
    clustering.cluster(trainer, module)
    generator, codebook = module.generator, module.codebook
    rearranger, discriminator = module.rearranger, module.discriminator

    with torch.no_grad():
        z = torch.randn(batch, generator.z_dim, generator=torch.Generator().manual_seed(0))
        ws = generator.map(z)
        features = generator.features(ws)
        images = generator.render(features, ws)
        mask = codebook.assign(features.map)
        many = torch.randn(256, generator.z_dim, generator=torch.Generator().manual_seed(1))
        rows = codebook.rows(torch.cat([generator.features(generator.map(some)).map for some in many.split(64)]))
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(2))[:65536]]
    target = mask.roll(1, dims=0)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.0)  # the work of a step, without its effect

    def backward() -> None:
        rearranger.zero_grad()
        result: Features = rearranger(features, mask, target, ws)
        (result.map.square().mean() + result.rgb.square().mean()).backward()

    def discriminator_step() -> None:
        optimizer.zero_grad()
        discriminator_adversarial_loss(
            discriminator(images, mask).float(), discriminator(images, target).float()
        ).backward()
        optimizer.step()

    def r1_step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", enabled=False):
            r1_penalty(lambda x: discriminator(x, mask), images).backward()
        optimizer.step()

    float32 = PRECISIONS[:1]
    cycle = module.r1_every  # steps of which one has the gradient penalty
    kmeans = partial(fit_kmeans, rows, codebook.clusters, seed=0, iterations=KMEANS_ITERATIONS)
    refresh = partial(clustering.cluster, trainer, module)
    return [
        Part("generator: features", timed(lambda: generator.features(generator.map(z))), batch, precisions=float32),
        Part("generator: render", timed(lambda: generator.render(features, ws)), batch),
        Part("codebook: assign", timed(lambda: codebook.assign(features.map)), batch, precisions=float32),
        Part("codebook: k-means", timed(kmeans), len(rows) * KMEANS_ITERATIONS, "rows", float32),
        Part("codebook: online refresh", timed(refresh), clustering.sample_images, precisions=float32),
        Part("rearranger: forward", timed(lambda: rearranger(features, mask, target, ws)), batch),
        Part("rearranger: forward, backward", timed(backward, gradients=True), batch),
        Part("discriminator: step", timed(discriminator_step, gradients=True), batch),
        Part("discriminator: R1 step", timed(r1_step, gradients=True), batch, precisions=float32),
        Part("whole training step", lambda precision: train(module, batch, cycle, precision), batch * cycle),
    ]


def train(module: RearrangerModule, batch: int, steps: int, precision: str) -> float:
    """Seconds that some training steps take, from the first one on."""
    module.images_seen.zero_()
    data = LatentDataModule(images_per_epoch=batch * steps, val_pairs=2, test_pairs=2, batch_size=batch)
    begun: list[float] = []
    trainer = quiet_trainer(precision)
    module.on_train_start = lambda: begun.append(time.perf_counter())  # type: ignore[method-assign]
    trainer.fit(module, datamodule=data)
    return time.perf_counter() - begun[0]


def quiet_trainer(precision: str) -> Trainer:
    """One epoch on the CPU, without files or bars."""
    return Trainer(
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]  # a Literal of many
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def take_turns(parts: Sequence[Part], seconds: float) -> None:
    """Measure each part under its precisions in turns, and print its line."""
    say(f"{'part':<30} {'float32':>18} {'bf16-mixed':>18} {'ratio':>6} {'spread':>7} {'calls':>6}")
    for part in parts:
        once = {precision: part.call(precision) for precision in part.precisions}  # warms up, too
        rounds = 5 if 5 * max(once.values()) < seconds else 3
        times: dict[str, list[float]] = {precision: [] for precision in part.precisions}
        for _ in range(rounds):
            for precision in part.precisions:
                calls = max(1, round(seconds / rounds / once[precision]))
                times[precision] += [part.call(precision) for _ in range(calls)]
        say(line_of(part, times))


def line_of(part: Part, times: Mapping[str, Sequence[float]]) -> str:
    """Median rates, their ratio, and how far the float32 calls spread."""
    medians = {precision: statistics.median(values) for precision, values in times.items()}
    rates = [f"{part.count / medians[p]:>9,.0f} {part.unit}/s" if p in medians else "" for p in PRECISIONS]
    ratio = f"{medians[PRECISIONS[0]] / medians[PRECISIONS[1]]:.2f}" if len(medians) == len(PRECISIONS) else ""
    low, median, high = statistics.quantiles(times[PRECISIONS[0]], n=4)
    spread = (high - low) / median
    return f"{part.name:<30} {rates[0]:>18} {rates[1]:>18} {ratio:>6} {spread:>7.0%} {len(times[PRECISIONS[0]]):>6}"


def step_in_a_fresh_process(
    split: int, precision: str, batch: int, threads: int, seconds: float
) -> tuple[float, float, float]:
    """Seconds of a training step, and resident memory in MB before training and at its peak."""
    prepare(threads)
    module = RearrangerModule(split=split)
    module.codebook.update(torch.randn_like(module.codebook.centroids), 1.0, module.codebook.rows_seen, 0)
    before = resident_mb("VmRSS")
    once = train(module, batch, 2, precision) / 2  # the first of them takes R1 too
    steps = max(2, round(seconds / once))
    return train(module, batch, steps, precision) / steps, before, resident_mb("VmHWM")


def resident_mb(field_name: str) -> float:
    """Memory of this process, from the kernel (`getrusage` starts from the parent's peak)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field_name].split()[0]) * 1024 / 1e6


def prepare(threads: int) -> None:
    """Threads as asked for, and silence but for the tables."""
    torch.set_num_threads(threads)
    for name in ("lightning.pytorch", "sisug"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201  # a benchmark's result is its output


if __name__ == "__main__":
    main()
