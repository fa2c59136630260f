"""Throughput of each part of a generator's training step: `python benchmarks/generator-training.py` (before stage 1).

The step of experiments/train-generator/avatars.yaml as sisug trains it, beside the same step written as the papers'
formulas say, in float32 and with the same weights. Each side has a process of its own, since how freed memory is kept
is a matter of the whole process; they take turns within one run, so that a busy machine slows both alike, and medians
are printed. Then what each of sisug's measures gives, and how long its training steps wait for their data.
"""

from __future__ import annotations

import argparse
import copy
import logging
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from plain.stylegan2 import plain_images, plain_logits, plain_styles
from torch import Tensor, nn

from sisug.common.memory import keep_freed_memory
from sisug.common.provenance import machine
from sisug.data.avatars.datamodule import AvatarsDataModule
from sisug.generators.losses import generator_adversarial_loss, r1_penalty
from sisug.generators.module import GeneratorModule
from sisug.generators.stylegan2 import SynthesisLayer
from sisug.training.throughput import Throughput

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "train-generator" / "avatars.yaml"
TRAIN_LENGTH = 2000  # avatars to draw, once a machine
PARTS = ("generator step", "discriminator step", "R1 penalty", "average of weights", "data")
WHOLE = "whole step"
TURN = 6  # steps of a turn: one to start with, then five that count, of which one takes R1
BAR = 2.0


# --- the plain side ---------------------------------------------------------------------------------------------------


