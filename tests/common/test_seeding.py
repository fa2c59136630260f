"""Counter-based random streams: stable over versions, unrelated between positions, without side effects."""

from __future__ import annotations

import itertools

import pytest
import torch

from sisug.common.seeding import generator_for, seed_for


def test_golden_value() -> None:
    # A change of this number breaks "resumed equals unbroken" for the runs of earlier versions.
    assert seed_for(seed=0, rank=0, images_seen=0, purpose="latents") == 8860989245164080229


def test_fits_torch() -> None:
    seeds = [seed_for(seed=s, rank=0, images_seen=0, purpose="x") for s in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_same_position_same_numbers() -> None:
    position = {"seed": 3, "rank": 1, "images_seen": 4096, "purpose": "pairs"}
    first = torch.randn(8, generator=generator_for(**position))
    torch.manual_seed(99)
    assert torch.equal(first, torch.randn(8, generator=generator_for(**position)))


def test_no_two_positions_share_a_seed() -> None:
    # Sums such as seed + rank + images would collide here.
    positions = itertools.product(range(8), range(8), range(0, 160, 10), ("latents", "pairs", "latents1"))
    seeds = [seed_for(seed=s, rank=r, images_seen=n, purpose=p) for s, r, n, p in positions]
    assert len(set(seeds)) == len(seeds) == 8 * 8 * 16 * 3


def test_parts_are_not_run_together() -> None:
    # Digits move from one part to the next: "1|12" and "11|2".
    assert seed_for(seed=1, rank=12, images_seen=0, purpose="") != seed_for(seed=11, rank=2, images_seen=0, purpose="")


@pytest.mark.parametrize("step", [{"seed": 1}, {"rank": 1}, {"images_seen": 1}, {"purpose": "b"}])
def test_neighbours_are_uncorrelated(step: dict[str, int | str]) -> None:
    here = {"seed": 0, "rank": 0, "images_seen": 0, "purpose": "a"}
    a = torch.randn(100_000, generator=generator_for(**here))  # type: ignore[arg-type]
    b = torch.randn(100_000, generator=generator_for(**here | step))  # type: ignore[arg-type]
    correlation = torch.corrcoef(torch.stack([a, b]))[0, 1]
    assert abs(correlation) < 5 / 100_000**0.5  # five standard deviations


def test_global_state_is_untouched() -> None:
    before = torch.get_rng_state()
    torch.randn(4, generator=generator_for(seed=0, rank=0, images_seen=0, purpose="x"))
    assert torch.equal(before, torch.get_rng_state())
