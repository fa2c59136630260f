"""Training helpers that every stage's LightningModule shares; torch-only pieces and Lightning callbacks, a file each."""

from __future__ import annotations
