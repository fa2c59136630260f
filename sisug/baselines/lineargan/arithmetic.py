"""Switches under which LinearGAN trains and searches (baseline of the few-shot protocol): numbers that repeat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def repeatable_gradients(device: torch.device) -> Iterator[None]:
    """Gradients on, in float32, by algorithms that give the same each time, whatever the caller switched.

    Args:
        device: where the computing is done.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
