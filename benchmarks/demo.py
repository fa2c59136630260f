"""From stroke to new image on the demo's page, and its memory: `python benchmarks/demo.py` (synthesis).

`sisug demo` runs as it does for a visitor; each stroke sends the whole canvas, as the page does while the brush moves,
and the time until the image is there counts. Memory is that of the server, after the first strokes and at the end.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

from sisug.common.provenance import machine

AIMS = {"avatars": 100, "faces": 250}
"""Milliseconds on two idle cores."""

STYLES = 4
"""That the strokes take turns with, after a while each."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="avatars")
    parser.add_argument("--kind", default="seg")
    parser.add_argument("--strokes", type=int, default=1000)
    args = parser.parse_args(arguments)
    command = [sys.executable, "-m", "sisug", "demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://([\d.]+):(\d+)", server.stdout.readline())
            assert found is not None, "the demo did not start"
            times, memory, busy = drawn(found[1], int(found[2]), args, server.pid)
        finally:
            server.terminate()
    times = [1000 * each for each in times]
    middle, late = statistics.median(times), statistics.quantiles(times, n=20)[-1]
    aim = f"; the aim is {AIMS[args.model]} ms on two idle cores" if args.model in AIMS else ""
    say(f"{machine()['cpu']}, {args.model}, {args.kind}, {len(times)} strokes")
    say(f"stroke to image: median {middle:.0f} ms, 95 % within {late:.0f} ms{aim}")
    if memory:
        say(f"processor time of the server: {1000 * busy / len(times):.0f} ms a stroke, all threads together")
        say(f"memory of the server: {memory[0]:.0f} MB after 50 strokes, {memory[-1]:.0f} MB at the end")


def drawn(host: str, port: int, args: argparse.Namespace, process: int) -> tuple[list[float], list[float], float]:
    """Seconds of every stroke, MB of memory every 50, and seconds of processor time in all."""
    connection = http.client.HTTPConnection(host, port, timeout=120)

    def ask(what: str, body: bytes, style: int) -> bytes:
        query = urlencode({"model": args.model, "kind": args.kind, "style": style})
        connection.request("POST", f"/{what}?{query}", body=body)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content[:500]
        return content

    told = json.loads(ask("describe", b"", 0))
    size = told["canvas"]
    ink = range(len(told["labels"])) if told["labels"] else (0,)
    start = ask("sample", b"", 2) if told["samples"] else bytes(size * size)
    canvas = np.frombuffer(start, np.uint8).reshape(size, size).copy()
    rng = np.random.default_rng(0)
    times, memory, before = [], [], worked(process)
    for stroke in range(args.strokes):
        if stroke % 20 == 0:  # or all would be painted over in the end
            canvas[:] = np.frombuffer(start, np.uint8).reshape(size, size)
        row, column = rng.integers(0, size - 12, 2)
        canvas[row : row + 12, column : column + 12] = rng.choice(ink)
        begun = time.perf_counter()
        ask("image", canvas.tobytes(), stroke // 25 % STYLES)
        times.append(time.perf_counter() - begun)
        if stroke % 50 == 49:
            memory += resident(process)
    return times, memory, worked(process) - before


def worked(process: int) -> float:
    """Seconds of processor time of a process, where the system tells."""
    told = Path(f"/proc/{process}/stat")
    if not told.is_file():
        return 0.0
    user, system = told.read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> list[float]:
    """MB that a process holds, where the system tells."""
    status = Path(f"/proc/{process}/status")
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return [] if found is None else [int(found[1]) / 1000]


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201  # a benchmark's result is its output


if __name__ == "__main__":
    main()
