"""Segmenters of the Hugging Face hub, or of a local folder, as judges: face parsers, ADE20K segmenters (evaluation)."""

from __future__ import annotations

import colorsys
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sisug.errors import CheckpointError, ConfigError, DataError, check_local
from sisug.labels.label_files import read_label_set
from sisug.labels.label_maps import counterparts
from sisug.labels.label_sets import IGNORE_COLOUR, LABEL_SETS, LabelSet
from sisug.segmentation.judges.network_judge import NetworkJudge

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation where a model has no `preprocessor_config.json`; all that we know of use it."""

PREPROCESSING = "preprocessor_config.json"


class TransformersJudge(NetworkJudge):
    """A semantic segmentation model that the package transformers can load: SegFormer, UPerNet, BEiT, DPT and others.

    Examples: `jonathandinu/face-parsing` (CelebAMask-HQ, 19 classes), `nvidia/segformer-b5-finetuned-ade-640-640`
    (ADE20K, 150 classes). Images are normalised and resized as the model's own record says, but never cropped.

    Args:
        model: name on the hub, or a local folder as `save_pretrained` or `hf download` writes it.
        labels: label set of the model's classes in their order: a name or a JSON file. None for the names that the
            model itself has; where they are those of a shipped label set, it is that one.
        resolution: height and width to which images are resized for the model, pixels; None for its own.
        revision: commit, branch or tag on the hub; None for the newest.

    Raises:
        CheckpointError: it cannot be downloaded or read, is no segmenter, or lacks weights.
        ConfigError: transformers is not installed, or the label set contradicts the model's own names.
        DataError: there is no such label set.
    """

    def __init__(
        self, model: str, labels: str | None = None, resolution: int | None = None, revision: str | None = None
    ) -> None:
        if importlib.util.find_spec("transformers") is None:
            raise ConfigError(
                f"judge {model!r} without the package transformers",
                "it loads models of the hub, and is not among the packages that are always installed",
                'install it: pip install "sisug[hub]"',
            )
        check_local(model, "judge")
        source = str(Path(model).expanduser()) if Path(model).expanduser().is_dir() else model
        network = _load_model(source, revision)
        own, values = _preprocessing(source, revision)
        found = _labels(source, network.config.id2label, labels)
        name = re.sub(r"[^\w.-]+", "-", Path(source).name if Path(source).is_dir() else source)
        wrapped = _Logits(network, flip=bool(values.get("do_flip_channel_order", False)))
        mean, std = _normalisation(values)
        super().__init__(wrapped, found, name, resolution if resolution is not None else own, mean, std)
        self.source, self.revision = model, revision

    @property
    def description(self) -> dict[str, Any]:
        """Everything that decides its verdicts, for protocol records; of a local folder its name only."""
        local = Path(self.source).expanduser().is_dir()
        source = Path(self.source).expanduser().resolve().name if local else self.source
        return {**super().description, "source": source, "revision": self.revision}


class _Logits(nn.Module):
    """A model of transformers that takes images and gives logits."""

    def __init__(self, model: nn.Module, flip: bool) -> None:
        super().__init__()
        self.model, self.flip = model, flip

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels.flip(1) if self.flip else pixels).logits


def _load_model(source: str, revision: str | None) -> Any:
    from transformers import AutoModelForSemanticSegmentation

    try:
        model, info = AutoModelForSemanticSegmentation.from_pretrained(
            source, revision=revision, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # of the network, of files, of configurations: a dozen kinds
        raise _unusable(source, error) from error
    lacking = sorted([*info["missing_keys"], *map(str, info["mismatched_keys"])])
    if lacking:
        raise CheckpointError(
            f"the judge {source} lacks {len(lacking)} weights: {', '.join(lacking[:4])}",
            "they would be drawn at random; such a model is the beginning of a training, not its result",
            "choose a model that was fine-tuned for segmentation",
        )
    return model


def _unusable(source: str, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if Path(source).is_dir():
        remedy = "give a folder with config.json and model.safetensors of a semantic segmentation model"
    else:
        remedy = (
            f"where there is no network, download it elsewhere (hf download {source} --local-dir FOLDER) and give the "
            "folder; otherwise check the name on the hub"
        )
    return CheckpointError(f"the judge {source} cannot be loaded", reason, remedy)


def _preprocessing(source: str, revision: str | None) -> tuple[int | None, Mapping[str, Any]]:
    """Resolution of the network's images, and the record of what else is done to them."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(source, PREPROCESSING, revision=revision, _raise_exceptions_for_missing_entries=False)
        values = json.loads(Path(path).read_text(encoding="utf-8")) if path is not None else {}
    except Exception as error:
        raise _unusable(source, error) from error
    size = values.get("size") if values.get("do_resize", True) else None
    if isinstance(size, dict):
        lengths = {size[key] for key in ("height", "width", "shortest_edge") if size.get(key) is not None}
        if len(lengths) > 1:
            raise CheckpointError(
                f"the judge {source} reads images of {size}",
                "generators make square images",
                "say with resolution to what height and width they are to be resized",
            )
        size = lengths.pop() if lengths else None
    return (None if size is None else int(size)), values


