"""Folders of images of any size and format, checked and prepared once: the data of generator training.

`sisug.data.images.datamodule` has the Lightning loaders; it is not imported here, for Lightning takes seconds to load.
"""

from sisug.data.images.cache import ImageBatch, PreparedImages
from sisug.data.images.examine import Colour, Examined, examine
from sisug.data.images.order import EndlessOrder
from sisug.data.images.scan import WHITE, FolderReport, list_images, scan

__all__ = [
    "WHITE",
    "Colour",
    "EndlessOrder",
    "Examined",
    "FolderReport",
    "ImageBatch",
    "PreparedImages",
    "examine",
    "list_images",
    "scan",
]
