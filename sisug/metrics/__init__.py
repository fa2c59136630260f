"""Scores of layout, look, diversity, realism and reconstruction, and the record of their protocol (evaluation)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
