"""Classes that a configuration names by class_path and init_args (every stage), and which of them a file may name.

What is named stays plain data until it is built, so that hyperparameters, checkpoints and sidecars can hold it.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sisug.errors import CheckpointError, ConfigError

T = TypeVar("T")

CLASS_LIKE = re.compile(r"(?:[A-Za-z_]\w*\.)+[A-Z]\w*")
"""A class's full name, such as package.module.Name; files are rarely called so, and callers look for a file first."""


def class_spec(named: str | Mapping[str, Any], what: str) -> dict[str, Any] | None:
    """The class that a value names, as plain data: `class_path`, and `init_args` where some were given.

    >>> class_spec("package.module.Name", "generator")
    {'class_path': 'package.module.Name'}
    >>> class_spec({"class_path": "package.module.Name", "init_args": {"width": 8}}, "generator")
    {'class_path': 'package.module.Name', 'init_args': {'width': 8}}

    Args:
        named: a class's full name; or a mapping with `class_path`, `init_args`, and single arguments beside them, as
            jsonargparse leaves `--x.init_args.width 8`, which win over those of `init_args`.
        what: is named, for messages.

    Returns:
        None for a text that is no class's name.

    Raises:
        ConfigError: a mapping without a class, or arguments that are no plain data.
    """
    if isinstance(named, str):
        return {"class_path": named} if CLASS_LIKE.fullmatch(named) else None
    class_path, arguments = named.get("class_path"), named.get("init_args")
    if not isinstance(class_path, str) or not isinstance(arguments, Mapping | None):
        raise ConfigError(
            f"{what} {dict(named)}",
            "a class is named by class_path, a text, and init_args, its arguments by name",
            'write {"class_path": "package.module.Name", "init_args": {...}}; on the command line '
            "--X.class_path package.module.Name --X.init_args.NAME VALUE",
        )
    single = {name: value for name, value in named.items() if name not in ("class_path", "init_args")}
    spec: dict[str, Any] = {"class_path": class_path}
    if arguments is not None or single:
        spec["init_args"] = _plain({**(arguments or {}), **single}, f"{what} {class_path}")
    return spec


def build(spec: Mapping[str, Any], base: type[T], what: str, *first: Any) -> T:
    """An object of the class that a specification names.

    Args:
        spec: of `class_spec`; its class is imported, so it must come from the user.
        base: class that it must derive from.
        what: to call it in messages.
        first: positional arguments before those of `init_args`.

    Raises:
        ConfigError: the class cannot be imported, is none of that kind, or takes other arguments.
    """
    kind = find_class(spec["class_path"], base, what)
    arguments = spec.get("init_args") or {}
    try:
        inspect.signature(kind).bind(*first, **arguments)
    except TypeError as error:
        known = ", ".join(list(inspect.signature(kind).parameters)[len(first) :])
        raise ConfigError(
            f"{what} {spec['class_path']} with init_args {arguments}",
            str(error),
            f"its arguments are {known}" if known else "it takes none: leave init_args out",
        ) from error
    return kind(*first, **arguments)


def find_class(class_path: str, base: type[T], what: str) -> type[T]:
    """The class of that full name, imported.

    Args:
        class_path: module and name, package.module.Name.
        base: class that it must derive from.
        what: to call it in messages.

    Raises:
        ConfigError: it cannot be imported, or is none of that kind.
    """
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{what} {class_path!r} cannot be imported",
            str(error),
            "correct class_path; a module of your own must be installed, or its folder in PYTHONPATH",
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            f"{what} {class_path!r}",
            f"it is no subclass of {base.__name__}",
            f"derive it from {base.__module__}.{base.__name__}",
        )
    return found


def is_own(class_path: object) -> bool:
    """Whether a class's full name lies in sisug, whose classes a file may name."""
    return isinstance(class_path, str) and class_path.split(".")[0] == "sisug"


def spec_of_file(
    recorded: Mapping[str, Any], given: Mapping[str, Any] | None, path: Path, what: str, option: str
) -> dict[str, Any]:
    """The class to build where a file names one: sisug's own, or the one that the user names too.

    Args:
        recorded: the file's `class_path` and `init_args`.
        given: the user's, of `class_spec`; without init_args it takes the file's, where both name the same class.
        path: the file.
        what: to call it in messages.
        option: by which the user gives one.

    Raises:
        CheckpointError: nothing is given, and the file names foreign code, or does not say how to build it.
    """
    if given is not None:
        same = given["class_path"] == recorded.get("class_path")
        return {"init_args": recorded.get("init_args") if same else None} | dict(given)
    spec = {"class_path": recorded.get("class_path"), "init_args": recorded.get("init_args")}
    arguments = spec["init_args"]
    if not is_own(spec["class_path"]):
        raise CheckpointError(
            f"{path} names the {what} {str(spec['class_path'])[:200]!r}",
            "that class is no part of sisug, and no file may say which code runs here",
            f"give it yourself with the option {option}, if you know it: "
            f"class_path, and init_args (the file has {str(arguments)[:200]})",
        )
    if not isinstance(arguments, Mapping):
        raise CheckpointError(
            f"{path} names the {what} {str(spec['class_path'])[:200]!r}",
            "it was made in Python, and the file does not say how",
            f"give it with the option {option}",
        )
    return spec


