"""Lists of names, `splits/test.txt` and the like, that cannot let test images into training (data of stage 2)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from sisug.errors import DataError

SPLITS = "splits"
"""Folder of the lists of names: `splits/test.txt` and the like, one name a line."""

Split = Literal["train", "val", "test"]


def read_names(path: str | Path) -> list[str]:
    """The names in a list: one a line, empty lines left out.

    A mark of the byte order at the beginning and the line ends of any system are left out; bytes that are no UTF-8 are
    taken as they are, as in names of files.

    Args:
        path: text file.

    Raises:
        DataError: it is missing, unreadable or empty.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"the list of names {path} cannot be read", str(error), "correct the path") from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content:
        raise DataError(
            f"the list of names {path} cannot be read", "it is UTF-16, or no text at all", "save it as UTF-8"
        )
    lines = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").replace("\r", "\n").split("\n")
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"the list of names {path} is empty", "nothing would be read", "write one name a line")
    return names


def check_known(
    listed: Sequence[str], known: Collection[str], shown: Sequence[str], what: str, folder: str | Path
) -> None:
    """Refuse a list that names what is not there, or one thing twice.

    Args:
        listed: the names.
        known: all that there are.
        shown: some of those, for the message.
        what: the list, for the message.
        folder: of the images, for the message.

    Raises:
        DataError: names the first of them.
    """
    there = set(known)
    unknown = [name for name in listed if name not in there]
    if unknown:
        suffixed = [name for name in unknown if name.rpartition(".")[0] in there]
        raise DataError(
            f"{len(unknown)} of {len(listed)} listed names are not in {folder} ({what}): {', '.join(unknown[:5])}",
            f"it has {len(there)} images with masks, as {', '.join(shown[:3])}",
            ("leave out suffixes: " if suffixed else "")
            + "write names as they are there: paths below the images' folder, without suffix",
        )
    if len(set(listed)) != len(listed):
        raise DataError(
            f"{what}, a list of {len(listed)} names, names some twice", "images count once", "remove the repeats"
        )


def check_disjoint(lists: Mapping[Any, Sequence[str]], folder: str | Path) -> None:
    """Refuse lists that share names.

    Args:
        lists: names of the images of train, val and test, or some of these.
        folder: of the images, for the message.

    Raises:
        DataError: names what two lists share.
    """
    names = list(lists)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            both = sorted(set(lists[first]) & set(lists[second]))
            if both:
                raise DataError(
                    f"{len(both)} names are both in {SPLITS}/{first}.txt and in {SPLITS}/{second}.txt of {folder}: "
                    f"{', '.join(both[:5])}",
                    "scores on images that were trained on would mean nothing",
                    "remove them from one of the lists",
                )


def divided(
    names: Sequence[str], lists: Mapping[Split, Sequence[str]], val_share: float, test_share: float
) -> dict[Split, list[str]]:
    """Which images are for training, validation and test.

    What a list names belongs to that split alone. Where there is a list for training, what no list names is left out.
    Otherwise it is divided by a hash of each name among the splits without a list, so that further images move none of
    the others.

    Args:
        names: all images.
        lists: of the folder; empty for none.
        val_share: share of images for validation where it has no list, 0 to 1.
        test_share: the same for test; with any list, only what a list names is for test.
    """
    found: dict[Split, list[str]] = {split: list(lists.get(split, ())) for split in get_args(Split)}
    if "train" in lists:
        return found
    listed = {name for part in lists.values() for name in part}
    val = 0.0 if "val" in lists else val_share
    test = 0.0 if lists else test_share
    for name in names:
        if name not in listed:
            place = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]) / 2**64
            found["val" if place < val else "test" if place < val + test else "train"].append(name)
    return found
