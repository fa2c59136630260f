"""What one rearrangement gives (stage 1): the images and masks that scores and pictures need."""

from __future__ import annotations

from dataclasses import dataclass

from sisug.types import Images, ProxyMasks


@dataclass(frozen=True)
class Rearrangement:
    """One batch laid out anew, with everything that scores and pictures need.

    Args:
        source: plain samples, whose look is kept.
        target: plain samples, whose layout is taken.
        result: the sources, laid out as the targets.
        reconstruction: the sources, laid out as themselves.
        source_mask: proxy masks of the sources.
        target_mask: proxy masks of the targets.
        result_mask: proxy masks derived anew from the rearranged features.
    """

    source: Images
    target: Images
    result: Images
    reconstruction: Images
    source_mask: ProxyMasks
    target_mask: ProxyMasks
    result_mask: ProxyMasks
