"""The reader: what it learns from a teacher, what passes through it, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sisug.errors import ConfigError
from sisug.generators import load_generator
from sisug.labels.label_sets import LabelSet
from sisug.mapper.few_shot.reader import Reader, teach

TWO = LabelSet("two", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)))


@pytest.fixture(scope="module")
def tiny(tiny_generator_file):
    return load_generator(tiny_generator_file, 8)


def brightness(generator, ws: Tensor) -> Tensor:
    """A teacher whose classes can be read from the picture: brighter than the picture's mean, or not."""
    grey = generator.render(generator.features(ws), ws).clamp(-1, 1).mean(dim=1)
    return (grey > grey.mean(dim=(1, 2), keepdim=True)).long()


def test_it_learns_what_the_teacher_says_of_samples_it_has_not_seen(tiny):
    reader = Reader(2, 16)
    teach(reader, tiny, lambda ws: brightness(tiny, ws), TWO, images=96, epochs=6)
    ws = tiny.map(torch.randn(64, 6, generator=torch.Generator().manual_seed(5)))
    images = tiny.render(tiny.features(ws), ws).clamp(-1, 1)
    agreement = (reader(images).argmax(dim=1) == brightness(tiny, ws)).float().mean()
    assert agreement > 0.8, "half is chance"
    assert not any(parameter.requires_grad for parameter in reader.parameters())
    assert not reader.train().network.training


def test_the_same_seed_teaches_the_same_and_leaves_the_global_stream_alone(tiny):
    state = torch.random.get_rng_state()
    readers = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng():
            reader = Reader(2, 16)
        teach(reader, tiny, lambda ws: brightness(tiny, ws), TWO, images=16, epochs=1, seed=seed)
        readers.append(reader.state_dict())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, readers[1][name]) for name, value in readers[0].items())
    assert not all(torch.equal(value, readers[2][name]) for name, value in readers[0].items())


def test_gradients_pass_to_images_of_any_size():
    reader = Reader(3, 512)
    assert reader.size == 256
    images = torch.rand(1, 3, 512, 512, requires_grad=True)
    logits = reader(images)
    assert logits.shape == (1, 3, 512, 512)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), images)
    assert bool(gradient.any())


def test_impossible_settings_are_refused(tiny):
    with pytest.raises(ConfigError, match="images of 12 px"):
        Reader(2, 12)
    with pytest.raises(ConfigError, match="epochs 0"):
        teach(Reader(2, 16), tiny, lambda ws: brightness(tiny, ws), TWO, epochs=0)
