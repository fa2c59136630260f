"""How well labels of N faces travel to others: neighbors as they ship beside plain ones, by hand-drawn labels.

    python benchmarks/face_labels.py --shots 1 4 8 16 --out face-labels.json

The sixteen samples of truncation 0.7 in the annotations that ship, at 64 px. With N = 1, 4 and 8, several draws of N
labeled samples are scored on the others; with 16, each is scored by the other fifteen. Samples with a hat or glasses
only teach, since no other shows these classes; so there are 11.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sisug.generators import GeneratorBackbone, load_generator
from sisug.mapper.few_shot import NeighborSegmenter
from sisug.metrics import SegmentationScore
from sisug.segmentation.annotation import LabelledSamples, read_annotations

CLASSES = 11
DRAWS = {1: 6, 4: 4, 8: 4}
PLAIN: dict[str, Any] = {
    "resolutions": (32, 64, 128),
    "neighbors": 5,
    "temperature": 1e9,
    "position_weight": 0.5,
    "smoothing": 0,
    "thinning": 1,
}
METHODS: dict[str, dict[str, Any]] = {"plain": PLAIN, "shipped": {}}
"""Plain neighbors (of the coarsest features half), and those that ship."""


class Remembering:
    """A generator that computes the layers of a sample once; those up to 128 px, in half precision."""

    def __init__(self, generator: GeneratorBackbone) -> None:
        self.generator = generator
        self.known: dict[bytes, list[Tensor]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.generator, name)

    def layers(self, ws: Tensor) -> list[Tensor]:
        key = ws[0, 0].numpy().tobytes()
        if key not in self.known:
            self.known[key] = [x.half() for x in self.generator.layers(ws) if x.shape[-1] <= 128]
        return [x.float() for x in self.known[key]]


def folds(names: list[str], testable: list[str], shots: int) -> list[tuple[list[str], list[str]]]:
    """Names to learn from and to be scored on."""
    if shots not in DRAWS:
        return [([other for other in names if other != name], [name]) for name in testable]
    rng = random.Random(shots)
    drawn = [rng.sample(names, shots) for _ in range(DRAWS[shots])]
    return [(some, [name for name in testable if name not in some]) for some in drawn]


@torch.no_grad()
def score(generator: Remembering, samples: LabelledSamples, shots: int, method: str) -> dict[str, Any]:
    """Scores of a method with so many labels."""
    ws, small = samples.styles(generator.generator), shrunk(samples.masks)
    rare = [bool((mask[mask != samples.labels.ignore] >= CLASSES).any()) for mask in small]
    testable = [name for name, without in zip(samples.names, rare, strict=True) if not without]
    total, results, start = SegmentationScore(samples.labels.num_classes), [], time.perf_counter()
    for taught, tested in folds(list(samples.names), testable, shots):
        rows = [samples.names.index(name) for name in taught]
        segmenter = NeighborSegmenter(generator, ws[rows], samples.masks[rows], samples.labels, **METHODS[method])
        one = SegmentationScore(samples.labels.num_classes)
        for name in tested:
            row = samples.names.index(name)
            found = segmenter.probabilities(ws[row : row + 1]).argmax(dim=1)
            one.update(found, small[row : row + 1])
            total.update(found, small[row : row + 1])
        if shots in DRAWS:
            results.append(one.compute())
    results = results or [total.compute()]
    iou = torch.stack([each.iou[:CLASSES] for each in results]).nanmean(dim=0)
    names = samples.labels.classes[:CLASSES]
    return {
        "shots": shots,
        "method": method,
        "miou": float(torch.stack([each.iou[:CLASSES].nanmean() for each in results]).mean()),
        "accuracy": float(torch.stack([each.accuracy for each in results]).mean()),
        "iou": {name: round(value, 3) for name, value in zip(names, iou.tolist(), strict=True)},
        "seconds": round(time.perf_counter() - start),
    }


def shrunk(masks: Tensor) -> Tensor:
    """Masks at 64 px."""
    return F.interpolate(masks[:, None].float(), (64, 64), mode="nearest-exact")[:, 0].long()


def main() -> None:
    """Print and write the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    generator = load_generator("faces")
    samples = read_annotations(Path("faces"), generator).first(16)
    remembering, rows = Remembering(generator), []
    for shots in arguments.shots:
        for method in arguments.methods:
            rows.append(score(remembering, samples, shots, method))
            sys.stdout.write(json.dumps(rows[-1]) + "\n")
            sys.stdout.flush()
            if arguments.out is not None:
                arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
