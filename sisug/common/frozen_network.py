"""A holder that lets a score carry a network without making it part of the model that is trained (evaluation)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn


class FrozenNetwork(nn.Module):
    """Carries a scoring network through device moves, and through nothing else.

    The network appears neither in `state_dict()` nor in `parameters()`, `.train()` and changes of precision do not
    reach it, and mixed precision is switched off inside it: the same images give the same score in every run.

    Args:
        network: any module; it is frozen and put in eval in place, and stays so.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # In tuples, where nn.Module does not look for submodules.
        self._held = (network.requires_grad_(False).eval(),)
        self._parts = tuple(network.modules())

    @property
    def network(self) -> nn.Module:
        return self._held[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenNetwork:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # untyped in torch
        anchor = next(chain(self.network.parameters(), self.network.buffers()), None)
        if anchor is not None:
            self.network.to(fn(anchor.new_empty(0)).device)
        return self

    def forward(self, *inputs: Tensor) -> Tensor:
        if any(part.training for part in self._parts):  # whoever else holds it may have called train()
            self.network.eval()
        with torch.no_grad(), torch.autocast(inputs[0].device.type, enabled=False):
            return self.network(*inputs)
