"""Generator training through the `sisug` command: what a run leaves, and runs that are stopped, killed, spread over
processes or given input that cannot work.
"""

from __future__ import annotations

import csv
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from integration.conftest import EXPERIMENTS
from integration.generator_runs import ToyImages, small_module, train, write_layer
from integration.runs import Layers, Process, differences, half_written, load
from PIL import Image
from safetensors.torch import load_file

from sisug.common.image_grid import make_grid
from sisug.generators.module import GeneratorModule

Command = Callable[..., int]
Start = Callable[..., Process]

TOOLS = "integration.generator_runs"
TRAIN = {"generator", "discriminator", "real_sign", "r1", "path_length", "augment"}
SCORES = {"frechet_quadrants", "variety_quadrants"}
STATE = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "loops")
"""All of a checkpoint but the callbacks' notes (paths, times), the settings and the command."""


def layers_in(folder: Path, **data: Any) -> Layers:
    write_layer(folder / "tiny.yaml", **data)
    return ("--config", str(EXPERIMENTS / "base.yaml"), "--config", str(folder / "tiny.yaml"))


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    """The tiny experiment: four epochs of two batches of four images of 16 px."""
    return layers_in(tmp_path)


def columns(run: Path) -> dict[str, list[float]]:
    """Values of metrics.csv by name."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def named(stage: str, names: set[str]) -> set[str]:
    return {f"{stage}/{name}" for name in names}


def images_seen(checkpoint: Path) -> int:
    return int(load(checkpoint)["state_dict"]["images_seen"])


def assert_equal_end(unbroken: Path, resumed: Path, *, augmented: bool = True) -> None:
    a, b = ({key: load(path).get(key) for key in STATE} for path in (unbroken, resumed))
    names = {"images_seen", "path_length_mean", "generator.mapping.w_avg", "average.images"}
    if augmented:
        names |= {"augmentation.probability"}
    assert names <= a["state_dict"].keys()
    assert len(a["optimizer_states"]) == 2
    assert all(state["state"] for state in a["optimizer_states"])
    assert differences(a, b) == []


# --- what a run leaves ---------------------------------------------------------------------------------------------


def test_fit_then_validate_then_test(sisug: Command, layers: Layers, tmp_path: Path) -> None:
    assert sisug("fit", *layers) == 0
    run = tmp_path / "runs/tiny/version_0"
    assert {path.name for path in run.iterdir()} >= {"checkpoints", "config.yaml", "grids", "metrics.csv"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    logged = columns(run)
    assert named("train", TRAIN) | named("val", SCORES) | {"progress/kimg"} <= logged.keys()
    assert len(logged["train/generator"]) == 8
    assert len(set(logged["train/r1"])) == 3  # of steps 0, 3, 6; between them the file repeats the last one
    assert len(set(logged["train/path_length"])) == 4
    distances = logged["val/frechet_quadrants"]
    assert len(set(distances)) == 4

    best, last = (run / f"checkpoints/{name}.ckpt" for name in ("best", "last"))
    assert images_seen(best) == 8 * (1 + int(np.argmin(distances)))
    assert images_seen(last) == 32
    measured = load(best)["measured"]["val/frechet_quadrants"]
    assert measured["value"] == pytest.approx(min(distances), rel=1e-5)
    assert (measured["extractor"], measured["real"], measured["generated"]) == ("quadrants", 12, 10)

    # The picture is of the averaged weights, always of the same latents.
    module = GeneratorModule.load_from_checkpoint(last)
    samples = module.sample(torch.arange(6), "grid")
    with Image.open(run / "grids/val-samples-000000.png") as grid:
        expected = np.asarray(make_grid(torch.split(samples, 3), ["", ""]), dtype=int)
        assert np.abs(np.asarray(grid, dtype=int) - expected).max() <= 1

    before = last.read_bytes()
    assert sisug("validate", *layers, "--ckpt_path", last) == 0
    again = columns(tmp_path / "runs/tiny/version_1")
    for name in named("val", SCORES):
        assert again[name] == pytest.approx(logged[name][-1:], rel=1e-5)
    assert sisug("test", *layers, "--ckpt_path", last) == 0
    tested = tmp_path / "runs/tiny/version_2"
    scores = columns(tested)
    assert {path.name for path in (tested / "evaluation").iterdir()} == {f"{name}.json" for name in SCORES}
    for name in SCORES:
        record = json.loads((tested / "evaluation" / f"{name}.json").read_text())
        assert float(record["value"]) == pytest.approx(scores[f"test/{name}"][0], rel=1e-5)
        assert record["samples"] == {"real": 20, "generated": 10}
    assert list((tested / "grids").iterdir()) == [tested / "grids/test-samples-000000.png"]
    assert last.read_bytes() == before
    assert half_written(tmp_path / "runs") == []


def test_training_goes_on_from_another_generators_file(
    sisug: Command, layers: Layers, tmp_path: Path, tiny_generator_file: Path
) -> None:
    still = ("--model.init_args.learning_rate", 0, "--trainer.max_epochs", 1)
    assert sisug("fit", *layers, "--model.init_args.init", tiny_generator_file, *still) == 0
    checkpoint = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
    state, stored = load(checkpoint)["state_dict"], load_file(tiny_generator_file)
    for name, value in stored.items():
        if name != "mapping.w_avg":  # which follows the latents of the run
            assert torch.equal(state[f"generator.{name}"], value), name


# --- resume --------------------------------------------------------------------------------------------------------

RICH = ("--trainer.precision", "bf16-mixed")
PLAIN = ("--model.init_args.augment", "none", "--model.init_args.path_length_weight", 0)


@pytest.mark.slow  # the run on a folder, below, is the quick one
@pytest.mark.parametrize("settings", [PLAIN, RICH], ids=["plain", "rich"])
def test_resumed_equals_unbroken(sisug: Command, layers: Layers, tmp_path: Path, settings: tuple[Any, ...]) -> None:
    common = ("fit", *layers, *settings)
    assert sisug(*common, "--run.name", "unbroken") == 0
    unbroken = tmp_path / "runs/unbroken/version_0"

    assert sisug(*common, "--trainer.max_epochs", 2) == 0
    resumed = tmp_path / "runs/tiny/version_0"
    assert images_seen(resumed / "checkpoints/last.ckpt") == 16
    assert differences(*(load(run / "checkpoints/last.ckpt")["state_dict"] for run in (unbroken, resumed)))

    assert sisug(*common, "--ckpt_path", "last") == 0
    ends = [run / "checkpoints/last.ckpt" for run in (unbroken, resumed)]
    assert_equal_end(*ends, augmented=settings == RICH)
    if settings == RICH:
        state = load(unbroken / "checkpoints/last.ckpt")["state_dict"]
        assert float(state["augmentation.probability"]) > 0
        assert float(state["path_length_mean"]) > 0
    rows, unbroken_rows = columns(resumed), columns(unbroken)
    for name in named("train", TRAIN) | named("val", SCORES):
        assert rows.get(name) == unbroken_rows.get(name), name
    assert {path.name for path in (resumed / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_a_resumed_run_keeps_the_best_of_its_first_part(sisug: Command, layers: Layers, tmp_path: Path) -> None:
    # The second epoch is the best, and the run breaks after it.
    scored = (f"--trainer.callbacks+={TOOLS}.ScriptedScore", "--trainer.callbacks.scores=[3.0, 1.0, 2.0]")
    layer = tmp_path / "tiny.yaml"
    layer.write_text(layer.read_text().replace("monitor: val/frechet_quadrants", "monitor: val/scripted"))
    assert sisug("fit", *layers, *scored, "--trainer.max_epochs", 2) == 0
    best = tmp_path / "runs/tiny/version_0/checkpoints/best.ckpt"
    assert images_seen(best) == 16
    assert sisug("fit", *layers, *scored, "--trainer.max_epochs", 3, "--ckpt_path", "last") == 0
    assert images_seen(best) == 16


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`last.ckpt` of the tiny experiment, from a process of its own."""
    folder = tmp_path_factory.mktemp("unbroken")
    process = Process(folder, ("fit", *layers_in(folder)))
    try:
        assert process.wait() == 0, process.output()
    finally:
        process.end()
    return folder / "runs/tiny/version_0/checkpoints/last.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize(("images", "kept"), [(4, None), (20, 16)])
