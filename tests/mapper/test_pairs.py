"""Stage 2 on pairs: how they are made and kept, how they are moved, and its training from labels to a small file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mapper.mappers import random_rearranger
from PIL import Image
from rearranger.small import quiet_trainer

from sisug.data.latents import LatentDataModule
from sisug.errors import CheckpointError, ConfigError
from sisug.generators import GeneratorBackbone, load_generator
from sisug.labels.label_sets import LabelSet
from sisug.mapper import PairMapperModule, load_mapper, write_mapper
from sisug.mapper import trained as trained_mapper
from sisug.mapper.pairs import Pairs, cached_pairs, make_pairs, move_together
from sisug.mapper.trained import with_shipped
from sisug.rearranger import trained as trained_rearranger
from sisug.segmentation.annotation import first_samples, write_annotations

HALVES = LabelSet("halves", ("up", "down"), ((200, 0, 0), (0, 0, 200)))


@pytest.fixture(scope="module")
def tiny(tiny_generator_file: Path) -> GeneratorBackbone:
    return load_generator(tiny_generator_file, 8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def painted(tiny: GeneratorBackbone, tmp_path: Path) -> Path:
    """Two labeled samples: the upper half is of one class, the lower of the other."""
    folder = tmp_path / "labels"
    write_annotations(folder, tiny, first_samples(tiny, 2), 0.7, HALVES, scale=1)
    mask = np.repeat(np.arange(2), 8)[:, None].repeat(16, 1)
    colors = np.array([(*color, 255) for color in HALVES.palette], np.uint8)
    for number in range(2):
        Image.fromarray(colors[mask]).save(folder / "masks" / f"sample-{number:03d}.png")
    return folder


# --- pairs ---------------------------------------------------------------------------------------------------------


def test_pairs_are_samples_with_their_own_proxy_masks(tiny_generator_file: Path) -> None:
    pipeline = random_rearranger(tiny_generator_file).pipeline
    settings: dict[str, Any] = {"size": 16, "with_images": True, "truncation": 1.0, "seed": 0, "purpose": "p"}
    pairs = make_pairs(pipeline, None, 6, **settings)
    assert pairs.images is not None
    assert pairs.masks is None
    assert len(pairs) == 6
    # The picture of a pair tells its sample: the same features give the proxy mask.
    again = make_pairs(pipeline, None, 3, **settings)
    assert torch.equal(again.proxy_masks, pairs.proxy_masks[:3])
    assert torch.equal(again.images, pairs.images[:3])
    other = make_pairs(pipeline, None, 3, **(settings | {"purpose": "q"}))
    assert not torch.equal(other.images, again.images)


def test_kept_pairs_are_those_that_were_made(own_cache: Path) -> None:
    made = Pairs(torch.randint(4, (3, 8, 8)).byte(), torch.randint(2, (3, 16, 16)).byte(), None)
    calls = []

    def make() -> Pairs:
        calls.append(1)
        return made

    for key in ({"seed": 1}, {"seed": 1}, {"seed": 2}):
        found = cached_pairs(make, key)
        assert torch.equal(found.proxy_masks, made.proxy_masks)
        assert found.masks is not None
        assert torch.equal(found.masks, made.masks)
        assert found.images is None
    assert len(calls) == 2
    (first, _) = sorted((own_cache / "pairs").iterdir())
    first.write_bytes(first.read_bytes()[:50])
    for key in ({"seed": 1}, {"seed": 2}):
        assert torch.equal(cached_pairs(make, key).proxy_masks, made.proxy_masks)
    assert len(calls) == 3, "only the damaged file is made anew"


def test_mask_and_proxy_mask_move_together() -> None:
    rng = torch.Generator().manual_seed(0)
    proxy = torch.randint(4, (4, 8, 8), generator=rng).repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    masks = proxy.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)  # the same layout, twice as large
    moved, moved_proxy = move_together(masks, proxy, 1.0, 0.1, torch.Generator().manual_seed(1))
    assert not torch.equal(moved_proxy, proxy)
    agree = (moved[:, 1::2, 1::2] == moved_proxy)[:, 2:-2, 2:-2].float().mean()
    assert float(agree) > 0.9  # but for the rounding of positions
    same = move_together(masks, proxy, 0.0, 0.1, torch.Generator().manual_seed(1))
    assert torch.equal(same[1], proxy)
    assert torch.equal(same[0][:, 2:-2, 2:-2], masks[:, 2:-2, 2:-2])


def test_clusters_of_the_border_stay_at_the_border() -> None:
    proxy = torch.zeros(4, 16, 16, dtype=torch.int64)
    proxy[:, (0, -1)] = proxy[:, :, (0, -1)] = 3
    _, moved = move_together(proxy.clone(), proxy, 1.0, 0.3, torch.Generator().manual_seed(1))
    assert torch.equal(moved, proxy)


# --- training ------------------------------------------------------------------------------------------------------


def module_of(rearranger_file: Path, painted: Path | None, **settings: Any) -> PairMapperModule:
    torch.manual_seed(0)
    labels = None
    if painted is not None:
        labels = str(painted.parent / "halves.json")
        Path(labels).write_text('{"up": "#c80000", "down": "#0000c8"}')
    small = {"rearranger": str(rearranger_file), "labels": labels, "pairs": 8, "size": 16, "width": 8}
    small |= {"annotations": None if painted is None else str(painted)}
    return PairMapperModule(**(small | settings))


def fit(module: PairMapperModule, folder: Path, **settings: Any) -> Any:
    trainer = quiet_trainer(folder, **settings)
    trainer.fit(module, datamodule=LatentDataModule(16, val_pairs=2, test_pairs=2, batch_size=4))
    return trainer


def test_labels_become_a_mapper_and_a_small_file(
    rearranger_file: Path, painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(rearranger_file, painted)
    before = [parameter.detach().clone() for parameter in module.rearranger.parameters()]
    trainer = fit(module, tmp_path, max_epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(before, module.rearranger.parameters(), strict=True))
    assert module.lesson is not None
    assert module.lesson.shots == 2
    assert module.lesson.seen == {"up": 256, "down": 256}
    checkpoint = tmp_path / "last.ckpt"
    trainer.save_checkpoint(checkpoint)
    trained = load_mapper(checkpoint)
    encoded = module.condition.extract(torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16).long(), torch.Generator())
    torch.testing.assert_close(trained.layouts(encoded), module.map_condition(encoded))
    write_mapper(trained, tmp_path / "whole.safetensors")
    torch.testing.assert_close(
        load_mapper(tmp_path / "whole.safetensors").layouts(encoded), trained.layouts(encoded), atol=0.01, rtol=0.01
    )
    # One that refers to a rearranger that ships is smaller by it, and gives the same.
    shipped = {"tiny": rearranger_file}
    for place in (trained_rearranger, trained_mapper):
        monkeypatch.setattr(place, "SHIPPED" if place is trained_rearranger else "SHIPPED_REARRANGERS", shipped)
    referring = with_shipped(trained, "tiny")
    write_mapper(referring, tmp_path / "light.safetensors")
    assert (tmp_path / "light.safetensors").stat().st_size < (tmp_path / "whole.safetensors").stat().st_size
    light = load_mapper(tmp_path / "light.safetensors")
    assert light.rearranger_name == "tiny"
    torch.testing.assert_close(light.layouts(encoded), trained.layouts(encoded), atol=0.01, rtol=0.01)
    with pytest.raises(CheckpointError, match="no rearranger 'huge'"):
        with_shipped(trained, "huge")


def test_sketches_need_no_labels(rearranger_file: Path, tmp_path: Path) -> None:
    logged = fit(module_of(rearranger_file, None, condition="sketch"), tmp_path).logged_metrics
    assert bool(torch.isfinite(logged["train/proxy"]))


def test_a_resumed_run_equals_an_unbroken_one(rearranger_file: Path, painted: Path, tmp_path: Path) -> None:
    unbroken, first, resumed = (module_of(rearranger_file, painted) for _ in range(3))
    fit(unbroken, tmp_path, max_epochs=2)
    fit(first, tmp_path, max_epochs=1).save_checkpoint(tmp_path / "half.ckpt")
    data = LatentDataModule(16, val_pairs=2, test_pairs=2, batch_size=4)
    quiet_trainer(tmp_path, max_epochs=2).fit(resumed, datamodule=data, ckpt_path=str(tmp_path / "half.ckpt"))
    for (name, a), b in zip(unbroken.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    "settings", [{"size": 24}, {"size": 12}, {"width": 9}, {"moved_fraction": 2.0}, {"condition": "seg", "pairs": 0}]
)
def test_arguments_out_of_range_are_refused(rearranger_file: Path, painted: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        module_of(rearranger_file, painted, **settings)


def test_masks_without_labels_are_refused_with_what_needs_none(rearranger_file: Path) -> None:
    with pytest.raises(ConfigError, match="without a label set"):
        module_of(rearranger_file, None, condition="seg")
