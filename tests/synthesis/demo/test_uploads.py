"""Uploads of the demo: hostile files cost a sentence, good ones become small upright squares."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from sisug.errors import DataError
from sisug.synthesis.demo.uploads import LARGEST, read_upload


def _hostile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("hostile.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hostile = _hostile()


@pytest.mark.parametrize("name", hostile.REFUSED)
@pytest.mark.parametrize("exact", [True, False])
def test_hostile_files_are_refused_with_a_sentence(name: str, exact: bool) -> None:
    begun = time.process_time()
    with pytest.raises(DataError) as refused:
        read_upload(hostile.REFUSED[name], exact=exact)
    assert time.process_time() - begun < 1
    assert str(refused.value).startswith("your picture")
    assert "/" not in str(refused.value)


@pytest.mark.slow
def test_no_upload_takes_two_seconds_or_a_gigabyte() -> None:
    # In a process of its own, whose peak of memory is that of the uploads.
    program = f"""
import resource, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import hostile
from sisug.errors import DataError
from sisug.synthesis.demo.uploads import read_upload
files = hostile.REFUSED | hostile.heavy()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, content in files.items():
    for exact in (True, False):
        begun = time.process_time()
        try:
            picture = read_upload(content, exact=exact)
            assert max(picture.size) <= 1024, name
        except DataError:
            assert name in hostile.REFUSED, name
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(name, exact, round(time.process_time() - begun, 2), peak - before)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.rsplit(" ", 3) for line in done.stdout.splitlines()]
    assert len(lines) == 2 * (len(hostile.REFUSED) + 4)
    assert max(float(line[2]) for line in lines) < 2, done.stdout
    assert int(lines[-1][3]) < 2**20, done.stdout  # KiB


def test_a_photo_is_turned_upright_and_keeps_nothing_of_its_exif() -> None:
    photo = Image.new("RGB", (40, 20), (255, 0, 0))
    photo.paste((0, 0, 255), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[274], exif[271] = 6, "a camera"  # turned by a quarter
    read = read_upload(hostile.jpeg(photo, exif=exif, quality=95), exact=False)
    assert read.size == (20, 20)
    assert not read.getexif()
    assert not {"exif", "xmp", "comment"} & read.info.keys()
    upper, lower = np.asarray(read)[2, 10], np.asarray(read)[-3, 10]
    assert upper[2] > 200 > lower[2]


def test_a_mask_made_smaller_holds_no_new_value() -> None:
    mask = np.array([0, 7, 250], np.uint8)[np.random.default_rng(0).integers(0, 3, (1500, 1500))]
    read = read_upload(hostile.png(Image.fromarray(mask)), exact=True)
    assert read.size == (LARGEST, LARGEST)
    assert set(np.unique(read)) == {0, 7, 250}


def test_the_middle_of_a_wide_picture_is_taken() -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 9
    assert (np.asarray(read_upload(hostile.png(Image.fromarray(wide)), exact=True)) == 9).all()
