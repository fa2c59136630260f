"""The drawn avatars: endless faces with exact masks, on the fly or cached; data that ships with the project.

`sisug.data.avatars.datamodule` has the Lightning loaders; it is not imported here, for Lightning takes seconds to load
and the processes that draw need none of it.
"""

from sisug.data.avatars.cache import MaterialisedAvatars
from sisug.data.avatars.dataset import AvatarSample, AvatarsDataset, seed_range
from sisug.data.avatars.plotting import plot

__all__ = [
    "AvatarSample",
    "AvatarsDataset",
    "MaterialisedAvatars",
    "plot",
    "seed_range",
]
