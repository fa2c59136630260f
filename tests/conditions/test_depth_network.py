"""Depth through models of transformers, on tiny ones with random weights: maps against the package's own pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sisug.conditions import depth_network, hub_models
from sisug.conditions.depth import Depth
from sisug.conditions.depth_network import DepthNetwork
from sisug.conditions.registry import condition, condition_from_dict
from sisug.errors import CheckpointError, ConfigError
from sisug.labels.label_sets import AVATARS

pytest.importorskip("transformers", reason="an optional package: pip install 'sisug[hub]'")


def save_dpt(folder: Path, **changes: Any) -> Path:
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    config = DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
        initializer_range=0.3,  # depths of some size, so that maps are no accident
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        DPTForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(**({"size": {"height": 32, "width": 32}} | changes)).save_pretrained(folder)
    return folder


def save_depth_anything(folder: Path, kind: str = "relative") -> Path:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=28,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
        patch_size=14,
        initializer_range=0.3,
        depth_estimation_type=kind,
        max_depth=20,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    processor = DPTImageProcessor(size={"height": 56, "width": 56}, ensure_multiple_of=14, keep_aspect_ratio=True)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dpt(tmp_path_factory.mktemp("models") / "dpt")


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_depth_anything(tmp_path_factory.mktemp("models") / "metric", "metric")


def photos(size: int = 64, count: int = 2) -> list[Image.Image]:
    coarse = np.random.default_rng(0).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC) for pixels in coarse]


def as_images(photos: list[Image.Image]) -> torch.Tensor:
    pixels = np.stack([np.asarray(photo) for photo in photos])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_the_package(folder: Path, pictures: list[Image.Image]) -> torch.Tensor:
    from transformers import pipeline

    found = pipeline("depth-estimation", model=str(folder), device="cpu")(pictures)
    return torch.stack([each["predicted_depth"] for each in found])[:, None]


def check_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """The package's pipeline takes pictures one by one, which rounds otherwise."""
    torch.testing.assert_close(found / expected.std(), expected / expected.std(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [64, 50])
def test_maps_are_those_of_the_packages_own_pipeline(dpt: Path, size: int) -> None:
    expected = as_the_package(dpt, photos(size))
    assert expected.flatten(1).std(1).min() > 0.1 * expected.flatten(1).mean(1).abs().min() > 0
    found = DepthNetwork(str(dpt))(as_images(photos(size)))
    check_close(found, expected)


def test_distances_become_nearness(metric: Path) -> None:
    expected = as_the_package(metric, photos())
    network = DepthNetwork(str(metric))
    assert network.larger_is == "far"
    check_close(network(as_images(photos())), 1 / expected.clamp_min(0.1))
    check_close(DepthNetwork(str(metric), larger_is="near")(as_images(photos())), expected)


def test_near_is_bright_in_each_image(dpt: Path, metric: Path) -> None:
    for folder in (dpt, metric):
        made = condition("depth", AVATARS, model=str(folder))
        encoded = made.extract(as_images(photos()), None, random())
        assert not made.needs_masks
        assert torch.equal(encoded.amin(dim=(1, 2, 3)), torch.zeros(2))
        assert torch.equal(encoded.amax(dim=(1, 2, 3)), torch.ones(2))
        depth = as_the_package(folder, photos())
        for one, seen in zip(encoded, depth, strict=True):
            agreement = float(np.corrcoef(one.flatten(), seen.flatten())[0, 1])
            assert agreement > 0.5 if folder == dpt else agreement < -0.5
        assert torch.equal(encoded, made.extract(as_images(photos()), None, random()))
        assert not torch.equal(encoded, made.extract(as_images(photos()), None, random(1)))


def test_mixed_precision_around_it_changes_nothing(dpt: Path) -> None:
    made = condition("depth", model=str(dpt))
    expected = made.extract(as_images(photos()), None, random())
    before = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(condition("depth", model=str(dpt)).extract(as_images(photos()), None, random()), expected)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives(dpt: Path) -> None:
    made = condition("depth", model=str(dpt))
    on_gpu = made.extract(as_images(photos()).cuda(), None, random())
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), made.extract(as_images(photos()), None, random()), atol=1e-2, rtol=0)


