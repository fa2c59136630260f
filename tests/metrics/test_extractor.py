"""Tests of named extractors: the hash follows the weights, rows pass through, nameless networks are refused."""

from __future__ import annotations

import pytest
import torch
from metrics.feature_rows import Pool, pictures
from torch import nn

from sisug.errors import ConfigError, DataError
from sisug.metrics import FrechetDistance, KernelDistance, NamedExtractor, RandomFeatures


class Line(nn.Module):
    name, num_features = "line", 2

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        nn.init.constant_(self.linear.weight, weight)
        nn.init.constant_(self.linear.bias, 0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.mean(dim=(2, 3)))


def test_the_fingerprint_is_that_of_the_weights() -> None:
    first, again, other = (NamedExtractor(Line(weight)).fingerprint for weight in (1.0, 1.0, 1.001))
    assert first == again != other
    assert len(first) == 64
    network = Line(1.0)
    network.fingerprint = "of a file"
    assert NamedExtractor(network).fingerprint == "of a file"
    assert NamedExtractor(RandomFeatures(0)).fingerprint != NamedExtractor(RandomFeatures(1)).fingerprint


def test_scores_share_one_extractor() -> None:
    named = NamedExtractor(Pool())
    assert NamedExtractor.of(named) is named
    assert NamedExtractor.of(named, "pool", 12) is named
    assert NamedExtractor.of(named, "other").name == "other"
    assert FrechetDistance(named).extractor is named
    assert KernelDistance(named).extractor is named


def test_rows_of_its_own_pass_and_others_are_refused() -> None:
    named = NamedExtractor(Pool())
    rows = named.rows(pictures(3, 0), "images")
    torch.testing.assert_close(named.rows(rows, "images"), rows, rtol=0, atol=0)
    with pytest.raises(ConfigError, match="rows of 11 features"):
        named.rows(rows[:, 1:], "images")


def test_rows_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="features with NaN"):
        NamedExtractor(Line(float("inf"))).rows(pictures(3, 0), "images")


def test_a_network_without_name_or_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="Flatten has no name"):
        NamedExtractor(nn.Flatten())
    with pytest.raises(ConfigError, match="num_features="):
        NamedExtractor(nn.Flatten(), "flat")


def test_rows_do_not_keep_what_they_were_cut_from() -> None:
    class Corner(nn.Module):
        name, num_features = "corner", 3

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :, 0, 0]

    rows = NamedExtractor(Corner()).rows(pictures(3, 0, size=32), "images")
    assert rows.untyped_storage().nbytes() == 3 * 3 * 4
