"""Training of LinearGAN's extractor: what is linear is found, by the published steps, the same each time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from baselines.known import THREE, KnownGenerator, true_extractor

from sisug.baselines.lineargan.training import train_extractor, train_extractor_full
from sisug.errors import ConfigError, DataError
from sisug.generators import load_generator
from sisug.labels.label_sets import AVATARS
from sisug.metrics import SegmentationScore
from sisug.segmentation.loading import load_judge

GENERATOR = KnownGenerator()


def samples(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Styles and the masks that are true of them."""
    ws = GENERATOR.map(torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)))
    return ws, true_extractor(GENERATOR).segment(GENERATOR, ws)


def truth(images: torch.Tensor) -> torch.Tensor:
    """A teacher that reads the masks off the images: their channels are x, y and the first edge."""
    right, line = images[:, 0] - images[:, 2], images[:, 1]
    return torch.where(line > 0.5, 2, (right > 0).long())


@pytest.fixture
def steps(monkeypatch) -> list[list[float]]:
    """Learning rates of every step that is taken."""
    taken: list[list[float]] = []
    step = torch.optim.Adam.step

    def recorded(self, closure=None):
        taken.append([group["lr"] for group in self.param_groups])
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    return taken


def test_linear_classes_are_found():
    ws, masks = samples(16)
    extractor = train_extractor(GENERATOR, ws, masks, THREE, epochs=20, learning_rate=1.0)
    assert (extractor.segment(GENERATOR, ws) == masks).float().mean() > 0.98
    others, expected = samples(64, seed=1)
    assert (extractor.segment(GENERATOR, others) == expected).float().mean() > 0.96
    assert not any(each.requires_grad for each in extractor.parameters())


def test_first_step_follows_the_gradient_in_closed_form():
    """Softmax regression: the gradient is columns x (probability - label); Adam's first step is its sign x rate."""
    ws, masks = samples(128)  # one step an epoch
    rate = 1e-3
    before = train_extractor(GENERATOR, ws, masks, THREE, epochs=1, learning_rate=1e-30)
    after = train_extractor(GENERATOR, ws, masks, THREE, epochs=1, learning_rate=rate)
    maps = [F.interpolate(each, (16, 16), mode="bilinear") for each in GENERATOR.layers(ws)]
    columns = torch.cat(maps, dim=1).permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    scores = columns @ before.weight.double().numpy().T
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    gradient = (probabilities - np.eye(3)[masks.flatten().numpy()]).T @ columns / len(columns)
    moved = (after.weight - before.weight).double().numpy()
    assert np.abs(gradient).min() > 1e-6
    np.testing.assert_allclose(moved, -rate * np.sign(gradient), rtol=0.02)


def test_first_weights_are_uniform_within_each_layers_bound():
    ws, masks = samples(128)
    extractor = train_extractor(GENERATOR, ws, masks, THREE, epochs=1, learning_rate=1e-30)
    for part, width in zip(torch.split(extractor.weight, list(extractor.widths), dim=1), (5, 4, 5), strict=True):
        assert 0.5 * width**-0.5 < part.abs().max() <= width**-0.5
        assert part.min() < 0 < part.max()


@pytest.mark.parametrize(("labelled", "each_epoch"), [(2, 64), (3, 43), (16, 8)])
def test_few_shot_steps_are_those_of_the_protocol(steps, labelled, each_epoch):
    ws, masks = samples(labelled)
    train_extractor(GENERATOR, ws, masks, THREE, epochs=5)
    assert steps == 2 * each_epoch * [[1e-3]] + 3 * each_epoch * [[pytest.approx(1e-4)]]


def test_steps_on_many_samples_are_those_of_the_protocol(steps):
    train_extractor_full(GENERATOR, truth, THREE, images_per_epoch=66, batch=64)
    early, late = [1e-3, pytest.approx(1e-2)], [pytest.approx(1e-4), pytest.approx(1e-3)]
    # 66 images: in ones, in fours with two left over, in 64 with two left over.
    assert steps == (2 * 66 + 16 * 17 + 2 * 2) * [early] + 30 * 2 * [late]


def test_many_samples_teach_classes_and_the_layer_that_tells():
    extractor = train_extractor_full(
        GENERATOR, truth, THREE, images_per_epoch=16, learning_rate=0.1, truncation=1.0, batch=64
    )
    others, _ = samples(64, seed=1)
    expected = truth(GENERATOR.render(GENERATOR.features(others), others))
    assert (extractor.segment(GENERATOR, others) == expected).float().mean() > 0.9
    assert extractor.layer_weight is not None
    assert int(extractor.layer_weight.argmax()) == 2