def test_records_work_without_the_network(dpt: Path, tmp_path: Path) -> None:
    folder = tmp_path / "network"
    shutil.copytree(dpt, folder)
    made = condition("depth", AVATARS, model=str(folder))
    record = json.loads(json.dumps(made.to_dict()))
    fingerprint = DepthNetwork(str(dpt)).fingerprint
    assert record["options"] == {
        "model": str(folder), "revision": None, "resolution": None, "larger_is": "near", "fingerprint": fingerprint,
    }  # fmt: skip
    shutil.rmtree(folder)
    bare = condition_from_dict(record)
    assert isinstance(bare, Depth)
    assert bare.to_dict() == record
    ramp = np.linspace(60, 200, 64).astype(np.uint8)[None].repeat(64, axis=0)
    Image.fromarray(ramp).save(tmp_path / "map.png")
    loaded = bare.load(tmp_path / "map.png", 32)
    assert torch.equal(loaded, made.load(tmp_path / "map.png", 32))
    assert (float(loaded.min()), float(loaded.max())) == (0, 1)  # as in training
    with pytest.raises(CheckpointError, match=r"network .*cannot be loaded"):
        bare.extract(as_images(photos()), None, random())
    save_depth_anything(folder)
    with pytest.raises(CheckpointError, match=f"other weights.*not {fingerprint}"):
        bare.extract(as_images(photos()), None, random())


def test_images_can_be_seen_smaller(metric: Path) -> None:
    images = as_images(photos())
    small, own = DepthNetwork(str(metric), resolution=28), DepthNetwork(str(metric), resolution=56)
    assert torch.equal(own(images), DepthNetwork(str(metric))(images))
    assert small(images).shape == (2, 1, 64, 64)
    assert not torch.allclose(small(images), own(images))
    with pytest.raises(CheckpointError, match=r"no depth for a picture of 64x64.*leave resolution out"):
        DepthNetwork(str(metric), resolution=4)


def test_what_large_values_mean_is_known_or_asked_for() -> None:
    def kind(model_type: str, **entries: Any) -> SimpleNamespace:
        return SimpleNamespace(model_type=model_type, **({"backbone_config": None} | entries))

    def meaning(config: SimpleNamespace) -> str:
        return depth_network._larger_is("a/b", config)

    assert meaning(kind("dpt")) == "near"
    assert meaning(kind("dpt", backbone_config=SimpleNamespace(model_type="swinv2"))) == "near"
    assert meaning(kind("dpt", backbone_config=SimpleNamespace(model_type="dinov2"))) == "far"
    assert meaning(kind("depth_anything", depth_estimation_type="relative")) == "near"
    assert meaning(kind("depth_anything", depth_estimation_type="metric")) == "far"
    assert {meaning(kind(name)) for name in ("zoedepth", "glpn", "depth_pro")} == {"far"}
    with pytest.raises(ConfigError, match=r"kind chmv2.*larger_is: near or far"):
        meaning(kind("chmv2"))


def test_models_for_something_else_are_refused(dpt: Path, tmp_path: Path) -> None:
    from transformers import DPTConfig, DPTForSemanticSegmentation, SegformerConfig

    def refused(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            condition("depth", model=str(tmp_path))

    refused("cannot be loaded.*give a folder with config.json")
    SegformerConfig().save_pretrained(tmp_path)
    refused("SegformerConfig.*DepthAnythingConfig")
    config = DPTConfig.from_pretrained(dpt)
    config.num_labels = 3
    DPTForSemanticSegmentation(config).save_pretrained(tmp_path)
    refused(r"lacks 6 weights: head.head.0.bias.*trained for something else")
    for path in dpt.iterdir():
        shutil.copy(path, tmp_path)
    assert condition("depth", model=str(tmp_path)).name == "depth"
    (tmp_path / "preprocessor_config.json").unlink()
    refused("preprocessor_config.json")
    (tmp_path / "model.safetensors").write_bytes((dpt / "model.safetensors").read_bytes()[:5000])
    refused("cannot be loaded")


def test_weights_that_nothing_flows_through_may_be_missing(dpt: Path, tmp_path: Path) -> None:
    """Published DPT files leave them out; drawn at random, they would change the fingerprint at every load."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(dpt, tmp_path, dirs_exist_ok=True)
    weights = load_file(dpt / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(depth_network.UNUSED)}
    assert len(weights) - len(kept) == 4
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    first, second = DepthNetwork(str(tmp_path)), DepthNetwork(str(tmp_path))
    assert first.fingerprint == second.fingerprint
    images = as_images(photos())
    assert torch.equal(first(images), DepthNetwork(str(dpt))(images))


def test_downloads_that_fail_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"nobody/no-such-model.*hf download nobody/no-such-model --local-dir"):
        condition("depth", model="nobody/no-such-model")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, dpt: Path) -> None:
    real = hub_models.importlib.util.find_spec
    monkeypatch.setattr(
        hub_models.importlib.util, "find_spec", lambda name: None if name == "transformers" else real(name)
    )
    with pytest.raises(ConfigError, match=r"pip install .sisug\[hub\]."):
        condition("depth", model=str(dpt))
    assert condition_from_dict(Depth(model=str(dpt)).to_dict()).name == "depth"
