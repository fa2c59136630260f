"""The few-shot segmenter: what it learns from one sample, what it ignores, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from sisug.errors import ConfigError, DataError
from sisug.generators import load_generator
from sisug.labels.label_sets import AVATARS, LabelSet
from sisug.mapper.few_shot import FewShotSegmenter, train_few_shot
from sisug.mapper.few_shot.network import columns_of, last_of_each_size
from sisug.mapper.few_shot.training import in_other_looks, moved
from sisug.metrics import SegmentationScore
from sisug.segmentation.loading import load_judge

TWO = LabelSet("two", ("left", "right"), ((0, 0, 0), (255, 255, 255)), flip_pairs=((0, 1),))


@pytest.fixture(scope="module")
def avatars():
    return load_generator("avatars", 32)


@pytest.fixture(scope="module")
def judged(avatars):
    """Styles of samples and the judge's masks of them."""
    judge = load_judge()
    ws = avatars.map(torch.randn(49, 128, generator=torch.Generator().manual_seed(1)), 0.7)
    images = torch.cat([avatars.images(part) for part in torch.split(ws, 25)])
    return ws, judge.segment(images)


def test_layers_hold_the_features_at_the_split_and_come_with_the_images(avatars):
    ws = avatars.map(torch.randn(2, 128))
    layers, images = avatars.layers_and_images(ws)
    features = avatars.features(ws)
    assert [each.shape[-1] for each in layers] == [4, 8, 8, 16, 16, 32, 32, 64, 64]
    last = last_of_each_size(layers)
    assert [each.shape[-1] for each in last] == [4, 8, 16, 32, 64]
    assert torch.equal(last[3], features.map)
    assert torch.equal(images, avatars.render(features, ws).clamp(-1, 1))
    assert torch.equal(images, avatars.images(ws))


def test_one_sample_teaches_the_large_parts(avatars, judged):
    ws, masks = judged
    segmenter = train_few_shot(avatars, ws[:1], masks[:1], AVATARS, looks=4, steps=40, width=32)
    score = SegmentationScore(AVATARS.num_classes)
    score.update(segmenter.segment(avatars, ws[1:]), masks[1:])
    result = score.compute()
    chance = torch.bincount(masks[1:].flatten()).max() / masks[1:].numel()
    assert result.accuracy > chance + 0.1
    for name in ("background", "skin", "clothes"):
        assert result.iou[AVATARS.number(name)] > 0.4, name


def test_training_is_reproducible_and_seeds_differ(avatars, judged):
    ws, masks = judged
    a, b, c = (
        train_few_shot(avatars, ws[:1], masks[:1], AVATARS, looks=2, steps=2, width=8, seed=seed) for seed in (0, 0, 1)
    )
    state = torch.random.get_rng_state()
    train_few_shot(avatars, ws[:1], masks[:1], AVATARS, looks=2, steps=1, width=8)
    assert torch.equal(torch.random.get_rng_state(), state), "the global stream is left alone"
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name
    assert not torch.equal(a.network.layers[0].weight, c.network.layers[0].weight)


def test_ignored_pixels_teach_nothing(avatars, judged):
    """Wrong labels under ignored pixels would show: two masks that differ there only give the same segmenter."""
    ws, masks = judged
    hidden = masks[:1].clone()
    hidden[:, 20:40] = AVATARS.ignore
    a = train_few_shot(avatars, ws[:1], hidden, AVATARS, looks=1, steps=2, width=8)
    assert int(a.seen.sum()) == int((hidden != AVATARS.ignore).sum())
    b = train_few_shot(avatars, ws[:1], masks[:1], AVATARS, looks=1, steps=2, width=8)
    assert not torch.equal(a.network.layers[0].weight, b.network.layers[0].weight)


def test_other_looks_keep_the_layout_and_the_first_is_the_samples_own(avatars, judged):
    ws, masks = judged
    shown = in_other_looks(avatars, ws[:2], 3, torch.Generator().manual_seed(0))
    assert torch.equal(shown[0], ws[0])
    assert torch.equal(shown[3], ws[1])
    first = avatars.first_style(32)
    assert torch.equal(shown[4, :first], ws[1, :first])
    assert not torch.equal(shown[4, first:], ws[1, first:])
    same = load_judge().segment(avatars.images(shown))
    agreement = (same == masks[:2].repeat_interleave(3, dim=0)).float().mean()
    other = (masks[2:8] == masks[:6]).float().mean()
    # Differences left, as shares of those between strangers.
    assert (1 - agreement) < 0.5 * (1 - other), "the judge sees another layout in another look"


def test_features_and_mask_move_together():
    """The mask is a feature too, so that both can be compared; left and right swap where the picture is mirrored."""
    masks = (torch.arange(32)[None, None].expand(2, 32, 32) >= 16).long()
    stream = torch.Generator().manual_seed(0)
    mirrored = 0
    for _ in range(8):
        columns, moved_masks = moved(masks[:, None].float(), masks, TWO, stream)
        image = (columns[:, 0] > 0.5).long()
        agreement = (image == moved_masks).float().mean()
        mirrored += int(agreement < 0.1)
        assert agreement < 0.1 or agreement > 0.9
    assert 0 < mirrored < 8


def test_columns_do_not_depend_on_brightness_of_features(avatars):
    layers, images = avatars.layers_and_images(avatars.map(torch.randn(1, 128)))
    brighter = [3 * each + 5 for each in layers]
    difference = (columns_of(brighter, images) - columns_of(layers, images)).square().mean().sqrt()
    assert difference < 0.02, "columns have a spread of one; channels of tiny spread keep some difference"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: masks[:, :32], "have masks of shape"),
        (lambda masks: masks.repeat(2, 1, 1), "have masks of shape"),
        (lambda masks: torch.full_like(masks, 255), "no pixel of the masks is labelled"),
        (lambda masks: torch.full_like(masks, 11), r"a mask has the values \[11\]"),
    ],
)
def test_bad_masks_are_refused(avatars, judged, change, message):
    ws, masks = judged
    with pytest.raises(DataError, match=message):
        train_few_shot(avatars, ws[:1], change(masks[:1]), AVATARS, steps=1)


def test_numbers_out_of_range_are_refused(avatars, judged):
    ws, masks = judged
    with pytest.raises(ConfigError, match="looks 0"):
        train_few_shot(avatars, ws[:1], masks[:1], AVATARS, looks=0)


def test_another_generator_is_refused(avatars, tiny_generator_file):
    other = load_generator(tiny_generator_file)
    network = train_few_shot(
        other,
        other.map(torch.randn(1, other.z_dim)),
        torch.zeros(1, other.resolution, other.resolution, dtype=torch.int64),
        AVATARS,
        looks=1,
        steps=1,
        width=8,
    )
    assert isinstance(network, FewShotSegmenter)
    with pytest.raises(DataError, match="was trained for the generator"):
        network.segment(avatars, avatars.map(torch.randn(1, 128)))
