"""Proxies: the codebook of generator features, the proxy masks it gives, and the callback that keeps it up to date."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
