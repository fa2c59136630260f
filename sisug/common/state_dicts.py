"""Named tensors compared, cut and checked before a network takes them (every stage)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, side: str = "expected") -> list[str]:
    """What keeps tensors from being copied as a whole: those that are missing, left over or of another shape.

    Args:
        expected: tensors of the network that is to take them.
        found: tensors of the file.
        side: what to call the former in messages.
    """
    problems = [f"missing {name}" for name in expected.keys() - found.keys()]
    problems += [f"unknown {name}" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, {side} {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    return problems


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors under a prefix, named without it."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def listed(problems: Sequence[str], most: int = 4) -> str:
    """Differences in one line: the first ones, and how many more there are."""
    rest = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(sorted(problems)[:most]) + rest


def finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite: their sum tells in one pass, but for numbers whose sum overflows."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
