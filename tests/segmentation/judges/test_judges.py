"""Judges of any origin: networks, class paths, label sets, and what is refused before a number is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sisug.errors import CheckpointError, ConfigError, DataError
from sisug.labels.label_sets import AVATARS, LabelSet, label_set
from sisug.metrics.segmentation import SegmentationScore
from sisug.segmentation import load_judge
from sisug.segmentation.judges import FeatureJudge, JudgeProtocol, NetworkJudge, RelabelledJudge, judge_for, open_judge

OFFICIAL, BISENET = label_set("celebamask-hq"), label_set("celebamask-hq-bisenet")

TWO = LabelSet("two", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)))


class Oracle(nn.Module):
    """Reads the class from the red value: class k is painted as k * 10 - 1 steps above black."""

    def __init__(self, classes: int, form: str = "tensor") -> None:
        super().__init__()
        self.form = form
        self.levels = nn.Parameter(torch.arange(classes) * 10 / 255)

    def forward(self, images: Tensor) -> Any:
        logits = -(images[:, :1] - self.levels[None, :, None, None]).abs()
        forms = {"tensor": logits, "tuple": (logits, None), "dict": {"aux": None, "out": logits}, "none": None}
        return forms[self.form]


def painted(masks: Tensor) -> Tensor:
    return (masks[:, None].float() * 10 / 255 * 2 - 1).expand(-1, 3, -1, -1)


def masks_of(classes: int, size: int = 12) -> Tensor:
    return torch.randint(0, classes, (3, size, size), generator=torch.Generator().manual_seed(0))


UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def oracle(labels: LabelSet, **options: Any) -> NetworkJudge:
    return NetworkJudge(Oracle(labels.num_classes), labels, "oracle", **(UNIT | options))


# --- networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_network_is_read_whatever_it_returns(form: str) -> None:
    masks = masks_of(19)
    judge = NetworkJudge(Oracle(19, form), "celebamask-hq", "oracle", **UNIT)
    assert torch.equal(judge.segment(painted(masks)), masks)
    assert judge.labels == OFFICIAL


def test_normalisation_is_that_of_the_training() -> None:
    seen = []

    class Watching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return torch.zeros(len(images), 2, 5, 5)

    images = torch.rand(2, 3, 12, 12) * 2 - 1
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.4, 0.2)
    judge = NetworkJudge(Watching(), TWO, "watching", 6, mean, std)
    assert judge.segment(images).shape == (2, 12, 12)
    plain = nn.functional.interpolate((images + 1) / 2, (6, 6), mode="bilinear", antialias=True)
    for channel in range(3):
        torch.testing.assert_close(seen[0][:, channel], (plain[:, channel] - mean[channel]) / std[channel])


def test_judges_stay_frozen_and_are_known_by_their_weights() -> None:
    judge = oracle(TWO)
    judge.train()
    judge.requires_grad_(True)
    assert not judge.training
    assert not any(parameter.requires_grad for parameter in judge.parameters())
    same, other = oracle(TWO), oracle(TWO)
    with torch.no_grad():
        other.network.levels += 0.1  # type: ignore[operator, union-attr]
    assert judge.fingerprint == same.fingerprint
    assert NetworkJudge(other.network, TWO, "oracle").fingerprint != judge.fingerprint
    images = painted(masks_of(2)).requires_grad_()
    judge(images).sum().backward()
    assert images.grad is not None


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    weights = {"levels": torch.tensor([20.0, 0.0]) / 255}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        judge = NetworkJudge(Oracle(2), TWO, "file", weights=tmp_path / name, **UNIT)
        assert judge.segment(painted(torch.tensor([[[2, 0]]]))).tolist() == [[[0, 1]]]
    (tmp_path / "bad.pth").write_bytes(b"bad")
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pth")
    for name, message in (("bad.pth", "bad.pth"), ("other.pth", "levels"), ("none.pth", "no such file")):
        with pytest.raises(CheckpointError, match=f"{message}.*Remedy"):
            NetworkJudge(Oracle(2), TWO, "file", weights=tmp_path / name)


def test_a_network_with_other_classes_prints_no_number() -> None:
    images = painted(masks_of(2))
    with pytest.raises(CheckpointError, match=r"\(3, 2, 12, 12\).*has 19 classes"):
        NetworkJudge(Oracle(2), OFFICIAL, "wrong").segment(images)
    with pytest.raises(CheckpointError, match="gives a NoneType"):
        NetworkJudge(Oracle(2, "none"), TWO, "wrong").segment(images)


@pytest.mark.parametrize("wrap", [lambda judge: judge, lambda judge: judge_for(judge, TWO)])
def test_images_that_cannot_be_judged(wrap: Any) -> None:
    judge = wrap(oracle(TWO))
    for images, message in (
        (torch.zeros(0, 3, 4, 4), "0 images"),
        (torch.full((1, 3, 4, 4), torch.nan), "NaN"),
    ):
        with pytest.raises(DataError, match=message):
            judge.segment(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"resolution": 0}, "resolution 0"), ({"mean": (0.5,)}, "red, green"), ({"std": (1, 0, 1)}, "above 0")],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        oracle(TWO, **options)


# --- label sets ----------------------------------------------------------------------------------------------------


def test_scores_in_another_order_equal_those_in_the_same() -> None:
    """A judge in BiSeNet's order on data in the official one: perfect by name, ruined by number."""
    masks = masks_of(19, 40)
    judge = oracle(BISENET)
    by_name = {name: number for number, name in enumerate(BISENET.classes)}
    images = painted(torch.tensor([by_name[name] for name in OFFICIAL.classes])[masks])
    same_place = sum(a == b for a, b in zip(OFFICIAL.classes, BISENET.classes, strict=True))
    for labels, expected in ((OFFICIAL, 1.0), (BISENET, same_place / 19)):
        score = SegmentationScore(19)
        score.update(judge_for(judge, labels).segment(images), masks)
        assert float(score.compute().miou) == pytest.approx(expected)


