"""Draws docs/images/drawn.png, the picture at the top of README: `python docs/drawn.py` (a row a drawing)."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torchvision.utils import make_grid

from sisug import Synthesizer

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "examples"
SEEDS = (0, 2, 3, 5, 7)
PANELS = (
    (
        ("avatars-seg", "masks/avatar-1"),
        ("avatars-seg", "masks/avatar-3"),
        ("avatars-seg", "free-form/horns"),
        ("avatars-sketch", "sketches/avatar-1"),
    ),
    (
        ("avatars-edges", "edges/avatar-2"),
        ("avatars-scribble", "scribbles/avatar-2"),
        ("avatars-depth", "depth/avatar-3"),
        ("", "3"),
    ),
)
"""Mapper and drawing of each row; without a mapper, the seed of an exemplar."""
ENLARGED = 96


def row(mapper: str, drawing: str) -> torch.Tensor:
    """The drawing and its images, uint8 (image, 3, height, width)."""
    if mapper:
        made = Synthesizer.load(mapper).generate(EXAMPLES / f"{drawing}.png", SEEDS)
    else:
        made = Synthesizer.from_rearranger("avatars").generate_like(int(drawing), SEEDS)
    images = ((made.images[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return torch.cat([made.shown[:1].to(torch.uint8), images])


def main() -> None:
    """Write the picture."""
    panels = [torch.cat([row(*each) for each in panel]) for panel in PANELS]
    grids = [make_grid(panel, nrow=1 + len(SEEDS), padding=2, pad_value=255) for panel in panels]
    gap = torch.full((3, grids[0].shape[1], 12), 255, dtype=torch.uint8)
    picture = Image.fromarray(torch.cat([grids[0], gap, grids[1]], dim=2).permute(1, 2, 0).numpy())
    size = (picture.width * ENLARGED // 64, picture.height * ENLARGED // 64)
    picture.resize(size, Image.Resampling.LANCZOS).quantize(128).save(DOCS / "images" / "drawn.png", optimize=True)


if __name__ == "__main__":
    main()
