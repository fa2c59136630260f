"""Rearranger (stage 1): lays a sample's features out as any proxy mask, learnt without labels.

Names are imported when they are first asked for: synthesis needs the network, and not Lightning, which takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sisug.rearranger.grids import RearrangementGrid
    from sisug.rearranger.module import RearrangerModule
    from sisug.rearranger.network import Rearranger
    from sisug.rearranger.result import Rearrangement
    from sisug.rearranger.trained import TrainedRearranger, load_rearranger, write_rearranger

_HOMES = {
    "RearrangementGrid": "grids",
    "RearrangerModule": "module",
    "Rearranger": "network",
    "Rearrangement": "result",
    "TrainedRearranger": "trained",
    "load_rearranger": "trained",
    "write_rearranger": "trained",
}

__all__ = [
    "Rearrangement",
    "RearrangementGrid",
    "Rearranger",
    "RearrangerModule",
    "TrainedRearranger",
    "load_rearranger",
    "write_rearranger",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