def test_killed_in_an_epoch_and_continued_equals_unbroken(
    start: Start, layers: Layers, tmp_path: Path, unbroken: Path, images: int, kept: int | None
) -> None:
    killer = ("--trainer.callbacks+=integration.run_callbacks.SignalAt", f"--trainer.callbacks.images={images}")
    assert start("fit", *layers, *killer).wait() == -signal.SIGKILL
    last = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
    assert (images_seen(last) if last.exists() else None) == kept  # at most one epoch of 8 images is lost
    assert half_written(tmp_path / "runs") == []

    assert start("fit", *layers, "--ckpt_path", "last").wait() == 0
    (end,) = (tmp_path / "runs/tiny").glob(f"version_{'0' if kept else '*'}/checkpoints/last.ckpt")
    assert_equal_end(unbroken, end)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [0, 1, 2])
def test_killed_while_saving_and_continued_equals_unbroken(
    start: Start, layers: Layers, tmp_path: Path, unbroken: Path, checkpoint: int
) -> None:
    killer = ("--trainer.callbacks+=integration.run_callbacks.KillWhileSaving",)
    saving = f"--trainer.callbacks.checkpoint={checkpoint}"
    assert start("fit", *layers, *killer, saving).wait() == -signal.SIGKILL
    folder = tmp_path / "runs/tiny"
    for path in folder.rglob("*.ckpt"):
        assert load(path)["state_dict"]  # whole
    assert start("fit", *layers, "--ckpt_path", "last").wait() == 0
    (end,) = folder.rglob("last.ckpt")
    assert_equal_end(unbroken, end)
    # What was cut off never has a checkpoint's name; a later one of that name takes its place.
    assert [name for name in half_written(end.parents[1]) if not name.endswith("best.ckpt.tmp")] == []