def test_relabelled_judges_keep_their_identity() -> None:
    judge = oracle(OFFICIAL)
    relabelled = judge_for(judge, label_set("celebamask-hq-15"))
    assert isinstance(relabelled, JudgeProtocol)
    assert (relabelled.name, relabelled.fingerprint) == (judge.name, judge.fingerprint)
    assert relabelled.labels.num_classes == 15
    assert relabelled.map.to_dict()["r_ear"] == "ear"


def test_a_judge_of_other_things_is_refused_with_the_names() -> None:
    with pytest.raises(DataError, match=r"no counterpart in 'avatars': .*hat|ear_r") as error:
        judge_for(oracle(OFFICIAL), AVATARS)
    assert "facial_hair" in error.value.state
    scenes = judge_for(oracle(label_set("ade20k")), label_set("lsun-church"), rest="background")
    assert scenes.segment(painted(torch.tensor([[[0, 4]]]))).tolist() == [[[0, scenes.labels.number("tree")]]]


def test_classes_of_a_judge_cannot_be_ignored() -> None:
    judge = oracle(OFFICIAL)
    for options in ({"rest": "ignore", "allow_unseen": True}, {"renamed": {"hat": None}, "allow_unseen": True}):
        labels = TWO if "rest" in options else OFFICIAL
        with pytest.raises(ConfigError, match=r"ignored classes: .*drop out of the score"):
            judge_for(judge, labels, **options)  # type: ignore[arg-type]


# --- how judges are named ------------------------------------------------------------------------------------------


def test_shipped_judge_is_a_judge() -> None:
    judge = open_judge("avatars")
    assert isinstance(judge, FeatureJudge)
    assert judge.fingerprint == load_judge("avatars").fingerprint
    assert open_judge(judge) is judge


def test_class_path_and_init_args(tmp_path: Path) -> None:
    save_file(Oracle(19).state_dict(), tmp_path / "w.safetensors")
    spec = {
        "class_path": "sisug.segmentation.judges.RelabelledJudge",
        "init_args": {
            "judge": {
                "class_path": "sisug.segmentation.judges.NetworkJudge",
                "init_args": {
                    "network": {"class_path": "segmentation.judges.test_judges.Oracle", "init_args": {"classes": 19}},
                    "labels": "celebamask-hq",
                    "name": "mine",
                    "weights": str(tmp_path / "w.safetensors"),
                    "mean": [0, 0, 0],
                    "std": [1, 1, 1],
                },
            },
            "labels": "celebamask-hq-15",
        },
    }
    judge = open_judge(json.loads(json.dumps(spec)))
    assert isinstance(judge, RelabelledJudge)
    assert judge.segment(painted(torch.tensor([[[4, 18]]]))).tolist() == [[[4, 14]]]
    function = open_judge({"class_path": "sisug.segmentation.loading.load_judge"})
    assert function.labels == AVATARS


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("portraits", "judges by name are avatars, face-landmarks"),
        ({"class": "x"}, "class_path and init_args"),
        ({"class_path": "torch.nn.Identity"}, "Identity is no judge.*lacks labels"),
        ({"class_path": "nowhere.Judge"}, "No module named 'nowhere'"),
        ({"class_path": "Judge"}, "cannot be made"),
        ({"class_path": "sisug.segmentation.judges.NoJudge"}, "NoJudge"),
        ({"class_path": "sisug.segmentation.judges.TransformersJudge"}, "model"),
        ({"class_path": "sisug.segmentation.loading.load_judge", "init_args": {"path": "x"}}, "path"),
    ],
)
def test_what_is_no_judge(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"{message}.*Remedy"):
        open_judge(spec)


def test_files_that_are_no_judge(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no file"):
        open_judge(tmp_path / "none.safetensors")
    with pytest.raises(ConfigError, match=r"no folder with config.json"):
        open_judge(tmp_path)
