"""Judges of any origin behind one contract, and in the data's label set (evaluation)."""

from sisug.segmentation.judges.network_judge import NetworkJudge, judged_images
from sisug.segmentation.judges.opening import open_judge
from sisug.segmentation.judges.protocol import FeatureJudge, JudgeProtocol
from sisug.segmentation.judges.relabelled import RelabelledJudge, judge_for
from sisug.segmentation.judges.transformers_judge import TransformersJudge

__all__ = [
    "FeatureJudge",
    "JudgeProtocol",
    "NetworkJudge",
    "RelabelledJudge",
    "TransformersJudge",
    "judge_for",
    "judged_images",
    "open_judge",
]
