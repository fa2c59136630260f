"""Sweeps (all stages): W&B's sweep files, run on this machine without an account."""

from __future__ import annotations
