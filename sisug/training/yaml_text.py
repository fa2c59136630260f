"""Configurations as YAML in which text stays text (every stage): `1e5` as a name is no number, to any reader."""

from __future__ import annotations

import re
from typing import Any

import yaml
from jsonargparse import set_dumper

_LIKE_A_NUMBER = re.compile(r"[-+]?\.?(\d|inf$|nan$)", re.IGNORECASE)
"""Readers differ: PyYAML takes 1e5 for text, OmegaConf and YAML 1.2 for a number, 12e34567 (a commit) for infinity."""


class _Quoting(yaml.SafeDumper):  # type: ignore[misc]  # untyped in types-PyYAML
    """PyYAML's writer, with quotes around every text that begins as a number does."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if _LIKE_A_NUMBER.match(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Quoting.add_representer(str, _text)


def dump_yaml(content: Any) -> str:
    """YAML text of plain data.

    Args:
        content: mappings, lists, texts, numbers.
    """
    return yaml.dump(content, Dumper=_Quoting, default_flow_style=False, allow_unicode=True, sort_keys=False)


def keep_text() -> None:
    """Let jsonargparse write YAML so; it reads a configuration again after `${...}` in it are resolved."""
    set_dumper("yaml", dump_yaml)