def foreign_classes(values: Any) -> set[str]:
    """Full names of all classes outside of sisug that settings name, wherever in them.

    Args:
        values: hyperparameters or configuration; plain data.
    """
    found: set[str] = set()
    if isinstance(values, Mapping):
        for name, value in values.items():
            names_class = name in ("class_path", "_class_path")
            may_name_class = name in ("generator", "condition") and CLASS_LIKE.fullmatch(str(value))
            if isinstance(value, str) and (names_class or may_name_class):
                found.add(value)
            else:
                found |= foreign_classes(value)
    elif isinstance(values, list | tuple):
        found = set().union(*map(foreign_classes, values))
    return {name for name in found if not is_own(name)}


def check_stored_classes(stored: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a checkpoint whose hyperparameters name foreign classes.

    Args:
        stored: the checkpoint's hyperparameters that are to be taken.
        path: the checkpoint.

    Raises:
        CheckpointError: it names one.
    """
    foreign = sorted(foreign_classes(stored))
    if foreign:
        raise CheckpointError(
            f"the checkpoint {path} names the class {foreign[0][:200]!r}",
            "that class is no part of sisug, and no file may say which code runs here",
            "give it yourself, if you know it, in the call that loads the checkpoint",
        )


NAMING_OPTION = re.compile(
    r"--(?P<option>(?:[\w-]+\.)*(?:generator|condition))(?:\.(?P<part>[\w.]+))?(?:=(?P<value>.*))?", re.DOTALL
)


def join_class_options(arguments: Sequence[str]) -> list[str]:
    """A command line in which what names a generator's or a condition's class is one option.

    jsonargparse takes apart plain data no deeper than one name.

    >>> join_class_options(["--model.generator", "a.Net", "--model.generator.init_args.width", "8", "--seed", "1"])
    ['--model.generator', '{"class_path": "a.Net", "init_args": {"width": 8}}', '--seed', '1']

    Args:
        arguments: those of the form `--X VALUE`, `--X.class_path VALUE`, `--X.init_args VALUE` and
            `--X.init_args.NAME VALUE` are joined, where X ends in generator or condition; others stay as they are, and
            so does an X without arguments or without a class.
    """
    import yaml

    rest: list[str] = []
    found: dict[str, dict[str, str]] = {}
    raw: dict[str, list[str]] = {}
    position: dict[str, int] = {}
    todo = list(arguments)
    while todo:
        argument = todo.pop(0)
        match = NAMING_OPTION.fullmatch(argument)
        part = match["part"] or "class_path" if match else ""
        if not match or not (part in ("class_path", "init_args") or part.startswith("init_args.")):
            rest.append(argument)
            continue
        given = [argument] if match["value"] is not None or not todo else [argument, todo.pop(0)]
        value = match["value"] if match["value"] is not None else given[-1]
        option = match["option"]
        position.setdefault(option, len(rest))
        found.setdefault(option, {})[part] = value
        raw.setdefault(option, []).extend(given)
    for option in sorted(position, key=lambda each: -position[each]):
        parts = found[option]
        joined = raw[option]
        if "class_path" in parts and len(parts) > 1:
            values = yaml.safe_load(parts.get("init_args", "{}"))
            values |= {name[10:]: yaml.safe_load(text) for name, text in parts.items() if name[:10] == "init_args."}
            joined = [f"--{option}", json.dumps({"class_path": parts["class_path"], "init_args": values})]
        rest[position[option] : position[option]] = joined
    return rest


def named_files(arguments: Sequence[str]) -> dict[str, str]:
    """Options that name a generator's or a condition's file, with the name.

    jsonargparse takes what a file of text holds for the value: a file must never name a class.

    Args:
        arguments: of a command line.
    """
    files: dict[str, str] = {}
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        match = NAMING_OPTION.fullmatch(argument)
        value = following if match is None or match["value"] is None else match["value"]
        if match and match["part"] in (None, "class_path") and Path(value).is_file():
            files[match["option"]] = value
    return files


def _plain(value: Any, where: str) -> Any:
    """Data as YAML and JSON have it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(each, where) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, where) for each in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ConfigError(
        f"{where}: an argument of type {type(value).__name__}",
        "checkpoints store init_args, as numbers, texts, lists and mappings",
        "give plain data, or build the object in Python and give that",
    )
