"""The few-shot protocol from settings to report: the same labels for both, interruptions, given mappers, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.few_shot_toys import PALETTE_JUDGE
from mapper.mappers import random_mapper, random_rearranger

from sisug.errors import CheckpointError, ConfigError, SisugError
from sisug.evaluation.commands import identity_of, make_protocol
from sisug.evaluation.few_shot import FewShot, parts, settings, training
from sisug.evaluation.report import Report
from sisug.evaluation.workspace import Workspace
from sisug.labels.label_sets import AVATARS
from sisug.mapper import MapperModule
from sisug.mapper.trained import TrainedMapper, load_mapper, write_mapper
from sisug.rearranger.trained import write_rearranger
from sisug.segmentation.annotation.folder import read_annotations

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "judge": PALETTE_JUDGE,
    "shots": [1],
    "repeats": 1,
    "targets": 2,
    "samples": 2,
    "batch_size": 2,
    "mapper_images": 8,
    "mapper_batch_size": 4,
    "reader_images": 8,
    "precision": "32-true",
    "lineargan_draws": 2,
    "lineargan_steps": 1,
    "lineargan_epochs": 1,
}


@pytest.fixture(scope="module")
def rearranger(tiny_generator_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("rearranger") / "tiny.safetensors"
    write_rearranger(random_rearranger(tiny_generator_file), path)
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SISUG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def protocol(rearranger: str, **others: Any) -> FewShot:
    made = make_protocol("few-shot", SMALL | {"rearranger": rearranger} | others)
    assert isinstance(made, FewShot)
    return made


def run(made: FewShot, folder: Path) -> Report:
    return made.run(Workspace(folder, identity_of(made)), CPU)


class Spy:
    """Counts trainings, and keeps the labels that each method learns from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.extractors: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.mappers: list[MapperModule] = []
        real_extractor, real_module = parts.train_extractor, training.MapperModule

        def train_extractor(generator: Any, ws: torch.Tensor, masks: torch.Tensor, *rest: Any, **options: Any) -> Any:
            self.extractors.append((ws.clone(), masks.clone()))
            return real_extractor(generator, ws, masks, *rest, **options)

        def module(**arguments: Any) -> MapperModule:
            # A few-shot segmenter of full size would take most of the time.
            self.mappers.append(real_module(**arguments, looks=1, segmenter_steps=1))
            return self.mappers[-1]

        monkeypatch.setattr(parts, "train_extractor", train_extractor)
        monkeypatch.setattr(training, "MapperModule", module)

    @property
    def trainings(self) -> tuple[int, int]:
        return len(self.extractors), len(self.mappers)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(monkeypatch)


