"""Masks and scribbles that users bring: how files are read, and what is said about those that cannot be."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sisug.conditions.scribble import Scribble
from sisug.conditions.seg import Seg
from sisug.errors import ConfigError, DataError
from sisug.labels.label_sets import AVATARS, IGNORE_COLOUR, LabelSet
from sisug.labels.mask_files import mask_picture, read_mask
from sisug.labels.pictures import centre

FACE = LabelSet("face", ("skin", "left", "right"), ((200, 150, 100), (0, 0, 255), (0, 160, 0)), ((1, 2),))
SEG = Seg(FACE)
MASK = np.array([[0, 1, 2, 255], [1, 1, 0, 0], [2, 2, 0, 1], [255, 0, 0, 2]])
COLOURS = np.zeros((256, 3), np.uint8)
COLOURS[:3], COLOURS[255] = FACE.palette, IGNORE_COLOUR


def write(path: Path, pixels: np.ndarray | Image.Image, **options: Any) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def palette_picture(numbers: np.ndarray, colours: dict[int, tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(numbers.astype(np.uint8)).convert("L")
    image.putpalette([v for i in range(256) for v in colours.get(i, (i, 255 - i, 7))])
    assert image.mode == "P"
    return image


def loaded(path: Path, seg: Seg | Scribble = SEG, size: int = 4) -> list[list[int]]:
    encoded = seg.load(path, size)
    assert encoded.shape == (FACE.num_classes, size, size)
    return seg.to_mask(encoded).tolist()


@pytest.fixture
def png(tmp_path: Path) -> Path:
    return tmp_path / "mask.png"


def test_grey_pictures_hold_class_numbers(png: Path) -> None:
    assert loaded(write(png, MASK.astype(np.uint8))) == MASK.tolist()


def test_one_bit_pictures_hold_classes_0_and_1(png: Path) -> None:
    assert loaded(write(png, Image.fromarray(MASK == 1))) == (MASK == 1).astype(int).tolist()


SNOW = LabelSet("snow", ("sky", "snow", "rock", "wall"), ((135, 206, 235), (255,) * 3, (0, 0, 0), (120,) * 3))


@pytest.mark.parametrize("classes", [(1, 2), (1,), (2,), (1, 2, 3), (3, 2)])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "RGB"])
def test_one_picture_has_the_same_classes_however_it_is_stored(png: Path, classes: tuple[int, ...], mode: str) -> None:
    if mode == "1" and 3 in classes:
        pytest.skip("1 bit has no grey")
    mask = np.resize(np.array(classes), (8, 8))
    picture = Image.fromarray(np.array(SNOW.palette, np.uint8)[mask])
    picture.convert(mode, dither=Image.Dither.NONE, palette=Image.Palette.ADAPTIVE).save(png)
    assert np.array_equal(read_mask(png, SNOW), mask)


def test_greys_that_could_be_numbers_are_told(png: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(png, np.array([[0, 255], [255, 0]], np.uint8))
    assert read_mask(path, SNOW).tolist() == [[2, 1], [1, 2]]
    assert "0 = rock, 255 = snow" in caplog.text
    assert read_mask(path, SNOW, numbers=True).tolist() == [[0, 255], [255, 0]]  # of a tree of `sisug data convert`


def test_class_numbers_stay_numbers_whatever_the_tolerance(png: Path) -> None:
    numbers = np.array([[0, 1], [2, 3]], np.uint8)
    assert read_mask(write(png, numbers), SNOW, tolerance=5).tolist() == numbers.tolist()


def test_soft_greys_are_the_nearest_class_within_the_tolerance(png: Path) -> None:
    path = write(png, np.array([[2, 253], [119, 0]], np.uint8))
    assert read_mask(path, SNOW, tolerance=2).tolist() == [[2, 1], [3, 2]]
    with pytest.raises(DataError, match="253"):
        read_mask(path, SNOW)


@pytest.mark.parametrize("tolerance", [0, 3])
def test_a_mask_picture_is_read_back(png: Path, tolerance: int) -> None:
    mask = np.array([[0, 1, 2, 3], [255, 255, 3, 0], [1, 1, 2, 2], [0, 0, 255, 3]])
    for labels in (SNOW, AVATARS):
        mask_picture(mask, labels).save(png)
        assert np.array_equal(read_mask(png, labels, tolerance=tolerance), mask)
        Image.open(png).convert("RGB").save(png)
        assert np.array_equal(read_mask(png, labels, tolerance=tolerance), mask)


def test_rgb_pictures_are_read_by_colour(png: Path) -> None:
    assert loaded(write(png, COLOURS[MASK])) == MASK.tolist()


def test_transparent_pixels_are_dont_care(png: Path) -> None:
    alpha = np.where(MASK == 1, 0, 255).astype(np.uint8)
    expected = np.where(MASK == 1, 255, MASK).tolist()
    assert loaded(write(png, np.dstack([COLOURS[MASK], alpha]))) == expected
    assert loaded(write(png, np.dstack([MASK.astype(np.uint8), alpha]))) == expected  # grey with opacity
    assert loaded(write(png, COLOURS[MASK], transparency=FACE.palette[1])) == expected


def test_palettes_in_the_order_of_the_classes(png: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = dict(enumerate(FACE.palette)) | {255: IGNORE_COLOUR}
    assert loaded(write(png, palette_picture(MASK, own))) == MASK.tolist()
    assert not caplog.records


def test_reordered_palettes_are_read_by_colour(png: Path) -> None:
    """As paint programs save them: only the colours in use, in any order."""
    stored = np.array([2, 0, 1] + [3] * 253)[MASK]
    reordered = {2: FACE.palette[0], 0: FACE.palette[1], 1: FACE.palette[2], 3: IGNORE_COLOUR}
    assert loaded(write(png, palette_picture(stored, reordered))) == MASK.tolist()


def test_foreign_palettes_are_index_pictures_and_it_is_said(png: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture = palette_picture(MASK, {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 255: (224, 224, 192)})
    assert loaded(write(png, picture)) == MASK.tolist()
    assert "1 = left" in caplog.text


def test_palettes_with_one_wrong_colour_are_not_taken_as_index(png: Path) -> None:
    stored = np.array([1, 0, 2] + [2] * 253)[MASK]
    picture = palette_picture(stored, {1: FACE.palette[0], 0: FACE.palette[1], 2: (1, 2, 3)})
    with pytest.raises(DataError, match=r"#010203 \(6 px"):
        SEG.load(write(png, picture), 4)


def test_palettes_within_tolerance_are_read_by_colour(png: Path) -> None:
    stored = np.array([2, 0, 1] + [3] * 253)[MASK]
    near = {2: (202, 151, 99), 0: (2, 1, 254), 1: (1, 158, 2), 3: IGNORE_COLOUR}
    assert loaded(write(png, palette_picture(stored, near)), Seg(FACE, tolerance=2)) == MASK.tolist()


def test_transparent_palette_entries_are_dont_care(png: Path) -> None:
    stored = np.where(MASK == 255, 7, MASK)
    picture = palette_picture(stored, dict(enumerate(FACE.palette)) | {7: (9, 9, 9)})
    assert loaded(write(png, picture, transparency=7)) == MASK.tolist()


def test_tolerance_takes_the_nearest_class(png: Path) -> None:
    pixels = COLOURS[MASK]
    pixels[0, 0] = (195, 155, 103)
    with pytest.raises(DataError, match=r"#c39b67 \(1 px, nearest: skin #c89664, 5 away\).*tolerance of 5"):
        SEG.load(write(png, pixels), 4)
    with pytest.raises(DataError, match="5 away"):
        Seg(FACE, tolerance=4).load(png, 4)
    assert loaded(png, Seg(FACE, tolerance=5)) == MASK.tolist()


@pytest.mark.parametrize("tolerance", [-1, 256])
def test_tolerance_has_a_range(tolerance: int) -> None:
    with pytest.raises(ConfigError, match=str(tolerance)):
        Seg(FACE, tolerance=tolerance)


def test_unknown_colours_are_listed_by_count(png: Path) -> None:
    pixels = COLOURS[MASK]
    pixels[2], pixels[3, 3] = (250, 250, 0), (0, 0, 0)
    with pytest.raises(DataError, match="5 pixels in 2 colours") as error:
        SEG.load(write(png, pixels), 4)
    assert "#fafa00 (4 px, nearest: skin #c89664, 100 away), #000000 (1 px, nearest: right #00a000" in error.value.state
    assert "#c89664 skin, #0000ff left, #00a000 right, #ff00ff don't-care" in error.value.cause


def test_photos_are_recognised(png: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with pytest.raises(DataError, match="a photo") as error:
        SEG.load(write(png, photo), 4)
    assert "4,09" in error.value.cause
    assert "and 40" in error.value.state
    with pytest.raises(DataError, match="a photo"):
        SEG.load(write(png, photo[..., 0]), 4)


def test_grey_values_beyond_the_classes_are_listed(png: Path) -> None:
    with pytest.raises(DataError, match=r"4 pixels with grey values .*: 9 \(3 px\), 3 \(1 px\)"):
        SEG.load(write(png, np.array([[9, 9, 0], [9, 3, 1], [0, 0, 0]], np.uint8)), 4)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (MASK.astype(np.uint16), "16 bits.* from 0 to 255"),
        (Image.fromarray(COLOURS[MASK]).convert("CMYK"), "CMYK"),
        (Image.fromarray(MASK.astype(np.float32)), "16 bits or more"),
        (Image.fromarray(COLOURS[MASK]).convert("LAB"), "LAB"),
        (COLOURS[MASK][:2], "4x2 pixels"),
        (np.full((4, 4), 255, np.uint8), "no labelled pixel"),
        (np.zeros((4, 4, 4), np.uint8), "no labelled pixel"),
        (np.dstack([COLOURS[MASK], np.full_like(MASK, 90, np.uint8)]), "16 half-transparent .*90 to 90"),
    ],
)
def test_other_pictures_are_refused(tmp_path: Path, pixels: np.ndarray | Image.Image, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        SEG.load(write(tmp_path / "mask.tif", pixels), 4)
    assert "mask.tif" in error.value.state
    assert error.value.remedy


def test_colour_of_16_bits_is_refused(tmp_path: Path) -> None:
    """Pillow reads it, cut to 8 bits, without a word; the file is written by hand, since Pillow cannot."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + (COLOURS[row].astype(">u2") * 257).tobytes() for row in MASK)
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path = tmp_path / "deep.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert np.array_equal(np.asarray(Image.open(path)), COLOURS[MASK])
    with pytest.raises(DataError, match="16 bits"):
        SEG.load(path, 4)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a file"):
        SEG.load(tmp_path / "none.png", 4)
    with pytest.raises(DataError, match="is not a file"):
        SEG.load(tmp_path, 4)
    for content in (b"", b"hello"):
        (tmp_path / "text.png").write_bytes(content)
        with pytest.raises(DataError, match="not a picture"):
            SEG.load(tmp_path / "text.png", 4)
    whole = write(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 3, (64, 64)).astype(np.uint8))
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:400])
    with pytest.raises(DataError, match="damaged"):
        SEG.load(tmp_path / "half.png", 4)
    frames = [Image.fromarray(COLOURS[np.roll(MASK, k)]) for k in range(2)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="2 frames"):
        SEG.load(tmp_path / "film.gif", 4)


