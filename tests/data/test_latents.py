"""Latents depend on their position alone."""

from __future__ import annotations

import pytest
import torch

from sisug.common.seeding import fixed_latents
from sisug.data.latents import LatentDataModule
from sisug.errors import ConfigError


def test_fixed_latents_do_not_depend_on_the_batch():
    whole = fixed_latents(torch.arange(6), 5, seed=1, purpose="val source")
    parts = [fixed_latents(torch.tensor(i), 5, seed=1, purpose="val source") for i in ([3, 2], [0], [5, 1, 4])]
    assert torch.equal(torch.cat(parts), whole[[3, 2, 0, 5, 1, 4]])


def test_sets_and_seeds_differ():
    sets = [
        fixed_latents(torch.arange(3), 5, seed=seed, purpose=purpose)
        for seed in (0, 1)
        for purpose in ("val source", "val target", "test source")
    ]
    assert len({float(s.sum()) for s in sets}) == 6


def test_fixed_latents_are_standard_normal():
    z = fixed_latents(torch.arange(500), 40, seed=0, purpose="val source")
    assert abs(float(z.mean())) < 0.02
    assert abs(float(z.std()) - 1) < 0.02


def test_impossible_counts():
    with pytest.raises(ConfigError, match="batch_size 1"):
        LatentDataModule(batch_size=1)
