"""Synthesis (inference): trained pieces and what a user draws become images.

Names are imported when they are first asked for: `sisug generate` tells mistakes before it imports torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
