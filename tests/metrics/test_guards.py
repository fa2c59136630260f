"""Tests of the checks on images: what is in [-1, 1], what is certainly not, and how bytes come about."""

from __future__ import annotations

import logging

import pytest
import torch

from sisug.common.image_bytes import to_bytes
from sisug.errors import DataError
from sisug.metrics import _once
from sisug.metrics.guards import clean_images


def test_bytes_are_those_of_a_saved_image() -> None:
    every = torch.arange(256)
    images = (every.float() / 127.5 - 1).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(to_bytes(images)[0, 0].flatten().long(), every)
    beyond = torch.tensor([-1.01, -7.0, 1.01, 9.0, -1.0, 1.0, 0.0]).expand(1, 3, 1, 7)
    assert to_bytes(beyond)[0, 0, 0].tolist() == [0, 0, 255, 255, 0, 255, 128]  # nothing wraps around


def test_overshoot_is_clamped() -> None:
    images = torch.tensor([-1.5, -0.5, 0.5, 1.5]).expand(1, 3, 1, 4)
    assert clean_images(images, "images")[0, 0, 0].tolist() == [-1, -0.5, 0.5, 1]
    assert clean_images(images[:0], "images").shape == (0, 3, 1, 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[1, 2, 3, 3] = value
    with pytest.raises(DataError, match="real images hold NaN or infinity"):
        clean_images(images, "real images")


def test_bytes_as_floating_point_are_refused() -> None:
    with pytest.raises(DataError, match=r"real images go from 0 to 255.*images / 127\.5 - 1"):
        clean_images(torch.arange(256.0).reshape(1, 1, 16, 16).expand(1, 3, 16, 16), "real images")
    with pytest.raises(DataError, match="uint8"):
        clean_images(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "real images")


def test_a_batch_without_dark_pixels_is_remarked_once(caplog: pytest.LogCaptureFixture) -> None:
    _once.SAID.clear()
    with caplog.at_level(logging.WARNING):
        clean_images(torch.rand(16, 3, 8, 8) * 2 - 1, "images")
        clean_images(torch.rand(2, 3, 8, 8), "images")  # a few bright pictures there may be
        assert not caplog.records
        for _ in range(2):
            clean_images(torch.rand(16, 3, 8, 8), "images")
    assert len(caplog.records) == 1
    assert "images * 2 - 1" in caplog.text
