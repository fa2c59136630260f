"""Models of transformers as judges, on tiny ones with random weights: verdicts against the package's own pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sisug.errors import CheckpointError, ConfigError, SisugError
from sisug.labels.label_sets import label_set
from sisug.segmentation.judges import JudgeProtocol, TransformersJudge, judge_for, open_judge, transformers_judge

pytest.importorskip("transformers", reason="an optional package: pip install 'sisug[hub]'")

OFFICIAL = label_set("celebamask-hq")


def save_model(folder: Path, names: tuple[str, ...], processor: dict[str, Any] | None) -> Path:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        depths=[1, 1],
        num_encoder_blocks=2,
        hidden_sizes=[8, 16],
        num_attention_heads=[1, 2],
        sr_ratios=[4, 2],
        patch_sizes=[7, 3],
        strides=[4, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        initializer_range=0.5,  # logits of some size, so that masks are no accident
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        SegformerForSemanticSegmentation(config).save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


PROCESSOR = {
    "image_processor_type": "SegformerImageProcessor",
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 64, "width": 64},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "faces", OFFICIAL.classes, PROCESSOR)


def photos(size: int) -> list[Image.Image]:
    coarse = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC) for pixels in coarse]


def as_images(photos: list[Image.Image]) -> torch.Tensor:
    pixels = np.stack([np.asarray(photo) for photo in photos])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize(("size", "agreement"), [(64, 1.0), (96, 0.95)])  # resized: it rounds to bytes in between
def test_verdicts_are_those_of_the_packages_own_pipeline(model: Path, size: int, agreement: float) -> None:
    from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

    network = SegformerForSemanticSegmentation.from_pretrained(model).eval()
    processor = SegformerImageProcessor.from_pretrained(model)
    with torch.no_grad():
        outputs = network(**processor(images=photos(size), return_tensors="pt"))
    expected = torch.stack(processor.post_process_semantic_segmentation(outputs, target_sizes=[(size, size)] * 2))
    judge = TransformersJudge(str(model))
    assert judge.resolution == 64
    found = judge.segment(as_images(photos(size)))
    assert len(expected.unique()) > 3
    assert float((found == expected).float().mean()) >= agreement


def test_names_of_classes_find_the_label_set(model: Path) -> None:
    judge = open_judge(str(model))
    assert isinstance(judge, TransformersJudge)
    assert isinstance(judge, JudgeProtocol)
    assert judge.labels == OFFICIAL
    assert judge.name == "faces"
    description = judge.description
    assert description["source"] == "faces"
    assert str(model) not in str(description)
    assert description["fingerprint"] == TransformersJudge(str(model)).fingerprint
    merged = judge_for(judge, label_set("celebamask-hq-15"))
    assert merged.segment(torch.rand(1, 3, 32, 32) * 2 - 1).max() < 15


def test_label_sets_that_contradict_the_model_are_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"another order: l_brow|nose is 2 there and 10 in the set"):
        TransformersJudge(str(model), labels="celebamask-hq-bisenet")
    with pytest.raises(ConfigError, match="19 classes, the label set 11"):
        TransformersJudge(str(model), labels="avatars")
    assert TransformersJudge(str(model), labels="celebamask-hq").labels == OFFICIAL


def test_scene_segmenters_write_synonyms(tmp_path: Path) -> None:
    scenes = label_set("ade20k")
    names = [name if name != "bed" else "bed " for name in scenes.classes]
    names[scenes.number("television receiver")] = "television, television receiver, tv"
    names[scenes.number("person")] = "person, individual, soul"
    judge = TransformersJudge(str(save_model(tmp_path / "scenes", tuple(names), PROCESSOR)))
    assert judge.labels == scenes


def test_other_vocabularies_get_colours_of_their_own(tmp_path: Path) -> None:
    judge = TransformersJudge(str(save_model(tmp_path / "cats", ("fur", "eye", "other"), None)), resolution=32)
    assert judge.labels.classes == ("fur", "eye", "other")
    assert judge.labels.name == "cats"
    assert len(set(judge.labels.palette)) == 3
    assert judge.description["mean"] == [0.485, 0.456, 0.406]
    assert judge.segment(torch.zeros(1, 3, 40, 40)).shape == (1, 40, 40)


def test_classes_without_names_need_a_label_set(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path / "plain", tuple(f"LABEL_{n}" for n in range(19)), PROCESSOR))
    with pytest.raises(ConfigError, match="19 classes without names"):
        TransformersJudge(folder)
    assert TransformersJudge(folder, labels="celebamask-hq-bisenet").labels == label_set("celebamask-hq-bisenet")


def test_preprocessing_follows_the_record(tmp_path: Path) -> None:
    def made(**changes: Any) -> TransformersJudge:
        return TransformersJudge(str(save_model(tmp_path / "m", ("a", "b"), PROCESSOR | changes)))

    assert made(size=48).resolution == 48
    assert made(size={"shortest_edge": 40}).resolution == 40
    assert made(do_resize=False).resolution is None
    assert made(do_normalize=False).description["std"] == [1.0, 1.0, 1.0]
    # Values of -1 to 1: byte * 2/255 less 1, which is (value - 0.5) / 0.5 of values from 0 to 1.
    halves = made(rescale_factor=2 / 255, image_mean=[1, 1, 1], image_std=[1, 1, 1])
    assert halves.description["mean"] == halves.description["std"] == [0.5, 0.5, 0.5]
    with pytest.raises(CheckpointError, match=r"height.*32.*square"):
        made(size={"height": 32, "width": 64})
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    swapped = made(do_flip_channel_order=True, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    plain = made(image_mean=[0, 0, 0], image_std=[1, 1, 1])
    torch.testing.assert_close(swapped(images), plain(images.flip(1)))


def test_models_that_lack_weights_are_refused(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    weights = load_file(model / "model.safetensors")
    kept = {key: value for key, value in weights.items() if "classifier" not in key}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 2 weights: decode_head.classifier.*fine-tuned"):
        TransformersJudge(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cannot be loaded.*Remedy: give a folder"):
        TransformersJudge(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        TransformersJudge(str(tmp_path))


def test_downloads_that_fail_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"nobody/no-such-model.*hf download nobody/no-such-model --local-dir"):
        open_judge("nobody/no-such-model")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    real = transformers_judge.importlib.util.find_spec
    monkeypatch.setattr(
        transformers_judge.importlib.util, "find_spec", lambda name: None if name == "transformers" else real(name)
    )
    with pytest.raises(SisugError, match=r"pip install .sisug\[hub\]."):
        TransformersJudge(str(model))
