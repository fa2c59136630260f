from .inversion import Inversion as Inversion
from .inversion import invert as invert
from .layouts import Layout as Layout
from .result import GeneratedImages as GeneratedImages
from .styles import StyleSamples as StyleSamples
from .synthesizer import Synthesizer as Synthesizer
