"""Labels carried by a rearranger's attention, against cases whose answer is known."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from mapper.mappers import THREE, random_rearranger

from sisug.generators import GeneratorBackbone
from sisug.mapper.few_shot import LabelTransfer
from sisug.mapper.few_shot.transfer import named, resized
from sisug.rearranger.network import GAIN_RATE
from sisug.rearranger.trained import TrainedRearranger


def staying(generator_file: Path) -> TrainedRearranger:
    """A rearranger that takes every cell from its own place."""
    trained = random_rearranger(generator_file)
    with torch.no_grad():
        trained.network.content_gain.fill_(math.log(1e-3) / GAIN_RATE)
        trained.network.place_gain.fill_(math.log(1e4) / GAIN_RATE)
    return trained


def styles(generator: GeneratorBackbone, count: int) -> torch.Tensor:
    return generator.map(torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(0)))


def test_where_nothing_moves_every_sample_gets_the_labelled_samples_mask(tiny_generator_file: Path) -> None:
    trained = staying(tiny_generator_file)
    mask = torch.randint(0, 3, (1, 16, 16), generator=torch.Generator().manual_seed(1))
    ws = styles(trained.generator, 3)
    transfer = LabelTransfer(trained.generator, trained.codebook, trained.network, ws[:1], mask, THREE)
    # Pixels of one cell keep their own labels: 16 px masks ride on 8 cells.
    assert torch.equal(transfer.segment(ws), mask.expand(3, -1, -1))


def test_two_labelled_samples_share_the_vote(tiny_generator_file: Path) -> None:
    trained = staying(tiny_generator_file)
    masks = torch.stack([torch.zeros(16, 16), torch.ones(16, 16)]).long()
    ws = styles(trained.generator, 1)
    transfer = LabelTransfer(trained.generator, trained.codebook, trained.network, ws.repeat(2, 1, 1), masks, THREE)
    half = torch.full((1, 16, 16), 0.5)
    expected = torch.stack([half, half, torch.zeros_like(half)], dim=1)
    torch.testing.assert_close(transfer.probabilities(ws), expected, atol=1e-3, rtol=0)


def test_what_nobody_labelled_stays_open(tiny_generator_file: Path) -> None:
    trained = staying(tiny_generator_file)
    mask = torch.full((1, 16, 16), THREE.ignore)
    mask[:, :8] = 2
    ws = styles(trained.generator, 1)
    transfer = LabelTransfer(trained.generator, trained.codebook, trained.network, ws, mask, THREE)
    assert torch.equal(transfer.segment(ws), mask)
    assert float(transfer.probabilities(ws)[:, :, 10:].abs().max()) < 1e-3


def test_names_and_sizes() -> None:
    shares = F.one_hot(torch.tensor([[[0, 2], [1, 1]]]), 3).permute(0, 3, 1, 2).float()
    assert torch.equal(named(shares, THREE), torch.tensor([[[0, 2], [1, 1]]]))
    assert resized(shares, 2) is shares
    torch.testing.assert_close(resized(shares, 4), F.interpolate(shares, (4, 4), mode="bilinear"))
    assert torch.equal(named(shares * 0.4, THREE), torch.full((1, 2, 2), THREE.ignore))
