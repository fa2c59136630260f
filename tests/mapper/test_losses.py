"""The mapper's losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from sisug.mapper.losses import proxy_loss, reading_loss


def certain(mask: torch.Tensor, classes: int, scale: float = 50.0) -> torch.Tensor:
    """Logits that say a mask with certainty."""
    return torch.nn.functional.one_hot(mask, classes).permute(0, 3, 1, 2).float() * scale


def test_proxy_loss_of_no_knowledge_is_the_log_of_the_number_of_clusters() -> None:
    mask = torch.randint(0, 7, (2, 4, 4))
    assert float(proxy_loss(torch.zeros(2, 7, 4, 4), mask)) == pytest.approx(math.log(7))
    assert float(proxy_loss(certain(mask, 7), mask)) == pytest.approx(0, abs=1e-5)


def test_reading_the_mask_that_went_in_costs_nothing() -> None:
    mask = torch.randint(0, 3, (2, 8, 8))
    assert float(reading_loss(certain(mask, 3), mask, 255, 1.0)) == pytest.approx(0, abs=1e-5)


def test_pixels_that_may_be_anything_cost_nothing() -> None:
    mask = torch.randint(0, 3, (1, 8, 8))
    hidden = mask.clone()
    hidden[:, :4] = 255
    wrong = mask.clone()
    wrong[:, :4] = (wrong[:, :4] + 1) % 3
    assert float(reading_loss(certain(wrong, 3), hidden, 255, 1.0)) == pytest.approx(0, abs=1e-5)
    assert float(reading_loss(certain(wrong, 3), mask, 255, 1.0)) > 1


def test_nothing_but_ignored_pixels_gives_zero_and_no_nan_in_gradients() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = reading_loss(logits, torch.full((1, 4, 4), 255), 255, 1.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(loss.detach()) == 0
    assert bool((gradient == 0).all())


def test_a_small_class_weighs_as_much_as_a_large_one_in_the_dice_part() -> None:
    """Missing the 4 pixels of class 1 wholly costs half of the Dice part, for there are two classes."""
    mask = torch.zeros(1, 20, 20, dtype=torch.int64)
    mask[:, :2, :2] = 1
    missed = torch.zeros_like(mask)
    dice = reading_loss(certain(missed, 2), mask, 255, 1.0) - reading_loss(certain(missed, 2), mask, 255, 0.0)
    # 1 - (2 * 0 + 1) / (0 + 4 + 1) = 0.8 for the small one; almost 0 for the large one
    large = 1 - (2 * 396 + 1) / (400 + 396 + 1)
    assert float(dice) == pytest.approx((0.8 + large) / 2, abs=1e-4)


def test_classes_that_no_mask_shows_do_not_count() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.int64)
    two, five = torch.randn(1, 2, 8, 8), torch.full((1, 5, 8, 8), -1e4)
    five[:, :2] = two
    torch.testing.assert_close(reading_loss(two, mask, 255, 1.0), reading_loss(five, mask, 255, 1.0))
