"""Adversarial losses against scipy, numpy and closed forms, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import log_expit

from sisug.generators.losses import (
    discriminator_adversarial_loss,
    generator_adversarial_loss,
    path_lengths,
    r1_penalty,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# --- adversarial ---------------------------------------------------------------------------------------------------


def test_adversarial_losses_are_negative_log_likelihoods():
    real, fake = torch.randn(8, 1) * 5, torch.randn(8, 1) * 5
    r, f = real.double().numpy(), fake.double().numpy()
    assert float(generator_adversarial_loss(fake)) == pytest.approx(-log_expit(f).mean(), rel=1e-5)
    expected = -log_expit(r).mean() - log_expit(-f).mean()
    assert float(discriminator_adversarial_loss(real, fake)) == pytest.approx(expected, rel=1e-5)
    undecided = torch.zeros(4, 1)
    assert float(discriminator_adversarial_loss(undecided, undecided)) == pytest.approx(2 * math.log(2))


def test_the_players_pull_apart():
    fake = torch.zeros(1, 1, requires_grad=True)
    (up,) = torch.autograd.grad(generator_adversarial_loss(fake), fake)
    (down,) = torch.autograd.grad(discriminator_adversarial_loss(torch.zeros(1, 1), fake), fake)
    assert float(up) == pytest.approx(-0.5)  # d softplus(-x)
    assert float(down) == pytest.approx(0.5)


# --- R1 ------------------------------------------------------------------------------------------------------------


def test_r1_of_a_quadratic():
    # D(x) = x^T A x + b^T x has the gradient (A + A^T) x + b.
    real = torch.randn(4, 3, 2, 2)
    a, b = torch.randn(12, 12), torch.randn(12)

    def quadratic(images: torch.Tensor) -> torch.Tensor:
        x = images.flatten(1)
        return ((x @ a * x).sum(dim=1) + x @ b)[:, None]

    x = real.flatten(1).double().numpy()
    gradient = x @ (a + a.T).double().numpy() + b.double().numpy()
    assert float(r1_penalty(quadratic, real).detach()) == pytest.approx((gradient**2).sum(axis=1).mean(), rel=1e-4)


def test_r1_trains_the_discriminators_weights_and_leaves_images_alone():
    weight = torch.tensor(3.0, requires_grad=True)
    real = torch.randn(4, 3, 2, 2)
    penalty = r1_penalty(lambda images: weight * images.flatten(1).sum(dim=1, keepdim=True), real)
    assert float(penalty.detach()) == pytest.approx(12 * 9)  # 12 numbers an image, each with the gradient 3
    (gradient,) = torch.autograd.grad(penalty, weight)
    assert float(gradient) == pytest.approx(12 * 2 * 3)
    assert not real.requires_grad


# --- path length ---------------------------------------------------------------------------------------------------


def test_path_length_of_a_linear_generator_is_the_norm_of_its_matrix_applied_to_the_direction():
    # x = A w for each layer: the gradient of (x . y) in w is A^T y, with the y that the seed gives.
    weight = torch.randn(3 * 4 * 4, 5)
    ws = torch.randn(6, 2, 5, requires_grad=True)
    images = (ws.sum(dim=1) @ weight.T).reshape(6, 3, 4, 4)
    torch.manual_seed(7)
    lengths = path_lengths(images, ws)
    torch.manual_seed(7)
    direction = torch.randn(6, 3 * 16).double().numpy() / 4  # divided by the root of 4 x 4 pixels
    gradient = direction @ weight.double().numpy()
    # Both layers have the same gradient, so their mean of squared norms is one layer's.
    expected = (gradient**2).sum(axis=1) ** 0.5
    assert lengths.detach().numpy() == pytest.approx(expected, rel=1e-4)


def test_path_lengths_can_be_trained():
    weight = torch.randn(48, 5, dtype=torch.float64)
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    ws = torch.randn(3, 1, 5, dtype=torch.float64, requires_grad=True)

    def mean_length(scale: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return path_lengths((ws.sum(dim=1) @ weight.T * scale).reshape(3, 3, 4, 4), ws).mean()

    (gradient,) = torch.autograd.grad(mean_length(scale), scale)
    assert float(gradient) == pytest.approx(float(mean_length(scale).detach()) / 2)  # lengths are proportional to scale


def test_adversarial_gradient_equals_finite_differences():
    images = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: generator_adversarial_loss(x.mean(dim=(1, 2, 3))[:, None]), (images,))
