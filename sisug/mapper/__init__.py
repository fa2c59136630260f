"""Semantic mapper (stage 2): turns what a user draws into proxy masks, learnt from one or a few labels, or none.

Names are imported when they are first asked for: synthesis needs the network, and not Lightning, which takes seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
