"""Mean colour difference per class between two images of different layout: look (evaluation of both stages)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int64
from kornia.color import rgb_to_lab
from torch import Tensor
from torchmetrics import Metric

from sisug.errors import ConfigError, DataError
from sisug.metrics.guards import check_label_count, check_labels, check_same_shape, clean_images
from sisug.types import Images, Masks


class LookDifference(Metric):
    """How far the colours of two images are apart, class by class, so that their layouts may differ.

    Protocol: in each image, the mean CIELAB colour (D65) of every class is taken over the pixels of that class. For
    every class that both masks of a pair show with at least `min_pixels` pixels, the difference is the Euclidean
    distance of the two mean colours (Delta E 1976; about 2 is just visible). The score of a pair is the mean over
    those classes, each counting the same; the result is the mean over pairs. Pairs without a common class are left out
    and counted in `skipped`. The value says little alone: state it beside that of unrelated pairs.

    Args:
        num_classes: classes of the masks, 2 or more.
        min_pixels: pixels that a class needs in both masks; fewer give no trustworthy mean (edges mix colours).
        ignore: value of mask pixels that do not count; not a class.

    Raises:
        ConfigError: fewer than 2 classes, the ignored value is a class, `min_pixels` below 1.
        DataError: images or masks that cannot be used, shapes that differ, no pair to score at `compute()`.

    Source: CIE 1976 for the colour difference; the protocol is our choice: a mean per class does not punish a
    change of layout, which is what the method is for.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    total: Tensor
    pairs: Tensor
    skipped: Tensor

    def __init__(self, num_classes: int, min_pixels: int = 8, ignore: int = 255) -> None:
        super().__init__()
        check_label_count(num_classes, ignore, "num_classes")
        if min_pixels < 1:
            raise ConfigError(f"min_pixels={min_pixels}", "a mean needs a pixel", "pass 1 or more")
        self.num_classes = num_classes
        self.min_pixels = min_pixels
        self.ignore = ignore
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pairs", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("skipped", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        first: Images,
        second: Float[Tensor, "second_batch 3 second_height second_width"],
        first_masks: Int64[Tensor, "_batch1 _height1 _width1"],
        second_masks: Int64[Tensor, "_batch2 _height2 _width2"],
    ) -> None:
        """Add pairs of images in [-1, 1] with their masks; pair i is made of the i-th of each."""
        check_same_shape(first, second, "the images of a pair")
        colours, counts = [], []
        for images, masks, name in ((first, first_masks, "first"), (second, second_masks, "second")):
            check_same_shape(images[:, 0], masks, f"the {name} images (one channel) and their masks")
            check_labels(masks, self.num_classes, self.ignore, f"the {name} masks")
            colour, count = self._class_colours(clean_images(images, f"the {name} images"), masks)
            colours.append(colour)
            counts.append(count)
        shared = (counts[0] >= self.min_pixels) & (counts[1] >= self.min_pixels)
        distances = (colours[0] - colours[1]).square().sum(dim=2).sqrt()
        classes = shared.sum(dim=1)
        scores = (distances * shared).sum(dim=1) / classes.clamp_min(1)
        self.total += scores.sum()
        self.pairs += (classes > 0).sum()
        self.skipped += (classes == 0).sum()

    def compute(self) -> Float[Tensor, ""]:
        """Mean colour difference over pairs, 0 or more."""
        if not bool(self.pairs):
            raise DataError(
                f"no pair to score ({int(self.skipped)} without a common class)",
                f"a class needs {self.min_pixels} pixels in both masks of a pair",
                "check the masks, or lower min_pixels",
            )
        return (self.total / self.pairs).float()

    def _class_colours(
        self, images: Images, masks: Masks
    ) -> tuple[Float64[Tensor, "batch classes 3"], Int64[Tensor, "batch classes"]]:
        """Mean CIELAB colour and number of pixels of each class in each image."""
        # One class more takes the ignored pixels.
        labels = torch.where(masks == self.ignore, self.num_classes, masks).flatten(1)
        with torch.autocast(images.device.type, enabled=False):
            pixels = rgb_to_lab((images + 1) / 2).flatten(2).mT.double()
        shape = (len(images), self.num_classes + 1)
        counts = labels.new_zeros(shape).scatter_add_(1, labels, torch.ones_like(labels))
        sums = pixels.new_zeros(*shape, 3).scatter_add_(1, labels[..., None].expand(-1, -1, 3), pixels)
        means = sums / counts.clamp_min(1)[..., None]
        return means[:, : self.num_classes], counts[:, : self.num_classes]
