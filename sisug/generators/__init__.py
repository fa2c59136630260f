"""Generators: the frozen backbone that every stage shares, StyleGAN2's networks, and their files."""

from sisug.generators.backbone import Features, GeneratorBackbone
from sisug.generators.discriminator import Discriminator
from sisug.generators.loading import (
    GeneratorReference,
    generator_record,
    generator_reference,
    load_discriminator,
    load_generator,
    recorded_generator,
)
from sisug.generators.stylegan2 import Generator
from sisug.generators.stylegan2_backbone import StyleGAN2Backbone

__all__ = [
    "Discriminator",
    "Features",
    "Generator",
    "GeneratorBackbone",
    "GeneratorReference",
    "StyleGAN2Backbone",
    "generator_record",
    "generator_reference",
    "load_discriminator",
    "load_generator",
    "recorded_generator",
]
