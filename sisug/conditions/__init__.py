"""Conditions: what a user gives to steer the layout; label sets of semantic masks."""

from sisug.conditions.labels import AVATARS, IGNORE, LABEL_SETS, LabelSet, label_set

__all__ = ["AVATARS", "IGNORE", "LABEL_SETS", "LabelSet", "label_set"]
