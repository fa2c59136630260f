"""W&B's sweep files (all stages): read, checked by W&B's own schema, and turned into its agent's command."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sisug.errors import ConfigError, check_local
from sisug.sweeps.search import violations

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
"""What W&B's agent runs where the file has no `command`."""


@dataclass(frozen=True)
class SweepFile:
    """A sweep file that W&B accepts too.

    Args:
        path: the file.
        config: its content.
    """

    path: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """What the sweep is called."""
        return str(self.config.get("name", self.path.stem))

    @property
    def metric(self) -> str:
        """Name under which runs log what the sweep is about."""
        return str(self.config["metric"]["name"])

    @property
    def maximizes(self) -> bool:
        """Whether more of the metric is better."""
        return bool(self.config["metric"].get("goal", "minimize") == "maximize")

    def command(self, values: Mapping[str, Any]) -> list[str]:
        """The command of one run, as W&B's agent builds it, but for the interpreter, which is this one.

        Args:
            values: of the parameters.

        Raises:
            ConfigError: the file's command uses a macro that is not known here.
        """
        flags = [f"{name}={value}" for name, value in values.items()]
        macros = {
            "env": ["/usr/bin/env"],
            "interpreter": [sys.executable],
            "program": [str(self.config["program"])],
            "args": ["--" + flag for flag in flags],
            "args_no_hyphens": flags,
        }
        parts: list[str] = []
        for part in map(str, self.config.get("command", DEFAULT_COMMAND)):
            if not (part.startswith("${") and part.endswith("}")):
                parts.append(part)
            elif part[2:-1] in macros:
                parts += macros[part[2:-1]]
            else:
                raise ConfigError(
                    f"{self.path} has {part} in its command",
                    f"sisug sweep knows {', '.join('${' + name + '}' for name in macros)}",
                    "use ${args}, whose --name=value sisug reads, or start the sweep with wandb agent",
                )
        return parts


def read_sweep(path: Path) -> SweepFile:
    """Read a sweep file, and refuse what W&B would refuse.

    Args:
        path: YAML.

    Raises:
        ConfigError: an address, no such file, or not a sweep file that can be run.
    """
    check_local(path, "the sweep file")
    if not path.is_file():
        raise ConfigError(f"the sweep file {path} does not exist", "there is no such file", "see experiments/sweeps/")
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read", f"it is not YAML: {error}", "correct the file") from error
    found = violations(config) if isinstance(config, dict) else ["it is not a list of names and values"]
    if isinstance(config, dict):
        found += [f"{name} is missing" for name in ("program", "metric", "parameters") if name not in config]
        parameters = config.get("parameters")
        nested = parameters.values() if isinstance(parameters, dict) else ()
        if any(isinstance(each, dict) and "parameters" in each for each in nested):
            found.append("parameters within a parameter reach no command line; write model.init_args.NAME")
    if found:
        raise ConfigError(
            f"{path} is no sweep file", "W&B's schema says: " + "; ".join(found), "correct it; see experiments/sweeps/"
        )
    return SweepFile(path, config)
