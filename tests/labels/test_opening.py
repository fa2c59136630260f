"""Picture files before they are decoded: formats by name, a limit on pixels, texts that are none of the picture."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin

from sisug.errors import DataError
from sisug.labels.image_files import examine
from sisug.labels.opening import MOST_DRAWN, MOST_PIXELS, opened_picture
from sisug.labels.pictures import read_picture

PIXELS = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def large_png(path: Path, width: int, height: int) -> Path:
    """A small file of a large black picture."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_large_pictures_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_decoding(self: Image.Image) -> None:
        pytest.fail("it was decoded")

    path = large_png(tmp_path / "x.png", 13_000, 13_000)
    assert path.stat().st_size < 200_000
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", no_decoding)
    with pytest.raises(DataError, match=r"13000x13000 pixels.*4096x4096.*make it smaller"):
        read_picture(path)
    found = examine(path, 64, (255, 255, 255))
    assert found.problem == "unreadable"
    assert "8192x8192" in found.detail


def test_the_limits_are_what_messages_say() -> None:
    assert MOST_DRAWN == 4096**2
    assert MOST_PIXELS == 8192**2


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.eps"])
def test_no_file_reaches_a_program_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def ghostscript(*_: object, **__: object) -> None:
        pytest.fail("Ghostscript was called")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    (tmp_path / name).write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(DataError, match="is not a picture"):
        read_picture(tmp_path / name)
    assert examine(tmp_path / name, 4, (255, 255, 255)).problem == "unreadable"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tiff", "ppm", "tga", "pcx", "sgi", "jp2"])
def test_formats_that_people_use_are_read(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / f"x.{suffix}")
    assert read_picture(tmp_path / f"x.{suffix}").image.size == (16, 16)


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "compressed iTXt"])
@pytest.mark.parametrize("size", [100, 3_000_000])
def test_texts_of_any_size_leave_the_picture_readable(tmp_path: Path, kind: str, size: int) -> None:
    info = PngImagePlugin.PngInfo()
    if "iTXt" in kind:
        info.add_itxt("workflow", "x" * size, zip="compressed" in kind)
    else:
        info.add_text("workflow", "x" * size, zip=kind == "zTXt")
    Image.fromarray(PIXELS).save(tmp_path / "x.png", pnginfo=info)
    assert np.array_equal(np.asarray(read_picture(tmp_path / "x.png").image), PIXELS)
    assert examine(tmp_path / "x.png", 16, (255, 255, 255)).problem is None


def test_what_else_a_png_says_of_itself_stays(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 3_000_000)
    palette = Image.fromarray(PIXELS).quantize(8)
    exif = Image.Exif()
    exif[0x0112] = 6
    palette.save(tmp_path / "x.png", pnginfo=info, transparency=3, exif=exif)
    with opened_picture(tmp_path / "x.png") as image:
        assert image.mode == "P"
        assert image.info["transparency"] == 3
        assert image.getexif()[0x0112] == 6
        assert np.array_equal(np.asarray(image), np.asarray(palette))


@pytest.mark.parametrize("keep", [0, 7, 20, 60, 0.5])
def test_pngs_cut_short_are_a_sentence(tmp_path: Path, keep: float) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(DataError):
        read_picture(tmp_path / "x.png")
