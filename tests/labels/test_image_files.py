"""One image file to training form: every format and mode against closed forms, damaged files refused."""

from __future__ import annotations

import errno
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from sisug.labels.image_files import Colour, Examined, examine

WHITE: Colour = (255, 255, 255)

ROWS, COLUMNS = np.mgrid[:32, :32]
RGB = np.stack([ROWS * 8, COLUMNS * 8, np.full((32, 32), 77)], -1).astype(np.uint8)
"""Height, width, channel; each row and each column differs."""


def examined(
    path: Path, image: Image.Image | np.ndarray, side: int = 32, background: Colour = WHITE, **how: Any
) -> Any:
    """What becomes of an image that was saved: changes and pixels as (height, width, channel)."""
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **how)
    result = examine(path, side, background)
    assert result.problem is None, result
    assert result.pixels is not None
    assert result.pixels.shape == (3, side, side)
    assert result.pixels.dtype == np.uint8
    return result.changes, result.pixels.transpose(1, 2, 0).astype(int)


def assert_near(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert np.abs(actual - expected.astype(float)).max() <= tolerance


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "ppm", "qoi", "tga", "jp2"])
def test_rgb_passes_unchanged_in_every_lossless_format(tmp_path: Path, suffix: str) -> None:
    options = {"webp": {"lossless": True}, "jp2": {"irreversible": False}}.get(suffix, {})
    changes, pixels = examined(tmp_path / f"a.{suffix}", RGB, **options)
    assert changes == []
    assert np.array_equal(pixels, RGB)


@pytest.mark.parametrize("suffix", ["jpg", "avif"])
def test_rgb_nearly_passes_in_lossy_formats(tmp_path: Path, suffix: str) -> None:
    changes, pixels = examined(tmp_path / f"a.{suffix}", RGB, quality=95, subsampling="4:4:4")
    assert changes == []
    assert_near(pixels, RGB, 8)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_grey(tmp_path: Path, suffix: str) -> None:
    changes, pixels = examined(tmp_path / f"a.{suffix}", RGB[..., 0], **({"quality": 100} if suffix == "jpg" else {}))
    assert changes == ["grey"]
    assert_near(pixels, RGB[..., :1].repeat(3, -1), 2 if suffix == "jpg" else 0)


def test_one_bit(tmp_path: Path) -> None:
    changes, pixels = examined(tmp_path / "a.png", Image.fromarray(RGB[..., 0] > 100))
    assert changes == ["grey"]
    assert np.array_equal(pixels, 255 * (RGB[..., :1] > 100).repeat(3, -1))


def test_cmyk(tmp_path: Path) -> None:
    inks = np.concatenate([RGB, np.full((32, 32, 1), 51, np.uint8)], -1)
    changes, pixels = examined(tmp_path / "a.tif", Image.fromarray(inks, "CMYK"))
    assert changes == ["CMYK"]
    assert_near(pixels, (255.0 - RGB) * (255 - 51) / 255, 1)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    inks = Image.new("CMYK", (32, 32), (0, 255, 51, 0))
    changes, pixels = examined(tmp_path / "a.jpg", inks, quality=100)
    assert changes == ["CMYK"]
    assert_near(pixels, np.array([255, 0, 204]), 3)


def test_palette(tmp_path: Path) -> None:
    few = Image.fromarray((RGB // 128 * 100).astype(np.uint8))
    changes, pixels = examined(tmp_path / "a.png", few.quantize(16))
    assert changes == ["palette"]
    assert np.array_equal(pixels, np.asarray(few))


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("webp", {"lossless": True, "exact": True}), ("tif", {})])
@pytest.mark.parametrize("background", [WHITE, (10, 200, 90)])
def test_alpha_is_laid_on_the_background(
    tmp_path: Path, suffix: str, options: dict[str, bool], background: Colour
) -> None:
    alpha = np.arange(1024).reshape(32, 32, 1) % 256
    image = Image.fromarray(np.concatenate([RGB, alpha.astype(np.uint8)], -1))
    changes, pixels = examined(tmp_path / f"a.{suffix}", image, background=background, **options)
    assert changes == ["transparent"]
    share = alpha / 255
    assert_near(pixels, RGB * share + np.array(background) * (1 - share), 1)


def test_grey_with_alpha(tmp_path: Path) -> None:
    image = Image.merge("LA", [Image.fromarray(RGB[..., 0]), Image.new("L", (32, 32), 102)])
    changes, pixels = examined(tmp_path / "a.png", image)
    assert changes == ["transparent", "grey"]
    assert_near(pixels, RGB[..., :1].repeat(3, -1) * 0.4 + 255 * 0.6, 1)


