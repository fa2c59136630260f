"""`sisug annotate export` and `check` as a user runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import auto_cli
from PIL import Image

from sisug.errors import ConfigError, DataError
from sisug.generators import load_generator
from sisug.segmentation.annotation import read_annotations
from sisug.segmentation.annotation.commands import check, export
from sisug.segmentation.annotation.picking import first_samples, fit_codebook, pick_samples

COLOURS = np.array([(200, 150, 100), (0, 0, 255), (0, 160, 0)], np.uint8)


def command(function: Callable[..., str], *arguments: object) -> str:
    return auto_cli(function, args=[str(each) for each in arguments], as_positional=True)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "face.json"
    path.write_text('{"skin": "#c89664", "eyes": "#0000ff", "hat": "#00a000"}')
    return path


@pytest.fixture
def folder(tiny_generator_file: Path, labels: Path, tmp_path: Path) -> Path:
    out = tmp_path / "faces"
    options = ["--labels", labels, "--samples", 3, "--pick", "seed", "--seed", 4, "--scale", 2]
    said = command(export, tiny_generator_file, out, *options)
    assert "sisug annotate check" in said
    return out


def paint(folder: Path, number: int, mask: np.ndarray) -> None:
    Image.fromarray(COLOURS[mask]).save(folder / f"masks/sample-{number:03d}.png")


def test_samples_of_a_seed_go_out_and_come_back(folder: Path, tiny_generator_file: Path):
    generator = load_generator(tiny_generator_file)
    mask = np.zeros((16, 16), np.int64)
    mask[:4, :5] = 1
    paint(folder, 1, mask)
    samples = read_annotations(folder, generator)
    assert torch.equal(samples.z, first_samples(generator, 3, seed=4)[1:2])
    assert torch.equal(samples.masks[0], torch.from_numpy(mask))


def test_covering_samples_are_those_of_the_function(tiny_generator_file: Path, labels: Path, tmp_path: Path):
    command(export, tiny_generator_file, tmp_path / "out", "--labels", labels, "--samples", 2, "--truncation", 0.5)
    generator = load_generator(tiny_generator_file)
    expected = pick_samples(generator, fit_codebook(generator), 2, truncation=0.5)
    for number in range(2):
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / f"out/masks/sample-{number:03d}.png")
    samples = read_annotations(tmp_path / "out", generator)
    assert torch.equal(samples.z, expected)
    assert samples.truncation == 0.5


def test_check_counts_the_pixels_of_each_class(folder: Path):
    mask = np.zeros((16, 16), np.int64)
    mask[:4, :5] = 1
    paint(folder, 0, mask)
    paint(folder, 2, np.ones((48, 48), np.int64))
    Image.new("RGB", (4, 4)).save(folder / "masks/Sample-1.png")
    report = command(check, folder)
    rows = {line.split("  ")[0]: line.split() for line in report.splitlines() if line}
    assert rows["skin"][1:] == ["236", "0", "236"]
    assert rows["eyes"][1:] == ["20", "256", "276"]
    assert rows["without a label"][-3:] == ["0", "0", "0"]
    assert rows["sample-002"][1:3] == ["48x48", "good,"]
    assert "no mask yet" in " ".join(rows["sample-001"])
    assert "Sample-1.png is not read" in report
    assert "No mask shows: hat." in report


def test_check_reports_the_good_beside_the_bad(folder: Path, capsys: pytest.CaptureFixture[str]):
    paint(folder, 0, np.zeros((16, 16), np.int64))
    paint(folder, 1, np.zeros((20, 20), np.int64))
    pixels = COLOURS[np.zeros((16, 16), np.int64)]
    pixels[0, :7] = (1, 2, 3)
    Image.fromarray(pixels).save(folder / "masks/sample-002.png")
    with pytest.raises(DataError, match=r"2 of 3 masks .*: sample-001, sample-002"):
        command(check, folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["sample-000", "16x16", "good,"]
    assert lines[1].split()[:3] == ["sample-001", "20x20", "BAD:"]
    assert "#010203 (7 px" in lines[2]
    assert any(line.split() == ["skin", "256", "256"] for line in lines)


def test_check_of_an_unreadable_file_and_of_nothing(folder: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(DataError, match="holds no mask"):
        command(check, folder)
    (folder / "masks/sample-000.png").write_text("no picture")
    with pytest.raises(DataError, match="1 of 1 masks"):
        command(check, folder)
    assert "unreadable  BAD:" in capsys.readouterr().out


def test_bad_arguments_are_refused_before_the_generator_is_read(labels: Path, tmp_path: Path):
    missing = str(tmp_path / "missing.pt")
    with pytest.raises(ConfigError, match="add --labels FILE"):
        export(missing, tmp_path / "out")
    with pytest.raises(ConfigError, match="samples 0"):
        export(missing, tmp_path / "out", str(labels), samples=0)
    with pytest.raises(ConfigError, match="is not empty"):
        export(missing, tmp_path, str(labels))
    with pytest.raises(DataError, match="no label set"):
        export(missing, tmp_path / "out", "nothing")
    assert not (tmp_path / "out").exists()
