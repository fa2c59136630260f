"""Presets: entries that agree with the experiments, files found or fetched, and the words where neither is possible."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from generators.file_server import FileServer, serve

import sisug.generators.preset as presets
from sisug.errors import CheckpointError
from sisug.generators import Generator
from sisug.generators.native import write_native
from sisug.generators.preset import Preset, place_of, preset, preset_file, preset_names
from sisug.labels.label_sets import LABEL_SETS

NAMES = ["afhq-cat", "avatars", "celebahq", "faces", "ffhq", "lsun-bedroom", "lsun-church"]
PHOTOS = [name for name in NAMES if name != "avatars"]
PUBLISHERS = ("https://api.ngc.nvidia.com/", "https://nvlabs-fi-cdn.nvidia.com/")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; and whoever would go to the net fails."""

    def no_net(url: str, path: Path, **options: Any) -> Path:
        raise AssertionError(f"{url} was asked for")

    monkeypatch.setattr(presets, "download", no_net)
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.mark.parametrize("name", NAMES)
def test_entries_are_complete(name: str) -> None:
    entry = preset(name)
    assert entry.name == name
    assert Path(entry.file).name == entry.file
    assert entry.family in {"native", "nvidia", "tensorflow", "rosinality", "genforce", "mobilestylegan"}
    assert entry.licence
    assert entry.data_licence
    assert entry.note
    assert entry.resolution & (entry.resolution - 1) == 0
    assert 4 <= entry.split < entry.resolution
    assert 0 < entry.truncation <= 1
    assert entry.label_set is None or entry.label_set in LABEL_SETS
    assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)
    assert entry.size_mb is None or 1 <= entry.size_mb < 2000
    if entry.url is not None:
        assert entry.url.startswith(PUBLISHERS)
        assert entry.url.endswith(f"/{entry.file}")


def test_names() -> None:
    assert preset_names() == NAMES
    files = [preset(name).file for name in NAMES]
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("name", ["unheard-of", "", "../presets/ffhq", "FFHQ"])
def test_unknown_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(CheckpointError, match=", ".join(NAMES)):
        preset(name)


@pytest.mark.parametrize("name", NAMES)
def test_experiments_say_what_the_entries_say(name: str, repository: Path) -> None:
    file = repository / f"experiments/generator/{name}.yaml"
    if not file.is_file():  # its stage 1 has settings of its own
        file = repository / f"experiments/rearranger/{name}.yaml"
    layer = yaml.safe_load(file.read_text())
    arguments = layer["model"]["init_args"]
    entry = preset(name)
    assert (arguments["generator"], arguments["split"], arguments.get("truncation", 1.0)) == (
        entry.name,
        entry.split,
        entry.truncation,
    )
    if name != "avatars":
        assert layer["run"]["name"] == f"rearranger-{name}"


def test_what_ships_needs_no_cache(cache: Path) -> None:
    assert preset_file(preset("avatars")).is_file()
    assert not cache.exists()


@pytest.mark.parametrize("name", PHOTOS)
def test_a_file_in_the_cache_is_taken_as_it_is(name: str, cache: Path) -> None:
    path = cache / "generators" / preset(name).file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"put there by hand")
    assert preset_file(preset(name)) == place_of(preset(name)) == path


def test_without_an_address_the_error_says_what_to_put_where(cache: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        preset_file(preset("lsun-bedroom"))
    path = str(cache / "generators" / "stylegan2_bedroom_generator.pth")
    assert path in caught.value.remedy
    assert "--model.init_args.generator FILE" in caught.value.remedy
    assert "https://github.com/AtlantixJJ/LinearGAN" in caught.value.cause
    assert not cache.exists()


def entry_of(server: FileServer, sha256: str | None) -> Preset:
    return Preset(
        "test", "file.pkl", server.url, sha256, 1, "nvidia", "some licence", "none", 64, 32, 1.0, None, "by tests"
    )


def test_what_is_missing_is_downloaded_and_the_licence_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("SISUG_CACHE", str(cache))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    caplog.set_level("INFO", logger="sisug")
    with serve(FileServer(b"weights" * 1000)) as server:
        path = preset_file(entry_of(server, server.sha256))
        assert path == cache / "generators" / "file.pkl"
        assert path.read_bytes() == server.content
        assert preset_file(entry_of(server, server.sha256)) == path
        assert len(server.asked) == 1
        assert "some licence" in caplog.text
        path.unlink()
        with pytest.raises(CheckpointError, match="expected was 0000"):
            preset_file(entry_of(server, "0" * 64))
    assert not path.exists()


# --- make ----------------------------------------------------------------------------------------------------------


def make(repository: Path, data: str) -> subprocess.CompletedProcess[str]:
    """What `make train-rearranger` would run, without running it."""
    return subprocess.run(
        ["make", "-n", "-o", ".venv/.sisug-is-installed", "train-rearranger", f"DATA={data}"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize("name", PHOTOS)
def test_make_runs_a_preset_as_its_header_says(name: str, repository: Path) -> None:
    layers = [repository / f"experiments/{folder}/{name}.yaml" for folder in ("generator", "rearranger")]
    header = next(layer for layer in layers if layer.is_file()).read_text()
    command = re.search(r"^# (sisug fit .+)$", header, flags=re.MULTILINE)
    assert command is not None
    assert command[1] in make(repository, name).stdout


@pytest.mark.parametrize("suffix", ["safetensors", "pkl", "pt", "pth", "ckpt"])
def test_make_takes_a_file_of_any_family(suffix: str, repository: Path) -> None:
    line = make(repository, f"models/mine.{suffix}").stdout
    assert "--config experiments/rearranger/file.yaml" in line
    assert f'--model.init_args.generator "models/mine.{suffix}"' in line
    assert '--run.name "rearranger-mine"' in line


# --- runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*Precision bf16-mixed is not supported by")
@pytest.mark.parametrize(
    # Faces have a stage 1 of their own, with tests of its own.
    "name",
    [name if name == "afhq-cat" else pytest.param(name, marks=pytest.mark.slow) for name in PHOTOS if name != "faces"],
)
def test_stage_1_runs_on_a_preset(
    name: str, sisug: Callable[..., int], repository: Path, tmp_path: Path, cache: Path
) -> None:
    # Tiny but for its resolution, which the split needs; under the name of the real one.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(4, 4, {4: 4, 8: 4, 16: 4, 32: 4, 64: 4}, mapping_layers=1)
    write_native(tmp_path / "tiny.safetensors", generator)
    path = place_of(preset(name))
    path.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "tiny.safetensors", path)
    shutil.copy(tmp_path / "tiny.json", path.with_suffix(".json"))

    layers = ("base.yaml", "rearranger/file.yaml", f"generator/{name}.yaml", "overlays/smoke.yaml")
    arguments = [part for layer in layers for part in ("--config", repository / "experiments" / layer)]
    small = [
        "--data.init_args.batch_size=2",
        "--data.init_args.val_pairs=2",
        "--model.init_args.clusters=3",
        "--model.init_args.width=8",
        "--trainer.max_epochs=1",
        "--data.init_args.images_per_epoch=4",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]
    assert sisug("fit", *arguments, *small) == 0
    assert (tmp_path / f"runs/rearranger-{name}/version_0/checkpoints/last.ckpt").is_file()
