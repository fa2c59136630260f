"""Protocol supervised: numbers against scikit-learn and the metrics, the published rows, resumption, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from data.masks.trees import celebamask
from evaluation.pieces import measure, part, write_data, write_judge, write_pieces
from mapper.mappers import THREE
from sklearn.metrics import accuracy_score, jaccard_score
from torch import Tensor, nn

from sisug.common.seeding import fixed_latents
from sisug.data.avatars import AvatarsDataset
from sisug.errors import CheckpointError, ConfigError, DataError
from sisug.evaluation.commands import identity_of
from sisug.evaluation.samples import Samples
from sisug.evaluation.supervised import PUBLISHED, Supervised
from sisug.labels.label_sets import AVATARS, label_set
from sisug.mapper.trained import load_mapper
from sisug.metrics import FrechetDistance, PerImageSegmentationScore
from sisug.segmentation.judge import JudgeFeatures
from sisug.segmentation.loading import load_judge

COUNT = 10


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pieces(tiny_generator_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_pieces(tmp_path_factory.mktemp("pieces"), tiny_generator_file)


def small(pieces: dict[str, str], **settings: Any) -> Supervised:
    return Supervised(**(pieces | {"masks": COUNT, "seeds": (2,)} | settings))


def held_out() -> tuple[Tensor, Tensor]:
    drawn = AvatarsDataset("test", COUNT, 16)
    samples = [drawn[place] for place in range(COUNT)]
    return torch.stack([each["image"] for each in samples]), torch.stack([each["mask"] for each in samples])


def test_numbers_are_those_of_a_direct_computation(pieces: dict[str, str], tmp_path: Path) -> None:
    report = measure(small(pieces), tmp_path / "run")
    images, masks = held_out()
    mapper, judge = load_mapper(pieces["mapper"]), load_judge(pieces["judge"])
    generator, codebook = mapper.rearranger.generator, mapper.rearranger.codebook
    z = fixed_latents(torch.arange(COUNT), generator.z_dim, seed=2, purpose="evaluation look")
    with torch.no_grad():
        ws = generator.map(z, 0.9)
        features = generator.features(ws)
        one_hot = nn.functional.one_hot(masks, AVATARS.num_classes).permute(0, 3, 1, 2).float()
        target = mapper.network(one_hot).softmax(dim=1)
        moved = mapper.rearranger.network(features, codebook.assign(features.map), target, ws)
        made = generator.render(moved, ws).clamp(-1, 1)
    frechet = FrechetDistance(JudgeFeatures(judge))
    frechet.update(images, real=True)
    frechet.update(made, real=False)
    found = {"made": part(tmp_path / "run", "seed2"), "held out": part(tmp_path / "run", "held-out")}
    assert found["made"]["frechet"] == pytest.approx(float(frechet.compute()), rel=1e-4)
    for name, judged in (("made", judge.segment(made)), ("held out", judge.segment(images))):
        scores = found[name]
        # scikit-learn's macro mean is over the classes that are in either, as ours.
        assert scores["miou"] == pytest.approx(
            jaccard_score(masks.flatten(), judged.flatten(), average="macro", zero_division=0.0), rel=1e-5
        )
        assert scores["accuracy"] == pytest.approx(accuracy_score(masks.flatten(), judged.flatten()), rel=1e-5)
        by_class = jaccard_score(
            masks.flatten(), judged.flatten(), average=None, labels=range(AVATARS.num_classes), zero_division=0.0
        )
        assert [iou or 0.0 for iou in scores["iou"].values()] == pytest.approx(by_class.tolist(), rel=1e-5)
        single = PerImageSegmentationScore(AVATARS.num_classes)
        single.update(judged, masks)
        assert scores["miou_per_image"] == pytest.approx(float(single.compute().miou), rel=1e-5)
        assert sum(scores["share"].values()) == pytest.approx(1)
    main = report.tables[0]
    assert main.rows[0][2].mean == pytest.approx(100 * found["made"]["miou"])  # type: ignore[union-attr]
    assert (tmp_path / "run" / "supervised.png").is_file()


def test_a_perfect_synthesis_reaches_what_the_held_out_images_score(
    pieces: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = held_out()
    monkeypatch.setattr(Samples, "laid_out", lambda self, rearranger, ws, target: images)
    measure(small(pieces), tmp_path / "run")
    made, ceiling = part(tmp_path / "run", "seed2"), part(tmp_path / "run", "held-out")
    assert {name: made[name] for name in ceiling} == ceiling
    assert made["frechet"] == pytest.approx(0, abs=1e-4)
    assert made["precision"] == made["recall"] == made["coverage"] == 1


def test_no_published_row_stands_beside_other_data(pieces: dict[str, str], tmp_path: Path) -> None:
    main = measure(small(pieces), tmp_path / "run").tables[0]
    assert main.columns == ("method", "Fréchet (small-avatars)", "mIoU, %", "accuracy, %", "source")
    assert len(main.rows) == 2
    assert any("No published row" in note for note in main.notes)


def test_published_rows_are_marked_and_their_fid_is_kept_apart(tiny_generator_file: Path, tmp_path: Path) -> None:
    labels = label_set("celebamask-hq")
    (tmp_path / "pieces").mkdir()
    pieces = write_pieces(tmp_path / "pieces", tiny_generator_file, labels)
    celebamask(tmp_path / "CelebAMask-HQ", list(range(COUNT)))
    data = {"data": str(tmp_path / "CelebAMask-HQ"), "split": "first-2000", "labels": "celebamask-hq"}
    main = measure(small(pieces, **data), tmp_path / "run").tables[0]
    assert main.columns == ("method", "FID", "Fréchet (small-celebamask-hq)", "mIoU, %", "accuracy, %", "source")
    assert main.rows[0][1] is None  # ours has no FID without Inception
    published = [row for row in main.rows if row[-1] == "published"]
    assert [row[0] for row in published] == [row.method for row in PUBLISHED]
    assert published[-1] == ["the paper (1-shot)", 18.5, "-", 53.1, 88.2, "published"]
    assert published[3][4] == "-"  # the table has none for SDM
    assert {row[-1] for row in main.rows[:2]} == {"measured"}
    assert any("do not compare" in note and "2,000 masks" in note for note in main.notes)


def test_batches_seeds_and_interruptions_change_nothing(
    pieces: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(small(pieces, seeds=(2, 3)), tmp_path / "one")
    laid_out, calls = Samples.laid_out, 0

    def interrupted(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return laid_out(*arguments)

    monkeypatch.setattr(Samples, "laid_out", interrupted)
    other = {"seeds": (3, 2), "batch_size": 4}
    with pytest.raises(KeyboardInterrupt):
        measure(small(pieces, **other), tmp_path / "other")
    assert [path.stem for path in (tmp_path / "other" / "parts").iterdir()] == ["seed3"]
    monkeypatch.setattr(Samples, "laid_out", laid_out)
    measure(small(pieces, **other), tmp_path / "other")
    for name in ("seed2", "seed3", "held-out"):
        one, again = part(tmp_path / "one", name), part(tmp_path / "other", name)
        for scores in (one, again):
            scores |= {f"iou {key}": value for key, value in scores.pop("iou").items() if value is not None}
            scores |= {f"share {key}": value for key, value in scores.pop("share").items()}
        assert again == pytest.approx(one, rel=1e-6, abs=1e-6)


def test_what_cannot_be_measured_is_refused_before_anything_is(
    pieces: dict[str, str], tmp_path: Path, tiny_generator_file: Path
) -> None:
    for count in (0, 1):
        with pytest.raises(ConfigError, match=f"masks {count}"):
            small(pieces, masks=count)
    with pytest.raises(DataError, match="no counterpart"):
        identity_of(small(pieces, judge=str(write_judge(tmp_path, THREE))))
    three = write_data(tmp_path / "three", 2 * COUNT, THREE)
    with pytest.raises(DataError, match="no counterpart"):
        identity_of(small(pieces, data=str(three)))
    with pytest.raises(ConfigError, match="without a mapper"):
        identity_of(small(pieces, mapper=None, generator=str(tiny_generator_file)))
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        identity_of(small(pieces, judge="none.safetensors"))
    (three / "masks" / "000.png").unlink()
    with pytest.raises(DataError, match="1 images without a mask"):
        identity_of(small(pieces, data=str(three)))
    assert list(tmp_path.glob("run*")) == []


def test_data_in_a_folder_of_other_classes_is_matched_by_name(tiny_generator_file: Path, tmp_path: Path) -> None:
    """A mapper of merged classes on data of 19: its input is mapped, and so is what the judge reads."""
    (tmp_path / "pieces").mkdir()
    pieces = write_pieces(tmp_path / "pieces", tiny_generator_file, label_set("celebamask-hq-15"))
    judge = str(write_judge(tmp_path, label_set("celebamask-hq-bisenet")))
    data = write_data(tmp_path / "data", 2 * COUNT, label_set("celebamask-hq"))
    protocol = small(pieces, data=str(data), judge=judge)
    report = measure(protocol, tmp_path / "run")
    assert report.record["label_set"] == "celebamask-hq"
    assert report.record["classes of the segmenter"]["hat"] == "hat"
    assert len(part(tmp_path / "run", "seed2")["iou"]) == 19
