"""Time of one image from a mask, part by part: `python benchmarks/generate.py` (synthesis).

All parts take turns within one run, so that a busy machine slows them alike; medians are printed, and what mapper and
rearranger take together beside the generator's own forward. Start-up is that of a fresh process: imports, and reading
the three networks.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch

from sisug.common.memory import keep_freed_memory
from sisug.common.provenance import machine
from sisug.data.avatars import AvatarsDataset
from sisug.mapper import load_mapper

BAR = 1.5

START = """
import time; begun = time.perf_counter()
import sisug.synthesis; imported = time.perf_counter()
sisug.synthesis.Synthesizer.load({mapper!r}); loaded = time.perf_counter()
print(imported - begun, loaded - imported)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mapper", default="avatars-seg")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    say(f"{machine()['cpu']}, {args.threads} threads, batches of {args.batch}; median of {args.repeats} in turns")
    times = {name: [1000 * each for each in found] for name, found in measured(args).items()}
    own = statistics.median(times["generator: whole forward"])
    for name, each in times.items():
        say(f"{name:>38} {statistics.median(each):8.2f} ms {statistics.median(each) / own:6.2f}")
    extra = statistics.median(times["mapper"]) + statistics.median(times["rearranger"])
    say(f"mapper and rearranger together: {extra / own:.2f} of the generator's own forward; the aim is {BAR:g} at most")
    script = START.format(mapper=args.mapper)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported, loaded = map(float, done.stdout.split())
    say(f"start-up: imports {imported:.2f} s, networks {loaded:.2f} s")


@torch.inference_mode()
def measured(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every call, by part."""
    trained = load_mapper(args.mapper)
    rearranger, generator = trained.rearranger, trained.rearranger.generator
    sample = AvatarsDataset("test", args.batch, generator.resolution)[0]
    mask, image = sample["mask"][None], sample["image"][None]
    encoded = trained.condition.extract(image, mask, torch.Generator().manual_seed(0)).expand(args.batch, -1, -1, -1)
    z = torch.randn(args.batch, generator.z_dim, generator=torch.Generator().manual_seed(0))
    ws = generator.map(z, 0.7)
    pipeline = rearranger.pipeline
    source = pipeline.source(ws)
    target = trained.layouts(encoded)
    rearranged = pipeline.rearrange(source, target)

    def whole() -> None:
        pipeline.images(pipeline.source(generator.map(z, 0.7)), trained.layouts(encoded))

    parts: dict[str, Callable[[], object]] = {
        "generator: whole forward": lambda: generator(z, 0.7),
        "generator: map, features": lambda: generator.features(generator.map(z, 0.7)),
        "generator: render": lambda: generator.render(rearranged, ws),
        "proxy mask of the look": lambda: rearranger.codebook.assign(source.features.map),
        "mapper": lambda: trained.layouts(encoded),
        "rearranger": lambda: pipeline.rearrange(source, target),
        "one image from a mask": whole,
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(args.repeats + 5):
        for name, part in parts.items():
            begun = time.perf_counter()
            part()
            if turn >= 5:
                times[name].append(time.perf_counter() - begun)
    return times


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201  # a benchmark's result is its output


if __name__ == "__main__":
    main()