class PlainTraining:
    """The training step as StyleGAN2's algorithm has it: each player's step draws samples of its own."""

    def __init__(self, module: GeneratorModule, data: AvatarsDataModule, *, transposed: bool = False) -> None:
        self.settings, self.transposed = module, transposed
        self.generator, self.discriminator = module.generator, module.discriminator
        as_nchw(module)
        self.average = copy.deepcopy(self.generator)
        # Rates of 0 throughout: the work of a step, without its effect.
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=0.0, betas=(0.0, 0.99))
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=0.0, betas=(0.0, 0.99))
        self.batches = batches(data, connected(module, "32-true"))
        self.real = next(self.batches)

    def parts(self) -> dict[str, Callable[[], float]]:
        """Every part as a call that gives its seconds."""
        works: list[Callable[[], object]] = [
            self.generator_step,
            lambda: self.discriminator_step(self.real),
            self.penalty_alone,
            self.move_average,
            lambda: next(self.batches),
        ]
        return {name: timed(work) for name, work in zip(PARTS, works, strict=True)}

    def whole(self) -> float:
        """Mean seconds of a step over a cycle of the gradient penalty."""
        ends = []
        for i in range(TURN):
            real = next(self.batches)
            self.generator_step()
            self.discriminator_step(real, penalise=i == 2)
            self.move_average()
            ends.append(time.perf_counter())
        return mean_over_cycle(ends, self.settings.r1_every)

    def generator_step(self) -> None:
        self.generator.requires_grad_(True)
        self.discriminator.requires_grad_(False)
        loss = F.softplus(-plain_logits(self.discriminator, self.samples())).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def discriminator_step(self, real: Tensor, *, penalise: bool = False) -> None:
        self.generator.requires_grad_(False)
        self.discriminator.requires_grad_(True)
        fake = self.samples()
        loss = F.softplus(plain_logits(self.discriminator, fake)).mean()
        loss = loss + F.softplus(-plain_logits(self.discriminator, real)).mean()
        if penalise:
            loss = loss + self.penalty(real)
        self.discriminator_optimizer.zero_grad()
        loss.backward()
        self.discriminator_optimizer.step()

    def penalty(self, real: Tensor) -> Tensor:
        real = real.clone().requires_grad_(True)
        logits = plain_logits(self.discriminator, real)
        (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        weight = self.settings.r1_gamma / 2 * self.settings.r1_every
        return gradient.square().sum(dim=(1, 2, 3)).mean() * weight

    def penalty_alone(self) -> None:
        self.discriminator.requires_grad_(True)
        self.discriminator_optimizer.zero_grad()
        self.penalty(self.real).backward()

    def samples(self) -> Tensor:
        """Images of new latents, with their styles mixed."""
        mapping = self.generator.mapping
        w = plain_styles(mapping, torch.randn(len(self.real), self.generator.z_dim))
        mapping.w_avg.copy_(w.detach().mean(dim=0).lerp(mapping.w_avg, 0.998))
        ws = w[:, None].repeat(1, mapping.num_ws, 1)
        if torch.rand(()) < self.settings.style_mixing:
            first = int(torch.randint(1, mapping.num_ws, ()))
            other = plain_styles(mapping, torch.randn(len(self.real), self.generator.z_dim))
            ws[:, first:] = other[:, None]
        return plain_images(self.generator.synthesis, ws, "random", transposed=self.transposed)

    @torch.no_grad()
    def move_average(self) -> None:
        for averaged, trained in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            averaged.copy_(trained.lerp(averaged, 0.999))


# --- sisug's side -----------------------------------------------------------------------------------------------------


class SisugParts:
    """The parts of GeneratorModule's training step, each by itself."""

    def __init__(self, module: GeneratorModule, data: AvatarsDataModule, precision: str) -> None:
        self.module = module
        trainer = connected(module, precision)
        trainer.optimizers = module.configure_optimizers()
        self.context = trainer.precision_plugin.train_step_context
        self.optimizer, self.discriminator_optimizer = cast(list[LightningOptimizer], module.optimizers())
        self.batches = batches(data, trainer)
        self.real = self.next_batch()
        with self.context():
            self.fake = self.samples().detach()

    def parts(self) -> dict[str, Callable[[], float]]:
        """Every part as a call that gives its seconds."""
        module, size = self.module, len(self.real)
        works: list[Callable[[], object]] = [
            self.generator_step,
            lambda: module._train_discriminator(self.discriminator_optimizer, self.real, self.fake, False),
            self.penalty_alone,
            lambda: module.average.update(module.generator, size),
            self.next_batch,
        ]
        return {name: timed(work, self.context) for name, work in zip(PARTS, works, strict=True)}

    def next_batch(self) -> Tensor:
        return next(self.batches).contiguous(memory_format=torch.channels_last)

    def samples(self) -> Tensor:
        size = len(self.real)
        return self.module.generator.synthesis(self.module._styles(size, size), "random")

    def generator_step(self) -> None:
        with self.module.toggled_optimizer(self.optimizer):
            loss = generator_adversarial_loss(self.module._judge(self.samples()))
            self.optimizer.zero_grad()
            self.module.manual_backward(loss)
            self.optimizer.step()

    def penalty_alone(self) -> None:
        with self.module.toggled_optimizer(self.discriminator_optimizer):
            penalty = r1_penalty(self.module._judge, self.real)
            self.discriminator_optimizer.zero_grad()
            self.module.manual_backward(penalty * (self.module.r1_gamma / 2 * self.module.r1_every))


class SecondPass(GeneratorModule):
    """Makes new samples for the discriminator's step."""

    def _train_discriminator(self, optimizer: Any, real: Tensor, fake: Tensor, penalise: bool) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.generator.synthesis(self._styles(len(real), len(real)), "random")
        return super()._train_discriminator(optimizer, real, fake, penalise)


def in_nchw(module: GeneratorModule) -> GeneratorModule:
    """The module without channels_last anywhere."""

    def contiguous(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return inputs[0].contiguous(), *inputs[1:]

    as_nchw(module)
    # Where the code asks for channels_last: the learnt constant, and the images.
    module.generator.synthesis.block(4).conv1.register_forward_pre_hook(contiguous)
    module.discriminator.register_forward_pre_hook(contiguous)
    return module


def as_nchw(network: nn.Module) -> None:
    """Weights in PyTorch's default layout; `to` takes 1x1 weights for both layouts and leaves them."""
    for parameter in network.parameters():
        parameter.data = torch.empty(parameter.shape).copy_(parameter.data)


class Clock(Callback):
    """Notes when each training batch begins and ends."""

    def __init__(self) -> None:
        self.begins: list[float] = []
        self.ends: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.begins.append(time.perf_counter())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.ends.append(time.perf_counter())


def whole(module: GeneratorModule, data: AvatarsDataModule, precision: str) -> float:
    """Mean seconds of a step over a cycle of the gradient penalty, Lightning and data included."""
    clock = Clock()
    module.images_seen.fill_((module.r1_every - 2) * data.batch_size)  # the third step takes R1
    quiet_trainer(precision, TURN, clock).fit(module, datamodule=data)
    return mean_over_cycle(clock.ends, module.r1_every)


def waits(module: GeneratorModule, data: AvatarsDataModule, precision: str, steps: int) -> list[tuple[float, float]]:
    """Seconds between the end of a step and the start of the next, and seconds of the latter."""
    clock = Clock()
    quiet_trainer(precision, steps, clock, Throughput()).fit(module, datamodule=data)
    ended, begun, next_ended = clock.ends[:-1], clock.begins[1:], clock.ends[1:]
    return [(start - end, stop - start) for end, start, stop in zip(ended, begun, next_ended, strict=True)]


def quiet_trainer(precision: str, steps: int, *callbacks: Callback) -> Trainer:
    """Some steps on the CPU, without files or bars."""
    return Trainer(
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]  # a Literal of many
        max_epochs=1,
        limit_train_batches=steps,
        limit_val_batches=0,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


# --- both sides -------------------------------------------------------------------------------------------------------


def connected(module: GeneratorModule, precision: str) -> Trainer:
    """A trainer that stands as if it were training the module."""
    trainer = quiet_trainer(precision, steps=1)
    module.trainer = trainer
    trainer.strategy.connect(module)
    trainer.training = True
    return trainer


def batches(data: AvatarsDataModule, trainer: Trainer) -> Iterator[Tensor]:
    """Training images without end, mirrored as in training."""
    data.trainer = trainer
    data.setup("fit")
    while True:
        for batch in data.train_dataloader():
            yield data.on_after_batch_transfer(batch, 0)["image"]


def timed(work: Callable[[], object], context: Callable[[], Any] = torch.enable_grad) -> Callable[[], float]:
    """A call that gives the seconds of some work."""

    def call() -> float:
        with context():
            begun = time.perf_counter()
            work()
            return time.perf_counter() - begun

    return call


def mean_over_cycle(ends: Sequence[float], every: int) -> float:
    """Mean seconds of a step, from when each step of a turn ended; the third took the penalty, as one in `every`."""
    first, with_penalty, *others = (end - begin for begin, end in pairwise(ends))
    return (with_penalty + (every - 1) * statistics.mean([first, *others])) / every


def agreement(module: GeneratorModule) -> tuple[float, float]:
    """Largest differences of images and logits between the sides, in float32, relative to the largest value.

    Raises:
        AssertionError: they are not the same function.
    """
    module = copy.deepcopy(module)
    for layer in module.generator.synthesis.modules():
        if isinstance(layer, SynthesisLayer):
            nn.init.constant_(layer.noise_strength, 0.3)
    generator, discriminator = module.generator, module.discriminator
    worst = [0.0, 0.0]
    for transposed in (False, True):
        with torch.no_grad():
            z = torch.randn(8, generator.z_dim, generator=torch.Generator().manual_seed(1))
            torch.manual_seed(2)
            images = generator(z, noise_mode="random")
            torch.manual_seed(2)
            ws = plain_styles(generator.mapping, z)[:, None].repeat(1, generator.mapping.num_ws, 1)
            plain = plain_images(generator.synthesis, ws, "random", transposed=transposed)
            pairs = [(images, plain), (discriminator(images), plain_logits(discriminator, images))]
        found = [float((ours - theirs).abs().max() / ours.abs().max()) for ours, theirs in pairs]
        worst = [max(pair) for pair in zip(worst, found, strict=True)]
    assert max(worst) < 1e-4, f"the sides differ: images by {worst[0]:.1e}, logits by {worst[1]:.1e}"
    return worst[0], worst[1]


@dataclass(frozen=True)
class Settings:
    """What both processes need.

    Args:
        model: arguments of GeneratorModule.
        resolution: of the images.
        batch: images a step.
        precision: that sisug trains in.
        threads: of PyTorch.
    """

    model: Mapping[str, Any]
    resolution: int
    batch: int
    precision: str
    threads: int

    @classmethod
    def of_experiment(cls, batch: int | None, threads: int) -> Settings:
        """Those of the avatars preset."""
        content = yaml.safe_load(EXPERIMENT.read_text())
        data = content["data"]["init_args"]
        model = {**content["model"]["init_args"], "resolution": data["resolution"]}
        return cls(model, data["resolution"], batch or data["batch_size"], content["trainer"]["precision"], threads)

    def module(self, kind: type[GeneratorModule] = GeneratorModule, **changes: Any) -> GeneratorModule:
        """Networks of the experiment's sizes, with the same weights in every process."""
        torch.manual_seed(0)
        return kind(**{**self.model, "learning_rate": 0.0, **changes})

    def data(self) -> AvatarsDataModule:
        """The experiment's data, but few of them."""
        return AvatarsDataModule(self.resolution, TRAIN_LENGTH, val_length=2, test_length=2, batch_size=self.batch)


Task = Callable[[int], list[Any]]


def repeated(call: Callable[[], float]) -> Task:
    """A task that does a call so many times."""
    return lambda calls: [call() for _ in range(calls)]


def sisug_tasks(settings: Settings) -> dict[str, Task]:
    """What the process that keeps freed memory can be told to do."""
    keep_freed_memory()
    precision, data = settings.precision, settings.data()
    module, nchw, second_pass = settings.module(), in_nchw(settings.module()), settings.module(SecondPass)
    calls: dict[str, Callable[[], float]] = {
        **SisugParts(settings.module(), settings.data(), precision).parts(),
        WHOLE: lambda: whole(module, data, precision),
        "float32": lambda: whole(module, data, "32-true"),
        "NCHW": lambda: whole(nchw, data, precision),
        "second pass": lambda: whole(second_pass, data, precision),
    }
    rate = settings.model["learning_rate"]
    return {name: repeated(call) for name, call in calls.items()} | {
        "waits": lambda steps: waits(settings.module(learning_rate=rate), data, precision, steps)
    }


def plain_tasks(settings: Settings) -> dict[str, Task]:
    """What the process that leaves memory to the system can be told to do."""
    module, data = settings.module(), settings.data()
    plain = PlainTraining(settings.module(), settings.data())
    transposed = PlainTraining(settings.module(), settings.data(), transposed=True)
    calls: dict[str, Callable[[], float]] = {
        **plain.parts(),
        WHOLE: plain.whole,
        "transposed": transposed.whole,
        "memory given back": lambda: whole(module, data, settings.precision),
    }
    return {name: repeated(call) for name, call in calls.items()} | {"agreement": lambda _: [agreement(module)]}


class Worker:
    """A process that does what it is told and is idle otherwise.

    Args:
        tasks: makes its tasks, in the process itself.
        settings: for them.
    """

    def __init__(self, tasks: Callable[[Settings], dict[str, Task]], settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        context.Process(target=serve, args=(end, tasks, settings), daemon=True).start()
        end.close()

    def run(self, name: str, calls: int = 1) -> list[Any]:
        """Do a task so many times, and wait for the results."""
        self.pipe.send((name, calls))
        results: list[Any] = self.pipe.recv()
        return results


def serve(pipe: Connection, make_tasks: Callable[[Settings], dict[str, Task]], settings: Settings) -> None:
    """The worker's process, which ends with its parent."""
    torch.set_num_threads(settings.threads)
    for name in ("lightning.pytorch", "sisug"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    tasks = make_tasks(settings)
    while True:
        try:
            name, calls = pipe.recv()
        except EOFError:
            return
        pipe.send(tasks[name](calls))


# --- the tables -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables, and the waiting times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, help="images a step (default: the experiment's)")
    parser.add_argument("--seconds", type=float, default=4.0, help="measuring time of a part, each side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    settings = Settings.of_experiment(args.batch, args.threads)

    facts = machine()
    say(f"{facts['cpu']}, {args.threads} of {facts['cores']} cores; torch {torch.__version__}")
    settings.data().prepare_data()  # draws what is missing before the processes look for it
    sisug, plain = Worker(sisug_tasks, settings), Worker(plain_tasks, settings)
    ((images, logits),) = plain.run("agreement")
    say(f"{settings.batch} images of {settings.resolution} px a step; both sides are the same function in float32:")
    say(f"images differ by at most {images:.0e}, logits by {logits:.0e} (of the largest value)")
    say("")

    say(f"{'images/s':<30} {'sisug':>9} {'plain':>9} {'ratio':>6} {'spread':>7} {'calls':>6}")
    for part in PARTS:
        times = in_turns({"sisug": (sisug, part), "plain": (plain, part)}, args.seconds)
        say(line_of(part, times["sisug"], times["plain"], settings.batch))
    steps = {
        "sisug": (sisug, WHOLE),
        "plain": (plain, WHOLE),
        "plain, with transposed convolutions": (plain, "transposed"),
        f"sisug in float32 instead of {settings.precision}": (sisug, "float32"),
        "sisug in NCHW instead of channels_last": (sisug, "NCHW"),
        "sisug giving freed memory back": (plain, "memory given back"),
        "sisug with a second pass of G for D": (sisug, "second pass"),
    }
    times = in_turns(steps, 3 * args.seconds)
    say(line_of(WHOLE, times["sisug"], times["plain"], settings.batch))
    every = settings.module().r1_every
    ratio = statistics.median(times["plain"]) / statistics.median(times["sisug"])
    say(f"the penalty is taken in one step of {every}; spread: middle half of the calls, in shares of the median")
    say(f"whole step: {ratio:.2f} times as fast as plain; the bar is {BAR:g}: {'met' if ratio >= BAR else 'NOT met'}")
    say("")

    say(f"{WHOLE + ' (ratio: sisug over this one)':<42} {'images/s':>9} {'ratio':>9} {'spread':>7} {'calls':>6}")
    best = statistics.median(times["sisug"])
    for name, values in times.items():
        median = statistics.median(values)
        say(
            f"{name:<42} {settings.batch / median:>9,.1f} {median / best:>9.2f} {spread(values):>7.0%} {len(values):>6}"
        )
    say("")

    count = min(TRAIN_LENGTH // settings.batch, max(10, round(10 * args.seconds / best)))
    report_waits(sisug.run("waits", count))


def report_waits(pairs: Sequence[tuple[float, float]]) -> None:
    """How long steps of a real training wait for what comes before them."""
    gaps, steps = [1000 * gap for gap, _ in pairs], [1000 * step for _, step in pairs]
    high = statistics.quantiles(gaps, n=100, method="inclusive")[98]
    median, step = statistics.median(gaps), statistics.median(steps)
    say(f"{len(pairs)} steps of Trainer.fit: between two, data and Lightning's bookkeeping take a median of")
    say(
        f"{median:.1f} ms, 99th percentile {high:.1f} ms, beside {step:.0f} ms a step: "
        f"{sum(gaps) / (sum(gaps) + sum(steps)):.1%} of the time"
    )


def in_turns(tasks: Mapping[str, tuple[Worker, str]], seconds: float) -> dict[str, list[float]]:
    """Measure tasks in turns, never two at once: seconds of each call."""
    walls: dict[str, float] = {}
    for name, (worker, task) in tasks.items():
        begun = time.perf_counter()
        worker.run(task)  # warms up, too
        walls[name] = time.perf_counter() - begun
    rounds = 5 if 5 * max(walls.values()) < seconds else 3
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, (worker, task) in tasks.items():
            times[name] += worker.run(task, max(1, round(seconds / rounds / walls[name])))
    return times


def line_of(name: str, sisug: Sequence[float], plain: Sequence[float], batch: int) -> str:
    """Median rates, their ratio, and the larger spread."""
    ours, theirs = statistics.median(sisug), statistics.median(plain)
    widest = max(spread(sisug), spread(plain))
    calls = min(len(sisug), len(plain))
    return f"{name:<30} {batch / ours:>9,.0f} {batch / theirs:>9,.0f} {theirs / ours:>6.2f} {widest:>7.0%} {calls:>6}"


def spread(times: Sequence[float]) -> float:
    """Middle half of the calls, in shares of the median."""
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return (high - low) / median


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201  # a benchmark's result is its output


if __name__ == "__main__":
    main()