def test_palette_with_transparent_entry(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    image.paste(0, (0, 0, 16, 32))
    changes, pixels = examined(tmp_path / "a.png", image, transparency=0)
    assert changes == ["transparent", "palette"]
    assert (pixels[:, :16] == 255).all()
    assert (pixels[:, 16:] == [10, 20, 30]).all()


def test_rgb_with_one_transparent_colour(tmp_path: Path) -> None:
    changes, pixels = examined(tmp_path / "a.png", RGB, transparency=(0, 0, 77))
    assert changes == ["transparent"]
    assert (pixels[0, 0] == 255).all()
    assert np.array_equal(pixels[1:], RGB[1:])


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_grey_of_16_bits_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(0, 65535, 1024).round().astype(np.uint16).reshape(32, 32)
    changes, pixels = examined(tmp_path / f"a.{suffix}", values)
    assert changes == ["16 bit", "grey"]
    assert_near(pixels, (values / 257)[..., None].repeat(3, -1), 0.51)


def png_of_16_bits(values: np.ndarray) -> bytes:
    """RGB of 16 bits, which Pillow reads but does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_rgb_of_16_bits(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_of_16_bits(RGB.astype(np.uint16) * 257))
    result = examine(tmp_path / "a.png", 32, WHITE)
    assert result.changes == ["16 bit"]
    assert result.pixels is not None
    assert np.array_equal(result.pixels.transpose(1, 2, 0), RGB)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "lime")]
    how = {"lossless": True} if suffix == "webp" else {}
    changes, pixels = examined(
        tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], duration=100, **how
    )
    assert "animated" in changes
    assert (pixels == [255, 0, 0]).all()


def test_a_photo_with_a_thumbnail_is_no_animation(tmp_path: Path) -> None:
    photo = Image.fromarray(RGB)
    photo.save(tmp_path / "a.mpo", save_all=True, append_images=[photo.resize((8, 8))])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert examine(tmp_path / "a.jpg", 32, WHITE).changes == []


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_exif_orientation_gives_the_upright_image(tmp_path: Path, suffix: str, orientation: int) -> None:
    # From EXIF's own table: on which side of the upright picture the stored first row and first column lie.
    stored = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: RGB[:, ::-1].transpose(1, 0, 2),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: RGB[::-1].transpose(1, 0, 2),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    how = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    changes, pixels = examined(tmp_path / f"a.{suffix}", np.ascontiguousarray(stored), exif=exif, **how)
    assert changes == ([] if orientation == 1 else ["turned"])
    assert_near(pixels, RGB, 8 if suffix == "jpg" else 0)


def test_damaged_exif_does_no_harm(tmp_path: Path) -> None:
    changes, pixels = examined(tmp_path / "a.png", RGB, exif=b"Exif\0\0garbage")
    assert changes == []
    assert np.array_equal(pixels, RGB)


def linear_profile(space: bytes = b"RGB ") -> bytes:
    """A colour profile with sRGB's primaries and linear light, in the form of ICC's specification, version 2.1."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    def text(content: bytes) -> bytes:
        return b"desc" + bytes(4) + struct.pack(">I", len(content) + 1) + content + b"\0" + bytes(78)

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + fixed(*values)

    linear = b"curv" + bytes(8)
    tags = {
        b"desc": text(b"linear light"),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.4360747, 0.2225045, 0.0139322),
        b"gXYZ": xyz(0.3850649, 0.7168786, 0.0971045),
        b"bXYZ": xyz(0.1430804, 0.0606169, 0.7141733),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC", b"kTRC"), linear),
    }
    table, content = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    body = struct.pack(">I", len(tags)) + table + content
    header = struct.pack(">I", 128 + len(body)) + bytes(4) + b"\x02\x10\0\0" + b"mntr" + space + b"XYZ " + bytes(12)
    header += b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return header.ljust(128, b"\0") + body


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_colour_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    changes, pixels = examined(tmp_path / "a.png", RGB, icc_profile=linear_profile())
    assert changes == ["profile"]
    assert_near(pixels, to_srgb(RGB / 255), 2)


def test_colour_profile_of_a_grey_image(tmp_path: Path) -> None:
    changes, pixels = examined(tmp_path / "a.png", RGB[..., 0], icc_profile=linear_profile(b"GRAY"))
    assert changes == ["grey", "profile"]
    assert_near(pixels, to_srgb(RGB[..., :1].repeat(3, -1) / 255), 2)


