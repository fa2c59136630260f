"""Everything of sisug on this machine's GPUs, in one table and ten minutes: `make check-gpu`.

It needs an environment with sisug and a CUDA build of torch, no network and nobody beside it. Each part runs in a
process of its own with a time limit, so that one that fails, hangs or runs out of memory costs its own lines only;
every line has a number or the reason why there is none. `--cpu` tries the same out on the CPU, at small sizes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
EXPERIMENTS = REPOSITORY / "experiments"
MARK = "row: "
"""What a part's lines for the table begin with."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        part: what was tried.
        case: in which way.
        value: the figure; None where there is none.
        unit: of the figure.
        memory: peak of the GPU's memory, GB; None on a CPU.
        note: the reason for no figure, or what else is to be known.
    """

    part: str
    case: str
    value: float | None
    unit: str = ""
    memory: float | None = None
    note: str = ""

    def line(self) -> str:
        """The row for a terminal."""
        value = "-" if self.value is None else f"{self.value:,.4g}"
        memory = "" if self.memory is None else f"{self.memory:.1f} GB"
        return f"{self.part:<10} {self.case:<40} {value:>10} {self.unit:<10} {memory:>8}  {self.note}".rstrip()


@dataclass(frozen=True)
class Place:
    """Where a part runs.

    Args:
        device: cpu or cuda.
        folder: for files of the part.
        ends: time.time() at which the part should be done.
    """

    device: str
    folder: Path
    ends: float

    @property
    def on_cpu(self) -> bool:
        """Whether this is a trial without a GPU, at small sizes."""
        return self.device == "cpu"

    @property
    def accelerator(self) -> list[str]:
        """Options of `sisug fit` for this device."""
        return ["--trainer.accelerator", "cpu" if self.on_cpu else "gpu"]

    @property
    def left(self) -> float:
        """Seconds until the part should be done."""
        return self.ends - time.time()


def give(*values: Any, **others: Any) -> None:
    """Hand a row to the process that makes the table."""
    say(MARK + json.dumps(asdict(Row(*values, **others))))


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201  # a benchmark's result is its output


def reason(error: BaseException) -> str:
    """An error in a line."""
    if isinstance(error, subprocess.TimeoutExpired | TimeoutError):
        return "no time left"
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0][:160]}" if first else type(error).__name__


@contextmanager
def one_line(part: str, case: str) -> Iterator[None]:
    """An error within becomes the line of this case."""
    try:
        yield
    except (Exception, SystemExit) as error:  # whatever it is, the next line is tried
        give(part, case, None, note=reason(error))


def peak(place: Place) -> float | None:
    """Peak of the GPU's memory since the last call of `forget_peak`, GB."""
    import torch

    return None if place.on_cpu else torch.cuda.max_memory_allocated() / 1e9


def forget_peak(place: Place) -> None:
    """Begin to measure the peak of memory anew."""
    import torch

    if not place.on_cpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


# --- parts ---------------------------------------------------------------------------------------------------------


def part_machine(place: Place) -> None:
    """What is there."""
    import torch

    from sisug.common.provenance import machine

    facts = machine()
    give("machine", "CPU", os.cpu_count(), "cores", note=str(facts["cpu"]))
    give("machine", "torch", None, note=f"{torch.__version__}, CUDA {torch.version.cuda or 'none: a CPU build'}")
    if place.on_cpu:
        give("machine", "GPU", None, note="not asked for: --cpu")
    for number in range(0 if place.on_cpu else torch.cuda.device_count()):
        facts_of = torch.cuda.get_device_properties(number)
        capability = f"compute capability {facts_of.major}.{facts_of.minor}, bf16 {torch.cuda.is_bf16_supported()}"
        give("machine", f"GPU {number}", facts_of.total_memory / 1e9, "GB", note=f"{facts_of.name}, {capability}")


