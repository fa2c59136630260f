"""LinearGAN's extractor: which features it reads, and that it is the sum of resized 1x1 convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from baselines.known import CHANNELS, THREE, KnownGenerator, true_extractor

from sisug.baselines.lineargan import LinearExtractor
from sisug.baselines.lineargan.losses import class_loss, search_loss
from sisug.baselines.lineargan.network import resized
from sisug.errors import DataError
from sisug.generators import Generator, StyleGAN2Backbone, load_generator


def random_layers(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    sizes = [(3, 4), (2, 8), (5, 8), (2, 32)]
    return [torch.randn(2, c, r, r, generator=stream, dtype=dtype) for c, r in sizes]


def random_extractor(weighted: bool) -> LinearExtractor:
    extractor = LinearExtractor([3, 2, 5, 2], THREE, "a", weighted=weighted)
    with torch.no_grad():
        extractor.weight.normal_(generator=torch.Generator().manual_seed(1))
        if extractor.layer_weight is not None:
            extractor.layer_weight.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    return extractor


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_every_convolution_is_read(architecture):
    torch.manual_seed(0)
    generator = StyleGAN2Backbone(Generator(6, 7, {4: 8, 8: 8, 16: 6}, mapping_layers=2, architecture=architecture))
    ws = generator.map(torch.randn(2, 6))
    ws = torch.stack([row * (1 + 0.1 * i) for i, row in enumerate(ws.unbind(1))], dim=1)  # each layer its own style
    seen: list[torch.Tensor] = []
    for name, module in generator.named_modules():
        if name.endswith((".conv0", ".conv1")):
            module.register_forward_hook(lambda module, given, out: seen.append(out.clone()))
    layers = generator.layers(ws)
    assert [each.shape[1:] for each in layers] == [(8, 4, 4), (8, 8, 8), (8, 8, 8), (6, 16, 16), (6, 16, 16)]
    outputs = list(seen)
    for split, last in zip((4, 8, 16), layers[0::2], strict=True):
        assert torch.equal(last, StyleGAN2Backbone(generator.generator, split).features(ws).map)
    assert all(torch.equal(one, other) for one, other in zip(layers[1::2], outputs[1::2], strict=True))


def test_other_generators_give_their_layers():
    generator = KnownGenerator()
    layers = generator.layers(generator.map(torch.randn(2, 6)))
    assert [each.shape[1] for each in layers] == list(CHANNELS.values())


@pytest.mark.parametrize("size", [4, 7, 16, 32, 40])
@pytest.mark.parametrize("weighted", [False, True])
def test_logits_are_the_sum_of_resized_products(weighted, size):
    extractor, layers = random_extractor(weighted), random_layers()
    parts, begin = [], 0
    for each in layers:
        weight = extractor.weight[:, begin : begin + each.shape[1]]
        begin += each.shape[1]
        product = torch.einsum("kc,bchw->bkhw", weight, each)
        parts.append(F.interpolate(product, (size, size), mode="bilinear", align_corners=False))
    shares = torch.ones(4)
    if weighted:
        shares = torch.log1p(torch.tensor([1.0, -2.0, 0.5, 3.0]).exp())
        shares = shares / shares.sum()
    expected = sum(share * part for share, part in zip(shares, parts, strict=True))
    torch.testing.assert_close(extractor(layers, size), expected)


@pytest.mark.parametrize(("before", "after"), [(4, 64), (8, 12), (16, 16), (32, 8), (9, 5)])
def test_resizing_is_bilinear(before, after):
    values = torch.randn(2, 3, before, before)
    torch.testing.assert_close(resized(values, after), F.interpolate(values, (after, after), mode="bilinear"))


def test_gradients_agree_with_differences():
    extractor = random_extractor(weighted=True).double()
    layers = [each.requires_grad_() for each in random_layers(torch.float64)[:3]]
    masks = torch.randint(3, (2, 6, 6), generator=torch.Generator().manual_seed(2))
    masks[:, 0] = THREE.ignore
    names, values = zip(*extractor.named_parameters(), strict=True)
    last = torch.zeros(2, 2, 32, 32, dtype=torch.float64)

    def loss(*inputs):
        parameters = dict(zip(names, inputs[:2], strict=True))
        logits = torch.func.functional_call(extractor, parameters, ([*inputs[2:], last], 6))
        return class_loss(logits, masks, THREE.ignore)

    assert torch.autograd.gradcheck(loss, (*values, *layers))


def test_gradient_of_the_search_agrees_with_differences():
    generator = KnownGenerator()
    extractor = true_extractor(generator).double()
    stream = torch.Generator().manual_seed(0)
    start = torch.randn(2, 6, generator=stream, dtype=torch.float64)
    masks = torch.randint(3, (2, 16, 16), generator=stream)

    def loss(z):
        logits = extractor(generator.layers(generator.map(z)), 16)
        return search_loss(logits, masks, THREE.ignore, z, start, 0.3, 0.2)

    assert torch.autograd.gradcheck(loss, ((start + 0.3).requires_grad_(),))


def test_loss_is_the_mean_over_each_images_labelled_pixels():
    logits = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    masks = torch.randint(3, (3, 4, 4), generator=torch.Generator().manual_seed(1))
    masks[0, :3] = THREE.ignore
    masks[2] = THREE.ignore
    loss = class_loss(logits, masks, THREE.ignore)
    probabilities = logits.double().softmax(dim=1)
    for row, pixels in ((0, [(3, x) for x in range(4)]), (1, [(y, x) for y in range(4) for x in range(4)])):
        terms = [-probabilities[row, masks[row, y, x], y, x].log() for y, x in pixels]
        assert float(loss[row]) == pytest.approx(float(sum(terms) / len(terms)), rel=1e-5)
    assert float(loss[2]) == 0.0


def test_search_loss_adds_squared_distances():
    logits, masks = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)
    z, start = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    loss = search_loss(logits, masks, 255, z, start, 0.1, 0.01)
    expected = torch.tensor(3.0).log() + torch.tensor([0.1 * 4 + 0.01 * 5, 0.01 * 9])
    torch.testing.assert_close(loss, expected)


def test_autocast_changes_nothing():
    extractor, layers = random_extractor(weighted=True), random_layers()
    plain = extractor(layers, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extractor(layers, 16), plain)
        generator = load_generator("avatars")
        lower = generator.layers(generator.map(torch.ones(1, 128)))
    assert all(each.dtype == torch.float32 for each in lower)
    half = extractor([each.bfloat16() for each in layers], 16)
    assert half.dtype == torch.float32


def test_segments_at_any_size_and_for_its_own_generator_only(tiny_generator_file):
    generator = KnownGenerator()
    extractor = true_extractor(generator)
    ws = torch.zeros(1, 2, 6)
    ws[..., 0], ws[..., 1] = 0.0, 10.0  # an edge in the middle, and one below the image
    expected = (torch.arange(16) >= 8).long().expand(1, 16, 16)
    assert torch.equal(extractor.segment(generator, ws), expected)
    assert torch.equal(extractor.segment(generator, ws, 8), expected[:, ::2, ::2])
    other = load_generator(tiny_generator_file)
    with pytest.raises(DataError, match=r"trained for the generator known.*train an extractor for it"):
        extractor.segment(other, other.map(torch.randn(1, other.z_dim)))
