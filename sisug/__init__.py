"""sisug: semantic image synthesis with an unconditional generator.

Importing the package is cheap on purpose: torch and Lightning are loaded by the rooms that need them
(`sisug.generators`, `sisug.rearranger`, ...), so that `sisug --help` answers at once. `sisug.Synthesizer` is loaded
when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sisug.synthesis import Synthesizer

__version__ = "0.1.0"

__all__ = ["Synthesizer", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Synthesizer":
        from sisug.synthesis import Synthesizer

        return Synthesizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
