"""Conditions made from samples: what every kind promises, and what is particular to one."""

from __future__ import annotations

import functools
import importlib.resources
import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from sisug.conditions.condition import Condition
from sisug.conditions.depth import LAYERS, Depth
from sisug.conditions.edges import Edges
from sisug.conditions.lines import contours
from sisug.conditions.registry import CONDITIONS, condition
from sisug.conditions.scribble import Scribble
from sisug.conditions.seg import Seg
from sisug.conditions.sketch import Sketch
from sisug.data.avatars.drawing import draw_avatar
from sisug.errors import ConfigError, DataError
from sisug.labels.label_sets import AVATARS, LabelSet

FACE = LabelSet("face", ("skin", "left", "right"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), ((1, 2),))

KINDS: dict[str, Condition] = {
    **{name: condition(name, AVATARS) for name in CONDITIONS},
    "canny": condition("edges", detector="canny"),
    "stretched": condition("depth", AVATARS, stretch=True),
}


@functools.cache
def avatars(size: int = 64, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = [draw_avatar(7000 + seed, size) for seed in range(count)]
    images = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images, torch.from_numpy(np.stack([mask for _, mask in drawn])).long()


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@every_kind
@pytest.mark.parametrize("shape", [(64, 64), (33, 47), (16, 16), (17, 9), (150, 130)])
def test_shapes_and_ranges(kind: Condition, shape: tuple[int, int]) -> None:
    size = max(shape)
    top, left = (size - shape[0]) // 2, (size - shape[1]) // 2
    images, masks = (a[:2, ..., top : top + shape[0], left : left + shape[1]] for a in avatars(size))
    encoded = kind.extract(images, masks, random())
    assert encoded.shape == (2, kind.channels, *shape)
    assert encoded.dtype == torch.float32
    assert torch.isfinite(encoded).all()
    assert encoded.min() >= 0
    assert encoded.max() <= 1
    assert encoded.flatten(1).std(1).min() > 0
    shown = kind.show(encoded)
    assert (shown.shape, shown.dtype) == ((2, 3, *shape), torch.uint8)


@every_kind
def test_random_choices_come_from_the_generator_alone(kind: Condition) -> None:
    images, masks = avatars()
    before = torch.get_rng_state(), images.clone(), masks.clone()
    first, again = (kind.extract(images, masks, random(3)) for _ in range(2))
    other = kind.extract(images, masks, random(4))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (kind.name == "seg")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(images, before[1])
    assert torch.equal(masks, before[2])


@every_kind
def test_mixed_precision_around_it_changes_nothing(kind: Condition) -> None:
    images, masks = avatars()
    expected = kind.extract(images, masks, random())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(kind.extract(images, masks, random()), expected)


@every_kind
def test_flipping_twice_changes_nothing(kind: Condition) -> None:
    encoded = kind.extract(*avatars(), random())
    assert not torch.equal(kind.flip(encoded), encoded)
    assert torch.equal(kind.flip(kind.flip(encoded)), encoded)


@every_kind
def test_masks_are_asked_for_where_they_are_needed(kind: Condition) -> None:
    images, _ = avatars()
    if kind.needs_masks:
        with pytest.raises(ConfigError, match="masks of a segmenter"):
            kind.extract(images, None, random())
    else:
        kind.extract(images, None, random())


@pytest.mark.gpu
@every_kind
def test_a_gpu_gives_what_the_cpu_gives(kind: Condition) -> None:
    images, masks = avatars()
    on_gpu = kind.extract(images.cuda(), masks.cuda(), random()).cpu()
    # Thresholds may fall the other way at single pixels.
    assert ((on_gpu - kind.extract(images, masks, random())).abs() > 1e-2).float().mean() < 0.01


@pytest.mark.parametrize("kind", [Seg, Scribble])
def test_flips_swap_left_and_right_classes(kind: type[Seg] | type[Scribble]) -> None:
    masks = torch.tensor([[[0, 1, 2, 255], [1, 1, 0, 0]]])
    labelled = kind(FACE)
    assert torch.equal(labelled.flip(labelled.from_mask(masks)), labelled.from_mask(FACE.flip(masks)))


def test_masks_are_one_hot_with_zeros_where_ignored() -> None:
    masks = torch.tensor([[[0, 2], [255, 1]]])
    encoded = Seg(FACE).from_mask(masks)
    assert encoded[0].permute(1, 2, 0).tolist() == [[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]]
    assert torch.equal(Seg(FACE).from_mask(masks[0]), encoded[0])
    assert torch.equal(Seg(FACE).to_mask(encoded), masks)
    with pytest.raises(DataError, match="3"):
        Seg(FACE).from_mask(masks + 2)


def test_seg_shows_the_palette() -> None:
    images, masks = avatars()
    seg = Seg(AVATARS)
    assert torch.equal(seg.show(seg.extract(images, masks, random())), AVATARS.colorize(masks))


@pytest.mark.parametrize("size", [64, 160])
def test_strokes_lie_inside_their_class(size: int) -> None:
    images, masks = avatars(size)
    scribble = Scribble(AVATARS)
    shares = []
    for seed in range(8):
        strokes = scribble.to_mask(scribble.extract(images, masks, random(seed)))
        drawn = strokes != AVATARS.ignore
        assert torch.equal(strokes[drawn], masks[drawn])
        shares += drawn.flatten(1).float().mean(1).tolist()
    assert 0.0 < min(shares) < 0.05  # sparse ones
    assert 0.1 < max(shares) < 0.5  # dense ones


def test_strokes_have_several_widths_and_reach_most_classes() -> None:
    images, masks = avatars()
    scribble = Scribble(AVATARS)
    thickest, reached = set(), []
    for seed in range(12):
        strokes = scribble.to_mask(scribble.extract(images, masks, random(seed)))
        for stroke, mask in zip(strokes, masks, strict=True):
            inside = ndimage.distance_transform_cdt((stroke == 0).numpy())  # the background has room for all widths
            thickest.add(int(inside.max()))
            reached.append(len(stroke.unique()) / (len(mask.unique()) + 1))
    assert thickest >= {1, 2}
    assert 0.5 < float(np.mean(reached)) < 0.95


def test_scribbles_of_masks_without_labels_are_empty() -> None:
    images, masks = avatars()
    assert Scribble(AVATARS).extract(images, torch.full_like(masks, 255), random()).sum() == 0


def test_slopes_are_those_of_scipy() -> None:
    images, _ = avatars()
    channels = images.numpy().astype(np.float64)
    slopes = [
        [np.hypot(*(ndimage.sobel(channel, axis=axis, mode="nearest") / 8 for axis in (0, 1))) for channel in image]
        for image in channels
    ]
    expected = np.array(slopes).max(axis=1, keepdims=True)
    np.testing.assert_allclose(contours(images, torch.zeros(4)).numpy(), expected, atol=1e-5)
    step = torch.ones(1, 3, 8, 8)
    step[..., :4] = -1
    assert contours(step, torch.zeros(1)).max() == pytest.approx(1)


@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_blurred_steps_count_as_sharp_ones(sigma: float) -> None:
    step = torch.ones(1, 3, 64, 64)
    step[..., :32] = -1
    blurred = torch.from_numpy(ndimage.gaussian_filter(step.numpy(), (0, 0, sigma, sigma), mode="nearest"))
    assert contours(blurred, torch.tensor([sigma])).max() == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("kind", [Edges(), Edges(detector="canny"), Sketch()])
def test_lines_lie_on_the_border_of_two_colours(kind: Condition) -> None:
    images = torch.full((6, 3, 64, 64), -0.5)
    images[:, 0, 20:44, 16:48] = 0.6  # differs in one channel only
    encoded = kind.extract(images, None, random())
    border = torch.zeros(64, 64, dtype=torch.bool)
    border[20:44, 16:48] = True
    inside, outside = (ndimage.binary_erosion(border, iterations=4), ndimage.binary_dilation(border, iterations=4))
    near = torch.from_numpy(outside & ~inside)
    assert (encoded * ~near).amax() < 0.05
    assert (encoded.amax(dim=(1, 2, 3)) > 0.99).all()


def test_sketches_are_thin_and_nearly_closed() -> None:
    images = torch.full((24, 3, 64, 64), -0.5)
    images[:, :, 20:44, 16:48] = 0.6
    lines = Sketch().extract(images, None, random())
    drawn = lines > 0.15
    ink = drawn.flatten(1).sum(1).float()
    length = 2 * (24 + 32)
    assert ink.max() < 3.5 * length
    # Gaps are few: seen from the middle, most directions meet a line.
    rows, columns = drawn[:, :, 20:44].any(3).float(), drawn[..., 16:48].any(2).float()
    assert torch.cat([rows, columns], 2).mean() > 0.9


def test_a_plain_image_has_no_lines() -> None:
    images = torch.full((2, 3, 32, 32), 0.3)
    for kind in (Edges(), Edges(detector="canny"), Sketch()):
        assert kind.extract(images, None, random()).abs().max() == 0


def test_layers_of_avatars_are_those_that_the_style_draws() -> None:
    """The style's canvas lists its parts in the order of drawing."""
    text = importlib.resources.files("dicebear_styles").joinpath("avataaars.json").read_text(encoding="utf-8")
    parts = [part["name"] for part in json.loads(text)["canvas"]["elements"] if part["type"] == "component"]
    classes = {"facialHair": ["facial_hair"], "top": ["hair", "hat"]}
    drawn = [name for part in parts for name in classes.get(part, [part])]
    assert LAYERS["avatars"] == ("background", "skin", *drawn)


def test_depth_follows_the_order_of_layers() -> None:
    images, masks = torch.zeros(1, 3, 2, 3), torch.tensor([[[0, 1, 2], [255, 0, 0]]])
    depth = Depth(FACE, order=("right", "skin", "left"))
    table = depth.extract(images, masks, random())[0, 0]
    # At 3 px, the blur is far below a pixel.
    torch.testing.assert_close(table, torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, 0.5]]), atol=1e-3, rtol=0)


def test_stretched_depth_fills_its_range() -> None:
    images, masks = avatars()
    stretched = KINDS["stretched"].extract(images, masks, random())
    assert torch.equal(stretched.amin(dim=(1, 2, 3)), torch.zeros(4))
    assert torch.equal(stretched.amax(dim=(1, 2, 3)), torch.ones(4))
    plain = KINDS["depth"].extract(images, masks, random())
    assert plain.amax(dim=(1, 2, 3)).min() < 1  # no sample has every layer
    assert KINDS["stretched"].extract(images, masks * 0, random()).abs().max() == 0


def test_depth_without_an_order_says_what_to_give() -> None:
    images, masks = avatars()
    with pytest.raises(ConfigError, match="far to near"):
        Depth(FACE).extract(images, masks * 0, random())
    with pytest.raises(ConfigError, match="each class once"):
        Depth(FACE, order=("skin", "left"))
    with pytest.raises(ConfigError, match="without a label set"):
        Depth().extract(images, masks, random())
