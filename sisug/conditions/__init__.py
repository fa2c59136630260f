"""Conditions: what a user gives to steer the layout; label sets of semantic masks."""

from sisug.conditions.labels import AVATARS, IGNORE, LabelSet

__all__ = ["AVATARS", "IGNORE", "LabelSet"]
