"""Segmentation: the judge that scores layouts on images with known parts."""

from sisug.segmentation.judge import Judge, JudgeFeatures
from sisug.segmentation.loading import JUDGES, load_judge

__all__ = ["JUDGES", "Judge", "JudgeFeatures", "load_judge"]
