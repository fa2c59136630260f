"""Labels by nearest neighbors: exact cases, what is kept, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mapper.mappers import THREE
from torch import Tensor

from sisug.errors import ConfigError, DataError
from sisug.generators import GeneratorBackbone, load_generator
from sisug.mapper.few_shot.neighbors import NeighborSegmenter


@pytest.fixture(scope="module")
def tiny(tiny_generator_file: Path) -> GeneratorBackbone:
    return load_generator(tiny_generator_file)


def styles(generator: GeneratorBackbone, count: int, seed: int = 0) -> Tensor:
    return generator.map(torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(seed)))


def stripes(count: int) -> Tensor:
    mask = torch.arange(16).div(6, rounding_mode="floor").expand(count, 16, 16)
    return mask.contiguous()


def test_a_labeled_sample_finds_its_own_cells(tiny: GeneratorBackbone) -> None:
    ws, masks = styles(tiny, 2), torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(1))
    exact = NeighborSegmenter(tiny, ws, masks, THREE, neighbors=1, unlabeled=0, smoothing=0, thinning=1)
    assert torch.equal(exact.segment(ws), masks)


def test_shares_add_up_and_classes_that_nobody_labeled_have_none(tiny: GeneratorBackbone) -> None:
    masks = stripes(1)
    masks[masks == 1] = THREE.ignore
    segmenter = NeighborSegmenter(tiny, styles(tiny, 1), masks, THREE, unlabeled=4)
    shares = segmenter.probabilities(styles(tiny, 2, seed=5))
    assert shares.shape == (2, 3, 16, 16)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, 16, 16))
    assert not shares[:, 1].any()
    assert torch.equal(shares, segmenter.probabilities(styles(tiny, 2, seed=5)))


def test_position_alone_carries_the_mask(tiny: GeneratorBackbone) -> None:
    segmenter = NeighborSegmenter(
        tiny, styles(tiny, 1), stripes(1), THREE, position_weight=1e3, unlabeled=0, smoothing=0
    )
    assert (segmenter.segment(styles(tiny, 2, seed=3)) == stripes(2)).float().mean() > 0.85


def test_insides_are_thinned_out_and_edges_are_not(tiny: GeneratorBackbone) -> None:
    masks = torch.zeros(1, 16, 16, dtype=torch.int64)
    masks[0, :2, :3] = 1
    segmenter = NeighborSegmenter(tiny, styles(tiny, 1), masks, THREE, thinning=4, unlabeled=0)
    counts = torch.bincount(segmenter.votes.argmax(dim=1), minlength=3)
    near = 4 * 5 - 6  # cells of class 0 within two of class 1
    assert counts[1] == 6
    assert near + 35 <= counts[0] <= near + 85
    # Cells that were kept count for those that were left out.
    assert float(segmenter.votes[:, 0].sum()) == pytest.approx(250, rel=0.25)
    whole = NeighborSegmenter(tiny, styles(tiny, 1), masks, THREE, thinning=1, unlabeled=0)
    assert len(whole.votes) == 256


def test_smoothing_outvotes_a_single_cell_among_like_ones(tiny: GeneratorBackbone) -> None:
    segmenter = NeighborSegmenter(tiny, styles(tiny, 1), stripes(1), THREE, unlabeled=0)
    votes = torch.zeros(1, 3, 16, 16)
    votes[:, 0] = 1
    votes[0, :, 8, 8] = torch.tensor([0.0, 1.0, 0.0])
    alike = torch.zeros(256, 5)
    assert (segmenter._smoothed(votes, alike).argmax(dim=1) == 0).all()
    unlike = alike.clone()
    unlike[8 * 16 + 8] = 10
    assert segmenter._smoothed(votes, unlike)[0, :, 8, 8].tolist() == pytest.approx([0, 1, 0], abs=1e-6)


def test_what_cannot_be_used_is_refused(tiny: GeneratorBackbone) -> None:
    ws = styles(tiny, 1)
    with pytest.raises(DataError, match="one mask per sample"):
        NeighborSegmenter(tiny, ws, stripes(2), THREE)
    with pytest.raises(DataError, match="no pixel of the masks is labeled"):
        NeighborSegmenter(tiny, ws, torch.full((1, 16, 16), THREE.ignore), THREE)
    with pytest.raises(ConfigError, match="temperature"):
        NeighborSegmenter(tiny, ws, stripes(1), THREE, temperature=0)