def test_transparency_comes_after_the_colour_profile(tmp_path: Path) -> None:
    image = Image.new("RGBA", (32, 32), (55, 55, 55, 102))
    changes, pixels = examined(tmp_path / "a.png", image, icc_profile=linear_profile())
    assert changes == ["transparent", "profile"]
    assert_near(pixels, 0.4 * to_srgb(np.full((32, 32, 3), 55 / 255)) + 0.6 * 255, 2)


def test_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    changes, pixels = examined(tmp_path / "a.png", RGB, icc_profile=profile)
    assert changes == []
    assert np.array_equal(pixels, RGB)


@pytest.mark.parametrize("profile", [b"garbage", linear_profile()[:200], linear_profile(b"CMYK")])
def test_useless_profile_is_ignored(tmp_path: Path, profile: bytes) -> None:
    changes, pixels = examined(tmp_path / "a.png", RGB, icc_profile=profile)
    assert changes == ["bad profile"]
    assert np.array_equal(pixels, RGB)


# --- size --------------------------------------------------------------------------------------------------------


def lanczos(size: int, side: int) -> np.ndarray:
    """Matrix of a one-dimensional Lanczos-3 resize whose support grows with the scale."""
    scale = size / side
    centres = (np.arange(side)[:, None] + 0.5) * scale
    distance = (np.arange(size)[None] + 0.5 - centres) / scale
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("side", [16, 23, 64])
def test_resize_is_lanczos_over_the_whole_support(tmp_path: Path, side: int) -> None:
    # Of medium contrast: between its two directions Pillow clips to 8 bits.
    noise = np.random.default_rng(0).integers(64, 192, (100, 100, 3), dtype=np.uint8)
    changes, pixels = examined(tmp_path / "a.png", noise, side)
    assert changes == []
    matrix = lanczos(100, side)
    expected = np.einsum("yh,xw,hwc->yxc", matrix, matrix, noise.astype(float)).clip(0, 255)
    assert_near(pixels, expected, 2)


def test_fine_stripes_become_grey_instead_of_aliasing(tmp_path: Path) -> None:
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    _, pixels = examined(tmp_path / "a.png", stripes, 32)
    assert_near(pixels[:, 2:-2], np.full(1, 127.5), 2)


@pytest.mark.parametrize("wide", [True, False])
def test_the_central_square_is_kept(tmp_path: Path, wide: bool) -> None:
    canvas = np.zeros((32, 51, 3), np.uint8)
    canvas[:, 9:41] = RGB  # 9 columns to the left, 10 to the right
    changes, pixels = examined(tmp_path / "a.png", np.ascontiguousarray(canvas if wide else canvas.transpose(1, 0, 2)))
    assert changes == ["cropped"]
    assert np.array_equal(pixels, RGB if wide else RGB.transpose(1, 0, 2))


# --- what cannot be used -----------------------------------------------------------------------------------------


def refused(path: Path, side: int = 32) -> Examined:
    result = examine(path, side, WHITE)
    assert result.pixels is None
    return result


def test_too_small(tmp_path: Path) -> None:
    Image.new("RGB", (31, 64)).save(tmp_path / "a.png")
    assert refused(tmp_path / "a.png") == Examined("too small", "31x64")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif", "bmp"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    assert examine(path, 32, WHITE).problem is None
    path.write_bytes(whole[: len(whole) * 3 // 4])
    result = refused(path)
    assert result.problem == "unreadable"
    assert result.detail


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert refused(tmp_path / "a.jpg") == Examined("unreadable", "empty file")


def test_text_that_calls_itself_png(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<html>404 Not Found</html>")
    assert refused(tmp_path / "a.png") == Examined("unreadable", "not an image")


def test_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    assert refused(tmp_path / "a.png") == Examined("unreadable", "No such file or directory")


def test_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "a.png")

    monkeypatch.setattr(Image, "open", refuse)
    assert refused(tmp_path / "a.png") == Examined("unreadable", "Permission denied")


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    result = refused(tmp_path / "a.png")
    assert result.problem == "unreadable"
    assert "more pixels than 1,000" in result.detail


@pytest.mark.parametrize("values", [np.full((32, 32), 0.5, np.float32), np.full((32, 32), 70_000, np.int32)])
def test_values_without_a_defined_white(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    result = refused(tmp_path / "a.tif")
    assert result.problem == "unreadable"
    assert "not defined" in result.detail