def test_steps_on_many_samples_do_not_depend_on_the_batch():
    a, b = (
        train_extractor_full(GENERATOR, truth, THREE, images_per_epoch=4, batch=batch).state_dict() for batch in (1, 3)
    )
    assert a.keys() == {"weight", "layer_weight"}
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-4, atol=1e-5)


def test_training_is_reproducible_whatever_the_caller_switched(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    ws, masks = samples(4)
    state = torch.random.get_rng_state()
    first = train_extractor(GENERATOR, ws, masks, THREE, epochs=2).weight
    assert torch.equal(torch.random.get_rng_state(), state), "the global stream is left alone"
    assert not torch.backends.cudnn.deterministic, "put back"
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        ws, masks = samples(4)
        again = train_extractor(GENERATOR, ws, masks, THREE, epochs=2).weight
    assert torch.equal(first, again)
    assert not torch.equal(first, train_extractor(GENERATOR, ws.clone(), masks, THREE, epochs=2, seed=1).weight)


def test_teachers_in_inference_mode_can_teach():
    full = train_extractor_full(GENERATOR, torch.inference_mode()(truth), THREE, images_per_epoch=1)
    assert torch.equal(full.weight, train_extractor_full(GENERATOR, truth, THREE, images_per_epoch=1).weight)


def test_ignored_pixels_teach_nothing():
    """Of the features under ignored pixels nothing is learnt: without the edges in view, one class is left."""
    ws, masks = samples(2)
    hidden = torch.where(masks == 1, THREE.ignore, masks)
    extractor = train_extractor(GENERATOR, ws, hidden, THREE, epochs=10, learning_rate=1.0)
    found = extractor.segment(GENERATOR, ws)
    assert (found == hidden)[hidden != THREE.ignore].float().mean() > 0.95
    assert not bool((found == 1).any())


def test_masks_smaller_than_the_finest_features_train_alike():
    """Features are resized once, before training; that is what resizing the logits would give."""
    ws, _ = samples(8)
    masks = true_extractor(GENERATOR).segment(GENERATOR, ws, 8)
    extractor = train_extractor(GENERATOR, ws, masks, THREE, epochs=10, learning_rate=1.0)
    assert (extractor.segment(GENERATOR, ws, 8) == masks).float().mean() > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: masks[:1], r"masks of shape \(1, 16, 16\) for 2 samples"),
        (lambda masks: masks[:, :8], "as high as wide"),
        (lambda masks: torch.full_like(masks, 255), "no pixel of the masks is labelled"),
        (lambda masks: masks + 1, r"a mask has the values \[3\]"),
    ],
)
def test_bad_masks_are_refused(change, message):
    ws, masks = samples(2)
    with pytest.raises(DataError, match=message):
        train_extractor(GENERATOR, ws, change(masks), THREE)
    with pytest.raises(DataError, match=message.replace("1, 16, 16", "0, 16, 16").replace("2 samples", "1 samples")):
        train_extractor_full(GENERATOR, lambda images: change(truth(images).repeat(2, 1, 1))[len(images) :], THREE)


def test_numbers_out_of_range_and_no_samples_are_refused():
    ws, masks = samples(1)
    with pytest.raises(DataError, match="for 0 samples"):
        train_extractor(GENERATOR, ws[:0], masks[:0], THREE)
    with pytest.raises(ConfigError, match="epochs 0"):
        train_extractor(GENERATOR, ws, masks, THREE, epochs=0)
    with pytest.raises(ConfigError, match=r"learning_rate -0\.1"):
        train_extractor(GENERATOR, ws, masks, THREE, learning_rate=-0.1)
    for name, message in (("images_per_epoch", "images_per_epoch 0"), ("batch", "batch 0")):
        with pytest.raises(ConfigError, match=message):
            train_extractor_full(GENERATOR, truth, THREE, **{name: 0})
    with pytest.raises(ConfigError, match="truncation -1"):
        train_extractor_full(GENERATOR, truth, THREE, truncation=-1)


def test_one_avatar_teaches_the_large_parts():
    generator, judge = load_generator("avatars"), load_judge()
    ws = generator.map(torch.randn(25, 128, generator=torch.Generator().manual_seed(1)), 0.5)
    masks = judge.segment(generator.images(ws))
    extractor = train_extractor(generator, ws[:1], masks[:1], AVATARS, epochs=1, learning_rate=5e-3)
    score = SegmentationScore(AVATARS.num_classes)
    score.update(extractor.segment(generator, ws[1:]), masks[1:])
    iou = score.compute().iou
    for name in ("background", "skin", "clothes"):
        assert iou[AVATARS.number(name)] > 0.4, name
