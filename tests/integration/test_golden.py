"""What ships draws what it always drew: images of every shipped network, against figures that were kept.

After a change on purpose, `python tests/integration/test_golden.py` writes the figures anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sisug.generators import load_generator
from sisug.segmentation import load_judge
from sisug.synthesis import Synthesizer

EXAMPLES = Path(__file__).parents[2] / "examples"
KEPT = Path(__file__).with_name("golden.json")

DRAWINGS = {
    "avatars-seg": ("masks", "free-form"),
    "avatars-edges": ("edges",),
    "avatars-sketch": ("sketches",),
    "avatars-scribble": ("scribbles",),
    "avatars-depth": ("depth",),
}


def figures(values: Tensor) -> list[float]:
    """Mean, deviation and mean difference of neighbours: of other images, at least one is another."""
    values = values.float()
    return [float(each) for each in (values.mean(), values.std(), values.diff(dim=-1).abs().mean())]


def measured() -> Iterator[tuple[str, list[float]]]:
    generator, judge = load_generator("avatars"), load_judge("avatars")
    z = torch.randn(4, generator.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        images = generator(z, 0.7).clamp(-1, 1)
        yield f"generator {generator.fingerprint}", figures(images)
        yield f"judge {judge.fingerprint}", figures(judge.segment(images) / judge.labels.num_classes)
    yield "rearranger", figures(Synthesizer.from_rearranger("avatars", device="cpu").generate_like(0, range(4)).images)
    for name, folders in DRAWINGS.items():
        synthesizer = Synthesizer.load(name, device="cpu")
        for file in (file for folder in folders for file in sorted((EXAMPLES / folder).glob("*.png"))):
            images = synthesizer.generate(file, range(4)).images
            yield f"{name} {file.relative_to(EXAMPLES).as_posix()}", figures(images)


@pytest.mark.slow
def test_what_ships_draws_what_it_always_drew() -> None:
    kept = json.loads(KEPT.read_text())
    found = dict(measured())
    assert found.keys() == kept.keys()
    for name, expected in kept.items():
        assert found[name] == pytest.approx(expected, abs=1e-4), name


if __name__ == "__main__":
    KEPT.write_text(json.dumps(dict(measured()), indent=1) + "\n")
