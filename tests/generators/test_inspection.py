"""`sisug generator inspect` and `convert --to`: what a file is, in words and pictures, and files for other tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from generators.checkpoint_files import (
    random_model,
    rosinality_discriminator,
    rosinality_generator,
    write_nvidia,
    write_rosinality,
    write_tensorflow,
)
from PIL import Image

from sisug.generators import load_discriminator, load_generator

Command = Callable[..., int]


def inspected(sisug: Command, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, str]:
    """The lines of `sisug generator inspect`, by what they are about."""
    assert sisug("generator", "inspect", *arguments) == 0, capsys.readouterr().err
    lines = [line.split(":", 1) for line in capsys.readouterr().out.strip().splitlines()]
    return {name.strip(): rest[0].strip() if rest else "" for name, *rest in lines}


def test_settings_are_those_of_the_file(sisug: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = random_model(32, layers=3, clamp=256.0, half_blocks=2)
    path = write_nvidia(tmp_path / "network.pkl", model)
    facts = inspected(sisug, capsys, path)
    assert facts["family"] == "NVIDIA stylegan2-ada-pytorch"
    assert facts["images"] == "32 x 32 px"
    assert facts["architecture"] == "skip"
    assert facts["mapping"].startswith(f"3 layers, z {model.z_dim}, w {model.w_dim}, 8 styles an image")
    assert facts["clamp"] == "256"
    assert facts["float16"] == "at 16, 32 px"
    assert facts["classes"] == "none (unconditional)"
    assert facts["discriminator"].startswith("resnet")
    assert "research and evaluation only" in facts["licence"]
    assert facts["fingerprint"] == load_generator(path).fingerprint
    assert "missing" not in facts


def test_what_is_missing_is_said(sisug: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "trained.pt"
    torch.save({"g_ema": rosinality_generator(random_model().generator, noises=False)}, path)
    assert sisug("generator", "inspect", path) == 0
    out = capsys.readouterr().out
    assert "missing:       noise constants of 5 layers were missing: drawn with seed 0" in out
    assert "mean style (w_avg, latent_avg) was missing: the mean of 10,000 samples" in out
    assert "discriminator: none in this file" in out


def test_grid_shows_the_generators_images(sisug: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_tensorflow(tmp_path / "network.pkl", random_model())
    for seed, name in ((3, "a"), (3, "b"), (4, "c")):
        inspected(sisug, capsys, path, "--grid", tmp_path / f"{name}.png", "--seed", seed)
    a, b, c = (Image.open(tmp_path / f"{name}.png").convert("RGB") for name in "abc")
    assert a.tobytes() == b.tobytes()
    assert a.tobytes() != c.tobytes()
    generator = load_generator(path)
    z = torch.randn(32, generator.z_dim, generator=torch.Generator().manual_seed(3))
    first = ((generator(z[:1], 0.7)[0].clamp(-1, 1) + 1) * 127.5).round().byte()
    pixels = torch.tensor(list(a.tobytes()), dtype=torch.uint8).reshape(a.height, a.width, 3).permute(2, 0, 1)
    windows = pixels.unfold(1, 16, 1).unfold(2, 16, 1)
    nearest = (windows.int() - first[:, None, None].int()).abs().amax(dim=(0, 3, 4)).min()
    assert int(nearest) <= 1, "the first sample is nowhere in the grid"


def test_class_conditional_files_show_one_class(
    sisug: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write_nvidia(tmp_path / "classes.pkl", random_model(labels=3))
    facts = inspected(sisug, capsys, path)
    assert facts["classes"] == "3: choose one with --label"
    assert sisug("generator", "inspect", path, "--label", "3") == 2
    assert "label 3 was asked for" in capsys.readouterr().err
    assert sisug("generator", "convert", path, "two.safetensors") == 2
    assert "--label" in capsys.readouterr().err
    assert sisug("generator", "convert", path, "two.safetensors", "--label", "2") == 0
    converted, loaded = load_generator(tmp_path / "two.safetensors"), load_generator(path, label=2)
    assert converted.fingerprint == loaded.fingerprint


@pytest.mark.parametrize("arguments", [("--grid", "a.jpg"), ("--truncation", "-1"), ("--seed", "-2")])
def test_bad_arguments(
    sisug: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, str]
) -> None:
    assert sisug("generator", "inspect", "avatars", *arguments) == 2
    assert "Remedy: " in capsys.readouterr().err
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.parametrize("to", ["nvidia-keys", "rosinality"])
def test_other_tools_files_hold_the_same_networks(sisug: Command, tmp_path: Path, to: str) -> None:
    path = write_nvidia(tmp_path / "network.pkl", random_model(32))
    assert sisug("generator", "convert", path, "other.pt", "--to", to) == 0
    other = tmp_path / "other.pt"
    assert load_generator(other).fingerprint == load_generator(path).fingerprint
    ours, theirs = load_discriminator(other), load_discriminator(path)
    assert ours is not None
    assert theirs is not None
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(ours(images), theirs(images))
    sidecar = json.loads((tmp_path / "other.json").read_text())
    assert sidecar["source"]["file"] == "network.pkl"
    assert "research and evaluation only" in sidecar["licence"]


def test_rosinalitys_file_is_what_its_converter_writes(sisug: Command, tmp_path: Path) -> None:
    """Compared with tensors that a writer without sisug's code makes of the same weights."""
    model = random_model(32)
    assert sisug("generator", "convert", write_nvidia(tmp_path / "n.pkl", model), "r.pt", "--to", "rosinality") == 0
    found = torch.load(tmp_path / "r.pt", weights_only=True)
    for part, expected in (
        ("g_ema", rosinality_generator(model.generator)),
        ("d", rosinality_discriminator(model.discriminator)),
    ):
        assert found[part].keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[part][name], value, msg=name)
    assert torch.equal(found["latent_avg"], model.generator["mapping.w_avg"])


def test_nvidias_names_are_all_there(sisug: Command, tmp_path: Path) -> None:
    model = random_model(32)
    source = write_rosinality(tmp_path / "r.pt", model, "trained")
    assert sisug("generator", "convert", source, "n.pt", "--to", "nvidia-keys") == 0
    found = torch.load(tmp_path / "n.pt", weights_only=True)
    assert found["G_ema"].keys() == model.generator.keys()
    assert found["D"].keys() >= model.discriminator.keys()
    for name, value in model.discriminator.items():
        torch.testing.assert_close(found["D"][name], value, msg=name)


def test_what_other_tools_cannot_have(sisug: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_nvidia(tmp_path / "network.pkl", random_model(architecture="resnet"))
    assert sisug("generator", "convert", path, "r.pt", "--to", "rosinality") == 2
    assert "architecture resnet" in capsys.readouterr().err
    assert sisug("generator", "convert", path, "r.pt", "--to", "nvidia-keys", "--precision", "fp16") == 2
    assert sisug("generator", "convert", path, path) == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["network.pkl"]
