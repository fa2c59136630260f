"""The mapper's network: which part of a drawing reaches which cell, and what gradients pass."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sisug.mapper.network import Mapper, straight_through


@pytest.mark.parametrize(("size", "split"), [(16, 16), (16, 8), (32, 8)])
def test_every_cell_sees_the_whole_drawing(size: int, split: int) -> None:
    torch.manual_seed(0)
    mapper = Mapper(3, 5, size, split, width=8)
    with torch.no_grad():
        for parameter in mapper.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    drawing = torch.zeros(1, 3, size, size)
    drawing[:, 0] = 1
    other = drawing.clone()
    other[..., -1, -1] = torch.tensor([0.0, 1.0, 0.0])
    a, b = mapper(drawing), mapper(other)
    assert a.shape == (1, 5, split, split)
    assert a.dtype == torch.float32
    assert not torch.equal(a[..., 0, 0], b[..., 0, 0])


def test_the_place_of_a_stroke_matters() -> None:
    """A blank drawing is the same everywhere, yet cells differ in more than what the border does."""
    torch.manual_seed(0)
    mapper = Mapper(2, 3, 32, 16, width=8)
    logits = mapper(torch.zeros(1, 2, 32, 32))
    assert float((logits[..., 5, 5] - logits[..., 10, 10]).detach().abs().max()) > 1e-3


def test_straight_through_is_the_best_label_with_the_gradient_of_probabilities() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    weights = straight_through(logits)
    assert torch.allclose(weights, F.one_hot(logits.argmax(1), 4).permute(0, 3, 1, 2).float(), atol=1e-6)
    upstream = torch.randn_like(weights)
    (gradient,) = torch.autograd.grad((weights * upstream).sum(), logits)
    (expected,) = torch.autograd.grad((logits.softmax(1) * upstream).sum(), logits)
    torch.testing.assert_close(gradient, expected)
