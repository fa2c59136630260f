"""Rearranger (stage 1): lays a sample's features out as any proxy mask, learnt without labels."""

from sisug.rearranger.grids import RearrangementGrid
from sisug.rearranger.module import RearrangerModule
from sisug.rearranger.network import Rearranger
from sisug.rearranger.result import Rearrangement

__all__ = ["Rearrangement", "RearrangementGrid", "Rearranger", "RearrangerModule"]
