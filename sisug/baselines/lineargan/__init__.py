"""LinearGAN (baseline of the few-shot protocol): classes read linearly from a generator's features, and images for a
mask found by searching latents whose classes match it.

Source: J. Xu and C. Zheng, "Linear Semantics in Generative Adversarial Networks" (2021, arXiv 2104.00487), with numbers
of its published protocol. Written from formulas and facts; no line is the authors'.
"""

from sisug.baselines.lineargan.network import LinearExtractor
from sisug.baselines.lineargan.sampling import ConditionalSamples, sample
from sisug.baselines.lineargan.training import train_extractor, train_extractor_full

__all__ = ["ConditionalSamples", "LinearExtractor", "sample", "train_extractor", "train_extractor_full"]