def _normalisation(values: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of values from 0 to 1, whatever range the record has them in."""
    # The record counts from bytes: value * rescale_factor, less mean, by std.
    scale = 255 * float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 255.0
    mean, std = [0.0] * 3, [1.0] * 3
    if values.get("do_normalize", True):
        mean, std = list(values.get("image_mean", IMAGENET_MEAN)), list(values.get("image_std", IMAGENET_STD))
    return [value / scale for value in mean], [value / scale for value in std]


def _labels(source: str, names: Mapping[int, str], labels: str | None) -> LabelSet:
    classes = tuple(str(names[number]).strip() for number in sorted(names))
    nameless = all(re.fullmatch(r"LABEL_\d+", name) for name in classes)
    if labels is None:
        if nameless:
            raise ConfigError(
                f"the judge {source} has {len(classes)} classes without names",
                "classes are matched by their names",
                "name its label set with labels, or give a JSON file",
            )
        return _own_labels(source, classes)
    asked = read_label_set(labels)
    if asked.num_classes != len(classes):
        raise ConfigError(
            f"the judge {source} with label set {asked.name!r}",
            f"it has {len(classes)} classes, the label set {asked.num_classes}",
            "leave labels out, or name the set that the model was trained with",
        )
    if not nameless:
        own = _own_labels(source, classes)
        moved = [
            f"{name} is {number} there and {place} in the set"
            for number, (name, place) in enumerate(zip(own.classes, counterparts(own, asked), strict=True))
            if place not in (None, number)
        ]
        if moved:
            raise ConfigError(
                f"the judge {source} with label set {asked.name!r}",
                f"its own record has another order: {'; '.join(moved[:4])}",
                "leave labels out: masks are mapped to the data's label set by name",
            )
    return asked


def _own_labels(source: str, classes: tuple[str, ...]) -> LabelSet:
    """The shipped label set with these classes in this order; otherwise one of the model's own, with plain colours."""
    try:
        own = LabelSet(Path(source).name, classes, _colours(len(classes)))
    except DataError as error:
        raise ConfigError(
            f"the classes of the judge {source} make no label set", error.cause, "name its label set with labels"
        ) from error
    for shipped in LABEL_SETS.values():
        if len(classes) == shipped.num_classes and counterparts(own, shipped) == tuple(range(len(classes))):
            return shipped
    return own


def _colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Colours that are all different: hues a golden angle apart, of three brightnesses."""
    colours: list[tuple[int, int, int]] = []
    step = 0
    while len(colours) < count:
        value = colorsys.hsv_to_rgb(step * 0.618034 % 1, 0.65, (1.0, 0.75, 0.5)[step % 3])
        colour = (round(255 * value[0]), round(255 * value[1]), round(255 * value[2]))
        if colour not in colours and colour != IGNORE_COLOUR:
            colours.append(colour)
        step += 1
    return tuple(colours)
