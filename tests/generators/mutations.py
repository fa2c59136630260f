"""Mutates valid generator files and says what loading made of them (generators): run as a process of its own, so that
it is fast and cannot hang the tests.

A mutated file must be refused by an error of ours, or give what its bytes say: the unmutated weights but for the tensor
that was hit, and none but them where the container has a checksum.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TESTS = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))

from generators import checkpoint_files as files  # noqa: E402

SECONDS = 3.0
"""Processor time that one file may take: generous, as a missing mean style is computed from 10,000 samples."""

FAMILIES = (
    "ada-2",
    "ada-3",
    "ada-4-numpy2",
    "stylegan3",
    "rosinality-trained",
    "rosinality-legacy",
    "psp",
    "tensorflow-2",
    "tensorflow-4",
    "genforce",
    "genforce-legacy",
    "torch-nvidia",
    "safetensors",
    "native",
)
CHECKED = {"rosinality-trained", "psp", "genforce", "torch-nvidia", "native"}
"""Containers with a checksum of the weights: a zip of torch, and sisug's own with its sidecar."""

OPTIONAL = ("noise_const", "resample_filter", "w_avg", "noise_strength")
"""What may be missing, if it is said."""


@dataclass
class Outcome:
    """What became of the mutations of one family."""

    family: str
    refused: int = 0
    unchanged: int = 0
    changed: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Loaded:
    """A generator as it was read."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    notes: tuple[str, ...]


def load(path: Path) -> Loaded:
    """Read a generator, and make its network."""
    from sisug.generators.loading import network_of, source_of

    source = source_of(path, None, discriminator=False)
    network = network_of(source, path)
    assert network.state_dict().keys() == source.generator.keys()
    return Loaded(source.generator, source.settings, source.notes)


def judged(outcome: Outcome, path: Path, whole: Loaded, what: str, most: int, *, must_refuse: bool = False) -> None:
    """Load a mutated file and take note of what it came to.

    Args:
        outcome: of the family.
        path: the file.
        whole: the unmutated generator.
        what: was done to the file.
        most: tensors that may differ.
        must_refuse: no load is right.
    """
    from sisug.errors import CheckpointError
    from sisug.generators import load_discriminator

    begun = time.process_time()
    try:
        found = load(path)
    except CheckpointError:
        outcome.refused += 1
    except Exception as error:
        outcome.problems.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
    else:
        said = found.notes != whole.notes
        different = [
            name
            for name, value in whole.tensors.items()
            if name not in found.tensors or not torch.equal(value, found.tensors[name])
        ]
        if said:
            different = [name for name in different if not name.endswith(OPTIONAL)]
        if must_refuse:
            outcome.problems.append(f"{what}: loaded")
        elif found.tensors.keys() != whole.tensors.keys() or len(different) > most:
            outcome.problems.append(f"{what}: loaded, but {different[:3]} and more differ ({len(different)})")
        elif different or said or found.settings != whole.settings:
            outcome.changed += 1
        else:
            outcome.unchanged += 1
    seconds = time.process_time() - begun
    if seconds > SECONDS:
        outcome.problems.append(f"{what}: {seconds:.1f} s")
    try:
        load_discriminator(path)
    except CheckpointError:
        pass
    except Exception as error:
        outcome.problems.append(f"{what}, discriminator: {type(error).__name__}: {str(error)[:200]}")


# --- bytes -----------------------------------------------------------------------------------------------------------


def bytes_mutated(raw: bytes, draw: random.Random, count: int) -> Iterator[tuple[str, bytes, bool]]:
    """Files with a bit turned over, or cut short: what was done, the bytes, and whether no load would be right."""
    marked = [i for i in range(len(raw) - 1) if raw[i] in b"qhXcBC\x8c\x93R(tu}]\x85\x86\x87JKM\x94"]
    for number in range(count):
        if number % 4 == 3:
            length = draw.randrange(len(raw))
            yield f"cut at {length}", raw[:length], True
            continue
        # Half of the bits near opcodes, where the structure is.
        at = draw.randrange(len(raw)) if number % 2 else draw.choice(marked) + draw.randrange(2)
        bit = draw.randrange(8)
        mutated = bytearray(raw)
        mutated[at] ^= 1 << bit
        yield f"bit {bit} of byte {at}", bytes(mutated), False


# --- names and types -------------------------------------------------------------------------------------------------

Entries = MutableMapping[str, Any]


def contents(family: str, model: files.Model) -> tuple[Any, list[Entries], Callable[[Path, Any], object]]:
    """What is written, the dicts of tensors of the averaged generator within it, and how to write it."""
    g = model.generator
    if family.startswith(("ada", "stylegan3")):
        content = files.nvidia_content(model, files.STYLEGAN3 if family == "stylegan3" else files.ADA)
        found: list[Entries] = []

        def collect(module: files.Call) -> None:
            state = module.arguments[0]["state"]
            found.extend(part for part in (state["_parameters"], state["_buffers"]) if part)
            for inner in state["_modules"].values():
                collect(inner)

        collect(content["G_ema"])
        return content, found, files.write_pickle
    if family.startswith("tensorflow"):
        network = files.tensorflow_generator(model)
        parts = [network, *network.state["components"].values()]
        tables = [dict(part.state["variables"]) for part in parts]

        def write(path: Path, content: Any) -> None:
            for part, table in zip(parts, tables, strict=True):
                part.state["variables"] = list(table.items())
            files.write_pickle(path, content, 4)

        return (network, files.tensorflow_discriminator(model), network), list(tables), write
    if family.startswith("genforce"):
        state: Entries = dict(files.genforce_generator(model))
        return {"generator_smooth": state}, [state], lambda path, content: torch.save(content, path)
    if family == "torch-nvidia":
        state = dict(g)
        return {"G_ema": state}, [state], lambda path, content: torch.save(content, path)
    if family == "safetensors":
        from safetensors.torch import save_file

        state = dict(g)
        return state, [state], lambda path, content: save_file(content, path)
    state = dict(files.rosinality_generator(g))
    content = {"g_ema": state, "latent_avg": g["mapping.w_avg"]}
    return content, [state], lambda path, content: torch.save(content, path)


NAMED = ("ada-3", "stylegan3", "rosinality-trained", "tensorflow-4", "genforce", "torch-nvidia", "safetensors")


def names_mutated(family: str, draw: random.Random) -> tuple[str, int, bool, Callable[[Path], object]]:
    """One change of a name or a type: what was done, how many tensors may differ, whether no load would be right, and
    how to write the file.
    """
    content, tables, write = contents(family, files.random_model(8))
    table = draw.choice(tables)
    key = draw.choice(list(table))
    value = table[key]
    kind = draw.choice(["drop", "rename", "swap", "half", "double", "int", "transpose", "more", "extra"])
    optional = key.split(".")[-1].split("/")[-1].startswith(("noise", "resample_filter", "kernel", "w_avg", "dlatent"))
    if kind == "drop":
        del table[key]
        # A tensor of any network that is not there cannot be read; what is optional is replaced, and that is said.
        return f"dropped {key}", 1, not optional and "filter" not in key, lambda path: write(path, content)
    if kind == "rename":
        table[draw.choice(["x", f"{key}x", key.upper(), key[1:]])] = table.pop(key)
        return f"renamed {key}", 1, not optional and "filter" not in key, lambda path: write(path, content)
    if kind == "swap":
        other = draw.choice(list(table))
        table[key], table[other] = table[other], table[key]
        return f"swapped {key} and {other}", 2, False, lambda path: write(path, content)
    if kind == "extra":
        table[f"{key}.more"] = value.detach().clone() if isinstance(value, Tensor) else value.copy()
        return f"added {key}.more", 0, False, lambda path: write(path, content)
    tensor = value if isinstance(value, Tensor) else torch.from_numpy(value)
    changed = {
        "half": tensor.detach().half,
        "double": tensor.detach().double,
        "int": tensor.detach().int,
        "transpose": lambda: tensor.detach().t() if tensor.ndim == 2 else tensor.detach()[None, None],
        "more": lambda: torch.cat([tensor.detach().reshape(-1), torch.ones(1)]),
    }[kind]().contiguous()  # fmt: skip
    if isinstance(value, torch.nn.Parameter):
        table[key] = torch.nn.Parameter(changed, requires_grad=False)
    else:
        table[key] = changed if isinstance(value, Tensor) else changed.numpy()
    most = {"half": 1, "transpose": 1}.get(kind, 0)
    return f"{kind} of {key}", most, kind == "int", lambda path: write(path, content)


def mutate(family: str, folder: Path, seed: int, count: int) -> Outcome:
    """Mutate one family's file many times."""
    outcome = Outcome(family)
    draw = random.Random(f"{seed} {family}")
    model = files.random_model(8, channels={4: 5, 8: 4}, z_dim=4, w_dim=6)
    original = files.FAMILIES[family](folder / "original", model)
    whole, raw = load(original), original.read_bytes()
    sidecar = original.with_suffix(".json").read_text() if family == "native" else ""
    mutated = folder / original.with_name("mutated").with_suffix(original.suffix).name
    for what, content, must_refuse in bytes_mutated(raw, draw, count):
        mutated.write_bytes(content)
        if sidecar:
            mutated.with_suffix(".json").write_text(sidecar)
        judged(outcome, mutated, whole, what, 0 if family in CHECKED else 1, must_refuse=must_refuse)
    if sidecar:
        mutated.write_bytes(raw)
        for what, content, _ in bytes_mutated(sidecar.encode(), draw, count):
            mutated.with_suffix(".json").write_bytes(content)
            judged(outcome, mutated, whole, f"sidecar, {what}", 0)
    if family in NAMED:
        plain = folder / "plain"
        content, _, write = contents(family, files.random_model(8))
        write(plain, content)
        reference = load(plain)
        for _ in range(count):
            what, most, must_refuse, save = names_mutated(family, draw)
            save(plain)
            judged(outcome, plain, reference, what, most, must_refuse=must_refuse)
    return outcome


def main() -> None:
    """Mutate all families: arguments are a seed and a count; a line of JSON for each family."""
    seed, count = (int(argument) for argument in sys.argv[1:3])
    torch.set_num_threads(1)
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            outcome = mutate(family, Path(folder), seed, count)
        sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