def test_pictures_with_too_many_pixels(png: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(png, MASK.astype(np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    with pytest.raises(DataError, match="too large"):
        SEG.load(png, 4)


def test_one_class_alone_is_allowed_and_said(png: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert loaded(write(png, np.full((4, 4), 2, np.uint8))) == [[2] * 4] * 4
    assert "right is the only class" in caplog.text


def test_other_sizes_are_resized_without_blending(png: Path) -> None:
    large = np.kron(MASK, np.ones((5, 5), int))
    assert loaded(write(png, COLOURS[large])) == MASK.tolist()
    assert loaded(png, size=20) == large.tolist()
    reordered = palette_picture(
        np.array([2, 0, 1] + [3] * 253)[large],
        {2: FACE.palette[0], 0: FACE.palette[1], 1: FACE.palette[2], 3: IGNORE_COLOUR},
    )
    assert loaded(write(png, reordered)) == MASK.tolist()


def test_square_within_one_pixel_is_square(png: Path) -> None:
    assert loaded(write(png, COLOURS[np.zeros((4, 5), int)])) == [[0] * 4] * 4


def test_other_shapes_are_read_where_the_caller_crops(png: Path) -> None:
    wide = np.tile(MASK, 2)[:3]
    write(png, COLOURS[wide])
    assert read_mask(png, FACE, square=False).tolist() == wide.tolist()
    with pytest.raises(DataError, match="8x3 pixels"):
        read_mask(png, FACE)


@pytest.mark.parametrize("shape", [(4, 6), (7, 6), (3, 3), (5, 1)])
def test_the_centre_has_as_much_left_out_on_either_side(shape: tuple[int, int]) -> None:
    values = np.arange(shape[0] * shape[1]).reshape(shape)
    cut = centre(values)
    assert cut.shape == (min(shape), min(shape))
    for axis in (0, 1):
        before = np.argwhere(values == cut[0, 0])[0][axis]
        after = shape[axis] - 1 - np.argwhere(values == cut[-1, -1])[0][axis]
        assert 0 <= after - before <= 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_every_pixel_is_looked_up(png: Path, mode: str, seed: int) -> None:
    """Large flat parts and single pixels, against one look-up a pixel."""
    random = np.random.default_rng(seed)
    mask = np.kron(random.integers(0, 3, (4, 4)), np.ones((8, 8), int))
    mask = np.where(random.random((32, 32)) < 0.2, random.choice([0, 1, 2, 255], (32, 32)), mask)
    if mode == "P":
        order = random.permutation(256)
        picture = palette_picture(order[mask], {int(order[n]): tuple(COLOURS[n].tolist()) for n in (0, 1, 2, 255)})
    else:
        picture = Image.fromarray(COLOURS[mask])
    if mode == "RGBA":
        clear = random.random((32, 32)) < 0.3
        picture.putalpha(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
        mask = np.where(clear, 255, mask)
    assert read_mask(write(png, picture), FACE).tolist() == mask.tolist()


def test_photos_of_drawings_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    path = write(tmp_path / "turned.png", np.rot90(COLOURS[MASK]).copy(), exif=exif)
    assert loaded(path) == MASK.tolist()


@pytest.mark.parametrize("kind", [Seg, Scribble])
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_what_is_shown_can_be_loaded(png: Path, kind: type[Seg] | type[Scribble], mode: str) -> None:
    condition = kind(AVATARS)
    masks = torch.randint(0, 13, (1, 32, 32), generator=torch.Generator().manual_seed(0))
    masks[masks > 10] = 255
    encoded = condition.from_mask(masks)
    shown = Image.fromarray(condition.show(encoded)[0].permute(1, 2, 0).numpy())
    picture = shown if mode == "RGB" else shown.quantize(16, dither=Image.Dither.NONE)
    assert torch.equal(condition.load(write(png, picture), 32), encoded[0])


def test_white_paper_is_dont_care_for_scribbles_only(png: Path) -> None:
    pixels = COLOURS[MASK]
    pixels[MASK == 255] = 255
    assert loaded(write(png, pixels), Scribble(FACE)) == MASK.tolist()
    with pytest.raises(DataError, match="#ffffff"):
        SEG.load(png, 4)
    chalk = LabelSet("chalk", ("board", "chalk", "hand"), ((0, 0, 0), (255, 255, 255), (9, 9, 9)))
    board = np.where(MASK[..., None] == 0, 255, 0).repeat(3, axis=2).astype(np.uint8)
    assert loaded(write(png, board), Scribble(chalk)) == (MASK == 0).astype(int).tolist()
    assert Scribble(chalk).show(torch.zeros(1, 3, 1, 1)).flatten().tolist() == list(IGNORE_COLOUR)


def test_full_masks_as_scribbles_are_said(png: Path, caplog: pytest.LogCaptureFixture) -> None:
    Scribble(FACE).load(write(png, np.zeros((8, 8), np.uint8)), 4)
    assert "leave most of the picture blank" in caplog.text


def test_a_single_stroke_is_enough(png: Path, caplog: pytest.LogCaptureFixture) -> None:
    Scribble(FACE).load(write(png, np.where(MASK == 2, 2, 255).astype(np.uint8)), 4)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_thin_strokes_survive_downsizing(png: Path) -> None:
    drawing = np.full((64, 64), 255)
    drawing[33] = 1  # one pixel in 64
    drawing[:, 2] = 2
    small = np.array(loaded(write(png, drawing.astype(np.uint8)), Scribble(FACE), size=8))
    assert (small[4, 1:] == 1).all()
    assert (np.delete(small[:, 0], 4) == 2).all()
    assert (np.delete(small, 4, axis=0)[:, 1:] == 255).all()
