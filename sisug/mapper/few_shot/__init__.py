"""Few-shot segmenter (stage 2): names the parts of generator samples after it has seen one to a few labelled ones."""

from sisug.mapper.few_shot.neighbors import NeighborSegmenter
from sisug.mapper.few_shot.network import FewShotNetwork
from sisug.mapper.few_shot.training import FewShotSegmenter, train_few_shot
from sisug.mapper.few_shot.transfer import LabelTransfer

__all__ = ["FewShotNetwork", "FewShotSegmenter", "LabelTransfer", "NeighborSegmenter", "train_few_shot"]
