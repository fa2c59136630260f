"""The synthesizer (inference): drawings to proxy masks, samples rearranged by them, images. Plain torch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sisug import __version__
from sisug.common.fingerprint import sha256_of
from sisug.common.image_bytes import to_bytes
from sisug.errors import ConfigError, check_range
from sisug.generators import GeneratorReference
from sisug.mapper.trained import TrainedMapper, load_mapper
from sisug.rearranger.trained import TrainedRearranger, load_rearranger
from sisug.synthesis.layouts import Drawing, Layout, distinct, encode, name_of, never_labelled
from sisug.synthesis.options import BATCH, DEFAULT_SEEDS, TRUNCATION
from sisug.synthesis.result import GeneratedImages
from sisug.synthesis.styles import Reference, StyleSamples, caption_of, style_samples, ws_of, ws_of_seed
from sisug.types import Images

logger = logging.getLogger(__name__)


class Synthesizer:
    """Trained pieces as one: what is drawn gives the layout, a seed or a picture gives the style.

    ``load`` and ``from_rearranger`` make one from files. What a live canvas repeats for each stroke reads no file and
    computes no style again::

        styles = synthesizer.styles(range(4))  # once
        pictures = synthesizer.generate(canvas, styles).pictures()

    Args:
        rearranger: with its generator and codebook; all is moved to the device.
        mapper: with the same rearranger; None where layouts come from exemplars alone.
        device: "auto" for a GPU where there is one, else the CPU; or a name that torch knows.

    Raises:
        ConfigError: there is no such device.
    """

    def __init__(
        self,
        rearranger: TrainedRearranger,
        mapper: TrainedMapper | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        self.device = device if isinstance(device, torch.device) else device_of(device)
        self.rearranger, self.mapper = rearranger, mapper
        self.generator = rearranger.generator
        self._fingerprint = self.generator.fingerprint
        source = Path(rearranger.source if mapper is None else mapper.source)
        self._file = {"file": str(source), "sha256": sha256_of(source) if source.is_file() else None}
        parts = [self.generator, rearranger.codebook, rearranger.network]
        for part in parts if mapper is None else [*parts, mapper.network]:
            part.to(self.device)

    @classmethod
    def load(
        cls,
        mapper: str | Path,
        generator: GeneratorReference | Path | None = None,
        device: str = "auto",
        condition: str | dict[str, Any] | None = None,
    ) -> Synthesizer:
        """From a mapper's file, which holds its rearranger and names its generator.

        Args:
            mapper: checkpoint of `make train-mapper`, file of `sisug mapper export`, or the name of one that ships.
            generator: preset, file, class or object in place of the generator that the mapper names: for one that has
                been moved, or whose class is no part of sisug.
            device: see the class.
            condition: the condition's class, by its full name, or by `class_path` and `init_args`, where it is no part
                of sisug.

        Raises:
            CheckpointError: a file is missing, damaged or holds something else.
            FingerprintMismatch: the generator's weights are others than those that it was trained with.
            ConfigError: there is no such device.
        """
        found = device_of(device)
        trained = load_mapper(mapper, generator, condition)
        return cls(trained.rearranger, trained, found)

    @classmethod
    def from_rearranger(
        cls, rearranger: str | Path, generator: GeneratorReference | Path | None = None, device: str = "auto"
    ) -> Synthesizer:
        """From a rearranger's file: no mapper, so layouts come from exemplars.

        Args:
            rearranger: checkpoint of `make train-rearranger`, file of `sisug rearranger export`, or the name of one
                that ships.
            generator: preset, file, class or object in place of the generator that the rearranger names.
            device: see the class.

        Raises:
            CheckpointError: a file is missing, damaged or holds something else.
            FingerprintMismatch: the generator's weights are others than those that it was trained with.
            ConfigError: there is no such device.
        """
        found = device_of(device)
        return cls(load_rearranger(rearranger, generator), device=found)

    def generate(
        self,
        drawings: Drawing | Sequence[Drawing],
        styles: StyleSamples | Iterable[int] = DEFAULT_SEEDS,
        *,
        batch_size: int = BATCH,
    ) -> GeneratedImages:
        """Images of every drawing in every style.

        Args:
            drawings: a picture (a file, one of Pillow, RGB or RGBA bytes of shape (height, width, 3 or 4)), a mask of
                class numbers (height, width), an encoded condition (channel, size, size), or a list of these.
            styles: seeds, each of which gives the same style whatever else is asked for; or the result of ``styles``,
                which knows other ways, and which is worth keeping where it is used again.
            batch_size: images at a time, 1 or more; it changes no image beyond the last digits.

        Raises:
            DataError: a drawing cannot be used.
            ConfigError: an argument is out of range.
        """
        if isinstance(drawings, str | Path | Image.Image | np.ndarray | Tensor):
            drawings = [drawings]
        layouts = [self.layout(drawing, position) for position, drawing in enumerate(drawings)]
        if not layouts:
            raise ConfigError("no drawings", "there is nothing to lay images out by", "give at least one")
        return self._all(distinct(layouts), styles, batch_size)

    def generate_like(
        self,
        exemplar: Reference,
        styles: StyleSamples | Iterable[int] = DEFAULT_SEEDS,
        *,
        truncation: float = TRUNCATION,
        batch_size: int = BATCH,
    ) -> GeneratedImages:
        """Images with the structure of an exemplar, which needs no mapper and no label.

        Args:
            exemplar: seed of a generator sample, or a picture, which is inverted.
            styles: see ``generate``.
            truncation: of the exemplar, where it is a seed, 0 to 1.
            batch_size: see ``generate``.

        Raises:
            DataError: a picture cannot be used.
            ConfigError: an argument is out of range.
        """
        return self._all([self.exemplar(exemplar, truncation)], styles, batch_size)

    @torch.inference_mode()
    def layout(self, drawing: Drawing, position: int = 0) -> Layout:
        """The mapper's proxy mask for a drawing.

        Args:
            drawing: see ``generate``.
            position: among those given, from 0; the name of one that is no file.

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
        name = name_of(drawing, position)
        encoded, record, warnings = encode(drawing, self.mapper.condition, self.mapper.network.size, name)
        unknown = never_labelled(encoded, self.mapper.condition, self.mapper.lesson.get("seen") or {})
        if unknown:
            warning = f"{name}: no label of this mapper shows {', '.join(unknown)}; it guesses what belongs there"
            logger.warning("%s. Label a sample that does", warning)
            warnings.append(warning)
        # One at a time, as styles are: no batch may change a cluster.
        mask = self.mapper.layouts(encoded.to(self.device))
        return Layout(name, mask[0], self.mapper.condition.show(encoded)[0], record, tuple(warnings))

    def exemplar(self, reference: Reference, truncation: float = TRUNCATION) -> Layout:
        """The proxy mask of a generator sample or of a picture.

        Args:
            reference: see ``generate_like``.
            truncation: of a sample, 0 to 1.

        Raises:
            DataError: the picture cannot be used.
            ConfigError: the seed or the truncation is out of range.
        """
        ws, record, warnings = ws_of(self.generator, reference, truncation, self.device)
        with torch.inference_mode():
            source = self.rearranger.pipeline.source(ws)
            shown = to_bytes(self.rearranger.pipeline.render(source.features, ws).cpu())[0]
        name = f"like-{caption_of(reference)}"
        return Layout(name, source.mask[0], shown, {"exemplar": record}, tuple(warnings))

    def styles(
        self,
        seeds: Iterable[int] | None = None,
        *,
        truncation: float = TRUNCATION,
        style_from: Reference | None = None,
        style_mix: int | None = None,
    ) -> StyleSamples:
        """The samples of some seeds, or the one of a picture, with all that every drawing shares.

        Args:
            seeds: 0 or more each; None for 0 to 7.
            truncation: 0 to 1; smaller for styles that vary less and fail less.
            style_from: one style for all, in place of seeds: a seed, or a picture, which is inverted.
            style_mix: seed of another sample that gives the fine layers, from the split's resolution on.

        Raises:
            DataError: the picture cannot be used.
            ConfigError: an argument is out of range, or contradicts another.
        """
        if seeds is not None and style_from is not None:
            raise ConfigError(
                "seeds and style_from", "both say the style of the images", "leave one out; style_from gives one style"
            )
        pipeline, generator, device = self.rearranger.pipeline, self.generator, self.device
        record: dict[str, Any] = {"truncation": truncation, "style_mix": style_mix}
        fine = None if style_mix is None else ws_of_seed(generator, style_mix, truncation, device)
        if style_from is not None:
            ws, found, warnings = ws_of(generator, style_from, truncation, device)
            record |= {"seeds": None, "style_from": found}
            return style_samples(pipeline, [ws], [caption_of(style_from)], record, warnings, fine)
        chosen = [int(seed) for seed in (DEFAULT_SEEDS if seeds is None else seeds)]
        rows = (ws_of_seed(generator, seed, truncation, device) for seed in chosen)
        record |= {"seeds": chosen, "style_from": None}
        return style_samples(pipeline, rows, [caption_of(seed) for seed in chosen], record, fine=fine)

    def stream(
        self, layouts: Sequence[Layout], styles: StyleSamples, batch_size: int = BATCH, size: int | None = None
    ) -> Iterator[tuple[Layout, str, Float[Tensor, "3 height width"]]]:
        """Images one after the other, on the CPU, each with its layout and the caption of its style.

        All styles of the first layout come first, then those of the second, and so on.

        Args:
            layouts: of ``layout`` or ``exemplar``.
            styles: of ``styles``.
            batch_size: images at a time, 1 or more.
            size: height and width that larger images are made smaller to, pixels; None leaves them as they are.

        Raises:
            ConfigError: no images at a time.
        """
        check_range(batch_size=batch_size, above=0)
        pairs = [(layout, number) for layout in layouts for number in range(len(styles))]
        for start in range(0, len(pairs), batch_size):
            batch = pairs[start : start + batch_size]
            images = self._images(batch, styles)
            if size is not None and size < images.shape[-1]:
                images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
            for (layout, number), image in zip(batch, images, strict=True):
                yield layout, styles.captions[number], image

    @torch.inference_mode()
    def _images(self, batch: Sequence[tuple[Layout, int]], styles: StyleSamples) -> Images:
        target = torch.stack([layout.mask for layout, _ in batch])
        numbers = torch.tensor([number for _, number in batch], device=self.device)
        return self.rearranger.pipeline.images(styles.source.select(numbers), target).cpu()

    def record(self, layouts: Sequence[Layout], styles: StyleSamples) -> dict[str, Any]:
        """Everything to make images again, and what was doubtful; JSON values.

        Args:
            layouts: that they take.
            styles: that they take.
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
            **styles.record,
            "warnings": warnings_of(layouts, styles),
        }

    def _all(self, layouts: Sequence[Layout], styles: StyleSamples | Iterable[int], batch_size: int) -> GeneratedImages:
        styles = styles if isinstance(styles, StyleSamples) else self.styles(styles)
        # Stacked out of inference mode, so that they are tensors like any other.
        images = torch.stack([image for _, _, image in self.stream(layouts, styles, batch_size)])
        return GeneratedImages(
            images.view(len(layouts), len(styles), *images.shape[1:]),
            tuple(layout.name for layout in layouts),
            styles.captions,
            torch.stack([layout.shown for layout in layouts]),
            self.record(layouts, styles),
            tuple(warnings_of(layouts, styles)),
        )


def warnings_of(layouts: Sequence[Layout], styles: StyleSamples) -> list[str]:
    """What a user should know about drawings and styles.

    Args:
        layouts: of the drawings.
        styles: of the samples.
    """
    return [*(warning for layout in layouts for warning in layout.warnings), *styles.warnings]


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
