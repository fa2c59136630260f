"""Label sets that users bring (stage 2): now read by `sisug.conditions.label_files`; this is its earlier place."""

from __future__ import annotations

from sisug.conditions.label_files import read_label_set

__all__ = ["read_label_set"]
