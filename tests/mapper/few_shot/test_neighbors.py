"""Labels by nearest neighbors: exact cases, the whitening against its definition, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mapper.mappers import THREE
from torch import Tensor

from sisug.errors import ConfigError, DataError
from sisug.generators import GeneratorBackbone, load_generator
from sisug.mapper.few_shot.neighbors import NeighborSegmenter, _cap


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
    exact = NeighborSegmenter(tiny, ws, masks, THREE, neighbors=1, unlabeled=0, smoothing=0)
    assert torch.equal(exact.segment(ws), masks)
    whitened = NeighborSegmenter(tiny, ws, masks, THREE, neighbors=1, unlabeled=4, smoothing=0)
    assert torch.equal(whitened.segment(ws), masks)


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


def test_whitened_descriptors_vary_alike_within_classes(tiny: GeneratorBackbone) -> None:
    """Without shrinkage, and by the samples' own labels, the covariance within classes is a multiple of 1."""
    ws, masks = styles(tiny, 6), stripes(6)
    segmenter = NeighborSegmenter(tiny, ws, masks, THREE, neighbors=1, unlabeled=2, smoothing=0, shrinkage=0.0)
    segmenter.whitening = None
    described = torch.stack([each for each, _ in segmenter._described(ws)])
    segmenter._keep(described, segmenter._shares(ws, masks), 100_000, torch.Generator().manual_seed(0))
    rows = described.flatten(0, 1) @ segmenter._within_classes(ws, 0.0)
    classes = masks.flatten()
    within = sum(torch.cov(rows[classes == number].t(), correction=0) for number in range(3)) / 3
    assert isinstance(within, Tensor)
    spread = torch.linalg.eigvalsh(within.double())
    spread = spread[spread > 1e-3 * spread.max()]  # directions in which nothing varies stay as they are
    assert float(spread.max() / spread.min()) < 1.05


def test_fewer_references_keep_rare_classes_whole(tiny: GeneratorBackbone) -> None:
    masks = torch.zeros(1, 16, 16, dtype=torch.int64)
    masks[0, :2, :3] = 1
    segmenter = NeighborSegmenter(tiny, styles(tiny, 1), masks, THREE, references=60, unlabeled=0)
    counts = torch.bincount(segmenter.votes.argmax(dim=1), minlength=3)
    assert counts[1] == 6
    assert 35 <= counts[0] <= 75
    # Thinned-out cells count for those that were left out.
    assert float(segmenter.votes[:, 0].sum()) == pytest.approx(250, rel=0.25)


@pytest.mark.parametrize(("sizes", "count"), [((10, 10, 10), 12), ((2, 50, 9), 30), ((0, 3, 100), 40)])
def test_classes_are_cut_to_the_count(sizes: tuple[int, ...], count: int) -> None:
    cap = _cap(sizes, count)
    assert sum(min(size, cap) for size in sizes) == pytest.approx(count)
    assert _cap(sizes, 10_000) >= max(sizes)


def test_what_cannot_be_used_is_refused(tiny: GeneratorBackbone) -> None:
    ws = styles(tiny, 1)
    with pytest.raises(DataError, match="one mask per sample"):
        NeighborSegmenter(tiny, ws, stripes(2), THREE)
    with pytest.raises(DataError, match="no pixel of the masks is labeled"):
        NeighborSegmenter(tiny, ws, torch.full((1, 16, 16), THREE.ignore), THREE)
    with pytest.raises(ConfigError, match="temperature"):
        NeighborSegmenter(tiny, ws, stripes(1), THREE, temperature=0)
