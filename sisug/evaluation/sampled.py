"""What protocols that score a generator's samples share (evaluation): settings, and the pieces that they name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sisug.common.fingerprint import fingerprint
from sisug.errors import ConfigError, FingerprintMismatch, check_range
from sisug.evaluation.held_out import DRAWN, HeldOut, open_held_out
from sisug.evaluation.protocol import Protocol
from sisug.evaluation.realism import extractor_record, open_extractor
from sisug.generators import GeneratorBackbone, load_generator
from sisug.mapper.trained import TrainedMapper, load_mapper
from sisug.metrics import Interval, NamedExtractor, mean_interval
from sisug.rearranger.trained import TrainedRearranger, load_rearranger, tensors_of
from sisug.segmentation.judges import JudgeProtocol, open_judge
from sisug.synthesis.options import check_truncation


@dataclass(frozen=True)
class Models:
    """Trained networks of one generator.

    Args:
        generator: frozen.
        rearranger: of stage 1; None where there is none.
        mapper: of stage 2, with a rearranger of its own; None where there is none.
    """

    generator: GeneratorBackbone
    rearranger: TrainedRearranger | None
    mapper: TrainedMapper | None

    def to(self, device: torch.device) -> None:
        """Move all of them, in place."""
        rearrangers = [self.rearranger, None if self.mapper is None else self.mapper.rearranger]
        networks: list[torch.nn.Module] = [self.generator]
        for each in rearrangers:
            if each is not None:
                networks += [each.generator, each.codebook, each.network]
        if self.mapper is not None:
            networks.append(self.mapper.network)
        for network in networks:
            network.to(device)

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the weights of each, wherever they came from."""
        found = {"generator": self.generator.fingerprint}
        if self.rearranger is not None:
            found["rearranger"] = fingerprint(tensors_of(self.rearranger))
        if self.mapper is not None:
            found["mapper"] = fingerprint(self.mapper.network.state_dict())
            found["rearranger_of_mapper"] = fingerprint(tensors_of(self.mapper.rearranger))
        return found


