"""Masks beyond the generator's own (stage 2): moved, with parts pasted in, without some classes.

Users draw what no sample shows. Such masks have no proxy mask to learn from; what is read in the synthesised image
teaches the mapper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor

from sisug.conditions.condition import Condition, Encoded
from sisug.conditions.freehand import smooth_noise, wobble
from sisug.labels.label_sets import LabelSet
from sisug.types import Images, Masks

SPREAD = 0.12
"""Standard deviation of scale, shear and shift, the latter in halves of the picture."""

BEND = 1.5
"""Standard deviation of the bend of outlines, pixels at 64."""

PASTED = 0.4
"""Chance that a class of another mask is pasted over."""

DELETED = 0.25
"""Chance that a class gives way to what is around it, or to nothing in particular."""

FORGOTTEN = 0.3
"""Share of masks that say only some of their classes."""


def free_form(masks: Masks, labels: LabelSet, stream: torch.Generator) -> Masks:
    """Masks as users may draw them: each moved and bent; some with a class of another mask, some without one of theirs.

    Args:
        masks: of generator samples.
        labels: swaps left and right where a mask is mirrored.
        stream: of all draws; on the CPU.

    Source: our choice.
    """
    changed = moved(masks, labels, stream)
    pasted = paste(changed, moved(masks.roll(1, dims=0), labels, stream), labels, stream)
    return delete(pasted, labels, stream)


def redrawn(
    condition: Condition,
    labels: LabelSet | None,
    images: Images,
    masks: Masks | None,
    encoded: Encoded,
    share: float,
    stream: torch.Generator,
) -> tuple[Encoded, Masks | None]:
    """Conditions to synthesise from, and the masks behind them, the first of them changed beyond the generator's own.

    Pictures cannot be changed as masks can: conditions that are drawn from the picture stay as they are.

    Args:
        condition: makes them.
        labels: of the masks; None where there are none.
        images: samples.
        masks: what they show, or a part of it.
        encoded: conditions of the samples.
        share: of the samples to change, 0 to 1.
        stream: of all draws; on the CPU.
    """
    changed = round(share * len(images)) if condition.needs_masks else 0
    if not changed or masks is None or labels is None:
        return encoded, masks
    wanted = torch.cat([free_form(masks[:changed], labels, stream), masks[changed:]])
    drawn = condition.extract(images[:changed], wanted[:changed], stream)
    return torch.cat([drawn, encoded[changed:]]), wanted


def moved(masks: Masks, labels: LabelSet, stream: torch.Generator) -> Masks:
    """Each mask mirrored or not, scaled, sheared, shifted and bent; what comes in at the border repeats the border.

    Args:
        masks: class numbers.
        labels: swaps left and right where a mask is mirrored.
        stream: of the draws.
    """
    batch = len(masks)
    mirrored = (torch.rand(batch, generator=stream) < 0.5).to(masks.device)
    masks = torch.where(mirrored[:, None, None], labels.flip(masks), masks)
    change = torch.eye(2, 3) + torch.randn(batch, 2, 3, generator=stream) * SPREAD
    grid = F.affine_grid(change, [batch, 1, *masks.shape[1:]], align_corners=False).to(masks.device)
    shifted = F.grid_sample(masks[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    amount = torch.rand(batch, 1, 1, 1, generator=stream).to(masks.device) * BEND * masks.shape[-1] / 64
    bent = wobble(shifted, smooth_noise(stream, 2, 6, masks) * amount, mode="nearest")
    return bent[:, 0].round().long()


def paste(masks: Masks, others: Masks, labels: LabelSet, stream: torch.Generator) -> Masks:
    """One class of another mask laid over some of the masks, where that mask has it.

    Args:
        masks: to paste on.
        others: to take a class from; as many.
        labels: of both.
        stream: of the draws.
    """
    chosen = a_class_of(others, labels, stream)
    wanted = (torch.rand(len(masks), generator=stream) < PASTED).to(masks.device)
    region = (others == chosen[:, None, None]) & wanted[:, None, None] & (others != labels.ignore)
    return torch.where(region, others, masks)


def delete(masks: Masks, labels: LabelSet, stream: torch.Generator) -> Masks:
    """One class of some of the masks left out: half of them say nothing there, half what lies most around it.

    Args:
        masks: class numbers.
        labels: of the masks.
        stream: of the draws.
    """
    chosen = a_class_of(masks, labels, stream)
    draw = torch.rand(len(masks), generator=stream).to(masks.device)
    region = (masks == chosen[:, None, None]) & (draw < DELETED)[:, None, None]
    rim = (F.max_pool2d(region[:, None].float(), 3, 1, 1)[:, 0] > 0) & ~region
    around = torch.full_like(chosen, labels.ignore)
    for i in range(len(masks)):
        neighbours = masks[i][rim[i] & (masks[i] != labels.ignore)]
        if len(neighbours) and float(draw[i]) < DELETED / 2:
            around[i] = neighbours.mode().values
    return torch.where(region, around[:, None, None], masks)


def forget(masks: Masks, labels: LabelSet, stream: torch.Generator) -> Masks:
    """Some of the masks with only a part of their classes, the rest left open: the sample's own proxy mask then teaches
    what usually goes with that part.

    Args:
        masks: class numbers.
        labels: of the masks.
        stream: of the draws.
    """
    share = torch.rand(len(masks), 1, generator=stream)  # how much of the vocabulary each may lose
    lost = torch.rand(len(masks), labels.num_classes, generator=stream) < share
    lost &= torch.rand(len(masks), 1, generator=stream) < FORGOTTEN
    table = torch.cat([lost, torch.ones(len(masks), 1, dtype=torch.bool)], dim=1).to(masks.device)
    number = masks.masked_fill(masks == labels.ignore, labels.num_classes)  # what is ignored stays so
    gone = table.gather(1, number.flatten(1)).view_as(masks)
    return masks.masked_fill(gone, labels.ignore)


def a_class_of(masks: Masks, labels: LabelSet, stream: torch.Generator) -> Int64[Tensor, " batch"]:
    """A class that each mask has, every one as likely as the others, however large; ``ignore`` where it has none.

    Args:
        masks: class numbers or ``ignore``.
        labels: of the masks.
        stream: of the draws.
    """
    numbers = torch.arange(labels.num_classes, device=masks.device)
    there = (masks.flatten(1)[:, :, None] == numbers).any(dim=1)
    draw = torch.rand(len(masks), labels.num_classes, generator=stream).to(masks.device)
    best = draw.masked_fill(~there, -1).argmax(dim=1)
    return torch.where(there.any(dim=1), best, torch.full_like(best, labels.ignore))