@pytest.mark.slow
def test_killed_again_and_again_from_outside(start: Start, layers: Layers, tmp_path: Path) -> None:
    longer = ("fit", *layers, "--trainer.max_epochs", 24)
    assert start(*longer, "--run.name", "unbroken").wait() == 0
    last, seen = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt", 0
    for delay in (0.05, 0.4, 0.9):
        run = start(*longer, "--ckpt_path", "last")
        written = last.stat().st_mtime_ns if last.exists() else 0
        for _ in range(600):
            if last.exists() and last.stat().st_mtime_ns != written:
                break
            time.sleep(0.1)
        time.sleep(delay)
        run.process.kill()
        assert run.wait() == -signal.SIGKILL, run.output()
        assert seen < images_seen(last) < 24 * 8
        seen = images_seen(last)
    assert start(*longer, "--ckpt_path", "last").wait() == 0
    assert_equal_end(tmp_path / "runs/unbroken/version_0/checkpoints/last.ckpt", last)
    assert [name for name in half_written(tmp_path / "runs") if not name.endswith(".tmp")] == []


# --- two processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def two_processes(layers: Layers) -> Layers:
    """The tiny experiment under the overlay that ships."""
    return (*layers, "--config", str(EXPERIMENTS / "overlays/ddp-cpu.yaml"))


def read_ranks(folder: Path) -> list[Any]:
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(2)]


def watch(folder: Path, name: str = "integration.run_callbacks.RankDigests") -> Layers:
    return (f"--trainer.callbacks+={name}", f"--trainer.callbacks.folder={folder}")


def unequal(folder: Path) -> set[str]:
    """Names of the tensors in which the ranks differ."""
    first, second = read_ranks(folder)
    assert first.keys() == second.keys()
    return {name for name in first if first[name] != second[name]}


