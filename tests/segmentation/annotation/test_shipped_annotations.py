"""Annotations that ship, styles kept to the bit, and masks at half the size of large images."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sisug.errors import ConfigError, DataError
from sisug.generators import GeneratorBackbone, load_generator
from sisug.labels.label_sets import LABEL_SETS
from sisug.segmentation.annotation import first_samples, read_annotations, write_annotations
from sisug.segmentation.annotation.commands import check
from sisug.segmentation.annotation.folder import SHIPPED, read_record
from sisug.segmentation.annotation.painted import read_painted

FACES = LABEL_SETS["faces"]


def test_shipped_faces_are_whole_and_show_every_class() -> None:
    folder = SHIPPED["faces"]
    record = read_record(folder)
    assert record.labels == FACES
    assert len(record.names) == 21
    assert record.w is not None
    assert record.w.shape == (21, 512)
    masks = {path.stem: np.asarray(Image.open(path)) for path in (folder / "masks").iterdir()}
    assert set(masks) == set(record.names)
    assert {mask.shape for mask in masks.values()} == {(512, 512)}
    assert set(np.unique(np.stack(list(masks.values())))) == {*range(FACES.num_classes), FACES.ignore}
    # Each shows a face: two eyes, a nose and lips, and most of it is labeled.
    for name, mask in masks.items():
        assert {1, 2, 3, 4, 6} <= set(np.unique(mask)), name
        assert (mask == FACES.ignore).mean() < 0.07, name
    assert not (folder / "images").exists()  # pictures of the generator are not ours to ship


def test_latents_of_shipped_faces_are_those_of_their_names() -> None:
    record = read_record(SHIPPED["faces"])
    for name, z in zip(record.names, record.z, strict=True):
        assert torch.equal(z, torch.randn(1, 512, generator=torch.Generator().manual_seed(int(name)))[0])


def test_shipped_annotations_are_checked_by_name() -> None:
    assert "9009      512x512  good" in check(Path("faces"))


def test_masks_of_half_the_size_are_taken_from_512_pixels(tmp_path: Path) -> None:
    small = np.random.default_rng(0).integers(0, 13, (512, 512)).astype(np.uint8)
    Image.fromarray(small).save(tmp_path / "x.png")
    mask = read_painted(tmp_path / "x.png", FACES, 1024)
    assert mask.shape == (1024, 1024)
    assert (mask[::2, ::2] == small).all()
    assert (mask[1::2, 1::2] == small).all()
    Image.fromarray(small[:256, :256]).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="256x256 pixels"):
        read_painted(tmp_path / "x.png", FACES, 1024)


@pytest.fixture(scope="module")
def tiny(tiny_generator_file: Path) -> GeneratorBackbone:
    return load_generator(tiny_generator_file)


def test_styles_in_a_record_count_before_latents(tiny: GeneratorBackbone, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    write_annotations(folder, tiny, first_samples(tiny, 3), 0.7, FACES)
    for number in range(3):
        mask = np.full((tiny.resolution, tiny.resolution), number, np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"sample-00{number}.png")
    samples = read_annotations(folder, tiny)
    torch.testing.assert_close(samples.styles(tiny), tiny.map(samples.z, 0.7))
    record = json.loads((folder / "annotation.json").read_text())
    w = torch.randn(3, tiny.w_dim, generator=torch.Generator().manual_seed(0))
    for sample, style in zip(record["samples"], w, strict=True):
        sample["w"] = base64.b64encode(style.numpy().astype("<f4").tobytes()).decode()
    (folder / "annotation.json").write_text(json.dumps(record))
    samples = read_annotations(folder, tiny)
    assert torch.equal(samples.styles(tiny), w[:, None].expand(-1, tiny.num_ws, -1))
    first = samples.first(2)
    assert first.names == ("sample-000", "sample-001")
    assert torch.equal(first.styles(tiny), w[:2, None].expand(-1, tiny.num_ws, -1))
    with pytest.raises(ConfigError, match="there are 3"):
        samples.first(4)