def part_tests(place: Place) -> None:
    """The tests that need a GPU."""
    files = [str(path) for path in sorted((REPOSITORY / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--no-header", *files]
    command += ["--collect-only"] if place.on_cpu else []
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=max(place.left, 1)
    )
    if "No module named pytest" in done.stderr:
        give("tests", "marked gpu", None, note="pytest is not installed")
        return
    last = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"])[-1]
    if place.on_cpu:
        found = re.search(r"(\d+)(?:/\d+)? tests? collected", last)
        give("tests", "marked gpu", None, note=f"{found[1] if found else 'no'} tests are there; not run without a GPU")
        return
    counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|error|skipped)", last)}
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, flags=re.MULTILINE)
    give("tests", "marked gpu", counts.get("passed"), "passed", note=", ".join([last.strip("= "), *failed])[:400])


def part_kmeans(place: Place) -> None:
    """The backends of k-means: time, and whether they give the same labels."""
    import torch

    from sisug.proxies.kmeans import Backend, fit_kmeans

    sizes = [(4096, 32, 16)] if place.on_cpu else [(65536, 512, 96), (262144, 512, 256)]
    for count, channels, clusters in sizes:
        stream = torch.Generator().manual_seed(0)
        centers = torch.randn(clusters, channels, generator=stream)
        chosen = torch.randint(clusters, (count,), generator=stream)
        rows = (centers[chosen] + 0.7 * torch.randn(count, channels, generator=stream)).to(place.device)
        labels: dict[str, Any] = {}
        backends: tuple[Backend, ...] = ("faiss-cpu", "torch", "faiss-gpu")
        for backend in backends:
            case = f"{backend}, {count} x {channels}, K {clusters}"
            with one_line("k-means", case):
                forget_peak(place)
                fit_kmeans(rows, clusters, seed=0, iterations=1, backend=backend)
                fit = fit_kmeans(rows, clusters, seed=0, iterations=25, backend=backend)
                parts = [torch.cdist(part, fit.centroids).argmin(1) for part in rows.split(8192)]
                labels[backend] = torch.cat(parts).cpu()
                equal = float((labels[backend] == labels["faiss-cpu"]).float().mean())
                note = "" if backend == "faiss-cpu" else f"{equal:.2%} of the labels as faiss-cpu"
                give("k-means", case, fit.seconds, "s", peak(place), note)


