"""Labels: label sets and their colours, and the masks and pictures that people draw, read from files.

Names are imported when they are first asked for: folders are listed before torch is imported.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
