"""Protocol `diversity` (evaluation of both stages): looks of one mask, and what a sample loses in its own layout."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from sisug.common.image_grid import save_grid
from sisug.errors import ConfigError
from sisug.evaluation.report import Report, Table
from sisug.evaluation.sampled import SampledProtocol
from sisug.evaluation.samples import Conditions, Samples, blocks
from sisug.evaluation.workspace import Workspace
from sisug.metrics import (
    FeatureDiversity,
    LookDiversity,
    PerceptualDiversity,
    ReconstructionPSNR,
    VGGDistance,
    VGGFeatures,
    lpips_if_available,
)
from sisug.rearranger.network import LayoutMask
from sisug.rearranger.trained import TrainedRearranger
from sisug.types import Images

PICTURE = "diversity.png"

ROWS = {
    "looks": "looks of one mask",
    "plain": "plain samples of the same looks",
    "masks": "one look in several masks",
}
"""Groups of images whose distances are compared, by the key of their parts."""


@dataclass(frozen=True, kw_only=True)
class Diversity(SampledProtocol):
    """How far apart the looks of one mask are, beside plain samples of these looks and one look's own variation.

    LPIPS where its weights are at hand, else the distance of extractor features; the name says which. With it the
    rearranger's self-reconstruction: samples in their own layout. Without a mapper the masks are proxy masks of
    samples. Other settings: see `SampledProtocol`.

    Args:
        masks: to make looks of, `looks` or more.
        looks: of each mask, 2 or more.
        rearranger: in the place of a mapper: checkpoint of stage 1, a file of `sisug rearranger export`, or the name of
            one that ships.
        lpips: demand LPIPS (true) or take the extractor's features (false); None for LPIPS where its weights are.

    Raises:
        ConfigError: a value out of range.

    Source: J.-Y. Zhu et al., "Toward multimodal image-to-image translation" (2017), section 5, for the distance; what
        stands beside it is our choice.
    """

    name: ClassVar[str] = "diversity"

    masks: int = 100
    looks: int = 10
    rearranger: str | None = None
    lpips: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.looks < 2 or self.masks < self.looks:
            raise ConfigError(
                f"masks {self.masks}, looks {self.looks}",
                "a distance needs 2 looks, and one look is laid out as as many masks",
                "choose 2 looks or more, and at least as many masks",
            )

        if self.mapper is not None and self.rearranger is not None:
            raise ConfigError(
                f"mapper {self.mapper} and rearranger {self.rearranger}",
                "the mapper's own rearranger lays out its masks",
                "leave one out: mapper null for masks of samples",
            )

    def named_rearranger(self) -> str | None:
        return self.rearranger

    def check(self) -> None:
        self.needed_rearranger()
        if self.models.mapper is not None:
            self.held_out.check(self.masks)
            Conditions(self.models.mapper, self.held_out)
        _ = self.distance

    def counts(self) -> dict[str, Any]:
        return {"masks": self.masks, "looks of each": self.looks, "reconstructions": self.masks}

    def record(self) -> dict[str, Any]:
        mapped = self.models.mapper is not None
        by_features = isinstance(self.distance, FeatureDiversity)
        return super().record() | {
            "distance": self.distance.name,
            "extractor": self.extractor_record() if by_features else None,
            "data": self.held_out.record(0, self.masks) if mapped else None,
            "condition": self.needed_mapper().condition.to_dict()["name"] if mapped else "proxy masks of samples",
        }

    @cached_property
    def distance(self) -> LookDiversity:
        """Between two images.

        Raises:
            ConfigError: LPIPS is demanded and its weights are not there.
        """
        if self.inception == VGGFeatures.name and not self.lpips:
            return PerceptualDiversity(VGGDistance(), VGGDistance.name)
        perceptual = None if self.lpips is False else lpips_if_available()
        if perceptual is not None:
            return PerceptualDiversity(perceptual.network.network, perceptual.name)
        if self.lpips:
            raise ConfigError(
                "LPIPS without weights",
                "they are not in torch's hub folder, as the line above says",
                "put them there, or leave lpips out",
            )
        return FeatureDiversity(self.extractor)

    def needed_rearranger(self) -> TrainedRearranger:
        """The one that lays samples out: the mapper's, where there is a mapper.

        Raises:
            ConfigError: there is none.
        """
        models = self.models
        if models.mapper is not None:
            return models.mapper.rearranger
        if models.rearranger is None:
            raise ConfigError(
                "protocol diversity of a generator alone",
                "looks of one mask are made by a rearranger",
                "give a mapper or a rearranger",
            )
        return models.rearranger

    def run(self, work: Workspace, device: torch.device) -> Report:
        self.models.to(device)
        if isinstance(self.distance, FeatureDiversity):
            self.move(device)
        self.distance.to(device)
        groups = _Groups(self, device)
        measured: dict[str, list[dict[str, Any]]] = {key: [] for key in (*ROWS, "self")}
        for seed in self.seeds:
            for key in ROWS:
                measured[key].append(work.part(f"{key}-seed{seed}", partial(self._spread, groups, key, seed)))
            measured["self"].append(work.part(f"self-seed{seed}", partial(self._reconstruction, groups, seed)))
        groups.picture(work, self.seeds[0])
        return self._report(measured)

    def _spread(self, groups: _Groups, key: str, seed: int) -> dict[str, float]:
        self.distance.reset()
        for group in range(self.masks):
            self.distance.update(groups.make(key, seed, group))
        return {"distance": float(self.distance.compute())}

    def _reconstruction(self, groups: _Groups, seed: int) -> dict[str, float]:
        psnr, lpips = ReconstructionPSNR().to(groups.device), lpips_if_available()
        lpips = None if self.lpips is False or lpips is None else lpips.to(groups.device)
        for numbers in blocks(self.masks, self.batch_size):
            made, plain = groups.reconstructed(seed, numbers)
            psnr.update(made, plain)
            if lpips is not None:
                lpips.update(made, plain)
        found = {"psnr": float(psnr.compute())}
        return found if lpips is None else found | {"lpips": float(lpips.compute())}

    def _report(self, measured: dict[str, list[dict[str, Any]]]) -> Report:
        spread = {key: [part["distance"] for part in measured[key]] for key in ROWS}
        rows = [
            (
                what,
                self.interval(spread[key]),
                self.interval(own / plain for own, plain in zip(spread[key], spread["plain"], strict=True)),
            )
            for key, what in ROWS.items()
        ]
        note = (
            "Broken images are far apart too: protocol quality says how real they are. Looks are those of the same "
            "latents in the first two rows."
        )
        looks = Table(
            f"Mean distance ({self.distance.name}) within {self.masks} groups of {self.looks} images",
            ("images", self.distance.name, "of plain samples"),
            rows,
            (self.intervals_note(), note),
        )
        figures = {"psnr": "PSNR, dB", "lpips": "LPIPS"}
        kept = {key: head for key, head in figures.items() if key in measured["self"][0]}
        own = Table(
            f"Self-reconstruction: {self.masks} samples laid out as themselves",
            tuple(kept.values()),
            [tuple(self.interval(part[key] for part in measured["self"]) for key in kept)],
            (self.intervals_note(),),
        )
        return Report(
            self.name,
            f"Diversity of {self.subject}: {self.looks} looks of one mask, beside plain samples.",
            [looks, own],
            self.record(),
            {PICTURE: "Looks of one mask a row, the first of the first seed, not chosen."},
        )


class _Groups:
    """Groups of images; a kind, a seed and a number give one."""

    def __init__(self, protocol: Diversity, device: torch.device) -> None:
        self.protocol, self.device = protocol, device
        self.rearranger = protocol.needed_rearranger()
        self.samples = Samples(protocol.models.generator, protocol.samples_truncation, device)
        mapper = protocol.models.mapper
        self.conditions = None if mapper is None else Conditions(mapper, protocol.held_out)
        self._layouts: dict[tuple[int, int], LayoutMask] = {}

    def make(self, kind: str, seed: int, group: int) -> Images:
        """A group.

        Args:
            kind: of ``ROWS``.
            seed: of the samples.
            group: number of the mask; of one look in several masks, of the look.
        """
        parts = blocks(self.protocol.looks, self.protocol.batch_size)
        return torch.cat([self._made(kind, seed, group, part) for part in parts])

    def _made(self, kind: str, seed: int, group: int, steps: Tensor) -> Images:
        """Some images of a group, by their places in it."""
        first = group * self.protocol.looks
        if kind == "masks":
            ws = self.samples.styles(torch.full_like(steps, first), seed, "look")
            masks = [(group + int(step)) % self.protocol.masks for step in steps]
            return self.samples.laid_out(self.rearranger, ws, torch.cat([self._layout(seed, mask) for mask in masks]))
        ws = self.samples.styles(first + steps, seed, "look")
        if kind == "plain":
            return self.samples.plain(ws)
        layout = self._layout(seed, group)
        return self.samples.laid_out(self.rearranger, ws, layout.expand(len(steps), *layout.shape[1:]))

    def reconstructed(self, seed: int, numbers: Tensor) -> tuple[Images, Images]:
        """Samples laid out as themselves, and as they are; those of each group's first look."""
        ws = self.samples.styles(numbers * self.protocol.looks, seed, "look")
        target = self.samples.layouts(self.rearranger, ws)
        return self.samples.laid_out(self.rearranger, ws, target), self.samples.plain(ws)

    def picture(self, work: Workspace, seed: int) -> None:
        """Write the looks of the first masks."""
        count = min(6, self.protocol.masks)
        rows = [self.make("looks", seed, group) for group in range(count)]
        save_grid(rows, work.folder / PICTURE, [f"mask {group}" for group in range(count)])

    def _layout(self, seed: int, number: int) -> LayoutMask:
        """Layout of a mask: the same for all seeds with a mapper, a sample's of that seed without."""
        key = (0 if self.conditions is not None else seed, number)
        if key not in self._layouts:
            if self.conditions is not None:
                (batch,) = self.protocol.held_out.batches(number, number + 1, 1)
                self._layouts[key] = self.conditions.layouts(batch, self.device)
            else:
                ws = self.samples.styles(torch.tensor([number]), seed, "target")
                self._layouts[key] = self.samples.layouts(self.rearranger, ws)
        return self._layouts[key]
