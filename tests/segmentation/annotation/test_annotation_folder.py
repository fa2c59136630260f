"""Annotation folders: what is written, that it comes back to the bit, and what is said about masks that cannot be."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.GimpPaletteFile import GimpPaletteFile

from sisug.errors import ConfigError, DataError, FingerprintMismatch
from sisug.generators import GeneratorBackbone, load_generator
from sisug.labels.label_files import read_label_set
from sisug.labels.label_sets import IGNORE_COLOUR, LabelSet
from sisug.segmentation.annotation import LabelledSamples, first_samples, judged_samples
from sisug.segmentation.annotation import read_annotations as read
from sisug.segmentation.annotation import write_annotations as write
from sisug.segmentation.annotation.folder import default_scale, read_record
from sisug.segmentation.annotation.painted import commonest
from sisug.segmentation.loading import load_judge

FACE = LabelSet("face", ("skin", "left eye", "right eye"), ((200, 150, 100), (0, 0, 255), (0, 160, 0)), ((1, 2),))


@pytest.fixture(scope="module")
def tiny(tiny_generator_file: Path) -> GeneratorBackbone:
    return load_generator(tiny_generator_file)


@pytest.fixture
def folder(tiny: GeneratorBackbone, tmp_path: Path) -> Path:
    write(tmp_path / "faces", tiny, first_samples(tiny, 3), 0.7, FACE, scale=2)
    return tmp_path / "faces"


def some_mask(seed: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (size, size))


def paint(folder: Path, number: int, mask: np.ndarray, *, factor: int = 1, name: str = "sample-{:03d}.png") -> Path:
    """As a paint program would: colours on a transparent layer; 255 stays transparent."""
    colours = np.zeros((256, 4), np.uint8)
    colours[:3, :3], colours[:3, 3] = FACE.palette, 255
    path = folder / "masks" / name.format(number)
    Image.fromarray(colours[mask].repeat(factor, 0).repeat(factor, 1)).save(path)
    return path


# --- writing -------------------------------------------------------------------------------------------------------


def test_the_folder_holds_what_a_painter_needs(folder: Path, tiny: GeneratorBackbone):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    pictures = {f"images/sample-00{number}.png" for number in range(3)}
    texts = {"annotation.json", "palette.gpl", "palette.png", "README.txt"}
    assert names == pictures | texts | {"images", "masks"}
    with Image.open(folder / "images/sample-001.png") as picture:
        assert picture.size == (32, 32)
    readme = (folder / "README.txt").read_text().splitlines()
    assert len(readme) == 5
    assert "16x16" in readme[3]


def test_pictures_of_scale_one_are_the_generators_images(tiny: GeneratorBackbone, tmp_path: Path):
    z = first_samples(tiny, 2)
    write(tmp_path, tiny, z, 0.5, FACE, scale=1)
    for number, image in enumerate(tiny(z, 0.5).clamp(-1, 1)):
        stored = np.asarray(Image.open(tmp_path / f"images/sample-{number:03d}.png")).astype(float)
        assert np.abs(stored / 127.5 - 1 - image.permute(1, 2, 0).numpy()).max() <= 0.5 / 127.5 + 1e-6


def test_latents_come_back_to_the_bit(folder: Path, tiny: GeneratorBackbone):
    record = read_record(folder)
    assert torch.equal(record.z, first_samples(tiny, 3))
    assert (record.truncation, record.labels, record.resolution) == (0.7, FACE, 16)
    assert record.fingerprint == tiny.fingerprint


def test_pillow_reads_the_gimp_palette(folder: Path):
    palette, _ = GimpPaletteFile(io.BytesIO((folder / "palette.gpl").read_bytes())).getpalette()
    assert list(np.frombuffer(palette, np.uint8).reshape(-1, 3)[:4].tolist()) == [
        *map(list, FACE.palette),
        list(IGNORE_COLOUR),
    ]
    assert "\tleft eye\n" in (folder / "palette.gpl").read_text()


def test_swatches_have_the_exact_colours(folder: Path):
    column = np.asarray(Image.open(folder / "palette.png"))[:, 4]
    changes = [0, *(1 + np.flatnonzero((column[1:] != column[:-1]).any(axis=1)))]
    assert [tuple(column[row].tolist()) for row in changes] == [*FACE.palette, IGNORE_COLOUR]


def test_small_images_are_enlarged_by_default():
    assert [default_scale(size) for size in (16, 64, 96, 256, 512, 1024)] == [32, 8, 6, 2, 1, 1]


def test_folders_in_use_and_bad_scales_are_refused(folder: Path, tiny: GeneratorBackbone, tmp_path: Path):
    z = first_samples(tiny, 1)
    paint(folder, 0, some_mask(0))
    with pytest.raises(ConfigError, match="is not empty"):
        write(folder, tiny, z, 0.7, FACE)
    with pytest.raises(ConfigError, match="is a file"):
        write(folder / "README.txt", tiny, z, 0.7, FACE)
    with pytest.raises(ConfigError, match="scale 0"):
        write(tmp_path / "other", tiny, z, 0.7, FACE, scale=0)
    with pytest.raises(ConfigError, match="choose at most 512"):
        write(tmp_path / "other", tiny, z, 0.7, FACE, scale=1000)
    assert not (tmp_path / "other").exists()


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_what_was_painted_is_read(folder: Path, tiny: GeneratorBackbone, factor: int):
    masks = [some_mask(number) for number in range(3)]
    masks[1][:3] = 255
    for number, mask in enumerate(masks):
        paint(folder, number, mask, factor=factor)
    samples = read(folder, tiny)
    assert samples.names == ("sample-000", "sample-001", "sample-002")
    assert torch.equal(samples.masks, torch.from_numpy(np.stack(masks)))
    assert torch.equal(samples.z, first_samples(tiny, 3))
    assert (samples.truncation, samples.labels) == (0.7, FACE)


def test_index_pictures_are_read(folder: Path, tiny: GeneratorBackbone):
    mask = some_mask(4)
    Image.fromarray(mask.astype(np.uint8)).save(folder / "masks/sample-000.png")
    assert torch.equal(read(folder, tiny).masks[0], torch.from_numpy(mask))


def test_a_partly_painted_folder_gives_its_painted_samples(
    folder: Path, tiny: GeneratorBackbone, caplog: pytest.LogCaptureFixture
):
    paint(folder, 2, some_mask(2))
    with caplog.at_level(logging.INFO, logger="sisug"):
        samples = read(folder, tiny)
    assert samples.names == ("sample-002",)
    assert torch.equal(samples.z, first_samples(tiny, 3)[2:])
    assert "1 of 3 samples are painted; without a mask: sample-000, sample-001" in caplog.text


def test_blocks_take_their_commonest_value():
    mask = np.array([[0, 1, 2, 2], [1, 1, 2, 255], [0, 255, 255, 255], [255, 0, 255, 1]])
    assert commonest(mask, 2).tolist() == [[1, 2], [0, 255]], "of equals the smallest: classes before don't-care"
    assert commonest(mask, 1).tolist() == mask.tolist()


def test_a_tolerance_takes_near_colours(folder: Path, tiny: GeneratorBackbone):
    path = paint(folder, 0, some_mask(0))
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int) + 3
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    with pytest.raises(DataError, match="tolerance of 3"):
        read(folder, tiny)
    assert torch.equal(read(folder, tiny, tolerance=3).masks[0], torch.from_numpy(some_mask(0)))
    with pytest.raises(ConfigError, match="tolerance 256"):
        read(folder, tiny, tolerance=256)


def test_another_generator_is_refused(folder: Path):
    paint(folder, 0, some_mask(0))
    with pytest.raises(FingerprintMismatch, match="exported from"):
        read(folder, load_generator("avatars"))


def test_an_unpainted_folder_is_refused(folder: Path, tiny: GeneratorBackbone):
    with pytest.raises(DataError, match=r"holds no mask.*sample-001\.png.*paint at least one"):
        read(folder, tiny)


def test_masks_that_cannot_be_used_are_all_named(folder: Path, tiny: GeneratorBackbone):
    paint(folder, 0, some_mask(0, 24))
    with pytest.raises(DataError, match=r"24x24 pixels.*16x16 pixels or a whole multiple"):
        read(folder, tiny)
    paint(folder, 1, np.full((16, 16), 255))
    paint(folder, 2, some_mask(2))
    with pytest.raises(DataError, match=r"2 masks .*sample-000.*24x24.*sample-001.*no labelled pixel"):
        read(folder, tiny)


def test_a_picture_saved_as_its_own_mask_is_refused(folder: Path, tiny: GeneratorBackbone):
    (folder / "masks/sample-000.png").write_bytes((folder / "images/sample-000.png").read_bytes())
    with pytest.raises(DataError, match="colours are those of a photo"):
        read(folder, tiny)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "{", "cannot be read"),
        (lambda text: "[]", "not of the format"),
        (lambda text: text.replace("annotation-1", "annotation-9"), "not of the format"),
        (lambda text: text.replace('"truncation"', '"trunk"'), "KeyError: 'truncation'"),
        (lambda text: text.replace("sample-001", "sample-000"), "repeated"),
        (lambda text: text.replace("sample-001", "../secret"), "no file names"),
        (lambda text: text.replace('"z": "', '"z": "!'), "damaged"),
        (lambda text: text.replace('"skin"', '"left eye"'), "class names must be different"),
    ],
)
def test_damaged_records_are_refused(folder: Path, tiny: GeneratorBackbone, change: Callable[[str], str], message: str):
    path = folder / "annotation.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=f"{message}.*export it again"):
        read(folder, tiny)


def test_a_folder_of_something_else_is_refused(tiny: GeneratorBackbone, tmp_path: Path):
    with pytest.raises(DataError, match=r"no annotation\.json"):
        read(tmp_path, tiny)


# --- the judge's labels, and label sets ----------------------------------------------------------------------------


def test_judged_samples_are_the_judges_masks():
    generator, judge = load_generator("avatars"), load_judge()
    z = first_samples(generator, 2)
    samples = judged_samples(generator, judge, z, 0.7)
    assert isinstance(samples, LabelledSamples)
    images = generator.images(generator.map(z, 0.7))
    assert (samples.masks == judge(images).argmax(dim=1)).float().mean() > 0.999
    assert (samples.names, samples.labels) == (("sample-000", "sample-001"), judge.labels)


def test_label_sets_are_read_from_names_and_files(tmp_path: Path):
    assert read_label_set("avatars").name == "avatars"
    path = tmp_path / "street.json"
    path.write_text('{"sky": "#87CEeb", "house": [200, 80, 60]}')
    assert read_label_set(str(path)) == LabelSet("street", ("sky", "house"), ((135, 206, 235), (200, 80, 60)))
    path.write_text(json.dumps(FACE.to_dict()))
    assert read_label_set(str(path)) == FACE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[1]", "not a JSON object"),
        ('{"sky": "#87ceeb", "sky": "#000000"}', "names sky twice"),
        ('{"sky": "blue", "house": "#000000"}', "has the colour 'blue' for class 'sky'"),
        ('{"sky": [1, 2], "house": "#000000"}', "three integers"),
        ('{"sky": "#87ceeb"}', "1 classes"),
        ('{"sky": "#87ceeb", "house": "#87ceeb"}', "share a colour"),
    ],
)
def test_files_without_a_label_set_are_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_label_set(str(path))


def test_an_unknown_label_set_is_refused():
    with pytest.raises(DataError, match="there is no label set 'nothing'"):
        read_label_set("nothing")