@pytest.mark.slow
def test_ranks_end_equal(start: Start, sisug: Command, layers: Layers, two_processes: Layers, tmp_path: Path) -> None:
    notes = watch(tmp_path / "notes", f"{TOOLS}.AugmentationNotes")
    run = start("fit", *two_processes, *watch(tmp_path / "digests"), *notes)
    assert run.wait() == 0, run.output()
    assert unequal(tmp_path / "digests") == set()
    held = read_ranks(tmp_path / "digests")[0].keys()
    names = {"generator.mapping.w_avg", "path_length_mean", "augmentation.probability", "images_seen"}
    assert held > names
    for part in ("average.average:", "discriminator.", "optimizer.0.", "optimizer.1."):
        assert any(name.startswith(part) for name in held), part
    assert [path.name for path in (tmp_path / "runs/tiny").iterdir()] == ["version_0"]
    last = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
    assert images_seen(last) == 4 * 8  # of both ranks

    # The probability follows the signs of both ranks, which saw other images.
    first, second = read_ranks(tmp_path / "notes")
    assert len(first) == 4
    p = 0.0
    for a, b in zip(first, second, strict=True):
        signs = a["signs"] + b["signs"]
        p = min(max(p + np.sign(sum(signs) + 0.1 * len(signs)) * 8 / 40, 0.0), 0.8)
        assert a["probability"] == b["probability"] == pytest.approx(p, abs=1e-6)
    assert p > 0
    assert [step["signs"] for step in first] != [step["signs"] for step in second]

    # So do the scores: they are those that one process gives.
    logged = columns(tmp_path / "runs/tiny/version_0")
    assert load(last)["measured"]["val/frechet_quadrants"]["real"] == 12
    assert sisug("validate", *layers, "--ckpt_path", last) == 0
    for name in named("val", SCORES):
        assert columns(tmp_path / "runs/tiny/version_1")[name] == pytest.approx(logged[name][-1:], rel=1e-4)


@pytest.mark.slow
def test_the_comparison_fails_where_means_stay_local(start: Start, two_processes: Layers, tmp_path: Path) -> None:
    layer = tmp_path / "tiny.yaml"
    layer.write_text(layer.read_text().replace("sisug.generators.module.GeneratorModule", f"{TOOLS}.LocalMeans"))
    run = start("fit", *two_processes, *watch(tmp_path / "digests"), "--trainer.max_epochs", 1)
    assert run.wait() == 0, run.output()
    assert unequal(tmp_path / "digests") >= {"generator.mapping.w_avg", "path_length_mean"}


@pytest.mark.slow
def test_a_run_of_two_processes_resumes(start: Start, two_processes: Layers, tmp_path: Path) -> None:
    common = ("fit", *two_processes)
    assert start(*common, *watch(tmp_path / "unbroken"), "--run.name", "unbroken").wait() == 0
    assert start(*common, "--trainer.max_epochs", 2).wait() == 0
    assert start(*common, *watch(tmp_path / "resumed"), "--ckpt_path", "last").wait() == 0
    assert read_ranks(tmp_path / "resumed") == read_ranks(tmp_path / "unbroken")


# --- input that cannot work ----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, tiny_generator_file: Path) -> None:
    """Files that are no generators of 16 px."""
    from sisug.generators import Generator
    from sisug.generators.native import write_native

    whole = tiny_generator_file.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with torch.random.fork_rng():
        write_native(tmp_path / "large.safetensors", Generator(6, 7, {4: 4, 8: 4, 16: 4, 32: 4}, mapping_layers=2))


