"""Files that strangers might send, by name: what tests of the demo upload."""

from __future__ import annotations

import struct
import zipfile
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image


def png(picture: Image.Image, **options: Any) -> bytes:
    written = BytesIO()
    picture.save(written, format="PNG", **options)
    return written.getvalue()


def jpeg(picture: Image.Image, **options: Any) -> bytes:
    written = BytesIO()
    picture.save(written, format="JPEG", **options)
    return written.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_claims(width: int, height: int, content: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG whose header says a size; what follows is up to the caller."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    return start + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def many_scans(count: int = 3000) -> bytes:
    """A progressive JPEG that says its last scan again and again."""
    whole = jpeg(Image.new("RGB", (2000, 2000), (90, 20, 10)), progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * count + whole[-2:]


def zipped() -> bytes:
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("../../evil.png", b"x")
    return written.getvalue()


def webp(size: int) -> bytes:
    written = BytesIO()
    Image.new("RGB", (size, size)).save(written, format="WEBP", lossless=True, quality=0, method=0)
    return written.getvalue()


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

REFUSED = {
    "empty": b"",
    "text": b"hello",
    "svg": SVG,
    "html": b"<script>alert(1)</script>",
    "zip": zipped(),
    "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%pipe%id) (r) file\n",
    "gif": b"GIF89a" + b"\xff\xff\xff\xff" * 30,
    "claims": png_of_claims(30_000, 30_000),
    "overflow": png_of_claims(2**31 - 1, 2**31 - 1),
    "short": png_of_claims(2000, 2000, b"\0" * 100),
    "cut": png(Image.fromarray(NOISE))[:500],
    "text bomb": png_of_claims(64, 64, b"\0" * 64 * 193, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 200_000_000))),
    "bitmap": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 200_000, 200_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "scans": many_scans(),
    "100 MB": b"\x89PNG\r\n\x1a\n" + bytes(100 * 2**20),
}
"""No picture, or one that costs too much."""


def heavy() -> dict[str, bytes]:
    """Pictures at the limit, which are read."""
    return {
        "black": png(Image.new("RGBA", (5000, 5000)), compress_level=1),
        "photo": jpeg(Image.fromarray(np.tile(NOISE, (78, 78, 1))), quality=30, progressive=True),
        "lossless": webp(5000),
        "wide": png(Image.new("L", (26_000, 900))),
    }
