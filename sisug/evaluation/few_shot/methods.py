"""The two methods of the few-shot protocol behind one form (evaluation): prepared for target masks, asked by seeds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

from sisug.baselines.lineargan import LinearExtractor, sample
from sisug.conditions.label_condition import LabelCondition
from sisug.evaluation.few_shot.settings import LinearGANSettings
from sisug.generators import GeneratorBackbone
from sisug.mapper.trained import TrainedMapper
from sisug.synthesis import Synthesizer
from sisug.synthesis.layouts import Layout
from sisug.types import Images, Masks

ImagesOf = Callable[[int], Images]
"""Seed to one image of each target, in [-1, 1]."""

Method = Callable[[Masks], ImagesOf]
"""Targets to that."""


def sisug_method(mapper: TrainedMapper, truncation: float, batch_size: int, device: torch.device) -> Method:
    """Mapper, rearranger and the rest of the generator, in one pass.

    Args:
        mapper: with its rearranger; it reads masks.
        truncation: of the styles, 0 to 1.
        batch_size: images at a time.
        device: to compute on.
    """
    synthesizer = Synthesizer(mapper.rearranger, mapper, device)

    def prepared(masks: Masks) -> ImagesOf:
        layouts = [_layout(mapper, mask, synthesizer.device) for mask in masks]

        def images_of(seed: int) -> Images:
            styles = synthesizer.styles([seed], truncation=truncation)
            return torch.stack([image for _, _, image in synthesizer.stream(layouts, styles, batch_size)])

        return images_of

    return prepared


def _layout(mapper: TrainedMapper, mask: Int64[Tensor, "height width"], device: torch.device) -> Layout:
    """As `Synthesizer.layout`, which also says what the mapper never saw: a hundred lines for a hundred targets."""
    assert isinstance(mapper.condition, LabelCondition)
    encoded = mapper.condition.from_mask(mask.to(device))[None]
    return Layout("target", mapper.layouts(encoded)[0], mapper.condition.show(encoded)[0], {})


def lineargan_method(
    generator: GeneratorBackbone, extractor: LinearExtractor, settings: LinearGANSettings, batch_size: int
) -> Method:
    """Search of a latent for each image.

    Args:
        generator: frozen.
        extractor: trained for it.
        settings: of the search.
        batch_size: searches at once.
    """

    def prepared(masks: Masks) -> ImagesOf:
        def images_of(seed: int) -> Images:
            found = sample(
                generator,
                extractor,
                masks,
                [seed],
                draws=settings.draws,
                steps=settings.steps,
                learning_rate=settings.learning_rate,
                batch=batch_size,
            )
            return found.images.cpu()

        return images_of

    return prepared
