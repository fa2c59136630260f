"""One figure of several that pull against each other (evaluation, sweeps)."""

from __future__ import annotations

import math


def balance(*shares: float) -> float:
    """The geometric mean of shares, each cut to [0, 1]: near 1 only where all are.

    Args:
        shares: 1 is as good as can be, 0 as bad as doing nothing for this aim. One that is not a number counts as 0.

    Source: our choice: a sweep needs one figure, and each aim alone is reached best by giving up the others.
    """
    cut = [min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0 for share in shares]
    return math.prod(cut) ** (1 / len(cut))
