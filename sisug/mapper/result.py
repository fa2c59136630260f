"""What one batch of synthesised images gives (stage 2): for scores and pictures."""

from __future__ import annotations

from dataclasses import dataclass

from sisug.conditions.condition import Encoded
from sisug.types import Images, ProxyMasks


@dataclass(frozen=True)
class Synthesis:
    """Conditions and the images made from them.

    Args:
        condition: encoded, as the mapper saw it.
        proxy_mask: that the mapper made of it.
        true_mask: proxy mask of the sample that the condition was made from.
        target: that sample.
        results: images laid out by the condition, one tensor a look.
    """

    condition: Encoded
    proxy_mask: ProxyMasks
    true_mask: ProxyMasks
    target: Images
    results: tuple[Images, ...]
