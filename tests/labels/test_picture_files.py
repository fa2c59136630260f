"""Edges, sketches and depth maps that users bring: polarity, bit depth, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from sisug.conditions.condition import Condition
from sisug.conditions.depth import Depth
from sisug.conditions.edges import Edges
from sisug.conditions.sketch import Sketch
from sisug.data.avatars.drawing import draw_avatar
from sisug.errors import DataError

lines = pytest.mark.parametrize("kind", [Edges(), Sketch()], ids=["edges", "sketch"])


def write(path: Path, pixels: np.ndarray | Image.Image) -> Path:
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path)
    return path


def drawing(paper: object, pen: object, mode: str = "L", size: int = 64) -> Image.Image:
    image = Image.new(mode, (size, size), paper)  # type: ignore[arg-type]
    ImageDraw.Draw(image).ellipse((size // 4, size // 8, 3 * size // 4, 7 * size // 8), outline=pen, width=2)  # type: ignore[arg-type]
    return image


LINES = torch.from_numpy(np.array(drawing(0, 255)) / 255)[None].float()


@pytest.fixture
def png(tmp_path: Path) -> Path:
    return tmp_path / "picture.png"


@lines
@pytest.mark.parametrize(
    "picture",
    [
        drawing(0, 255),
        drawing(255, 0),
        drawing(20, 180),
        drawing(150, 30),  # grey paper
        drawing(90, 30),  # dark paper, darker lines
        drawing("white", "black", "RGB"),
        drawing("white", "#2030c0", "RGB"),  # a coloured pen
        drawing("#fff8e0", "#101010", "RGB"),  # yellowish paper
        drawing((0, 0, 0, 0), (0, 0, 0, 255), "RGBA"),  # no paper
        drawing((9, 9, 9, 0), (255, 255, 255, 255), "RGBA"),
        drawing(255, 0).convert("1"),
        drawing(255, 0).convert("P"),
        Image.fromarray(np.asarray(drawing(255, 0)).astype(np.uint16) * 257),
        Image.fromarray(np.asarray(drawing(0, 255)).astype(np.uint16) * 200),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),  # alike in every process
)
def test_both_polarities_give_the_same_lines(kind: Condition, picture: Image.Image, png: Path) -> None:
    torch.testing.assert_close(kind.load(write(png, picture), 64), LINES, atol=1e-5, rtol=0)


@lines
def test_polarity_is_said(kind: Condition, png: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sisug"):
        kind.load(write(png, drawing(255, 0)), 64)
        assert "inverted" in caplog.text
        caplog.clear()
        kind.load(write(png, drawing(0, 255)), 64)
        assert "light lines on dark paper" in caplog.text


@lines
def test_what_is_shown_can_be_loaded(kind: Condition, png: Path) -> None:
    images = torch.from_numpy(np.stack([draw_avatar(seed, 64)[0] for seed in range(6)])).permute(0, 3, 1, 2)
    encoded = kind.extract(images.float() / 127.5 - 1, None, torch.Generator().manual_seed(0))
    for one, shown in zip(encoded, kind.show(encoded), strict=True):
        torch.testing.assert_close(
            kind.load(write(png, shown.permute(1, 2, 0).numpy()), 64), one, atol=0.5 / 255 + 1e-6, rtol=0
        )


@lines
def test_large_drawings_keep_their_strongest_line(kind: Condition, png: Path) -> None:
    small = kind.load(write(png, drawing(255, 0, size=501)), 64)
    assert small.shape == (1, 64, 64)
    assert small.max() == pytest.approx(1)
    assert small.min() == 0
    assert (small > 0.2).float().mean() < 0.1


@lines
@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("L", (32, 32), 255), "blank"),
        (Image.new("RGBA", (32, 32), (0, 0, 0, 0)), "wholly transparent"),
        (drawing("white", "black", "RGB").convert("CMYK"), "CMYK"),
        (drawing(255, 0).crop((0, 0, 64, 30)), "64x30"),
        (np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), "no line drawing.*photo"),
        (np.full((8, 8), -5, np.int32) * np.eye(8, dtype=np.int32), "from -5 to 0"),
    ],
)
def test_other_pictures_are_refused(
    kind: Condition, picture: Image.Image | np.ndarray, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as error:
        kind.load(write(tmp_path / "picture.tif", picture), 64)
    assert error.value.remedy


@lines
def test_photos_are_refused(kind: Condition, png: Path) -> None:
    """A picture with shading on either side of its middle, and one in colour on a plain ground."""
    shaded = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    with pytest.raises(DataError, match="photo"):
        kind.load(write(png, shaded), 64)
    coloured = np.full((64, 64, 3), 200, np.uint8)
    coloured[10:54, 10:54] = (230, 150, 90)
    with pytest.raises(DataError, match="47% are in colour"):
        kind.load(write(png, coloured), 64)


@lines
def test_much_colour_is_said(kind: Condition, png: Path, caplog: pytest.LogCaptureFixture) -> None:
    coloured = np.full((64, 64, 3), 200, np.uint8)
    coloured[10:40, 10:40] = (160, 150, 90)
    kind.load(write(png, coloured), 64)
    assert "22% of its pixels are in colour" in caplog.text


def test_depth_of_8_and_16_bits_is_that_of_numpy(png: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (16, 16)).astype(np.uint16)
    plain, stretched = Depth(), Depth(stretch=True)
    for pixels, largest in ((values, 65535), ((values >> 8).astype(np.uint8), 255)):
        write(png, pixels)
        expected = pixels / largest
        np.testing.assert_allclose(plain.load(png, 16)[0].numpy(), expected, atol=1e-6)
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        np.testing.assert_allclose(stretched.load(png, 16)[0].numpy(), expected, atol=1e-6)


def test_fine_steps_of_16_bits_are_kept(png: Path) -> None:
    values = np.arange(1000, 1256).reshape(16, 16).astype(np.uint16)
    depth = Depth(stretch=True).load(write(png, values), 16)
    assert len(depth.unique()) == 256
    np.testing.assert_allclose(depth[0].numpy(), np.arange(256).reshape(16, 16) / 255, atol=1e-4)


def test_grey_in_colour_files_is_depth(png: Path) -> None:
    values = np.arange(256).reshape(16, 16).astype(np.uint8)
    for mode in ("L", "RGB", "RGBA", "P"):
        loaded = Depth().load(write(png, Image.fromarray(values).convert(mode)), 16)
        np.testing.assert_allclose(loaded[0].numpy(), values / 255, atol=1e-6)


def test_depth_is_averaged_when_made_smaller(png: Path) -> None:
    loaded = Depth().load(write(png, np.kron([[0, 255], [255, 0]], np.ones((32, 32))).astype(np.uint8)), 8)
    assert loaded[0, 0].tolist()[:3] == [0, 0, 0]
    assert loaded[0, 4, 4] == pytest.approx(0.1, abs=0.12)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.full((8, 8), 40, np.uint8), "same value 0.157"),
        (np.dstack([np.arange(64).reshape(8, 8).astype(np.uint8) * k for k in (1, 2, 3)]), "coloured pixels"),
        (Image.new("RGBA", (8, 8), (1, 1, 1, 128)), "64 pixels that are not opaque"),
        (Image.new("CMYK", (8, 8)), "CMYK"),
        (np.arange(64, dtype=np.float32).reshape(8, 8), "colour model F"),
        (np.arange(32, dtype=np.uint8).reshape(4, 8), "8x4"),
        (np.arange(64, dtype=np.int32).reshape(8, 8) * 2000, "values from 0 to 126000"),
    ],
)
def test_what_is_no_depth_is_refused(picture: Image.Image | np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as error:
        Depth().load(write(tmp_path / "depth.tif", picture), 8)
    assert error.value.remedy
