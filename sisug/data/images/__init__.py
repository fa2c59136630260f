"""Folders of images of any size and format, checked and prepared once: the data of generator training.

`sisug.data.images.datamodule` has the Lightning loaders; it is not imported here, for Lightning takes seconds to load.
"""

from sisug.data.images.cache import ImageBatch, PreparedImages
from sisug.data.images.scan import WHITE, FolderReport, scan_folder
from sisug.data.order import EndlessOrder
from sisug.labels.image_files import Colour
from sisug.labels.image_folders import list_images

__all__ = [
    "WHITE",
    "Colour",
    "EndlessOrder",
    "FolderReport",
    "ImageBatch",
    "PreparedImages",
    "list_images",
    "scan_folder",
]
