"""MobileStyleGAN, a small generator of faces (generators): network, reader of its published files, backbone."""

from sisug.generators.mobilestylegan.backbone import MobileStyleGANBackbone
from sisug.generators.mobilestylegan.network import MobileStyleGAN

__all__ = ["MobileStyleGAN", "MobileStyleGANBackbone"]
