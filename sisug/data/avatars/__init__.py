"""The drawn avatars: endless faces with exact masks, on the fly or cached; data that ships with the project."""

from sisug.data.avatars.cache import MaterialisedAvatars
from sisug.data.avatars.dataset import AvatarSample, AvatarsDataset, seed_range

__all__ = ["AvatarSample", "AvatarsDataset", "MaterialisedAvatars", "seed_range"]
