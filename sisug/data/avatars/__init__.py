"""The drawn avatars: endless faces with exact masks, on the fly or cached; data that ships with the project."""

from sisug.data.avatars.cache import MaterialisedAvatars, cache_folder
from sisug.data.avatars.datamodule import AvatarsDataModule
from sisug.data.avatars.dataset import AvatarSample, AvatarsDataset, seed_range
from sisug.data.avatars.plotting import plot

__all__ = [
    "AvatarSample",
    "AvatarsDataModule",
    "AvatarsDataset",
    "MaterialisedAvatars",
    "cache_folder",
    "plot",
    "seed_range",
]
