"""The rearranger's network: what its attention moves and from where, seen from outside and against the formula."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sisug.generators import Features
from sisug.nn import position_code
from sisug.rearranger import Rearranger
from sisug.rearranger.network import GAIN_RATE, MaskEncoder

SIZE, CHANNELS, CLUSTERS = 8, 6, 5
CELLS = SIZE * SIZE


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def network(*, heads: int = 1, refinement: int = 0, shaken: bool = True) -> Rearranger:
    """A small rearranger; shaken, so that what starts at zero takes part."""
    made = Rearranger(
        CHANNELS, CLUSTERS, SIZE, width=8, heads=heads, key_channels=12, bands=3, refinement=refinement
    ).eval()
    if shaken:
        with torch.no_grad():
            for parameter in made.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
    return made


def sample(batch: int = 2) -> tuple[Features, Tensor, Tensor]:
    features = Features(torch.randn(batch, CHANNELS, SIZE, SIZE) * 2 + 1, torch.randn(batch, 3, SIZE, SIZE))
    masks = torch.randint(0, CLUSTERS, (2, batch, SIZE, SIZE))
    return features, masks[0], masks[1]


def apply(net: Rearranger, features: Features, source: Tensor, target: Tensor) -> Features:
    """The network's answer; it does not read the styles."""
    result: Features = net(features, source, target, torch.randn(len(source), 2, 4))
    return result


