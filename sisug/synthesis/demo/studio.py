"""What the page can ask for (demo): images of a canvas, samples to start from, uploads, downloads. No web in here.

Nothing of a visitor is written to a file, and a drawing comes with every request: all that is kept are styles, which
are the same for everybody, and uploaded pictures, each under a name that only its visitor was told.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import shlex
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sisug.common.image_bytes import to_bytes
from sisug.conditions.label_condition import LabelCondition
from sisug.errors import ConfigError, DataError
from sisug.labels.image_files import examine_image
from sisug.labels.mask_files import mask_of
from sisug.labels.pictures import nearest, picture_of
from sisug.synthesis.demo.models import Kept, Models, Reader, canvas_size
from sisug.synthesis.demo.uploads import NAME, read_upload
from sisug.synthesis.layouts import Layout
from sisug.synthesis.options import BATCH, LARGEST, check_truncation
from sisug.synthesis.output_folder import RECORD
from sisug.synthesis.result import file_name, picture_of_image
from sisug.synthesis.styles import WHITE, StyleSamples, style_samples, ws_of, ws_of_seed
from sisug.synthesis.synthesizer import Synthesizer

EXEMPLAR = "exemplar"
"""The kind of those who draw nothing, but give a sample or a picture whose layout is taken."""

LARGEST_SEED = 2**31 - 1
"""On the page; browsers hold no whole numbers above 2**53."""

MOST_STYLES = 64
"""Kept for all visitors together: a few MB each for generators of 1024 pixels."""

MOST_PICTURES = 64
"""Kept for all visitors together, of one generator's resolution each."""

MOST_SEARCHES = 4
"""Visitors who wait for a picture to be found by the generator; it takes seconds, one after the other."""

TILE = 96
"""Height and width of a style's picture on the page, pixels."""

LOSSLESS = 256
"""Images up to this size are shown as PNG, larger ones as JPEG, which is written ten times as fast."""

CLOSE = 20.0
"""PSNR in dB from which the colors of a picture's parts are right."""

MOST_ENLARGED = 4
"""Factor by which a photo smaller than the generator's images is made larger."""

DRAWING, STYLE, LIKE = "drawing.png", "style.png", "picture.png"
"""Names of a download's files; the command that makes it again reads them."""


@dataclass(frozen=True)
class Wish:
    """What a visitor has chosen.

    Args:
        family: name of the model.
        kind: of drawing, or `EXEMPLAR`.
        style: a seed, or the name of an uploaded picture.
        truncation: 0 to 1.
        mix: seed of the fine layers; None for those of the style.
        like: seed or name of the exemplar.
    """

    family: str
    kind: str
    style: int | str = 0
    truncation: float = 0.7
    mix: int | None = None
    like: int | str = 0

    def __post_init__(self) -> None:
        check_truncation(self.truncation)
        for seed in (self.style, self.mix, self.like):
            if isinstance(seed, int) and not 0 <= seed <= LARGEST_SEED:
                raise ConfigError(f"seed {seed}", f"seeds lie from 0 to {LARGEST_SEED}", "choose another")


@dataclass(frozen=True)
class FoundPicture:
    """An uploaded picture, and what the generator found for it.

    Args:
        png: it, at the generator's resolution.
        ws: its styles.
        record: of the search.
        warnings: of the search.
        fingerprint: of the generator.
    """

    png: bytes
    ws: Tensor
    record: dict[str, Any]
    warnings: tuple[str, ...]
    fingerprint: str


