"""The rearranger's adversary: how the mask enters, and that a trained discriminator starts as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sisug.generators import Discriminator
from sisug.rearranger.discriminator import MaskedDiscriminator

CHANNELS = {4: 8, 8: 6, 16: 5}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def images(batch: int = 4) -> Tensor:
    return torch.rand(batch, 3, 16, 16) * 2 - 1


def masks(batch: int = 4, size: int = 8, clusters: int = 3) -> Tensor:
    return torch.randint(0, clusters, (batch, size, size))


def test_a_trained_one_judges_as_it_did_whatever_the_mask() -> None:
    trained = Discriminator(CHANNELS)
    x = images()
    expected = trained(x)
    judge = MaskedDiscriminator(CHANNELS, 3, trained)
    assert torch.equal(judge(x, masks()), expected)
    assert torch.equal(judge(x, masks()), expected)


def test_a_new_one_sees_the_mask() -> None:
    judge, x, mask = MaskedDiscriminator(CHANNELS, 3), images(), masks()
    assert not torch.allclose(judge(x, mask), judge(x, (mask + 1) % 3))
    assert torch.equal(judge(x, mask), judge(x, mask.clone()))


def test_without_labels_it_sees_the_image_alone() -> None:
    judge, x = MaskedDiscriminator(CHANNELS, 0), images()
    assert torch.equal(judge(x, masks()), judge(x, masks()))
    assert torch.equal(judge(x, masks()), judge.network(x))
    assert not any(name.startswith("label") for name, _ in judge.named_parameters())


@pytest.mark.parametrize("size", [4, 8, 16])
def test_the_labels_vectors_are_added_to_the_first_features_at_the_labels_places(size: int) -> None:
    judge, x, mask = MaskedDiscriminator(CHANNELS, 3), images(), masks(size=size)
    assert judge.label is not None
    seen: list[Tensor] = []
    block = judge.network.get_submodule("b16.conv0")
    block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    judge(x, mask)
    judge.network(x)
    with_mask, without = seen
    large = mask.repeat_interleave(16 // size, 1).repeat_interleave(16 // size, 2)
    expected = judge.label.weight[large].permute(0, 3, 1, 2)
    torch.testing.assert_close(with_mask - without, expected, atol=1e-5, rtol=1e-5)


def test_labels_learn_where_they_occur() -> None:
    judge = MaskedDiscriminator(CHANNELS, 4, Discriminator(CHANNELS))
    assert judge.label is not None
    judge(images(), masks(clusters=3)).sum().backward()
    assert judge.label.weight.grad is not None
    moved = judge.label.weight.grad.abs().amax(dim=1)
    assert (moved > 0).tolist() == [True, True, True, False]


def test_features_are_those_of_the_image_alone() -> None:
    trained, x = Discriminator(CHANNELS), images()
    judge = MaskedDiscriminator(CHANNELS, 3, trained)
    levels = judge.features(x)
    assert [level.shape[1:] for level in levels] == [(6, 8, 8), (8, 4, 4)]
    for a, b in zip(levels, trained.features(x), strict=True):
        assert torch.equal(a, b)
