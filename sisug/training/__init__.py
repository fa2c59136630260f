"""Training helpers that every stage shares: torch-only pieces, Lightning callbacks and the training command line."""

from __future__ import annotations
