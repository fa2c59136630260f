"""sisug: semantic image synthesis with an unconditional generator.

Importing the package is cheap on purpose: torch and Lightning are loaded by the rooms that need them
(`sisug.generators`, `sisug.rearranger`, ...), so that `sisug --help` answers at once.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
