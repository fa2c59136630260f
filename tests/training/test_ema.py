"""Exponential moving average: its closed form, its independence of batch size, and the swap's safety."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sisug.training.ema import ExponentialMovingAverage


class Network(nn.Module):
    """One weight and one buffer, nested so that names have dots."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 1, bias=False)
        self.codebook: Tensor
        self.register_buffer("codebook", torch.zeros(1))

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.inner.weight.fill_(value)

    @property
    def value(self) -> float:
        return self.inner.weight.item()


def averaged(ema: ExponentialMovingAverage, network: Network) -> float:
    with ema.average(network):
        return network.value


def test_half_life() -> None:
    network = Network()
    network.set(0.0)
    ema = ExponentialMovingAverage(network, half_life_images=1000, ramp_up=None)
    network.set(1.0)
    for _ in range(10):
        ema.update(network, images=100)
    assert averaged(ema, network) == pytest.approx(0.5)  # half of the way after one half-life
    for _ in range(10):
        ema.update(network, images=100)
    assert averaged(ema, network) == pytest.approx(0.75)


def test_closed_form_of_changing_weights() -> None:
    network = Network()
    network.set(1.0)
    ema = ExponentialMovingAverage(network, half_life_images=64, ramp_up=None)
    values = [3.0, -2.0, 5.0, 0.5]
    for value in values:
        network.set(value)
        ema.update(network, images=32)
    kept = 0.5**0.5
    expected = kept**4 * 1.0 + sum((1 - kept) * kept ** (3 - i) * value for i, value in enumerate(values))
    assert averaged(ema, network) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("batch", [1, 8, 200])
def test_batch_size_does_not_matter(batch: int) -> None:
    network = Network()
    network.set(0.0)
    ema = ExponentialMovingAverage(network, half_life_images=300, ramp_up=None)
    network.set(1.0)
    for _ in range(400 // batch):
        ema.update(network, images=batch)
    assert averaged(ema, network) == pytest.approx(1 - 0.5 ** (400 / 300), rel=1e-4)
    assert ema.images == 400


def test_ramp_up_forgets_the_start() -> None:
    # StyleGAN2-ADA: half-life = min(half-life, images seen before the update * ramp-up).
    network = Network()
    network.set(100.0)
    ema = ExponentialMovingAverage(network, half_life_images=10_000, ramp_up=0.05)
    expected, seen = 100.0, 0
    for value in (0.0, 1.0, 2.0, 3.0):
        network.set(value)
        ema.update(network, images=16)
        kept = 0.5 ** (16 / max(min(10_000, seen * 0.05), 1e-8))
        expected, seen = kept * expected + (1 - kept) * value, seen + 16
        assert averaged(ema, network) == pytest.approx(expected, abs=1e-6)


def test_swap_restores_and_buffers_stay() -> None:
    network = Network()
    network.set(0.0)
    ema = ExponentialMovingAverage(network, ramp_up=None)
    network.set(1.0)
    network.codebook.fill_(7.0)
    weight = network.inner.weight
    with ema.average(network) as inside:
        assert inside is network
        assert network.value == 0.0
        assert network.codebook == 7.0
        assert network.inner.weight is weight  # in place: optimizers and DDP hold these tensors
    assert network.value == 1.0


def test_exception_inside_restores() -> None:
    network = Network()
    network.set(0.0)
    ema = ExponentialMovingAverage(network)
    network.set(1.0)
    with pytest.raises(ZeroDivisionError), ema.average(network):
        raise ZeroDivisionError
    assert network.value == 1.0
    with ema.average(network):  # and it can be entered again
        assert network.value == 0.0


def test_wrong_state_is_refused() -> None:
    network = Network()
    ema = ExponentialMovingAverage(network)
    with ema.average(network):
        with pytest.raises(RuntimeError, match="entered twice"), ema.average(network):
            pass
        with pytest.raises(RuntimeError, match="holds its averaged weights"):
            ema.update(network, images=1)
    ema.update(network, images=1)


def test_travels_in_a_state_dict_and_is_not_trained() -> None:
    network = Network()
    network.set(2.0)
    ema = ExponentialMovingAverage(network)
    ema.update(network, images=16)
    assert not list(ema.parameters())
    other = Network()
    restored = ExponentialMovingAverage(other)
    restored.load_state_dict(ema.state_dict())
    assert averaged(restored, other) == 2.0
    assert restored.images == 16


def test_state_dict_for_network_is_the_averaged_network() -> None:
    network = Network()
    network.set(0.0)
    ema = ExponentialMovingAverage(network, half_life_images=10, ramp_up=None)
    network.set(1.0)
    network.codebook.fill_(7.0)
    ema.update(network, images=10)
    export = copy.deepcopy(network)
    export.load_state_dict(ema.state_dict_for_network(network))
    assert export.value == pytest.approx(0.5)
    assert export.codebook == 7.0
    assert network.value == 1.0


@pytest.mark.parametrize("arguments", [{"half_life_images": 0}, {"ramp_up": 0.0}])
def test_bad_arguments(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        ExponentialMovingAverage(Network(), **arguments)  # type: ignore[arg-type]
