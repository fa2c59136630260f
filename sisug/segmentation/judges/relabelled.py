"""A judge that speaks the data's label set: its masks mapped by the names of the classes (evaluation)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sisug.errors import ConfigError
from sisug.labels.label_files import read_label_set
from sisug.labels.label_maps import match_labels
from sisug.labels.label_sets import LabelSet
from sisug.segmentation.judges.network_judge import judged_images
from sisug.segmentation.judges.opening import open_judge
from sisug.segmentation.judges.protocol import JudgeProtocol
from sisug.types import Images, Masks


class RelabelledJudge(nn.Module):
    """A judge whose masks are in another label set than its own.

    Each pixel gets the judge's most likely class, and then the number of that class's counterpart; classes that merge
    are not added up before. It refuses what no judge can score: no images, and values that are not finite.

    Args:
        judge: decides; or how `open_judge` finds it.
        labels: label set of the masks that are wanted, the data's: a name, a JSON file, or the set itself.
        renamed: see `match_labels`.
        rest: see `match_labels`.
        allow_unseen: see `match_labels`.

    Attributes:
        map: which class counts as which, for records.
        name: the judge's.
        fingerprint: the judge's.

    Raises:
        CheckpointError: the judge cannot be read.
        ConfigError: it is not one, or some of its classes would be ignored.
        DataError: classes without counterpart, or no such label set.
    """

    def __init__(
        self,
        judge: JudgeProtocol | Mapping[str, Any] | str,
        labels: str | LabelSet,
        renamed: Mapping[str, str | None] | None = None,
        rest: str | None = None,
        allow_unseen: bool = False,
    ) -> None:
        super().__init__()
        self.labels = labels if isinstance(labels, LabelSet) else read_label_set(labels)
        self.judge = open_judge(judge)
        self.map = match_labels(self.judge.labels, self.labels, renamed=renamed, rest=rest, allow_unseen=allow_unseen)
        ignored = [name for name, goal in self.map.to_dict().items() if goal is None]
        if ignored:
            raise ConfigError(
                f"the judge {self.judge.name} with ignored classes: {', '.join(ignored[:8])}",
                "pixels that it gives to them would drop out of the score, instead of counting as wrong",
                f"say which class of {self.labels.name} they count as, its background for example",
            )
        self.name, self.fingerprint = self.judge.name, self.judge.fingerprint

    def to(self, *args: Any, **kwargs: Any) -> RelabelledJudge:
        """Move the judge to a device, also one that is no module."""
        if not isinstance(self.judge, nn.Module):
            self.judge.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    @torch.no_grad()
    def segment(self, images: Images) -> Masks:
        """Masks in the numbers of ``labels``, at the images' own size.

        Args:
            images: in [-1, 1].

        Raises:
            DataError: no images, values that are not finite, or masks outside the judge's label set.
        """
        return self.map(self.judge.segment(judged_images(images)))


def judge_for(
    judge: JudgeProtocol,
    labels: LabelSet,
    renamed: Mapping[str, str | None] | None = None,
    rest: str | None = None,
    allow_unseen: bool = False,
) -> RelabelledJudge:
    """A judge that gives masks in the data's label set, whatever its own is; also where they are the same.

    Args:
        judge: decides.
        labels: the data's.
        renamed: classes of the judge with the data's class that they count as.
        rest: the data's class for all classes of the judge without counterpart.
        allow_unseen: accept classes of the data that the judge does not know; they count as missed.

    Raises:
        ConfigError: classes of the judge would be ignored, which would flatter the score.
        DataError: classes without counterpart; all are named.
    """
    return RelabelledJudge(judge, labels, renamed, rest, allow_unseen)
