"""Two processes on the CPU (gloo): ranks end equal, and an error on one of them ends both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from integration.runs import Layers, Process, half_written, load

from sisug.proxies.codebook import Normalisation

pytestmark = pytest.mark.slow

Start = Callable[..., Process]

CALLBACKS = "integration.run_callbacks"


@pytest.fixture
def two_processes(tiny: Layers, repository: Path) -> Layers:
    """The tiny experiment under the overlay that ships."""
    return (*tiny, "--config", str(repository / "experiments/overlays/ddp-cpu.yaml"))


def digests(folder: Path) -> list[dict[str, str]]:
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(2)]


def unequal(folder: Path) -> set[str]:
    """Names of the tensors in which the ranks differ."""
    first, second = digests(folder)
    assert first.keys() == second.keys()
    return {name for name in first if first[name] != second[name]}


def rewrite(layer: Path, old: str, new: str) -> None:
    text = layer.read_text()
    assert text.count(old) == 1
    layer.write_text(text.replace(old, new))


def watch(folder: Path) -> Layers:
    return (f"--trainer.callbacks+={CALLBACKS}.RankDigests", f"--trainer.callbacks.folder={folder}")


@pytest.mark.parametrize("normalisation", get_args(Normalisation))
def test_ranks_end_with_equal_weights_and_centroids(
    start: Start, two_processes: Layers, tmp_path: Path, normalisation: str
) -> None:
    run = start("fit", *two_processes, *watch(tmp_path / "digests"), "--model.normalisation", normalisation)
    assert run.wait() == 0, run.output()
    assert unequal(tmp_path / "digests") == set()
    held = digests(tmp_path / "digests")[0].keys()
    for part in ("codebook.centroids", "rearranger.", "average.", "discriminator.", "optimizer.0.", "optimizer.1."):
        assert any(name.startswith(part) for name in held), part
    state = load(tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt")["state_dict"]
    assert int(state["images_seen"]) == 4 * 8  # of both ranks
    assert int(state["codebook.fitted_at"]) == 24
    assert float(state["codebook.rows_seen"].sum()) == 3 * 8 * 32  # rows of both ranks, three clusterings
    assert [path.name for path in (tmp_path / "runs/tiny").iterdir()] == ["version_0"]


def test_stage_2_ends_with_equal_weights_too(start: Start, repository: Path, tmp_path: Path) -> None:
    files = ("base.yaml", "mapper/avatars.yaml", "overlays/smoke.yaml", "overlays/ddp-cpu.yaml")
    layers = [part for file in files for part in ("--config", str(repository / "experiments" / file))]
    small = ("--model.init_args.reader_images=16", "--trainer.precision=32-true", "--data.init_args.val_pairs=4")
    counts = ("--trainer.callbacks.val_masks=2", "--trainer.callbacks.test_masks=2")
    run = start("fit", *layers, *small, *counts, *watch(tmp_path / "digests"))
    assert run.wait() == 0, run.output()
    assert unequal(tmp_path / "digests") == set()
    held = digests(tmp_path / "digests")[0].keys()
    for part in ("mapper.", "rearranger.", "rearranger_average.", "discriminator.", "reader.", "optimizer.1."):
        assert any(name.startswith(part) for name in held), part


def test_the_comparison_fails_without_the_broadcast(start: Start, two_processes: Layers, tmp_path: Path) -> None:
    rewrite(tmp_path / "tiny.yaml", "sisug.proxies.OnlineClustering", f"{CALLBACKS}.ClusteringWithoutBroadcast")
    run = start("fit", *two_processes, *watch(tmp_path / "digests"))
    assert run.wait() == 0, run.output()
    assert "codebook.centroids" in unequal(tmp_path / "digests")


def test_a_run_of_two_processes_resumes(start: Start, two_processes: Layers, tmp_path: Path) -> None:
    common = ("fit", *two_processes)
    assert start(*common, *watch(tmp_path / "unbroken"), "--run.name", "unbroken").wait() == 0
    assert start(*common, "--trainer.max_epochs", 2).wait() == 0
    assert start(*common, *watch(tmp_path / "resumed"), "--ckpt_path", "last").wait() == 0
    assert digests(tmp_path / "resumed") == digests(tmp_path / "unbroken")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("clusters: 4", "clusters: 250"), "rows for 250 clusters"),
        (("sisug.proxies.OnlineClustering", f"{CALLBACKS}.FailingClustering"), "k-means broke"),
    ],
)
def test_an_error_on_the_rank_that_clusters_ends_both(
    start: Start, two_processes: Layers, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    rewrite(tmp_path / "tiny.yaml", "rows_per_image: 32", "rows_per_image: 8")
    rewrite(tmp_path / "tiny.yaml", *change)
    run = start("fit", *two_processes)
    assert run.wait(90) != 0  # in time: no rank waits for ever
    assert message in run.output()
    assert half_written(tmp_path / "runs") == []