class Studio:
    """All functions of the page; safe between threads.

    Args:
        models: to choose from.
    """

    def __init__(self, models: Models) -> None:
        self.models = models
        self._styles: Kept[tuple[Any, ...], StyleSamples] = Kept(MOST_STYLES)
        self._layouts: Kept[tuple[Any, ...], Layout] = Kept(MOST_STYLES)
        self._pictures: Kept[str, FoundPicture] = Kept(MOST_PICTURES)
        # Networks use all cores by themselves: side by side, two images would take as long, and twice the memory.
        self._drawing, self._searching = threading.Lock(), threading.Lock()
        self._waiting = threading.BoundedSemaphore(MOST_SEARCHES)

    def about(self) -> dict[str, Any]:
        """The models and kinds of drawing that there are."""
        return {
            "models": [{"name": name, "kinds": [*kinds, EXEMPLAR]} for name, kinds in self.models.families().items()]
        }

    def describe(self, family: str, kind: str) -> dict[str, Any]:
        """What the page has to know about a model.

        Args:
            family: name of the model.
            kind: of drawing.

        Raises:
            SisugError: there is none, or it cannot be loaded.
        """
        return self.models.describe(self._reader(family, kind))

    def image(self, wish: Wish, canvas: bytes) -> dict[str, Any]:
        """The image of a canvas, as the page shows it.

        Args:
            wish: what is chosen.
            canvas: a byte a pixel, row by row: class numbers, or levels of gray; empty for an exemplar.

        Raises:
            SisugError: it cannot be made; the text says why.
        """
        synthesizer = self._synthesizer(wish)
        with self._drawing:
            layout, styles, image = self._image(synthesizer, wish, canvas)
        warnings = [_for_page(warning) for warning in (*layout.warnings, *styles.warnings)]
        return {"image": _shown(picture_of_image(image)), "warnings": warnings}

    def tile(self, wish: Wish) -> bytes:
        """A style's own picture, small.

        Args:
            wish: what is chosen.

        Raises:
            SisugError: there is no such style.
        """
        synthesizer = self._synthesizer(wish)
        with self._drawing, torch.inference_mode():
            source = self._style(synthesizer, wish).source
            image = synthesizer.rearranger.pipeline.render(source.features, source.ws).cpu()[0]
        picture = picture_of_image(image)
        if picture.width > TILE:
            picture = picture.resize((TILE, TILE), Image.Resampling.BOX)
        return _png(picture)

    def like(self, wish: Wish) -> dict[str, Any]:
        """What an exemplar looks like.

        Args:
            wish: what is chosen.

        Raises:
            SisugError: there is no such sample.
        """
        synthesizer = self._synthesizer(wish)
        with self._drawing:
            layout = self._exemplar(synthesizer, wish)
        picture = Image.fromarray(layout.shown.permute(1, 2, 0).numpy())
        return {"image": _shown(picture), "warnings": [_for_page(warning) for warning in layout.warnings]}

    def sample(self, wish: Wish) -> bytes:
        """A canvas to start from: what the sample of the style would have been drawn as.

        Args:
            wish: what is chosen.

        Raises:
            ConfigError: nothing finds the classes of this model's samples.
        """
        synthesizer = self._synthesizer(wish)
        with self._drawing, torch.inference_mode():
            source = self._style(synthesizer, replace(wish, mix=None)).source
            images = synthesizer.rearranger.pipeline.render(source.features, source.ws).cpu()
        return self._condition_of(synthesizer, images)

    def upload_photo(self, wish: Wish, content: bytes) -> bytes:
        """A canvas to start from: what a photo would have been drawn as.

        Args:
            wish: what is chosen.
            content: of the file.

        Raises:
            DataError: it cannot be used.
            ConfigError: nothing finds the classes of this model.
        """
        synthesizer = self._synthesizer(wish)
        _, images = self._photo(synthesizer, content)
        return self._condition_of(synthesizer, images)

    def upload_drawing(self, wish: Wish, content: bytes) -> bytes:
        """A canvas with a mask, scribble or line drawing from a file.

        Args:
            wish: what is chosen.
            content: of the file.

        Raises:
            DataError: it cannot be used.
        """
        synthesizer = self._synthesizer(wish)
        assert synthesizer.mapper is not None
        condition, size = synthesizer.mapper.condition, canvas_size(synthesizer)
        labelled = isinstance(condition, LabelCondition)
        picture = picture_of(read_upload(content, exact=labelled), NAME)
        if isinstance(condition, LabelCondition):
            white = condition.blank == WHITE
            mask = mask_of(picture, condition.labels, tolerance=condition.tolerance, white_is_blank=white)
            return nearest(mask, size).astype(np.uint8).tobytes()
        return _gray(condition.from_picture(picture, size))

    def upload_picture(self, wish: Wish, content: bytes) -> dict[str, Any]:
        """Keep a picture, to take its style or its layout; the generator's nearest image is sought.

        Args:
            wish: what is chosen.
            content: of the file.

        Raises:
            DataError: it cannot be used.
            ConfigError: too many visitors wait.
        """
        synthesizer = self._synthesizer(wish)
        png, _ = self._photo(synthesizer, content)
        if not self._waiting.acquire(blocking=False):
            raise ConfigError("your picture has to wait", "others are being looked for", "try again in a minute")
        try:
            with self._searching, Image.open(BytesIO(png)) as picture:
                ws, record, warnings = ws_of(synthesizer.generator, picture, 1.0, synthesizer.device)
        finally:
            self._waiting.release()
        name = secrets.token_urlsafe(16)
        kept = FoundPicture(png, ws, record, tuple(warnings), synthesizer.generator.fingerprint)
        self._pictures.put(name, kept)
        how = "close to" if record["psnr"] >= CLOSE else "only roughly near"
        found = f"The generator comes {how} your picture ({record['psnr']:.0f} dB)."
        return {
            "name": name,
            "image": _url(png, "png"),
            "found": found,
            "warnings": [_for_page(each) for each in warnings],
        }

    def download(self, wish: Wish, canvas: bytes) -> dict[str, bytes]:
        """The image, what was drawn, and a record with the command that makes the same bytes again; by name of file.

        Args:
            wish: what is chosen.
            canvas: see `image`.

        Raises:
            SisugError: it cannot be made.
        """
        reader, synthesizer = self._reader(wish.family, wish.kind), self._synthesizer(wish)
        with self._drawing:
            layout, styles, image = self._image(synthesizer, wish, canvas)
        files: dict[str, bytes] = {}
        options: dict[str, object] = {"mapper": reader.shown}
        if reader.generator is not None:
            options["generator"] = _without_folders(reader.generator)
        if wish.kind != EXEMPLAR:
            files[DRAWING] = self._drawn(synthesizer, canvas)
            layout = replace(layout, name="drawing", record=_file_record(DRAWING, files[DRAWING]))
            options["input"] = DRAWING
        elif isinstance(wish.like, str):
            kept = self._picture(synthesizer, wish.like)
            files[LIKE] = kept.png
            found = _file_record(LIKE, kept.png) | {"psnr": kept.record["psnr"]}
            layout = replace(layout, name="like-picture", record={"exemplar": found})
            options["exemplar"] = LIKE
        else:
            options["exemplar"] = wish.like
        caption = styles.captions[0]
        if isinstance(wish.style, str):
            kept = self._picture(synthesizer, wish.style)
            files[STYLE] = kept.png
            found = _file_record(STYLE, kept.png) | {"psnr": kept.record["psnr"]}
            caption = "style"
            styles = replace(styles, captions=(caption,), record=styles.record | {"style_from": found})
            options["style_from"] = STYLE
        else:
            options["seeds"] = wish.style
        options |= {"truncation": wish.truncation}
        if wish.mix is not None:
            options["style_mix"] = wish.mix
        if synthesizer.generator.resolution > LARGEST:  # the command writes smaller ones else
            options["size"] = synthesizer.generator.resolution
        options |= {"batch_size": BATCH, "device": synthesizer.device.type, "out": "again"}
        name = file_name(layout.name, caption)
        record = synthesizer.record([layout], styles) | {"batch_size": BATCH, "failed": [], "files": [name]}
        record["generator"] |= {"source": _without_folders(record["generator"]["source"])}
        record["mapper"] |= {"file": _without_folders(record["mapper"]["file"])}
        record["warnings"] = [_for_page(warning) for warning in record["warnings"]]
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        record["command"] = shlex.join(["sisug", "generate", *words])
        return {name: _png(picture_of_image(image)), **files, RECORD: (json.dumps(record, indent=1) + "\n").encode()}

    def _reader(self, family: str, kind: str) -> Reader:
        if kind == EXEMPLAR:  # any mapper of the model brings what it needs
            kind = self.models.families().get(family, [""])[0]
        return self.models.reader(family, kind)

    def _synthesizer(self, wish: Wish) -> Synthesizer:
        return self.models.synthesizer(self._reader(wish.family, wish.kind))

    def _image(self, synthesizer: Synthesizer, wish: Wish, canvas: bytes) -> tuple[Layout, StyleSamples, Tensor]:
        styles = self._style(synthesizer, wish)
        if wish.kind == EXEMPLAR:
            layout = self._exemplar(synthesizer, wish)
        else:
            layout = synthesizer.layout(self._values(synthesizer, canvas))
        (image,) = (image for _, _, image in synthesizer.stream([layout], styles))
        return layout, styles, image

    def _style(self, synthesizer: Synthesizer, wish: Wish) -> StyleSamples:
        key = (wish.family, wish.kind, wish.style, wish.truncation, wish.mix)
        return self._styles.find(key, lambda: self._make_style(synthesizer, wish))

    def _make_style(self, synthesizer: Synthesizer, wish: Wish) -> StyleSamples:
        if not isinstance(wish.style, str):
            return synthesizer.styles([wish.style], truncation=wish.truncation, style_mix=wish.mix)
        kept = self._picture(synthesizer, wish.style)
        generator, device = synthesizer.generator, synthesizer.device
        fine = None if wish.mix is None else ws_of_seed(generator, wish.mix, wish.truncation, device)
        record = {"truncation": wish.truncation, "style_mix": wish.mix, "seeds": None, "style_from": kept.record}
        return style_samples(synthesizer.rearranger.pipeline, [kept.ws], ["picture"], record, kept.warnings, fine)

    def _exemplar(self, synthesizer: Synthesizer, wish: Wish) -> Layout:
        key = (wish.family, wish.like, wish.truncation)
        return self._layouts.find(key, lambda: self._make_exemplar(synthesizer, wish))

    def _make_exemplar(self, synthesizer: Synthesizer, wish: Wish) -> Layout:
        if not isinstance(wish.like, str):
            return synthesizer.exemplar(wish.like, wish.truncation)
        kept = self._picture(synthesizer, wish.like)
        pipeline = synthesizer.rearranger.pipeline
        with torch.inference_mode():
            source = pipeline.source(kept.ws)
            shown = to_bytes(pipeline.render(source.features, kept.ws).cpu())[0]
        return Layout("like-picture", source.mask[0], shown, {"exemplar": kept.record}, kept.warnings)

    def _picture(self, synthesizer: Synthesizer, name: str) -> FoundPicture:
        kept = self._pictures.get(name)
        if kept is None:
            raise DataError("your picture is gone", "the page keeps the pictures used last", "give it once more")
        if kept.fingerprint != synthesizer.generator.fingerprint:
            raise DataError(
                "your picture was found for another model", "each generator has styles of its own", "give it once more"
            )
        return kept

    def _values(self, synthesizer: Synthesizer, canvas: bytes) -> np.ndarray:
        size = canvas_size(synthesizer)
        if len(canvas) != size * size:
            raise DataError(
                f"a canvas of {len(canvas)} bytes", f"this model's has {size}x{size} pixels", "load the page again"
            )
        return np.frombuffer(canvas, np.uint8).reshape(size, size)

    def _drawn(self, synthesizer: Synthesizer, canvas: bytes) -> bytes:
        """The canvas as a picture that paint programs, and the command line, read as it is."""
        assert synthesizer.mapper is not None
        picture, condition = Image.fromarray(self._values(synthesizer, canvas)), synthesizer.mapper.condition
        if isinstance(condition, LabelCondition):
            colors = np.zeros((256, 3), np.uint8)
            colors[: condition.labels.num_classes] = condition.labels.palette
            colors[condition.labels.ignore] = condition.blank
            picture.putpalette(colors.tobytes())
        return _png(picture)

    def _photo(self, synthesizer: Synthesizer, content: bytes) -> tuple[bytes, Tensor]:
        size = synthesizer.generator.resolution
        picture = read_upload(content, exact=False)
        if size / MOST_ENLARGED <= picture.width < size and picture.mode in ("L", "RGB", "RGBA"):
            picture = picture.resize((size, size), Image.Resampling.LANCZOS)
        examined = examine_image(picture, size, WHITE)
        if examined.pixels is None:
            remedy = f"give a photo of {size // MOST_ENLARGED}x{size // MOST_ENLARGED} pixels or more"
            raise DataError(f"{NAME} cannot be used", f"{examined.problem}: {examined.detail}", remedy)
        pixels = torch.from_numpy(examined.pixels)
        return _png(Image.fromarray(examined.pixels.transpose(1, 2, 0))), pixels[None].float() / 127.5 - 1

    def _condition_of(self, synthesizer: Synthesizer, images: Tensor) -> bytes:
        """What somebody might have drawn for an image."""
        assert synthesizer.mapper is not None
        condition, size, masks = synthesizer.mapper.condition, canvas_size(synthesizer), None
        with self._drawing, torch.inference_mode():
            if condition.needs_masks:
                judge = self.models.judge(condition.labels)
                if judge is None:
                    raise ConfigError(
                        "this model has no drawings to start from",
                        "nothing finds its classes in a picture",
                        "draw, or give a drawing",
                    )
                masks = judge.segment(images)
            encoded = condition.extract(images, masks, torch.Generator().manual_seed(0))
        if isinstance(condition, LabelCondition):
            return nearest(condition.to_mask(encoded)[0].numpy(), size).astype(np.uint8).tobytes()
        return _gray(F.interpolate(encoded, (size, size), mode="bicubic", align_corners=False)[0])