@dataclass(frozen=True, kw_only=True)
class SampledProtocol(Protocol):
    """Settings that the protocols quality, diversity and supervised have in common.

    Args:
        mapper: checkpoint of stage 2, a file of `sisug mapper export`, or the name of one that ships; None without.
        generator: preset, file or class, in the place of the generator that the other files name; alone where none
            does.
        data: "avatars", or a folder with held-out images: `images/` with `masks/`, CelebAMask-HQ as published, or
            images alone.
        split: of avatars train, val or test; of a folder the list `splits/NAME.txt`, one that CelebAMask-HQ has, a file
            of names, or "all".
        labels: name of the label set of the data's masks, or its JSON file; None for the data's own.
        judge: reads layouts, and gives the features of realism without Inception: a name, a file, a model of the hub,
            or class_path with init_args.
        inception: file with torch-fidelity's Inception weights, or "download"; "vgg_hed" for a VGG-16 trunk from the
            package index instead; None for the judge's features.
        truncation: of all samples, 0 to 1; None for that of the rearranger, or 1.
        seeds: of the samples; one repeat each.
        confidence: of the intervals, between 0 and 1.
        batch_size: images at a time; other sizes move the last digits.

    Raises:
        ConfigError: a value out of range.
    """

    mapper: str | None = "avatars-seg"
    generator: str | dict[str, Any] | None = None
    data: str = DRAWN
    split: str = "test"
    labels: str | None = None
    judge: str | dict[str, Any] = "avatars"
    inception: str | None = None
    truncation: float | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    confidence: float = 0.95
    batch_size: int = 16

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        check_confidence(self.confidence)
        check_range(batch_size=self.batch_size, above=0)
        if self.truncation is not None:
            check_truncation(self.truncation)

    @abstractmethod
    def check(self) -> None:
        """Refuse what cannot be measured, before anything is.

        Raises:
            SisugError: what is wrong.
        """

    @abstractmethod
    def counts(self) -> dict[str, Any]:
        """How many of what, and which held-out images: for identity and record."""

    def identity(self) -> Mapping[str, Any]:
        self.check()
        return self.record()

    def record(self) -> dict[str, Any]:
        """What decides the numbers; JSON values."""
        return {
            "counts": self.counts(),
            "seeds": list(self.seeds),
            "confidence": self.confidence,
            "truncation": self.samples_truncation,
            "fingerprints": self.models.fingerprints(),
        }

    def named_rearranger(self) -> str | None:
        """Checkpoint, file or name of a rearranger beside the mapper's own, where the protocol has such a setting."""
        return None

    @cached_property
    def models(self) -> Models:
        """The networks that the settings name, on the CPU.

        Raises:
            ConfigError: none are named.
            FingerprintMismatch: mapper and rearranger are of two generators.
        """
        mapper = None if self.mapper is None else load_mapper(self.mapper, self.generator)
        rearranger = None if mapper is None else mapper.rearranger
        if (named := self.named_rearranger()) is not None:
            rearranger = load_rearranger(named, self.generator)
        if rearranger is None:
            if self.generator is None:
                raise ConfigError("no generator", "no file is given that names one", "give a mapper, or a generator")
            return Models(load_generator(self.generator), None, None)
        if mapper is not None and mapper.rearranger.generator.fingerprint != rearranger.generator.fingerprint:
            raise FingerprintMismatch(
                f"the mapper {self.mapper} with the rearranger {named}",
                "they were trained on two generators, so that no row of the table would compare with another",
                "give a rearranger of the mapper's generator, or leave it out for the mapper's own",
            )
        return Models(rearranger.generator, rearranger, mapper)

    @property
    def subject(self) -> str:
        """What is measured, by the generator's name: a preset's, or a file's without its place on this machine."""
        return Path(self.models.generator.source).name

    @property
    def samples_truncation(self) -> float:
        """Of all samples."""
        if self.truncation is not None:
            return self.truncation
        return 1.0 if self.models.rearranger is None else self.models.rearranger.truncation

    @cached_property
    def held_out(self) -> HeldOut:
        """The data, at the generator's resolution."""
        return open_held_out(self.data, self.split, self.models.generator.resolution, self.labels)

    @cached_property
    def opened_judge(self) -> JudgeProtocol:
        """The judge, on the CPU."""
        return open_judge(self.judge)

    @cached_property
    def extractor(self) -> NamedExtractor:
        """What images are compared in, on the CPU."""
        return open_extractor(self.inception, None if self.inception is not None else self.opened_judge)

    def move(self, device: torch.device) -> None:
        """Bring networks, extractor and, where it gives the features, the judge to a device."""
        self.models.to(device)
        if self.inception is None:
            self.opened_judge.to(device)
        self.extractor.to(device)

    def needed_mapper(self) -> TrainedMapper:
        """The mapper.

        Raises:
            ConfigError: none is named.
        """
        if self.models.mapper is None:
            raise ConfigError(
                f"protocol {self.name} without a mapper",
                "it scores images that were made from conditions",
                "give mapper: a checkpoint of `make train-mapper`, an exported file, or a name",
            )
        return self.models.mapper

    def extractor_record(self) -> dict[str, Any]:
        """Name, hash and resize filter of the extractor."""
        return extractor_record(self.extractor)

    def judge_record(self) -> dict[str, Any]:
        """Name, hash and what else decides the judge's verdicts."""
        judge = self.opened_judge
        own = getattr(judge, "description", None)
        return dict(own) if isinstance(own, Mapping) else {"name": judge.name, "fingerprint": judge.fingerprint}

    def interval(self, values: Iterable[float]) -> Interval:
        """Mean over the seeds, and where the true mean lies."""
        return mean_interval(list(values), self.confidence)

    def intervals_note(self) -> str:
        """What stands behind the plus-minus signs."""
        if len(self.seeds) == 1:
            return "One seed of samples: the spread is not known."
        return (
            f"± is half the {self.confidence:.0%} confidence interval of the mean over {len(self.seeds)} seeds of "
            "samples; networks and data stay the same."
        )


def check_seeds(seeds: tuple[int, ...], name: str = "seeds") -> None:
    """Refuse repeats that are none, or the same twice.

    Args:
        seeds: one a repeat.
        name: of the setting.

    Raises:
        ConfigError: what is wrong.
    """
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"{name} {list(seeds)}", "each repeat has a seed of its own, 0 or more", "write [0, 1, 2] for three"
        )


def check_confidence(confidence: float) -> None:
    """Refuse a confidence that is no probability.

    Args:
        confidence: of intervals.

    Raises:
        ConfigError: it is out of range.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence {confidence}", "it is a probability below certainty", "pass 0.95, for example")
