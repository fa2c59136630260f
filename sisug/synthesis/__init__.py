"""Synthesis (inference): trained pieces and what a user draws become images."""

from sisug.synthesis.inversion import Inversion, invert
from sisug.synthesis.layouts import Layout
from sisug.synthesis.result import GeneratedImages
from sisug.synthesis.styles import StyleSamples
from sisug.synthesis.synthesizer import Synthesizer

__all__ = ["GeneratedImages", "Inversion", "Layout", "StyleSamples", "Synthesizer", "invert"]
