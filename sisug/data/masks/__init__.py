"""Images with masks: folders, CelebAMask-HQ, checks and conversion to clean trees.

`sisug.data.masks.datamodule` has the Lightning loaders; it is not imported here, for Lightning takes seconds to load.
"""

from sisug.data.masks.celebamask import CelebAMaskPairs
from sisug.data.masks.checking import MaskReport, check_pairs
from sisug.data.masks.converting import Converted, convert
from sisug.data.masks.dataset import ImageMaskFolder, ImageMaskSample, check_batch
from sisug.data.masks.folder import FolderPairs
from sisug.data.masks.layouts import Layout, detect, open_pairs
from sisug.data.masks.pairs import Crop, Pairs, Problems, check_pairing
from sisug.data.masks.splits import read_names

__all__ = [
    "CelebAMaskPairs",
    "Converted",
    "Crop",
    "FolderPairs",
    "ImageMaskFolder",
    "ImageMaskSample",
    "Layout",
    "MaskReport",
    "Pairs",
    "Problems",
    "check_batch",
    "check_pairing",
    "check_pairs",
    "convert",
    "detect",
    "open_pairs",
    "read_names",
]
