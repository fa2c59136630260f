"""Small files of trained networks (rearranger, mapper, judge): safetensors in half precision and a JSON record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sisug.common.atomic_file import atomic_write
from sisug.errors import CheckpointError, ConfigError, check_local


def write_network_file(
    path: Path,
    format_name: str,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    *,
    exact: tuple[str, ...] = (),
) -> None:
    """Write tensors and their record, each under its name only when it is complete.

    Args:
        path: the ``.safetensors`` file; the record lies beside it as ``.json``.
        format_name: what the file is, and of which version.
        tensors: to store; floating-point ones in float16.
        record: what the reader needs to build the networks, and what people want to know; JSON values.
        exact: beginnings of the names that are stored as they are.

    Raises:
        ConfigError: another suffix, or numbers that float16 cannot hold.
    """
    if path.suffix != ".safetensors":
        raise ConfigError(f"the file {path}", "trained networks are stored as safetensors", "name it .safetensors")
    small = {
        name: (value.half() if value.is_floating_point() and not name.startswith(exact) else value)
        .detach()
        .cpu()
        .contiguous()
        for name, value in tensors.items()
    }
    lost = [name for name, value in small.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if lost:
        raise ConfigError(
            f"{path.name} cannot be written", f"numbers above 65,504, or none, in {', '.join(lost[:3])}", "train again"
        )
    data = save(small)
    content = {"format": format_name, **record, "sha256": hashlib.sha256(data).hexdigest()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(data)
    with atomic_write(path.with_suffix(".json")) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def read_network_file(
    path: Path, format_name: str, needed: Sequence[str], what: str, remedy: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors in float32 and their record.

    Args:
        path: the ``.safetensors`` file.
        format_name: what it must be.
        needed: entries that the record must have.
        what: it should hold, for messages.
        remedy: for messages.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind.
        ConfigError: an address.
    """

    def unusable(cause: str) -> CheckpointError:
        return CheckpointError(f"{what} {path} cannot be used", cause, remedy)

    check_local(path, what)
    sidecar = path.with_suffix(".json")
    for each in (path, sidecar):
        if not each.is_file():
            raise unusable(f"there is no file {each}")
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise unusable(f"its record {sidecar.name} cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("format") != format_name:
        raise unusable(f"{sidecar.name} is no record of a {format_name}")
    missing = [name for name in (*needed, "sha256") if name not in record]
    if missing:
        raise unusable(f"its record {sidecar.name} has no {', '.join(missing)}")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise unusable("its checksum is not the one in its record: it is damaged, or of another run")
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise unusable(f"it is damaged: {error}") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}, record