def check_refusal(error: str, state: str, remedy: str) -> None:
    assert state in error
    assert "Cause: " in error
    assert remedy in error.partition("Remedy: ")[2]
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "state", "remedy"),
    [
        (("--model.init", "none.safetensors"), "'none.safetensors' was not found", "name a preset"),
        (("--model.init", "cut.safetensors"), "cut.safetensors", "copy it again"),
        (("--model.init", "large.safetensors"), "makes images of 32 px", "prepare the images at 32 px"),
        (("--data.resolution", "48"), "resolution 48", "choose 8, 16, 32"),
        (("--model.style_mixing", "2"), "style_mixing 2", "choose a value in [0, 1]"),
    ],
)
@pytest.mark.usefixtures("files")
def test_refused_before_anything_is_written(
    sisug: Command,
    layers: Layers,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    state: str,
    remedy: str,
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert sisug("fit", *layers, *arguments) == 2
    check_refusal(capsys.readouterr().err, state, remedy)
    assert sorted(tmp_path.rglob("*")) == before


def test_images_of_another_size_are_refused(
    sisug: Command, layers: Layers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sisug("fit", *layers, "--model.init_args.resolution", 32) == 2
    check_refusal(capsys.readouterr().err, "32 px, the data has 16 px", "set data.init_args.resolution to 32")
    assert half_written(tmp_path / "runs") == []
    assert not list((tmp_path / "runs").rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("extractor", "message"),
    [
        ("no_such_package.Features", "no_such_package"),
        ("torch.nn.Identity", "the extractor Identity has no name"),
        ("integration.generator_runs.ToyPictures", "ToyPictures"),
    ],
)
def test_an_extractor_that_is_none_is_refused(
    sisug: Command,
    layers: Layers,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extractor: str,
    message: str,
) -> None:
    layer = tmp_path / "tiny.yaml"
    layer.write_text(layer.read_text().replace(f"{TOOLS}.QuadrantColours", extractor))
    before = sorted(tmp_path.rglob("*"))
    assert sisug("fit", *layers) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert sorted(tmp_path.rglob("*")) == before


def test_checkpoints_that_do_not_fit(
    sisug: Command, layers: Layers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = tmp_path / "trained.ckpt"
    train(small_module(augment="adaptive"), tmp_path, max_epochs=1).save_checkpoint(trained)
    (tmp_path / "cut.ckpt").write_bytes(trained.read_bytes()[:-2000])
    capsys.readouterr()
    cases: list[tuple[tuple[Any, ...], str, str]] = [
        (("--ckpt_path", trained, "--model.w_dim", 9), "has shape (7,", "config.yaml beside it"),
        (("--ckpt_path", trained, "--model.augment", "none"), "unknown augmentation", "config.yaml beside it"),
        (("--ckpt_path", "cut.ckpt"), "cut short", "another checkpoint"),
    ]
    for arguments, state, remedy in cases:
        assert sisug("fit", *layers, *arguments) == 2, arguments
        check_refusal(capsys.readouterr().err, state, remedy)
    assert not list((tmp_path / "runs").rglob("*.ckpt"))
    assert half_written(tmp_path / "runs") == []


def test_a_run_that_diverges_keeps_its_last_checkpoint(
    sisug: Command, layers: Layers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poison = (f"--trainer.callbacks+={TOOLS}.Poison", "--trainer.callbacks.images=12")
    assert sisug("fit", *layers, *poison) == 2
    error = capsys.readouterr().err
    assert "Cause: " in error
    assert "Remedy: " in error
    assert "--ckpt_path last" in error
    assert "Traceback" not in error
    last = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
    assert images_seen(last) == 8
    assert all(value.isfinite().all() for value in load(last)["state_dict"].values())
    assert half_written(tmp_path / "runs") == []


# --- a folder of images --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve small pictures."""
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "pictures"
    path.mkdir()
    for number, image in enumerate(ToyImages(24).images("train").repeat(2, 1, 1, 1)[:12]):
        pixels = ((image + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).rotate(90 * (number // 8)).save(path / f"{number:02}.png")
    return path


@pytest.fixture
def folder_layers(tmp_path: Path, folder: Path) -> Layers:
    """The tiny experiment on the folder: epochs of 16 images, longer than it."""
    settings = {"folder": str(folder), "resolution": 16, "batch_size": 4, "images_per_epoch": 16, "flip": True}
    return layers_in(tmp_path, class_path="sisug.data.images.datamodule.ImageFolderDataModule", init_args=settings)


def test_a_run_on_a_folder_resumes(sisug: Command, folder_layers: Layers, tmp_path: Path) -> None:
    common = ("fit", *folder_layers, "--trainer.max_epochs", 2)
    assert sisug(*common, "--run.name", "unbroken") == 0
    assert sisug(*common, "--trainer.max_epochs", 1) == 0
    last = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
    assert images_seen(last) == 16
    assert sisug(*common, "--ckpt_path", "last") == 0
    assert_equal_end(tmp_path / "runs/unbroken/version_0/checkpoints/last.ckpt", last)
    data = load(last)["provenance"]["data"]
    assert (data["images"], data["flip"], data["resolution"]) == (12, True, 16)
    assert str(tmp_path) not in json.dumps(data)
    assert load(last)["measured"]["val/frechet_quadrants"]["real"] == 12
    assert half_written(tmp_path / "runs") == []


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        ("empty", "pictures"),
        ("truncated", "03.png"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(
    sisug: Command,
    folder_layers: Layers,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: str,
    state: str,
) -> None:
    one = folder / "03.png"
    if spoil == "truncated":
        one.write_bytes(one.read_bytes()[:-40])
    else:
        for path in folder.iterdir():
            path.unlink()
    assert sisug("fit", *folder_layers) == 2
    error = capsys.readouterr().err
    check_refusal(error, state, "")
    assert not list((tmp_path / "runs").rglob("*"))
