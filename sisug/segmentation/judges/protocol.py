"""What every judge has: a label set, a name, a fingerprint, and masks of images (evaluation)."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from sisug.labels.label_sets import LabelSet
from sisug.types import Images, Masks


@runtime_checkable
class JudgeProtocol(Protocol):
    """A trained segmenter whose verdicts on images are scored.

    Any class with these members is a judge, named by its class_path; `NetworkJudge` makes one of a network.

    Attributes:
        labels: label set of the masks.
        name: appears in the names of metrics, e.g. "avatars-judge-unet-v1".
        fingerprint: SHA-256 of the weights.
    """

    labels: LabelSet
    name: str
    fingerprint: str

    def segment(self, images: Images) -> Masks:
        """Masks in the numbers of ``labels``, at the images' own size.

        Args:
            images: in [-1, 1].
        """
        ...

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move the judge to a device, as `torch.nn.Module.to` does."""
        ...


@runtime_checkable
class FeatureJudge(JudgeProtocol, Protocol):
    """A judge whose features can also be the rows of a Fréchet distance.

    Attributes:
        num_features: length of a row.
    """

    num_features: int

    def features(self, images: Images) -> Float[Tensor, "batch feature"]:
        """One row an image.

        Args:
            images: in [-1, 1].
        """
        ...


@runtime_checkable
class PartialJudge(JudgeProtocol, Protocol):
    """A judge that knows some parts of an image only.

    Pixels whose target is of a class that it does not know are not scored, and its class of everything else has no
    score of its own.

    Attributes:
        unknown: its class of everything else.
    """

    unknown: str
