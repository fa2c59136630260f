"""Semantic mapper (stage 2): turns what a user draws into proxy masks, learnt from one or a few labels, or none.

Names are imported when they are first asked for: synthesis needs the network, and not Lightning, which takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sisug.mapper.grids import SynthesisGrid
    from sisug.mapper.module import MapperModule
    from sisug.mapper.network import Mapper
    from sisug.mapper.quality import DrawnConditionQuality
    from sisug.mapper.trained import TrainedMapper, load_mapper, write_mapper

_HOMES = {
    "DrawnConditionQuality": "quality",
    "Mapper": "network",
    "MapperModule": "module",
    "SynthesisGrid": "grids",
    "TrainedMapper": "trained",
    "load_mapper": "trained",
    "write_mapper": "trained",
}

__all__ = [
    "DrawnConditionQuality",
    "Mapper",
    "MapperModule",
    "SynthesisGrid",
    "TrainedMapper",
    "load_mapper",
    "write_mapper",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
