"""`sisug generate` (inference): images of a drawing, or of all drawings in a folder, with a sheet and a record."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sisug.common.folders import check_writable
from sisug.errors import ConfigError, DataError, check_local, check_range
from sisug.labels.image_folders import list_images
from sisug.synthesis.options import BATCH, DEFAULT_SEEDS, LARGEST, check_truncation, parse_seeds
from sisug.synthesis.output_folder import RECORD, SHEET, check_names, check_unused, write_record


def generate(
    mapper: str | None = None,
    input: Path | None = None,
    out: Path | None = None,
    seeds: str | None = None,
    truncation: float = 0.7,
    style_from: str | None = None,
    style_mix: int | None = None,
    exemplar: str | None = None,
    rearranger: str | None = None,
    generator: str | dict[str, Any] | None = None,
    condition: str | dict[str, Any] | None = None,
    size: int = LARGEST,
    batch_size: int = BATCH,
    device: str = "auto",
    overwrite: bool = False,
) -> str:
    """Images of every drawing in every style: one PNG each, a contact sheet and a JSON record to make them again.

    Args:
        mapper: checkpoint of `make train-mapper`, file of `sisug mapper export`, or the name of one that ships.
        input: a drawing, or a folder, of which all pictures are taken.
        out: folder for the results, made if need be.
        seeds: whole numbers that give the styles, like 0-7 or 1,5,9-12; 0-7 if left out.
        truncation: 0 to 1; smaller for styles that vary less and fail less.
        style_from: one style for all, in place of seeds: a seed, or a picture's file.
        style_mix: seed of another sample that gives the fine layers.
        exemplar: seed of a sample, or a picture's file, whose structure is taken in place of a drawing.
        rearranger: checkpoint, file, or name of one that ships; for --exemplar without a mapper.
        generator: preset, file or class in place of the generator that the mapper names: for one that has been moved,
            or whose class is no part of sisug.
        condition: class of the mapper's condition, where it is no part of sisug.
        size: height and width that larger images are made smaller to, pixels; 1024 writes faces as they are.
        batch_size: images at a time, 1 or more.
        device: auto for a GPU where there is one, cpu, or cuda:N.
        overwrite: replace the images of another command in the folder.

    Returns:
        A line that says what was written.

    Raises:
        SisugError: an option cannot be used, or a file; with several drawings, after the others were finished.
    """
    out = _check_options(mapper, input, out, exemplar, rearranger, seeds, style_from)
    like = None if exemplar is None else _seed_or_file(exemplar)
    style = None if style_from is None else _seed_or_file(style_from)
    chosen = None
    if style is None:
        chosen = list(DEFAULT_SEEDS) if seeds is None else parse_seeds(seeds)
    check_truncation(truncation)
    check_range(batch_size=batch_size, size=size, above=0)
    options = {
        "mapper": mapper, "rearranger": rearranger, "generator": generator, "condition": condition, "input": input,
        "exemplar": exemplar,
        "seeds": seeds, "truncation": truncation, "style_from": style_from, "style_mix": style_mix,
        "size": None if size == LARGEST else size, "batch_size": batch_size, "device": device, "out": out,
    }  # fmt: skip
    command = shlex.join(["sisug", "generate", *_as_options(options)])
    check_writable(out, "folder", "choose another --out")
    check_unused(out, command, overwrite)
    drawings = [] if input is None else _drawings(input, out)
    # Mistakes are told before torch is imported, which takes seconds.
    from sisug.synthesis.layouts import distinct
    from sisug.synthesis.result import file_name, write_stream
    from sisug.synthesis.styles import caption_of
    from sisug.synthesis.synthesizer import Synthesizer

    if mapper is not None:
        synthesizer = Synthesizer.load(mapper, generator, device, condition)
    else:
        assert rearranger is not None
        synthesizer = Synthesizer.from_rearranger(rearranger, generator, device)
    layouts, failed = [], []
    for path in drawings:
        try:
            layouts.append(synthesizer.layout(path))
        except DataError as error:
            failed.append((path, error))
    if like is not None:
        layouts = [synthesizer.exemplar(like, truncation)]
    if not layouts:
        raise _all_failed(input, failed)
    layouts = distinct(layouts)
    captions = [caption_of(each) for each in (chosen or [] if style is None else [style])]
    names = [file_name(layout.name, caption) for layout in layouts for caption in captions]
    check_names(out, names, overwrite)
    styles = synthesizer.styles(chosen, truncation=truncation, style_from=style, style_mix=style_mix)
    write_stream(synthesizer.stream(layouts, styles, batch_size, size), layouts, styles.captions, out, SHEET)
    record = synthesizer.record(layouts, styles) | {
        "batch_size": batch_size,
        **({"size": size} if size < synthesizer.generator.resolution else {}),
        "failed": [
            {"file": str(path), "state": error.state, "cause": error.cause, "remedy": error.remedy}
            for path, error in failed
        ],
        "files": [*names, SHEET],
        "command": command,
    }
    write_record(out, record)
    if failed:
        raise _some_failed(failed, len(drawings), out)
    return f"{out}: {len(names)} PNG, all of them in {SHEET}; {RECORD} says how to make them again"


def _check_options(
    mapper: str | None,
    input: Path | None,
    out: Path | None,
    exemplar: str | None,
    rearranger: str | None,
    seeds: str | None,
    style_from: str | None,
) -> Path:
    """Refuse what is missing or contradicts itself; the folder for the results."""

    def refuse(state: str, cause: str, remedy: str) -> ConfigError:
        return ConfigError(state, cause, f"{remedy}; `sisug generate --help` lists all options")

    if out is None:
        raise refuse("--out is missing", "images need a folder to lie in", "add --out FOLDER")
    if mapper is not None and rearranger is not None:
        raise refuse("--mapper and --rearranger", "a mapper brings its own rearranger", "leave out --rearranger")
    if exemplar is not None and input is not None:
        raise refuse("--input and --exemplar", "both say the layout of the images", "leave out one of them")
    if exemplar is not None and mapper is None and rearranger is None:
        raise refuse(
            "--rearranger is missing",
            "it rearranges samples as the exemplar",
            "add --rearranger CHECKPOINT (or --mapper)",
        )
    if exemplar is None and input is None:
        raise refuse("--input is missing", "a drawing gives the layout", "add --input FILE_OR_FOLDER, or --exemplar")
    if exemplar is None and mapper is None:
        raise refuse("--mapper is missing", "it reads drawings", "add --mapper CHECKPOINT")
    if seeds is not None and style_from is not None:
        raise refuse("--seeds and --style_from", "both say the style of the images", "leave out one of them")
    return out


def _as_options(options: dict[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if value is not None:
            yield from (f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value))


def _seed_or_file(text: str) -> int | Path:
    """A seed where it is a whole number, else a file; a file named like a number is reached as ./7.

    Raises:
        DataError: it is neither.
    """
    if re.fullmatch(r"\d+", text, flags=re.ASCII):
        return int(text)
    check_local(text, "the picture")
    if not Path(text).is_file():
        raise DataError(f"{text!r} is neither a seed nor a picture", "there is no such file", "check the path")
    return Path(text)


def _drawings(given: Path, out: Path) -> list[Path]:
    """The files to read.

    Raises:
        DataError: there is none.
        ConfigError: they lie where the images are to be written.
    """
    check_local(given, "--input")
    if given.is_file():
        return [given]
    if not given.exists():
        raise DataError(f"the input {given} does not exist", "there is no file or folder there", "check the path")
    files = [given / file.name for file in list_images(given)[0] if "/" not in file.name]
    if not files:
        raise DataError(
            f"the folder {given} holds no pictures", "all that it has lie in folders below it", "give one of those"
        )
    if out.resolve() == given.resolve():
        raise ConfigError(
            f"--out {out} is the folder of the drawings",
            "the same command would take its images for drawings the next time",
            "choose another --out",
        )
    return files


def _all_failed(given: Path | None, failed: list[tuple[Path, DataError]]) -> DataError:
    if len(failed) == 1:
        return failed[0][1]
    return DataError(
        f"none of the {len(failed)} pictures in {given} can be used", _listed(failed), "correct them and try again"
    )


def _some_failed(failed: list[tuple[Path, DataError]], total: int, out: Path) -> DataError:
    return DataError(
        f"{len(failed)} of {total} drawings gave no images; those of the others are in {out}",
        _listed(failed),
        "correct the files named and give the same command again",
    )


def _listed(failed: list[tuple[Path, DataError]]) -> str:
    return "".join(f"\n- {error}" for _, error in failed)
