"""What every evaluation protocol is: settings that name all that decides its numbers, and a run that resumes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from sisug.evaluation.report import Report
from sisug.evaluation.workspace import Workspace


class Protocol(ABC):
    """An evaluation; its subclasses are frozen dataclasses whose fields are its settings.

    Attributes:
        name: on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What decides the numbers beside the settings: fingerprints of every file that they name.

        Raises:
            SisugError: a file is missing or unusable; nothing was measured yet.
        """

    @abstractmethod
    def run(self, work: Workspace, device: torch.device) -> Report:
        """Measure what is not measured yet, and say all of it.

        Args:
            work: keeps the parts.
            device: to compute on.

        Raises:
            SisugError: something cannot be measured; what was measured stays.
        """
