"""The synthesizer (inference): drawings to proxy masks, looks laid out by them, images. Plain torch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sisug import __version__
from sisug.common.fingerprint import sha256_of
from sisug.common.image_bytes import to_bytes
from sisug.errors import ConfigError, check_range
from sisug.mapper.trained import TrainedMapper, load_mapper
from sisug.rearranger.pipeline import SourceSamples
from sisug.rearranger.trained import TrainedRearranger, load_rearranger
from sisug.synthesis.layouts import Drawing, Layout, distinct, encode, name_of, never_labelled
from sisug.synthesis.looks import Looks, Source, look_up, styles_of, styles_of_seed
from sisug.synthesis.result import GeneratedImages
from sisug.types import Images

logger = logging.getLogger(__name__)

DEFAULT_SEEDS = range(8)

BATCH = 16
"""Images at a time."""


class Synthesizer:
    """Trained pieces as one: what is drawn gives the layout, a seed or a picture gives the look.

    ``load`` and ``from_rearranger`` make one from files.

    Args:
        rearranger: with its generator and codebook; all is moved to the device.
        mapper: with the same rearranger; None where layouts come from exemplars alone.
        device: "auto" for a GPU where there is one, else the CPU; or a name that torch knows.

    Raises:
        ConfigError: there is no such device.
    """

    def __init__(
        self, rearranger: TrainedRearranger, mapper: TrainedMapper | None = None, device: str = "auto"
    ) -> None:
        self.device = device_of(device)
        self.rearranger, self.mapper = rearranger, mapper
        self.generator = rearranger.generator
        self._fingerprint = self.generator.fingerprint
        source = Path(rearranger.source if mapper is None else mapper.source)
        self._file = {"file": str(source), "sha256": sha256_of(source) if source.is_file() else None}
        parts = [self.generator, rearranger.codebook, rearranger.network]
        for part in parts if mapper is None else [*parts, mapper.network]:
            part.to(self.device)

    @classmethod
    def load(cls, mapper: str | Path, generator: str | Path | None = None, device: str = "auto") -> Synthesizer:
        """From a mapper's file, which holds its rearranger and names its generator.

        Args:
            mapper: checkpoint of `make train-mapper`, file of `sisug mapper export`, or the name of one that ships.
            generator: file or preset in the place of the one that the mapper names, where that has been moved.
            device: see the class.

        Raises:
            CheckpointError: a file is missing, damaged or holds something else.
            FingerprintMismatch: the generator's weights are others than those that it was trained with.
            ConfigError: there is no such device.
        """
        device_of(device)
        trained = load_mapper(mapper, None if generator is None else str(generator))
        return cls(trained.rearranger, trained, device)

    @classmethod
    def from_rearranger(
        cls, rearranger: str | Path, generator: str | Path | None = None, device: str = "auto"
    ) -> Synthesizer:
        """From a rearranger's file: no mapper, so layouts come from exemplars.

        Args:
            rearranger: checkpoint of `make train-rearranger`, file of `sisug rearranger export`, or the name of one
                that ships.
            generator: file or preset in the place of the one that the rearranger names, where that has been moved.
            device: see the class.

        Raises:
            CheckpointError: a file is missing, damaged or holds something else.
            FingerprintMismatch: the generator's weights are others than those that it was trained with.
            ConfigError: there is no such device.
        """
        device_of(device)
        return cls(load_rearranger(rearranger, None if generator is None else str(generator)), device=device)

    def generate(
        self,
        inputs: Drawing | Sequence[Drawing],
        seeds: Iterable[int] | None = None,
        *,
        truncation: float = 0.7,
        style_from: Source | None = None,
        style_mix: int | None = None,
        batch_size: int = BATCH,
    ) -> GeneratedImages:
        """Images of every drawing in every look.

        Args:
            inputs: files, masks of class numbers (height, width), encoded conditions (channel, size, size), or a list.
            seeds: of the looks; None for 0 to 7. A seed gives the same look whatever else is asked for.
            truncation: 0 to 1; smaller for looks that vary less and fail less.
            style_from: one look for all, in the place of seeds: a seed, or a picture, which is inverted.
            style_mix: seed of another look that gives the fine layers, from the split's resolution on.
            batch_size: images at a time; it changes no image beyond the last digits.

        Raises:
            DataError: a drawing or a picture cannot be used.
            ConfigError: an argument is out of range, or contradicts another.
        """
        drawings = [inputs] if isinstance(inputs, str | Path | Tensor | np.ndarray) else list(inputs)
        layouts = [self.layout(drawing, position) for position, drawing in enumerate(drawings)]
        looks = self.looks(seeds, truncation=truncation, style_from=style_from, style_mix=style_mix)
        return self._all(layouts, looks, batch_size)

    def generate_like(
        self,
        exemplar: Source,
        seeds: Iterable[int] | None = None,
        *,
        truncation: float = 0.7,
        style_from: Source | None = None,
        style_mix: int | None = None,
        batch_size: int = BATCH,
    ) -> GeneratedImages:
        """Images with the structure of an exemplar, which needs no mapper and no label.

        Args:
            exemplar: seed of a generator sample, or a picture, which is inverted.
            seeds: see ``generate``, as the other arguments.
            truncation: of the exemplar too.
            style_from: as above.
            style_mix: as above.
            batch_size: as above.

        Raises:
            DataError: a picture cannot be used.
            ConfigError: an argument is out of range, or contradicts another.
        """
        layout = self.exemplar(exemplar, truncation)
        looks = self.looks(seeds, truncation=truncation, style_from=style_from, style_mix=style_mix)
        return self._all([layout], looks, batch_size)

    @torch.inference_mode()
    def layout(self, drawing: Drawing, position: int = 0) -> Layout:
        """The mapper's proxy mask for a drawing.

        Args:
            drawing: see ``generate``.
            position: among those given; the name of one that is no file.

        Raises:
            DataError: it cannot be used.
            ConfigError: there is no mapper.
        """
        if self.mapper is None:
            raise ConfigError(
                "a drawing without a mapper",
                "a rearranger reads no drawings, only exemplars",
                "load a mapper, or call generate_like",
            )
        encoded, record = encode(drawing, self.mapper.condition, self.generator.resolution)
        unknown = never_labelled(encoded, self.mapper.condition, self.mapper.lesson.get("seen") or {})
        if unknown:
            logger.warning(
                "%s: no label of this mapper shows %s; it guesses what belongs there. Label a sample that does",
                name_of(drawing, position),
                ", ".join(unknown),
            )
        # One at a time, as looks are: no batch may change a label.
        mask = self.mapper.layouts(encoded.to(self.device))
        return Layout(name_of(drawing, position), mask[0], self.mapper.condition.show(encoded)[0], record)

    def exemplar(self, source: Source, truncation: float = 0.7) -> Layout:
        """The proxy mask of a generator sample or of a picture.

        Args:
            source: see ``generate_like``.
            truncation: of a sample.

        Raises:
            DataError: the picture cannot be used.
            ConfigError: the truncation is out of range.
        """
        check_truncation(truncation)
        ws, label, record = styles_of(self.generator, source, truncation, self.device)
        with torch.inference_mode():
            source_samples = self.rearranger.pipeline.source(ws)
            shown = to_bytes(self.rearranger.pipeline.render(source_samples.features, ws).cpu())[0]
        return Layout(f"like-{label}", source_samples.mask[0], shown, {"exemplar": record})

    def looks(
        self,
        seeds: Iterable[int] | None = None,
        *,
        truncation: float = 0.7,
        style_from: Source | None = None,
        style_mix: int | None = None,
    ) -> Looks:
        """The samples of some seeds, or the one of a picture.

        Args:
            seeds: see ``generate``, as the other arguments.
            truncation: as above.
            style_from: as above.
            style_mix: as above.

        Raises:
            DataError: the picture cannot be used.
            ConfigError: an argument is out of range, or contradicts another.
        """
        check_truncation(truncation)
        if seeds is not None and style_from is not None:
            raise ConfigError(
                "seeds and style_from", "both say the look of the images", "leave one out; style_from gives one look"
            )
        record: dict[str, Any] = {"truncation": truncation, "style_mix": style_mix}
        fine = None if style_mix is None else styles_of_seed(self.generator, style_mix, truncation, self.device)
        if style_from is not None:
            ws, label, found = styles_of(self.generator, style_from, truncation, self.device)
            return look_up(self.rearranger, [ws], [label], record | {"seeds": None, "style_from": found}, fine)
        chosen = [int(seed) for seed in (DEFAULT_SEEDS if seeds is None else seeds)]
        styles = (styles_of_seed(self.generator, seed, truncation, self.device) for seed in chosen)
        labels = [f"seed{seed}" for seed in chosen]
        return look_up(self.rearranger, styles, labels, record | {"seeds": chosen, "style_from": None}, fine)

    def images(self, layouts: Sequence[Layout], looks: Looks, batch_size: int = BATCH) -> Iterator[Images]:
        """Batches of images on the CPU: all looks of the first layout, then those of the second, and so on.

        Args:
            layouts: of ``layout`` or ``exemplar``.
            looks: of ``looks``.
            batch_size: images at a time.

        Raises:
            ConfigError: no images at a time.
        """
        check_range(batch_size=batch_size, above=0)
        count = len(layouts) * len(looks)
        for start in range(0, count, batch_size):
            pairs = torch.arange(start, min(start + batch_size, count))
            yield self._lay_out(layouts, looks, pairs)

    @torch.inference_mode()
    def _lay_out(self, layouts: Sequence[Layout], looks: Looks, pairs: Tensor) -> Images:
        target = torch.stack([layouts[int(pair) // len(looks)].mask for pair in pairs])
        look = (pairs % len(looks)).to(self.device)
        source = SourceSamples(looks.ws, looks.features, looks.masks).select(look)
        return self.rearranger.pipeline.images(source, target).cpu()

    def record(self, layouts: Sequence[Layout], looks: Looks) -> dict[str, Any]:
        """Everything to make images again; JSON values.

        Args:
            layouts: what they are laid out as.
            looks: in which.
        """
        return {
            "format": "sisug-generated-1",
            "sisug": __version__,
            "torch": torch.__version__,
            "device": self.device.type,
            "rearranger" if self.mapper is None else "mapper": self._file,
            "generator": {"source": self.generator.source, "fingerprint": self._fingerprint},
            "condition": None if self.mapper is None else self.mapper.condition.to_dict(),
            "inputs": [{"name": layout.name, **layout.record} for layout in layouts],
            **looks.record,
        }

    def _all(self, layouts: list[Layout], looks: Looks, batch_size: int) -> GeneratedImages:
        if not layouts:
            raise ConfigError("no drawings", "there is nothing to lay images out by", "give at least one")
        layouts = distinct(layouts)
        batches = list(self.images(layouts, looks, batch_size))
        size = self.generator.resolution
        # Out of inference mode, so that they are tensors like any other.
        images = torch.cat(batches).view(len(layouts), len(looks), 3, size, size)
        return GeneratedImages(
            images,
            tuple(layout.name for layout in layouts),
            looks.labels,
            torch.stack([layout.shown for layout in layouts]),
            self.record(layouts, looks),
        )


def check_truncation(truncation: float) -> None:
    """Refuse a truncation outside [0, 1].

    Raises:
        ConfigError: it is outside.
    """
    if not 0 <= truncation <= 1:
        raise ConfigError(
            f"truncation {truncation}", "1 is the generator's full range, 0 its mean image", "choose one from 0 to 1"
        )


def device_of(name: str) -> torch.device:
    """The device of that name, if it is there.

    Args:
        name: "auto", "cpu", "cuda", "cuda:1" and so on.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    remedy = "leave the device out, or choose cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}", "torch knows none of that name", remedy) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r}", f"torch sees {torch.cuda.device_count()} GPUs here", remedy)
    return device
