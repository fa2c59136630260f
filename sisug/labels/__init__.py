"""Labels: label sets and their colours, and the masks and pictures that people draw, read from files."""

from sisug.labels.label_sets import AVATARS, IGNORE, LABEL_SETS, LabelSet, label_set

__all__ = ["AVATARS", "IGNORE", "LABEL_SETS", "LabelSet", "label_set"]
