"""The normalized mean error of landmarks: by hand, and over batches with faces missing."""

from __future__ import annotations

import pytest
import torch

from sisug.errors import DataError
from sisug.metrics import LandmarkError, normalized_mean_error


def faces(count: int) -> torch.Tensor:
    points = torch.rand(count, 468, 3, generator=torch.Generator().manual_seed(count)) * 100
    points[:, 33, :2] = torch.tensor([20.0, 40.0])
    points[:, 263, :2] = torch.tensor([60.0, 70.0])  # 50 apart
    return points


def test_a_shift_is_its_length_in_distances_of_the_eyes() -> None:
    target = faces(2)
    moved = target + torch.tensor([3.0, 4.0, 1000.0])
    torch.testing.assert_close(normalized_mean_error(moved, target), torch.full((2,), 0.1))


def test_missing_faces_are_counted_and_do_not_count() -> None:
    target = faces(3)
    points = target + torch.tensor([3.0, 4.0, 0.0])
    points[1] = torch.nan
    score = LandmarkError()
    score.update(points[:2], target[:2])
    score.update(points[2:], target[2:])
    assert float(score.compute()) == pytest.approx(0.1, abs=1e-5)
    assert int(score.missing) == 1


def test_nothing_to_compare_is_said() -> None:
    score = LandmarkError()
    score.update(faces(1) * torch.nan, faces(1))
    with pytest.raises(DataError, match="none of 1 pairs"):
        score.compute()
