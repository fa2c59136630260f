"""Speed of the generator of faces, beside OpenVINO on the published graph: `python benchmarks/faces.py` (every stage).

One image of 1024 px, style to pixels, in each precision; the features at 64 px of eight samples, which stage 1 draws
afresh; and the images of both sides compared. All take turns within one run, so that a busy machine slows them alike.
Processor time is printed beside time, since it tells more where the machine has other work.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from sisug.common.memory import keep_freed_memory
from sisug.common.provenance import machine
from sisug.common.wheels import wheel_file
from sisug.generators import load_generator
from sisug.generators.preset import preset

BASE = "openvino fp32"
BARS = {"sisug fp32": 1.0, "sisug bf16": 1.3}
"""Times as fast as OpenVINO in fp32."""


def openvino_calls(threads: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Calls that turn a style into an image, by name; none where openvino is not installed."""
    try:
        import openvino
    except ImportError:
        say("openvino is not installed: pip install openvino")
        return {}
    entry = preset("faces")
    package, _, version = str(entry.wheel).partition("==")
    wheel = wheel_file(package, version, [str(entry.sha256)], terms=entry.licence, size_mb=entry.size_mb or 0)
    calls = {}
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        for suffix in ("xml", "bin"):
            archive.extract(f"random_face/data/SynthesisNetwork.{suffix}", folder)
        core: Any = openvino.Core()
        model = core.read_model(Path(folder) / "random_face/data/SynthesisNetwork.xml")
        for name, hint in (("openvino fp32", "f32"), ("openvino bf16", "bf16")):
            settings = {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
            }
            request = core.compile_model(model, "CPU", settings).create_infer_request()
            calls[name] = lambda w, request=request: torch.from_numpy(
                next(iter(request.infer([w.numpy()]).values())).copy()
            )
    return calls


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="faces", help="preset or file of a MobileStyleGAN")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    keep_freed_memory()

    facts = machine()
    say(f"{facts['cpu']}, {args.threads} of {facts['cores']} cores; torch {torch.__version__}")
    exact = load_generator(args.generator)
    half = load_generator(args.generator, precision="bf16")
    ws = exact.map(torch.randn(8, exact.z_dim, generator=torch.Generator().manual_seed(0)), 0.7)
    one = ws[:1]
    foreign = openvino_calls(args.threads) if args.generator == "faces" else {}
    images = {
        "sisug fp32": lambda: exact.render(exact.features(one), one),
        "sisug bf16": lambda: half.render(half.features(one), one),
        **{name: lambda call=call: call(one[:, 0].contiguous()) for name, call in foreign.items()},
    }
    expected = images["sisug fp32"]()
    for name, call in images.items():
        say(f"{name}: differs by {float((call() - expected).abs().max()):.0e} at most from sisug fp32")
    features = exact.features(one)
    calls: dict[str, Callable[[], object]] = {
        **images,
        f"features at {exact.split} px, one": lambda: exact.features(one),
        f"features at {exact.split} px, eight": lambda: exact.features(ws),
        "from there to the image, fp32": lambda: exact.render(features, one),
        "from there to the image, bf16": lambda: half.render(features, one),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(args.rounds):
        for name, call in calls.items():
            begun, used = time.perf_counter(), time.process_time()
            call()
            times[name].append((time.perf_counter() - begun, time.process_time() - used))
    medians = {
        name: [1000 * statistics.median(column) for column in zip(*each, strict=True)] for name, each in times.items()
    }
    say(f"{'':<32} {'ms':>7} {'CPU ms':>7}")
    for name, (wall, cpu) in medians.items():
        say(f"{name:<32} {wall:>7.0f} {cpu:>7.0f}")
    if BASE in medians:
        for name, bar in BARS.items():
            wall, cpu = (base / own for base, own in zip(medians[BASE], medians[name], strict=True))
            say(
                f"{name}: {wall:.2f} times as fast as {BASE} ({cpu:.2f} by processor time); the bar is {bar:g}: "
                f"{'met' if wall >= bar else 'NOT met'}"
            )


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201  # a benchmark's result is its output


if __name__ == "__main__":
    main()