@pytest.fixture(scope="module")
def finished(rearranger: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A whole evaluation's folder, to be copied, and its report."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, run(protocol(rearranger), folder)


def test_table_from_the_same_labels_and_nothing_measured_twice(rearranger: str, tmp_path: Path, spy: Spy) -> None:
    made = protocol(rearranger, shots=[1, 2])
    report = run(made, tmp_path)
    report.write(tmp_path)
    rows = [row[:2] for row in report.tables[0].rows]
    assert rows == [[1, "LinearGAN"], [1, "sisug"], [2, "LinearGAN"], [2, "sisug"]]
    assert all(row[2].repeats == 2 for row in report.tables[0].rows), "over the seeds"
    notes = " ".join(report.tables[0].notes)
    for text in ("REDUCED COUNTS", "repeats 1 of 5", "the 2 sampling seeds", "background left out", "Bars at N = 2"):
        assert text in notes

    assert spy.trainings == (2, 2)
    for (ws, masks), module in zip(spy.extractors, spy.mappers, strict=True):
        lesson = read_annotations(Path(module.hparams["annotations"]), module.generator)
        assert torch.equal(module.generator.map(lesson.z, lesson.truncation), ws)
        assert torch.equal(lesson.masks, masks)
        assert module.lesson is not None
        assert module.lesson.shots == len(masks)
        assert list(module.lesson.seen.values()) == AVATARS.histogram(masks).tolist()
    torch.testing.assert_close(spy.extractors[1][0][:1], spy.extractors[0][0], msg="more begin with the fewer")

    record = json.loads((tmp_path / "report.json").read_text())["record"]
    assert record["counts"] == {"repeats": 1, "targets": 2, "samples": 2, "labels": [1, 2]}
    assert set(record["fingerprints"]) == {"generator", "rearranger", "judge"}
    assert record["mappers"] == ["trained here on 8 images"]
    assert {"commit", "versions", "machine", "segmenter", "truncation", "seeds", "resize"} <= set(record)
    assert set(report.pictures) == {"sheet-1.png", "sheet-2.png"}
    assert all((tmp_path / name).is_file() for name in report.pictures)

    again = run(protocol(rearranger, shots=[1, 2]), tmp_path)
    assert spy.trainings == (2, 2)
    assert again.tables == report.tables


def test_repeats_differ_in_labels_and_give_the_interval(
    rearranger: str, finished: tuple[Path, Report], tmp_path: Path, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    (checkpoint,) = (finished[0] / "mappers").glob("*/last.ckpt")

    def trained(folder: Path, name: str, *, seed: int, **others: Any) -> Path:
        seeds.append(seed)
        return checkpoint

    monkeypatch.setattr(parts, "trained_mapper", trained)
    report = run(protocol(rearranger, repeats=2, seed=5), tmp_path)
    assert seeds == [5, 6]
    (first, _), (second, _) = spy.extractors
    assert not torch.equal(first, second)
    assert all(row[2].repeats == 2 for row in report.tables[0].rows)
    assert "2 repeats, which differ" in " ".join(report.tables[0].notes)


def test_an_interrupted_run_goes_on(
    rearranger: str, finished: tuple[Path, Report], tmp_path: Path, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop after half of the mapper's training costs neither LinearGAN's part nor the first half."""
    monkeypatch.setattr(settings, "EPOCH", 4)
    step = MapperModule.training_step

    def stops(module: MapperModule, *arguments: Any) -> None:
        if int(module.images_seen) == 4:
            raise RuntimeError("the power is gone")
        step(module, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(MapperModule, "training_step", stops)
        with pytest.raises(RuntimeError, match="power"):
            run(protocol(rearranger), tmp_path)
    assert [path.stem for path in (tmp_path / "parts").iterdir()] == ["shots-1-repeat-0-lineargan"]
    report = run(protocol(rearranger), tmp_path)
    assert spy.trainings == (1, 2)
    assert [row[:3] for row in report.tables[0].rows] == [row[:3] for row in finished[1].tables[0].rows]
    broken, whole = (
        torch.load(*(folder / "mappers").glob("*/last.ckpt"), weights_only=True)["state_dict"]
        for folder in (tmp_path, finished[0])
    )
    assert bool(broken["reader_is_taught"])
    assert broken.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(value, broken[name]), name


@pytest.fixture
def copied(finished: tuple[Path, Report], tmp_path: Path) -> Path:
    """The folder without the result of sisug."""
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "parts" / "shots-1-repeat-0-sisug.json").unlink()
    return tmp_path / "run"


def test_a_trained_mapper_is_not_trained_again_where_its_part_is_lost(
    rearranger: str, finished: tuple[Path, Report], copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.Trainer, "fit", lambda *_, **__: pytest.fail("trained again"))
    again = run(protocol(rearranger), copied)
    assert [row[2] for row in again.tables[0].rows] == [row[2] for row in finished[1].tables[0].rows]


def test_a_mapper_of_other_settings_is_not_taken(
    rearranger: str, copied: Path, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--overwrite true` throws results away, and leaves mappers where they are."""
    made = protocol(rearranger, mapper_images=4)
    monkeypatch.setattr(training.Trainer, "fit", lambda *_, **__: None)
    with pytest.raises(SisugError, match="ended after 0 of 4 images"):
        made.run(Workspace(copied, identity_of(made), overwrite=True), CPU)


def test_a_damaged_checkpoint_is_named(rearranger: str, copied: Path) -> None:
    (checkpoint,) = (copied / "mappers").glob("*/last.ckpt")
    checkpoint.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="delete it"):
        run(protocol(rearranger), copied)


def test_changed_labels_are_refused(rearranger: str, copied: Path) -> None:
    (mask,) = (copied / "labels").glob("*/masks/*.png")
    mask.unlink()
    with pytest.raises(SisugError, match="holds no mask"):
        run(protocol(rearranger), copied)


@pytest.fixture(scope="module")
def given(finished: tuple[Path, Report], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mapper whose record says that it learnt from the label of seed 0."""
    (checkpoint,) = (finished[0] / "mappers").glob("*/last.ckpt")
    path = tmp_path_factory.mktemp("given") / "one.safetensors"
    write_mapper(load_mapper(checkpoint), path)
    return path


def test_given_mappers_stand_in_for_training(rearranger: str, given: Path, tmp_path: Path, spy: Spy) -> None:
    report = run(protocol(rearranger, mappers={1: [str(given)]}), tmp_path)
    assert spy.trainings == (1, 0)
    assert report.record["mappers"] == ["given: one.safetensors"]
    assert "mapper of 1 labels, repeat 0" in report.record["fingerprints"]


def test_a_given_mapper_of_other_labels_is_refused(rearranger: str, given: Path, tmp_path: Path, spy: Spy) -> None:
    with pytest.raises(ConfigError, match="learnt from other labels than those of seed 7"):
        run(protocol(rearranger, mappers={1: [str(given)]}, seed=7), tmp_path)
    assert spy.trainings == (0, 0)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"targets": 0}, "targets 0"),
        ({"samples": 0}, "samples 0"),
        ({"repeats": 0}, "repeats 0"),
        ({"shots": []}, "different numbers of labels"),
        ({"shots": [1, 1]}, "different numbers of labels"),
        ({"shots": [0, 1]}, "different numbers of labels"),
        ({"truncation": 1.5}, "truncation 1.5"),
        ({"mapper_images": 4, "mapper_batch_size": 8}, "trained on 4 images"),
        ({"lineargan_draws": 0}, "draws 0"),
        ({"precision": "16-true"}, "precision"),
        ({"mappers": {4: ["file"]}}, "1 mappers of 4 labels"),
        ({"mappers": {1: ["a", "b"]}}, "2 mappers of 1 labels"),
        ({"target": 3}, "target"),
        ({"judge": "nobody"}, "judge 'nobody'"),
        ({"judge": PALETTE_JUDGE | {"init_args": {"labels": "celebamask-hq"}}}, "names the classes of 'celebamask-hq'"),
        ({"mappers": {1: ["none.safetensors"]}}, "none.safetensors"),
        ({"data": "no-such-folder"}, "no-such-folder"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_done(
    rearranger: str, others: dict[str, Any], message: str
) -> None:
    with pytest.raises(SisugError, match=message):
        identity_of(protocol(rearranger, **others))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "edges", "labels": None}, "it reads edges"),
        ({}, "it reads masks of 'three'"),
        ({"labels": AVATARS}, "it learnt from 0 labels"),
    ],
)
def test_a_mapper_of_something_else_is_refused(
    rearranger: str, tiny_generator_file: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    trained: TrainedMapper = random_mapper(tiny_generator_file, **change)
    write_mapper(trained, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=message):
        identity_of(protocol(rearranger, mappers={1: [str(tmp_path / "other.safetensors")]}))


def test_defaults_are_the_published_counts() -> None:
    made = FewShot()
    assert (made.shots, made.repeats, made.targets, made.samples) == ((1, 4, 8, 16), 5, 100, 10)
    search = made.lineargan
    assert (search.draws, search.steps, search.learning_rate, search.epochs) == (100, 50, 0.01, 50)
    assert search.extractor_learning_rate == 1e-3


def test_mappers_learn_as_many_images_as_are_asked_for() -> None:
    assert [FewShot(mapper_images=n).mapper.total for n in (16, 100, 3072, 8192)] == [16, 96, 3072, 8192]
    assert FewShot().mapper.epochs == 8
