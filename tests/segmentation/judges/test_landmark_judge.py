"""The judge of landmarks behind the contract of judges: a partial one, scored on what it knows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sisug.evaluation.layout import LayoutScores
from sisug.faces import Faces
from sisug.labels.label_sets import LABEL_SETS
from sisug.segmentation.judges import FaceLandmarkJudge, JudgeProtocol, PartialJudge, landmark_judge, open_judge

FACES = LABEL_SETS["faces"]


class Landmarks:
    """Faces whose landmarks lie on a circle, so that the oval alone has an area that counts."""

    fingerprint = "ab" * 32

    def __call__(self, images: Tensor) -> Faces:
        angles = torch.arange(468) * 0.0
        points = torch.stack([angles, angles, angles], dim=1)
        ring = landmark_judge.PARTS[0][1]
        turn = torch.arange(len(ring)) * 2 * torch.pi / len(ring)
        points[list(ring), :2] = 32 + 16 * torch.stack([turn.cos(), turn.sin()], dim=1)
        return Faces(points.expand(len(images), -1, -1), torch.ones(len(images)))


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> FaceLandmarkJudge:
    monkeypatch.setattr(landmark_judge, "FaceLandmarks", Landmarks)
    opened = open_judge("face-landmarks")
    assert isinstance(opened, FaceLandmarkJudge)
    return opened


def test_it_is_a_partial_judge(judge: FaceLandmarkJudge) -> None:
    assert isinstance(judge, JudgeProtocol)
    assert isinstance(judge, PartialJudge)
    assert judge.labels.classes == ("other", "skin", "brows", "eyes", "nose", "lips", "mouth")


def test_layout_is_scored_where_the_target_is_known(judge: FaceLandmarkJudge) -> None:
    images = torch.zeros(1, 3, 64, 64)
    skin = judge.segment(images)[0] == judge.labels.number("skin")
    target = torch.full((1, 64, 64), FACES.number("hair"))  # hair and half of a face
    half = torch.zeros(64, 64, dtype=torch.bool)
    half[:, :32] = True
    target[0, skin & half] = FACES.number("skin")
    scores = LayoutScores(judge, FACES, torch.device("cpu"))
    scores.update(images, target)
    result = scores.compute()
    assert result["iou"]["skin"] == 1.0  # what the judge sees as skin under hair is not known to be wrong
    assert result["miou"] == result["accuracy"] == 1.0
    # A face where the judge sees none is missed.
    target[0, :8, :8] = FACES.number("skin")
    scores.update(images, target)
    known = int((skin & half).sum())
    assert scores.compute()["iou"]["skin"] == pytest.approx(2 * known / (2 * known + 64), rel=1e-3)
    assert scores.compute()["iou"]["other"] is None
