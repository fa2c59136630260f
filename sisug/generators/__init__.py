"""Generators: the frozen backbone that every stage shares, StyleGAN2's networks, and their files."""

from sisug.generators.backbone import Features, GeneratorBackbone, StyleGAN2Backbone
from sisug.generators.discriminator import Discriminator
from sisug.generators.loading import load_discriminator, load_generator
from sisug.generators.stylegan2 import Generator

__all__ = [
    "Discriminator",
    "Features",
    "Generator",
    "GeneratorBackbone",
    "StyleGAN2Backbone",
    "load_discriminator",
    "load_generator",
]
