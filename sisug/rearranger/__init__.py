"""Rearranger (stage 1): lays a sample's features out as any proxy mask, learnt without labels.

Names are imported when they are first asked for: synthesis needs the network, and not Lightning, which takes seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