@torch.no_grad()
def attention_seen_from_outside(net: Rearranger, feature_map: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """(target cell, source cell) of one sample: colours are values only, one that is 1 in one cell shows a weight."""
    probes = torch.eye(CELLS)
    probes = torch.cat([probes, torch.zeros(-CELLS % 3, CELLS)]).reshape(-1, 3, SIZE, SIZE)
    copies = len(probes)
    out = apply(
        net,
        Features(feature_map.expand(copies, -1, -1, -1), probes),
        source.expand(copies, -1, -1),
        target.expand(copies, -1, -1),
    )
    return out.rgb.reshape(-1, CELLS)[:CELLS].T


# --- attention -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2])
def test_every_cell_is_a_convex_combination_of_source_cells_for_map_and_colours_alike(heads: int) -> None:
    net = network(heads=heads)
    features, source, target = sample(1)
    rows = attention_seen_from_outside(net, features.map, source, target)
    assert float(rows.min()) >= 0
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(CELLS))
    out = apply(net, features, source, target)
    for moved, values in zip(out, features, strict=True):
        expected = torch.einsum("ts,cs->ct", rows, values[0].flatten(1))
        torch.testing.assert_close(moved[0].flatten(1), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_equals_the_softmax_written_out(heads: int) -> None:
    net = network(heads=heads)
    features, source, target = sample()

    def cells(x: Tensor) -> Tensor:  # (batch, heads, cells, channel), each of length one
        return F.normalize(x.reshape(2, heads, -1, CELLS).transpose(2, 3), dim=-1)

    source_code, target_code = (net.encoder(net.encoder.embed(mask)) for mask in (source, target))
    query = cells(net.query(target_code))
    mean, deviation = features.map.mean((2, 3), keepdim=True), features.map.std((2, 3), keepdim=True, unbiased=False)
    key = cells(net.key(torch.cat([source_code, (features.map - mean) / (deviation + 1e-3)], dim=1)))
    place = net.code.flatten(1).T
    logits = (GAIN_RATE * net.content_gain).exp()[:, None, None] * (query @ key.transpose(2, 3))
    logits = logits + (GAIN_RATE * net.place_gain).exp()[:, None, None] * (place @ place.T)
    values = torch.cat(list(features), dim=1).flatten(2).transpose(1, 2)[:, None]
    moved = logits.softmax(dim=-1) @ values
    blend = torch.ones(2, 1, CELLS) if net.gate is None else net.gate(target_code).flatten(2).softmax(dim=1)
    expected = (blend[..., None] * moved).sum(dim=1).transpose(1, 2).reshape(2, -1, SIZE, SIZE)
    torch.testing.assert_close(
        torch.cat(list(apply(net, features, source, target)), dim=1), expected, atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize("heads", [1, 2])
def test_with_place_alone_the_output_is_the_source(heads: int) -> None:
    net = network(heads=heads)
    with torch.no_grad():
        net.content_gain.fill_(math.log(1e-3) / GAIN_RATE)
        net.place_gain.fill_(math.log(1e4) / GAIN_RATE)
    features, source, target = sample()
    for layout in (source, target):
        out = apply(net, features, source, layout)
        torch.testing.assert_close(out.map, features.map)
        torch.testing.assert_close(out.rgb, features.rgb)


class OneHot(nn.Module):
    """Stands in for the mask encoder: a cell knows its own label and nothing else."""

    def embed(self, mask: Tensor) -> Tensor:
        return F.one_hot(mask, CLUSTERS).permute(0, 3, 1, 2).float()

    def forward(self, embedded: Tensor) -> Tensor:
        return embedded


def test_with_labels_alone_a_cell_gets_the_mean_of_the_sources_cells_of_its_label() -> None:
    net = Rearranger(CHANNELS, CLUSTERS, SIZE, width=8, key_channels=CLUSTERS, bands=3, refinement=0)
    net.encoder = OneHot()  # type: ignore[assignment]
    net.query, net.key = first_channels(CLUSTERS), first_channels(CLUSTERS + CHANNELS)
    with torch.no_grad():
        net.content_gain.fill_(math.log(100.0) / GAIN_RATE)
        net.place_gain.fill_(-math.inf)
    features, source, target = sample(1)
    out = apply(net, features, source, target)
    for label in range(CLUSTERS):
        mean = features.map[0][:, source[0] == label].mean(dim=1)
        got = out.map[0][:, target[0] == label]
        torch.testing.assert_close(got, mean[:, None].expand_as(got), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("heads", [1, 2])
def test_transfer_carries_what_rearranging_would_move(heads: int) -> None:
    net = network(heads=heads)
    features, source, target = sample(1)
    carried = net.transfer(features.map, features.map, source, target)
    torch.testing.assert_close(carried, apply(net, features, source, target).map)
    # A second source counts as its own cells' likeness says: the same one again changes nothing.
    twice = [x.repeat(2, *[1] * (x.dim() - 1)) for x in (features.map, features.map, source)]
    torch.testing.assert_close(net.transfer(*twice, target), carried)


def test_transfer_takes_each_label_from_the_source_that_shows_it() -> None:
    net = Rearranger(CHANNELS, CLUSTERS, SIZE, width=8, key_channels=CLUSTERS, bands=3, refinement=0)
    net.encoder = OneHot()  # type: ignore[assignment]
    net.query, net.key = first_channels(CLUSTERS), first_channels(CLUSTERS + CHANNELS)
    with torch.no_grad():
        net.content_gain.fill_(math.log(100.0) / GAIN_RATE)
        net.place_gain.fill_(-math.inf)
    source = torch.stack([torch.full((SIZE, SIZE), label) for label in range(CLUSTERS)])
    values = torch.arange(CLUSTERS).float()[:, None, None, None].expand(-1, 2, SIZE, SIZE)
    target = torch.randint(0, CLUSTERS, (3, SIZE, SIZE))
    carried = net.transfer(values, torch.randn(CLUSTERS, CHANNELS, SIZE, SIZE), source, target)
    torch.testing.assert_close(carried, target[:, None].float().expand(-1, 2, -1, -1), atol=1e-3, rtol=0)


def first_channels(channels: int) -> nn.Sequential:
    """Passes the first channels, the labels, on."""
    layer = nn.Conv2d(channels, CLUSTERS, 1, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, :CLUSTERS, 0, 0] = torch.eye(CLUSTERS)
    return nn.Sequential(layer)


def test_heads_are_blended_by_what_the_target_asks_for() -> None:
    net = network(heads=2)
    assert net.gate is not None
    features, source, target = sample(1)
    alone = []
    for head in range(2):
        with torch.no_grad():
            net.gate.weight.zero_()
            net.gate.bias.copy_(torch.tensor([50.0, -50.0]) * (1 - 2 * head))  # type: ignore[union-attr]
        alone.append(apply(net, features, source, target).map)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)
    with torch.no_grad():
        net.gate.bias.copy_(torch.tensor([0.75, 0.25]).log())  # type: ignore[union-attr]
    torch.testing.assert_close(apply(net, features, source, target).map, 0.75 * alone[0] + 0.25 * alone[1])


def test_samples_of_a_batch_do_not_mix() -> None:
    net = network(heads=2, refinement=1)
    features, source, target = sample(3)
    together = apply(net, features, source, target)
    for i in range(3):
        one = apply(
            net, Features(features.map[i : i + 1], features.rgb[i : i + 1]), source[i : i + 1], target[i : i + 1]
        )
        torch.testing.assert_close(one.map[0], together.map[i], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one.rgb[0], together.rgb[i], atol=1e-4, rtol=1e-4)


# --- refinement ----------------------------------------------------------------------------------------------------


def test_refinement_starts_as_nothing() -> None:
    refined, plain = network(refinement=2, shaken=False), network(refinement=0, shaken=False)
    plain.load_state_dict(
        {name: value for name, value in refined.state_dict().items() if not name.startswith("refine")}
    )
    features, source, target = sample()
    for a, b in zip(apply(refined, features, source, target), apply(plain, features, source, target), strict=True):
        assert torch.equal(a, b)


def test_refinement_can_give_what_no_source_cell_has() -> None:
    net = network(refinement=1)
    assert net.refine_out is not None
    with torch.no_grad():
        net.refine_out.bias.fill_(5.0)  # type: ignore[union-attr]
    features, source, target = sample()
    with torch.no_grad():
        out = apply(net, features, source, target)
    assert float((out.map - features.map.amax((2, 3), keepdim=True)).max()) > 1
    assert float((out.rgb - features.rgb.amax((2, 3), keepdim=True)).max()) > 1


def test_scale_and_shift_of_the_features_pass_through() -> None:
    # Keys see features without their look and the refinement speaks in units of it, so a look is carried, not read.
    net = network(refinement=1)
    features, source, target = sample()
    gain, shift = torch.rand(2, CHANNELS, 1, 1) * 3 + 1, torch.randn(2, CHANNELS, 1, 1)
    for block in net.refine:
        block.look = None  # the one place that may read the look
    plain = apply(net, features, source, target)
    other = apply(net, features._replace(map=features.map * gain + shift), source, target)
    torch.testing.assert_close(other.map, plain.map * gain + shift, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("heads", [1, 2])
def test_every_parameter_learns(heads: int) -> None:
    net = network(heads=heads, refinement=1)
    features, source, target = sample()
    out = apply(net, features, source, target)
    ((out.map * torch.randn_like(out.map)).sum() + (out.rgb * torch.randn_like(out.rgb)).sum()).backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert still == []


def test_under_autocast_values_are_moved_in_float32() -> None:
    net = network()
    with torch.no_grad():
        net.place_gain.fill_(math.log(1e4) / GAIN_RATE)
    features, source, _ = sample()
    with torch.autocast("cpu", torch.bfloat16):
        out = apply(net, features, source, source)
    assert out.map.dtype == out.rgb.dtype == torch.float32
    torch.testing.assert_close(out.map, features.map)  # bfloat16 would keep three digits


# --- masks and places ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 8, 32])
def test_position_codes_product_depends_on_distance_alone_and_peaks_at_zero(size: int) -> None:
    code = position_code(size, 6).flatten(1)
    product = (code.T @ code).reshape(size, size, size, size)
    torch.testing.assert_close(product.flatten(2).flatten(0, 1).diagonal(), torch.ones(size * size))
    for dy in range(size):
        for dx in range(size):
            # All pairs that lie (dy, dx) apart, in either direction of each axis.
            rows, columns = torch.arange(size - dy), torch.arange(size - dx)
            for y0, y1 in ((rows, rows + dy), (rows + dy, rows)):
                same = product[y0[:, None], columns, y1[:, None], columns + dx]
                assert float(same.max() - same.min()) < 1e-5
            if (dy, dx) != (0, 0):
                assert float(same.max()) < 1 - 1e-3


def test_position_code_equals_its_formula() -> None:
    # A cosine of the distance for each wavelength and axis; wavelengths from the whole map to two cells.
    size, bands = 16, 4
    code = position_code(size, bands)
    assert code.shape == (4 * bands, size, size)
    wavelengths = [size / 2 ** (i / (bands - 1) * math.log2(size / 2)) for i in range(bands)]
    assert wavelengths[0] == size
    assert wavelengths[-1] == pytest.approx(2)
    dy, dx = 3, 5
    expected = sum(math.cos(2 * math.pi * d / w) for w in wavelengths for d in (dy, dx)) / (2 * bands)
    assert float(code[:, 2, 4] @ code[:, 2 + dy, 4 + dx]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [4, 8, 16])
def test_a_cells_code_knows_the_whole_layout(size: int) -> None:
    encoder = MaskEncoder(CLUSTERS, 8, size, bands=2).eval()

    def code_of(labels: Tensor) -> Tensor:
        return encoder(encoder.embed(labels))

    mask = torch.zeros(1, size, size, dtype=torch.int64)
    other = mask.clone()
    other[0, -1, -1] = 3
    assert code_of(mask).shape == (1, 8, size, size)
    assert not torch.equal(code_of(mask)[..., -1, -1], code_of(other)[..., -1, -1])
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    assert not torch.equal(code_of(mask)[..., 0, 0], code_of(other)[..., 0, 0])


def test_the_target_decides_the_layout() -> None:
    net = network(shaken=False)
    with torch.no_grad():
        net.content_gain.fill_(math.log(50.0) / GAIN_RATE)
    features, source, target = sample()
    assert not torch.allclose(
        apply(net, features, source, target).map, apply(net, features, source, source).map, atol=1e-2
    )


def test_weights_of_zero_and_one_are_the_labels_and_pass_gradients_on() -> None:
    net = network(refinement=1)
    features, source, target = sample()
    weights = F.one_hot(target, CLUSTERS).permute(0, 3, 1, 2).float().requires_grad_()
    out = apply(net, features, source, weights)
    for soft, hard in zip(out, apply(net, features, source, target), strict=True):
        torch.testing.assert_close(soft, hard)
    (gradient,) = torch.autograd.grad(out.map.square().sum(), weights)
    assert bool((gradient != 0).flatten(2).any(dim=2).all()), "every label of every sample counts"
