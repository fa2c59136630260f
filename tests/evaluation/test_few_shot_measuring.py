"""One cell of the few-shot table: scores against closed forms, time, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation.few_shot_toys import PaletteJudge, painted, random_targets
from sklearn.metrics import jaccard_score

from sisug.errors import DataError
from sisug.evaluation.few_shot import measuring
from sisug.evaluation.few_shot.measuring import Measurement, measure
from sisug.evaluation.few_shot.sheets import write_sheet
from sisug.evaluation.few_shot.targets import Targets
from sisug.labels.label_sets import AVATARS

CPU = torch.device("cpu")


def measured(method: Any, targets: Targets, folder: Path, seeds: int = 2) -> Measurement:
    return measure(
        method,
        targets,
        PaletteJudge(),
        range(seeds),
        device=CPU,
        pictures=folder / "images.npy",
        batch_size=3,
        details={"mapper": "none"},
    )


def test_a_perfect_synthesiser_gets_one(tmp_path: Path) -> None:
    targets = random_targets(4)
    found = measured(lambda masks: lambda seed: painted(masks), targets, tmp_path)
    assert (found.miou, found.dataset_miou, found.accuracy, found.images) == (1, 1, 1, 8)
    assert found.miou_by_seed == [1, 1]
    assert set(found.iou.values()) == {1}
    assert found.details == {"mapper": "none"}


def test_ignored_pixels_of_a_target_are_free(tmp_path: Path) -> None:
    targets = random_targets(2)
    masks = targets.masks.clone()
    masks[:, :4] = 255
    found = measured(lambda _: lambda seed: painted(targets.masks), Targets(masks, ("a", "b"), {}), tmp_path)
    assert found.miou == 1


def test_scores_agree_with_scikit_learn(tmp_path: Path) -> None:
    """Seed 0 is right; with seed 1 every class of the second target is read as another."""
    targets = random_targets(2)

    def method(masks: torch.Tensor) -> Any:
        wrong = torch.stack([masks[0], (masks[-1] + 1).clamp_max(5)])[: len(masks)]
        return lambda seed: painted(masks if seed == 0 else wrong)

    found = measured(method, targets, tmp_path)
    read = torch.stack([targets.masks[0], (targets.masks[1] + 1).clamp_max(5)])
    shares = np.full((4, 11), np.nan)
    for row, (mask, seen) in enumerate(zip(targets.masks.repeat(2, 1, 1), [*targets.masks, *read], strict=True)):
        there = np.union1d(mask, seen)
        shares[row, there] = jaccard_score(mask.flatten(), seen.flatten(), labels=there, average=None, zero_division=0)
    assert found.miou == pytest.approx(np.nanmean(shares, axis=0)[1:].mean(), abs=1e-6)
    by_seed = [np.nanmean(shares[rows], axis=0)[1:].mean() for rows in ([0, 1], [2, 3])]
    assert found.miou_by_seed == pytest.approx(by_seed, abs=1e-6)
    every, seen = targets.masks.repeat(2, 1, 1).flatten(), torch.cat([targets.masks, read]).flatten()
    assert found.dataset_miou == pytest.approx(jaccard_score(every, seen, average="macro"), abs=1e-6)
    assert found.accuracy == pytest.approx(float((every == seen).float().mean()), abs=1e-6)


def test_a_class_that_never_occurs_has_no_number(tmp_path: Path) -> None:
    targets = random_targets(2)
    two = Targets(targets.masks % 3, targets.names, {})
    found = measured(lambda masks: lambda seed: painted(masks), two, tmp_path)
    assert [name for name, iou in found.iou.items() if iou is None] == list(AVATARS.classes[3:])


def test_time_counts_synthesis_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []
    monkeypatch.setattr(measuring, "_now", lambda device: clock[0])

    def method(masks: torch.Tensor) -> Any:
        clock[0] += 2 * len(masks)

        def images_of(seed: int) -> torch.Tensor:
            calls.append(len(masks))
            clock[0] += 3 if len(calls) > 1 else 1000
            return painted(masks)

        return images_of

    def segment(judge: PaletteJudge, images: torch.Tensor) -> torch.Tensor:
        clock[0] += 500
        return read(judge, images)

    read = PaletteJudge.segment
    monkeypatch.setattr(PaletteJudge, "segment", segment)
    found = measured(method, random_targets(5), tmp_path)
    assert calls == [1, 1, 1, 1, 5, 5], "the first one warms up"
    assert found.seconds_alone == 2 + 3
    assert found.seconds_in_batches == (5 * 2 + 2 * 3) / 10


def test_images_that_no_judge_can_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not finite"):
        measured(lambda masks: lambda seed: painted(masks) * float("nan"), random_targets(2), tmp_path)
    with pytest.raises(DataError):
        measured(lambda masks: lambda seed: painted(masks)[:1], random_targets(2), tmp_path)
    assert not (tmp_path / "images.npy").exists()


def test_sheet_shows_targets_and_both_methods(tmp_path: Path) -> None:
    from PIL import Image

    targets = random_targets(3)
    measured(lambda masks: lambda seed: painted(masks), targets, tmp_path, seeds=5)
    kept = np.load(tmp_path / "images.npy")
    assert kept.shape == (3, 3, 3, 16, 16)
    assert np.array_equal(kept[:, 0], AVATARS.colorize(targets.masks).numpy())
    np.save(tmp_path / "other.npy", 255 - kept)
    write_sheet(tmp_path / "sheet.png", targets, AVATARS, tmp_path / "images.npy", tmp_path / "other.npy")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    height, cells = 16 * 12 + 2, 1 + 3 + 3
    assert sheet.shape[0] == 3 * height + 2 + 16
    left = sheet.shape[1] - cells * height - 2
    columns = [sheet[20 : 20 + 100, left + 2 + height * i :][:, :190] for i in range(cells)]
    assert np.array_equal(columns[0], columns[1]), "sisug's images are the target's colours here"
    assert np.array_equal(columns[0], 255 - columns[4]), "LinearGAN's the inverse"