def stylegan2(resolution: int, channel_base: int = 32768, channel_max: int = 512) -> Any:
    """StyleGAN2 of the published size, with random weights and noise that shows."""
    import torch

    from sisug.generators import Generator
    from sisug.generators.stylegan2 import SynthesisLayer

    torch.manual_seed(0)
    sizes = [4 * 2**i for i in range((resolution // 4).bit_length())]
    channels = {size: min(channel_max, channel_base // size) for size in sizes}
    generator = Generator(512, 512, channels, mapping_layers=8)
    generator.num_fp16_res = 4  # as NVIDIA's files name it
    for layer in generator.modules():
        if isinstance(layer, SynthesisLayer):
            torch.nn.init.constant_(layer.noise_strength, 0.3)
    return generator.requires_grad_(False)


def mobilestylegan(place: Place) -> tuple[Any, str]:
    """The network of the preset faces: its own weights where its file is in the cache, else random ones."""
    import torch

    from sisug.generators.mobilestylegan.native import read_native
    from sisug.generators.mobilestylegan.network import MobileStyleGAN
    from sisug.generators.preset import place_of, preset

    path = place_of(preset("faces"))
    if path.is_file() and not place.on_cpu:
        return read_native(path)[0], "weights of the preset faces"
    torch.manual_seed(0)
    wide = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64}
    network = MobileStyleGAN(512, 512, {4: 32, 8: 32, 16: 16} if place.on_cpu else wide, mapping_layers=8)
    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if name.endswith("style.bias"):
                value.fill_(1.0)  # as in trained networks, so that values keep their size from block to block
            else:
                value.normal_(std=value[0].numel() ** -0.5 if value.dim() > 1 and "noise" not in name else 0.1)
    why = "small, on a CPU" if place.on_cpu else f"{path.name} is not in the cache"
    return network, f"random weights: {why}"


def part_forward(place: Place) -> None:
    """Images a second of the generators, in each precision, with torch.compile and without."""
    import copy

    import torch

    from sisug.generators.mobilestylegan import MobileStyleGANBackbone
    from sisug.generators.stylegan2_backbone import StyleGAN2Backbone

    def style(size: int, batch: int) -> tuple[str, int, str, Callable[[str], Any]]:
        small = {"channel_base": 1024, "channel_max": 32} if place.on_cpu else {}
        generator = stylegan2(size, **small)
        split = min(64, size // 2)
        return (
            f"StyleGAN2 {size} px",
            batch,
            "small, on a CPU" if place.on_cpu else "random weights",
            lambda precision: StyleGAN2Backbone(copy.deepcopy(generator), split=split, precision=precision),
        )

    def mobile(batch: int) -> tuple[str, int, str, Callable[[str], Any]]:
        network, note = mobilestylegan(place)
        mean = torch.zeros(network.w_dim)
        return (
            f"MobileStyleGAN {network.resolution} px",
            batch,
            note,
            lambda precision: MobileStyleGANBackbone(copy.deepcopy(network), mean, precision=precision),
        )

    made = (
        [lambda: style(16, 2), lambda: style(32, 2), lambda: mobile(2)]
        if place.on_cpu
        else [lambda: style(256, 16), lambda: style(1024, 4), lambda: mobile(4)]
    )
    compiled_first = [(compiled, make) for compiled in (False, True) for make in made]
    for compiled, make in compiled_first:  # what takes a second comes first, what takes a minute after it
        name, batch, note, build = make()
        expected = None
        for precision in ("fp32", "bf16", "fp16"):
            case = f"{name}, {precision}{', compiled' if compiled else ''}"
            if place.left < (30 if compiled else 5):
                give("forward", case, None, note="no time left")
                continue
            with one_line("forward", case), torch.inference_mode():
                backbone = build(precision).to(place.device)
                torch.manual_seed(1)
                ws = backbone.map(torch.randn(batch, backbone.z_dim).to(place.device))
                call = torch.compile(backbone.images) if compiled else backbone.images
                forget_peak(place)
                begun = time.perf_counter()
                images = call(ws)
                first = time.perf_counter() - begun
                seconds = timed(lambda call=call, ws=ws: call(ws), place, limit=min(4.0, max(place.left / 4, 0.5)))
                if expected is None:
                    expected = images.float().cpu()
                error = float((images.float().cpu() - expected).abs().max())
                more = [note, f"batch {batch}", f"first call {first:.1f} s"]
                more += [] if precision == "fp32" else [f"largest difference to fp32 {error:.1e}"]
                give("forward", case, batch / seconds, "images/s", peak(place), ", ".join(more))
                if not bool(torch.isfinite(images).all()):
                    give("forward", case, None, note="images that are not finite")


def timed(call: Callable[[], object], place: Place, limit: float) -> float:
    """Median seconds of a call, over as many as fit into a limit, 3 at least."""
    import statistics

    import torch

    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - begun < limit and len(times) < 50):
        start = time.perf_counter()
        call()
        if not place.on_cpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def fit(place: Place, name: str, *options: str) -> dict[str, float]:
    """Run `sisug fit` in this process; the last value of everything that it logged.

    Args:
        place: where.
        name: of the run.
        options: layers and values.
    """
    from sisug.cli import main

    forget_peak(place)
    common = [*place.accelerator, "--run.root", str(place.folder), "--run.name", name, "--run.version", "only"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    code = main(["fit", "--config", str(EXPERIMENTS / "base.yaml"), *options, *common, *quiet])
    if code:
        raise RuntimeError(f"sisug fit ended with exit code {code}; see the log")
    last: dict[str, float] = {}
    with (place.folder / name / "only" / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            last |= {key: float(value) for key, value in row.items() if value}
    return last


def last_checkpoint(place: Place, name: str) -> str:
    """Of a run that `fit` made."""
    return str(place.folder / name / "only" / "checkpoints" / "last.ckpt")


def part_training(place: Place) -> None:
    """Images a second of the three trainings at several resolutions."""
    import numpy as np
    from PIL import Image

    from sisug.generators.native import write_native

    sizes = [(16, 4, 2)] if place.on_cpu else [(64, 16, 30), (256, 8, 20), (1024, 2, 8)]
    for size, batch, steps in sizes:
        small = place.on_cpu
        pictures, file = place.folder / f"pictures-{size}", place.folder / f"generator-{size}.safetensors"
        pictures.mkdir(exist_ok=True)
        draws = np.random.default_rng(0)
        for number in range(16):
            Image.fromarray(draws.integers(0, 255, (size, size, 3), np.uint8)).save(pictures / f"{number}.png")
        base, most = (256, 16) if small else (32768, 512)
        limits = ["--trainer.max_epochs", "1", "--trainer.limit_val_batches", "0", "--trainer.log_every_n_steps"]
        limits += [str(max(steps // 2, 1)), "--data.init_args.images_per_epoch", str(batch * steps)]
        limits += ["--data.init_args.batch_size", str(batch)]
        only_needed = place.folder / "callbacks.yaml"
        only_needed.write_text(CALLBACKS)
        with one_line("training", f"generator, {size} px"):
            check_time(place)
            logged = fit(
                place,
                f"generator-{size}",
                *layer("train-generator/images"),
                *("--config", str(only_needed)),
                *("--data.init_args.folder", str(pictures), "--data.init_args.resolution", str(size)),
                *("--model.init_args.channel_base", str(base), "--model.init_args.channel_max", str(most)),
                *limits,
            )
            speed(place, f"generator, {size} px", logged, batch)
        write_native(file, stylegan2(size, base, most))
        stage1 = ["--model.init_args.generator", str(file), "--model.init_args.split", str(min(64, size // 2))]
        with one_line("training", f"rearranger, {size} px"):
            check_time(place)
            clustering = place.folder / "clustering.yaml"
            clustering.write_text(CALLBACKS + CLUSTERING)
            less = ["--model.init_args.width", "8", "--model.init_args.clusters", "4"] if small else []
            logged = fit(
                place,
                f"rearranger-{size}",
                *layer("rearranger/file"),
                *("--config", str(clustering)),
                *stage1,
                *less,
                *limits,
            )
            speed(place, f"rearranger, {size} px", logged, batch)
        with one_line("training", f"mapper of edges, {size} px"):
            check_time(place)
            logged = fit(
                place,
                f"mapper-{size}",
                *layer("mapper/file"),
                *("--config", str(only_needed)),
                *("--model.init_args.rearranger", last_checkpoint(place, f"rearranger-{size}")),
                *("--model.init_args.condition", "edges", "--model.init_args.labels", "null"),
                *("--model.init_args.reading_weight", "0"),
                *limits,
            )
            speed(place, f"mapper of edges, {size} px", logged, batch)


CALLBACKS = """trainer:
  callbacks:
    - class_path: sisug.training.run_folder.RunFolder
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {filename: last, save_on_train_epoch_end: true, enable_version_counter: false}
    - class_path: sisug.training.throughput.Throughput
"""
CLUSTERING = """    - class_path: sisug.proxies.OnlineClustering
      init_args: {sample_images: 32, restarts: 1}
"""


def layer(name: str) -> list[str]:
    """Options for a layer of experiments/."""
    return ["--config", str(EXPERIMENTS / f"{name}.yaml")]


def check_time(place: Place) -> None:
    """Refuse to begin what would not end in time."""
    if place.left < 8:
        raise TimeoutError("no time left")


def speed(place: Place, case: str, logged: dict[str, float], batch: int) -> None:
    """The row of a training."""
    give("training", case, logged["progress/images_per_second"], "images/s", peak(place), f"batch {batch}")


def part_stage1(place: Place) -> None:
    """A short stage 1 on avatars, with its scores."""
    images, batch = (32, 8) if place.on_cpu else (16384, 64)
    options = ["--trainer.max_epochs", "1", "--data.init_args.images_per_epoch", str(images)]
    options += ["--data.init_args.batch_size", str(batch)]
    if place.on_cpu:
        options += [
            "--data.init_args.val_pairs",
            "8",
            "--model.init_args.width",
            "8",
            "--trainer.log_every_n_steps",
            "2",
        ]
    layers = [*layer("rearranger/avatars"), *layer("generator/avatars")]
    with one_line("stage 1", f"avatars, {images} images"):
        begun = time.perf_counter()
        logged = fit(place, "stage1", *layers, *options)
        seconds = time.perf_counter() - begun
        note = f"with clustering and validation; batch {batch}"
        give("stage 1", f"avatars, {images} images", seconds, "s", peak(place), note)
        give("stage 1", "while training", logged["progress/images_per_second"], "images/s")
        for score in ("layout_miou", "layout_miou_source", "look", "frechet_judge", "frechet_judge_plain", "balance"):
            give("stage 1", f"val/{score}", logged[f"val/{score}"])


def part_processes(place: Place) -> None:
    """One process a GPU: the exchange of gradients, and stage 1 with it."""
    import torch
    from torch import multiprocessing

    count = 2 if place.on_cpu else torch.cuda.device_count()
    backend = "gloo" if place.on_cpu else "nccl"
    with one_line("processes", f"{backend}, {count} processes"):
        begun = time.perf_counter()
        multiprocessing.spawn(exchange, args=(count, backend, str(place.folder / "meeting")), nprocs=count)
        give("processes", f"{backend}, {count} processes", time.perf_counter() - begun, "s", note="sums are right")
    with one_line("processes", f"stage 1 on {count} devices"):
        check_time(place)
        if count == 1:
            give("processes", "stage 1 on several devices", None, note="there is one GPU")
            return
        command = [sys.executable, "-m", "sisug", "fit", *layer("base"), *layer("rearranger/avatars")]
        command += [*layer("generator/avatars"), *place.accelerator, "--trainer.devices", str(count)]
        command += ["--trainer.strategy", "ddp_find_unused_parameters_true", "--trainer.limit_val_batches", "0"]
        command += ["--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1" if place.on_cpu else "10"]
        command += ["--run.root", str(place.folder), "--run.name", "ddp", "--run.version", "only"]
        command += ["--data.init_args.images_per_epoch", "16" if place.on_cpu else str(2048 * count)]
        command += ["--data.init_args.batch_size", "4" if place.on_cpu else "64"]
        command += ["--trainer.enable_progress_bar", "false"]
        command += ["--model.init_args.width", "8"] if place.on_cpu else []
        done = subprocess.run(command, check=False, timeout=max(place.left, 1), capture_output=True, text=True)
        say(done.stdout + done.stderr)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
        with (place.folder / "ddp" / "only" / "metrics.csv").open(newline="") as file:
            speeds = [row["progress/images_per_second"] for row in csv.DictReader(file)]
        give("processes", f"stage 1 on {count} devices", float([each for each in speeds if each][-1]), "images/s")


def exchange(rank: int, count: int, backend: str, meeting: str) -> None:
    """A process of `part_processes`: add up what all have, several times."""
    import torch
    from torch import distributed

    device = torch.device("cpu") if backend == "gloo" else torch.device("cuda", rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=count)
    for _ in range(5):
        values = torch.full((1 << (16 if backend == "gloo" else 24),), float(rank + 1), device=device)
        distributed.all_reduce(values)
        assert bool((values == count * (count + 1) / 2).all()), "a wrong sum"
    distributed.destroy_process_group()


PARTS: dict[str, tuple[Callable[[Place], None], float]] = {
    "machine": (part_machine, 30),
    "k-means": (part_kmeans, 60),
    "processes": (part_processes, 150),
    "stage 1": (part_stage1, 120),
    "training": (part_training, 150),
    "tests": (part_tests, 120),
    "forward": (part_forward, 180),
}
"""Parts in their order, with the seconds that each may take."""


# --- the table -----------------------------------------------------------------------------------------------------


def run_part(name: str, device: str, folder: Path, log: Path, ends: float) -> list[Row]:
    """Run a part in a process of its own, and take its rows.

    Args:
        name: of the part.
        device: cpu or cuda.
        folder: for its files.
        log: that its output is added to.
        ends: time.time() at which it is ended.
    """
    rows: list[Row] = []
    command = [sys.executable, __file__, "--part", name, "--device", device, "--folder", str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    # As the parts need: nothing from the network, whatever a preset would fetch.
    environment |= {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "WANDB_MODE": "disabled", "PYTHONUNBUFFERED": "1"}
    with log.open("a+b") as output:
        output.write(f"\n=== {name}\n".encode())
        output.flush()
        begins = output.tell()
        process = subprocess.Popen(
            [*command, "--ends", str(ends - 3)],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        too_long = False
        try:
            code = process.wait(max(ends - time.time(), 1))
        except subprocess.TimeoutExpired:
            too_long, code = True, 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its own session: the part, and all that it started
            process.wait()
        output.seek(begins)
        text = output.read().decode(errors="replace")
    for line in text.splitlines():
        if line.startswith(MARK):
            rows.append(Row(**json.loads(line[len(MARK) :])))
            say(rows[-1].line())
    if too_long or code:
        why = (
            "ended: its time was up"
            if too_long
            else f"exit code {code}: {(text.strip().splitlines() or [''])[-1][:160]}"
        )
        rows.append(Row(name, "the rest of it", None, note=f"{why}; see {log.name}"))
        say(rows[-1].line())
    return rows


def write(rows: Sequence[Row], out: Path, seconds: float) -> None:
    """The table as Markdown and JSON."""
    lines = ["| part | case | value | unit | peak memory | note |", "|---|---|---:|---|---:|---|"]
    for row in rows:
        value = "" if row.value is None else f"{row.value:,.4g}"
        memory = "" if row.memory is None else f"{row.memory:.1f} GB"
        lines.append(f"| {row.part} | {row.case} | {value} | {row.unit} | {memory} | {row.note} |")
    (out / "table.md").write_text("\n".join([*lines, "", f"{seconds:.0f} s in all.", ""]))
    (out / "table.json").write_text(json.dumps([asdict(row) for row in rows], indent=2))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the table; 1 where a part has failed, 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="try it out without a GPU, at small sizes")
    parser.add_argument("--minutes", type=float, default=10.0, help="time for all parts together")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts alone")
    parser.add_argument("--out", type=Path, default=Path("runs") / "check-gpu")
    for name, kind in (("part", str), ("device", str), ("folder", Path), ("ends", float)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.part:
        PARTS[args.part][0](Place(args.device, args.folder, args.ends))
        return 0
    device = "cpu" if args.cpu else "cuda"
    if not args.cpu:
        import torch

        if not torch.cuda.is_available():
            say(f"error: torch {torch.__version__} sees no GPU. Remedy: a CUDA build of torch and a driver, or --cpu")
            return 2
    begun = time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    log = (args.out / "log.txt").absolute()
    log.write_text("")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only or PARTS:
            ends = min(time.time() + PARTS[name][1], begun + 60 * args.minutes)
            if ends - time.time() < 5:
                rows.append(Row(name, "all of it", None, note="no time left; --only runs parts alone"))
                say(rows[-1].line())
            else:
                rows += run_part(name, device, Path(folder), log, ends)
            write(rows, args.out, time.time() - begun)
    say(f"{time.time() - begun:.0f} s. Table: {args.out / 'table.md'}, {args.out / 'table.json'}; all output: {log}")
    return int(any(row.value is None and row.note.startswith("exit code") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
