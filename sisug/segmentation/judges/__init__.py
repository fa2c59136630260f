"""Judges of any origin behind one contract, and in the data's label set (evaluation)."""

from sisug.segmentation.judges.landmark_judge import FaceLandmarkJudge
from sisug.segmentation.judges.network_judge import NetworkJudge, judged_images
from sisug.segmentation.judges.opening import open_judge
from sisug.segmentation.judges.protocol import FeatureJudge, JudgeProtocol, PartialJudge
from sisug.segmentation.judges.relabelled import RelabelledJudge, judge_for
from sisug.segmentation.judges.transformers_judge import TransformersJudge

__all__ = [
    "FaceLandmarkJudge",
    "FeatureJudge",
    "JudgeProtocol",
    "NetworkJudge",
    "PartialJudge",
    "RelabelledJudge",
    "TransformersJudge",
    "judge_for",
    "judged_images",
    "open_judge",
]