def zipped(files: dict[str, bytes]) -> bytes:
    """An archive of files, the same bytes for the same files.

    Args:
        files: content by name.
    """
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0)), content)
    return packed.getvalue()


def _gray(encoded: Tensor) -> bytes:
    """Lines in [0, 1] as dark ink on white paper."""
    return ((1 - encoded[0].clamp(0, 1)) * 255).round().to(torch.uint8).numpy().tobytes()


def _png(picture: Image.Image) -> bytes:
    written = BytesIO()
    picture.save(written, format="PNG")
    return written.getvalue()


def _shown(picture: Image.Image) -> str:
    if picture.width <= LOSSLESS:
        return _url(_png(picture), "png")
    written = BytesIO()
    picture.save(written, format="JPEG", quality=92, subsampling=0)
    return _url(written.getvalue(), "jpeg")


def _url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _file_record(name: str, content: bytes) -> dict[str, Any]:
    return {"file": name, "sha256": hashlib.sha256(content).hexdigest()}


def _without_folders(source: Any) -> Any:
    """A file's name without the folders of this machine, which are nobody's business."""
    if isinstance(source, Mapping):
        return {key: _without_folders(value) for key, value in source.items()}
    return source.replace("\\", "/").rsplit("/", 1)[-1] if isinstance(source, str) else source


def _for_page(warning: str) -> str:
    """A warning without the name that drawings in memory have in messages."""
    text = warning.removeprefix("input0: ").removeprefix("picture: ")
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
