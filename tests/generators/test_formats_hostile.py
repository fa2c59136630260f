"""Hostile and broken files: each is refused by an error of ours, quickly, with little memory, and nothing in it runs.

Most are pickles put together opcode by opcode. A file that runs something would leave a canary behind.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generators import checkpoint_files as files
from generators.checkpoint_files import Call, Name, NewObject, Pickler, nn_module, persistent, random_model
from generators.loading_process import LoadingProcess, Verdict

from sisug.errors import CheckpointError
from sisug.generators import load_generator

SECONDS = 3.0  # of processor time: under one alone, 1.3 where tests on the other core share the caches
MEMORY = 200 << 20
"""Bytes that a refusal may take; the files are far smaller than that."""

# --- opcodes ---------------------------------------------------------------------------------------------------------


def name(module: str, attribute: str) -> bytes:
    return b"c" + f"{module}\n{attribute}\n".encode()


def stack_name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def data(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def whole(body: bytes, protocol: int = 4) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


def pickled(content: Any, protocol: int = 4) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(content)
    return buffer.getvalue()


def legacy(body: bytes, keys: tuple[str, ...] = (), storages: bytes = b"") -> bytes:
    """Torch's old layout around a pickle."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system))
    return head + body + pickle.dumps(list(keys), 2) + storages


def storage_reference(elements: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    size = b"\x8a\x08" + struct.pack("<q", elements)
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + size + b"tQ"


def tensor(storage: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"

    start = b"\x8a\x08" + struct.pack("<q", offset)
    hooks = call(name("collections", "OrderedDict"))
    return call(
        name("torch._utils", "_rebuild_tensor_v2"), storage, start, numbers(size), numbers(stride), b"\x89", hooks
    )


def state_of(one: bytes) -> bytes:
    """A pickle of a state dict with this tensor in the place of the constant."""
    return whole(b"}(" + text("g_ema") + b"}(" + text("input.input") + one + b"uu", 2)


def archive(body: bytes, storages: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Torch's zip layout around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as target:
        target.writestr("archive/data.pkl", body)
        target.writestr("archive/byteorder", b"little")
        for key, content in storages.items():
            target.writestr(f"archive/data/{key}", content)
        target.writestr("archive/version", b"3\n")
    return buffer.getvalue()


# --- what would run something ----------------------------------------------------------------------------------------


def programs(canary: Path) -> dict[str, bytes]:
    """Pickles that would leave the canary if anything in them ran."""
    shell, code = text(f"touch {canary}"), text(f"open({str(canary)!r}, 'w').close()")
    out: dict[str, bytes] = {}
    for module in ("os", "posix", "nt"):
        out[f"{module}.system"] = whole(call(name(module, "system"), shell))
    for module, function in [("os", "popen"), ("subprocess", "getoutput"), ("pty", "spawn"), ("commands", "getoutput")]:
        out[f"{module}.{function}"] = whole(call(name(module, function), shell))
    listed = b"](" + text("touch") + text(str(canary)) + b"e"
    for function in ("Popen", "call", "check_output", "run"):
        out[f"subprocess.{function}"] = whole(call(name("subprocess", function), listed))
    for module in ("builtins", "__builtin__"):
        for function in ("eval", "exec", "execfile"):
            out[f"{module}.{function}"] = whole(call(name(module, function), code))
        out[f"{module}.open"] = whole(call(name(module, "open"), text(str(canary)), text("w")))
    imported = call(name("builtins", "__import__"), text("os"))
    out["builtins.__import__"] = whole(imported)
    found = call(name("builtins", "getattr"), imported, text("system"))
    out["getattr chain"] = whole(found + b"(" + shell + b"tR")
    out["operator.attrgetter"] = whole(call(name("operator", "attrgetter"), text("system")))
    out["functools.partial"] = whole(call(name("functools", "partial"), name("os", "system"), shell))
    out["importlib.import_module"] = whole(call(name("importlib", "import_module"), text("os")))
    out["pickle.loads"] = whole(call(name("pickle", "loads"), data(out["os.system"])))
    out["torch.load"] = whole(call(name("torch", "load"), text(str(canary))))
    out["torch.hub.load"] = whole(call(name("torch.hub", "load"), text("a/b"), text("c")))
    out["torch.jit.load"] = whole(call(name("torch.jit", "load"), text(str(canary))))
    out["numpy.load"] = whole(call(name("numpy", "load"), text(str(canary))))
    out["types.CodeType"] = whole(name("types", "CodeType"))
    out["sisug itself"] = whole(call(name("sisug.common.atomic_file", "atomic_write"), text(str(canary))))
    out["instance opcode"] = whole(b"(" + shell + b"ios\nsystem\n", 0)
    out["object opcode"] = whole(b"(" + name("os", "system") + shell + b"o", 1)
    out["new object"] = whole(name("subprocess", "Popen") + listed + b"\x85\x81")
    out["extension registry"] = whole(b"\x82\x01")
    for place in ("os.system", "EasyDict.__class__", "EasyDict.__init__.__globals__"):
        out[f"dotted dnnlib.util:{place}"] = whole(call(stack_name("dnnlib.util", place), shell))
    out["dotted collections"] = whole(stack_name("collections", "abc.sys.modules"))
    out["dotted storage"] = whole(call(stack_name("torch", "hub.os.systemStorage"), shell))
    out["dotted set"] = whole(call(stack_name("builtins", "set.__init__.__globals__"), shell))
    out["name in parts"] = whole(call(stack_name("torch_utils", "persistence._reconstruct_persistent_obj"), shell))
    out["persistent id"] = whole(shell + b"Q")
    out["in a tuple of three"] = whole(b"(" + b"K\x01K\x02" + call(name("os", "system"), shell) + b"t")
    out["in a state dict"] = state_of(call(name("os", "system"), shell))
    out["in a zip"] = archive(out["in a state dict"], {})
    out["in a legacy file"] = legacy(out["in a state dict"])
    out["in a legacy header"] = legacy(whole(b"}", 2)).replace(pickle.dumps(1001, 2), out["os.system"], 1)
    out["in a legacy list of keys"] = legacy(whole(b"}", 2))[: -len(pickle.dumps([], 2))] + out["os.system"]
    inner = name("torch.storage", "_load_from_bytes")
    out["storage with a plain pickle"] = whole(call(inner, data(out["os.system"])))
    out["storage with an evil legacy file"] = whole(call(inner, data(legacy(out["os.system"]))))
    out["storage with an evil zip"] = whole(call(inner, data(archive(out["os.system"], {}))))
    state = {"_modules": OrderedDict(), "_parameters": OrderedDict(), "_buffers": OrderedDict()}
    meta = {"type": "class", "version": 6, "class_name": "Generator", "state": state}
    meta["module_src"] = f"open({str(canary)!r}, 'w').close()"
    source = Call(files.PERSISTENT, (meta,))
    out["module source"] = pickled({"G_ema": source})
    deep = Call(files.PERSISTENT, (meta | {"state": state | {"_modules": OrderedDict(synthesis=source)}},))
    out["module source, nested"] = pickled({"G_ema": deep, "D": source})
    network = {"version": 4, "name": "Gs", "static_kwargs": {}, "components": {}, "variables": []}
    network |= {"build_func_name": "G_main", "build_module_src": meta["module_src"]}
    tf = NewObject(files.TF_NETWORK, state=network)
    out["TensorFlow source"] = pickled((tf, tf, tf))
    out["state with a setter"] = whole(
        name("dnnlib.util", "EasyDict") + b")\x81" + b"}" + text("__reduce__") + shell + b"sb"
    )
    out["numpy objects"] = pickled(
        (NewObject(files.TF_NETWORK, state=network | {"variables": [("x", _objects(canary))]}),)
    )
    return out


def _objects(canary: Path) -> np.ndarray:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Name("os", "system"), (f"touch {canary}",)

    return np.array([Evil()], dtype=object)


# --- what would take memory or time ----------------------------------------------------------------------------------


def bombs() -> dict[str, bytes]:
    """Small files that declare, repeat or nest without measure."""
    out: dict[str, bytes] = {}
    for title, opcode in [
        ("BINBYTES8", b"\x8e"),
        ("BINUNICODE8", b"\x8d"),
        ("BYTEARRAY8", b"\x96"),
        ("FRAME", b"\x95"),
    ]:
        for bits in (40, 62, 63):
            out[f"{title} of 2**{bits}"] = whole(opcode + struct.pack("<Q", 1 << bits) + b"x", 5)
    out["BINBYTES of 4 GB"] = whole(b"B" + struct.pack("<I", 0xFFFFFFFF) + b"x")
    out["LONG4 of 2 GB"] = whole(b"\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"x")
    out["LONG4 negative"] = whole(b"\x8b" + struct.pack("<i", -5) + b"x")
    out["LONG_BINPUT"] = whole(b"Nr" + struct.pack("<I", 0xFFFFFFF0))
    out["PUT"] = whole(b"Np99999999999\n", 0)
    out["INT of many digits"] = whole(b"I" + b"9" * 100_000 + b"\n", 0)
    out["line without end"] = b"\x80\x02c" + b"x" * 100_000
    out["marks"] = whole(b"(" * 1_000_000)
    out["lists"] = whole(b"]" * 1_000_000)
    out["nested lists"] = whole(b"]" * 100_000 + b"a" * 99_999)
    out["nested tuples"] = whole(b")" + b"\x85" * 19_000)
    out["nested dicts"] = whole(b"}" + b"K\x01}" * 50_000 + b"s" * 50_000)
    doubled = b")" + b"2\x86" * 60
    out["hash of doubled tuples"] = whole(b"}" + doubled + b"Ns")
    kept = b")q\x00" + b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60))
    out["hash of tuples that are kept and doubled"] = whole(b"}" + kept + b"Ns")
    fetched = b")\x94" + b"".join(b"0h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(60))
    out["hash of tuples that are fetched and doubled"] = whole(b"}" + fetched + b"Ns")
    out["set of doubled tuples"] = whole(call(name("builtins", "set"), b"](" + doubled + b"e"))
    out["frozenset of doubled tuples"] = whole(b"(" + doubled + b"\x91")
    laughs = _laughs(12)
    out["list of lists, as a whole"] = whole(laughs)
    sized = state_of(
        call(name("torch._utils", "_rebuild_tensor_v2"), storage_reference(1), b"K\x00", laughs + b"\x85", b"K\x01\x85")
    )
    out["list of lists, as a size"] = legacy(sized, ("0",), struct.pack("<q", 1) + bytes(4))
    out["list of lists, as a key"] = legacy(state_of(_storage_with(laughs)), ("0",))
    meta = b"}(" + text("state") + b"}" + text("class_name") + laughs + b"u"
    made = call(name(files.PERSISTENT.module, files.PERSISTENT.name), meta)
    out["list of lists, as a class"] = whole(b"}" + text("G_ema") + made + b"s")
    shared: dict[str, Any] = {"weight": 1}
    for _ in range(3):
        shared = dict.fromkeys((str(i) for i in range(1500)), shared)
    out["dict of shared dicts"] = pickled(shared)
    module = nn_module("A", {}, {}, {})
    for _ in range(7):
        module = nn_module("A", {}, {}, dict.fromkeys((f"m{i}" for i in range(60)), module))
    out["module of shared modules"] = pickled({"G_ema": module})
    part = NewObject(files.TF_NETWORK, state={"variables": [], "components": {}})
    for _ in range(9):
        parts = dict.fromkeys((f"c{i}" for i in range(60)), part)
        part = NewObject(files.TF_NETWORK, state={"variables": [], "components": parts})
    out["network of shared networks"] = pickled((part, part, part))
    chain = nn_module("A", {}, {}, {})
    for _ in range(400):
        chain = nn_module("A", {}, {}, {"m": chain})
    out["module in module, 400 deep"] = pickled_deeply({"G_ema": chain})
    return out


def _laughs(levels: int) -> bytes:
    """A list of ten of a list of ten of ..., in a few bytes."""
    body = b"](" + text("ha") * 10 + b"e"
    for level in range(levels):
        body += b"q" + bytes([level]) + b"0](" + (b"h" + bytes([level])) * 10 + b"e"
    return body


def _storage_with(key: bytes) -> bytes:
    reference = b"(" + text("storage") + name("torch", "FloatStorage") + key + text("cpu") + b"K\x01tQ"
    return tensor(reference, 0, (1,), (1,))


def pickled_deeply(content: Any) -> bytes:
    import sys

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        return pickled(content)
    finally:
        sys.setrecursionlimit(limit)


def cycles() -> dict[str, bytes]:
    """Things that lie in themselves."""
    itself: dict[str, Any] = {}
    itself["g_ema"] = itself
    modules: OrderedDict[str, Any] = OrderedDict()
    ring = persistent("Generator", {"_modules": modules, "_parameters": {}, "_buffers": {}})
    # A call's arguments cannot hold its result, but what they hold can.
    listed: list[Any] = []
    listed.append(listed)
    components: dict[str, Any] = {}
    network = NewObject(files.TF_NETWORK, state={"version": 4, "variables": [], "components": components})
    components["mapping"] = network
    head = name(files.PERSISTENT.module, files.PERSISTENT.name)
    meta = b"}(" + text("class_name") + text("A") + text("state") + b"}(" + text("_modules") + b"}q\x01ue"[:-1] + b"u"
    own = call(head, meta) + b"q\x02" + b"0" + b"h\x01" + text("m") + b"h\x02s0" + b"}" + text("G_ema") + b"h\x02s"
    return {
        "dict in itself": pickle.dumps(itself, 4),
        "list in itself": pickle.dumps(listed, 4),
        "ordinary module": pickled({"G_ema": ring}),
        "module in itself": whole(own),
        "network in itself": pickled((network, network, network)),
    }


# --- tensors that are none -------------------------------------------------------------------------------------------


def tensors() -> dict[str, bytes]:
    """Sizes, steps and types that do not fit the bytes."""
    four = struct.pack("<q", 4) + bytes(16)
    bad = {
        "offset outside": (4, 1, (4,), (1,)),
        "size outside": (4, 0, (5,), (1,)),
        "stride outside": (4, 0, (2, 2), (3, 1)),
        "huge stride": (4, 0, (2,), (1 << 62,)),
        "huge size": (4, 0, (1 << 62,), (1,)),
        "huge product": (4, 0, (1 << 31, 1 << 31), (0, 0)),
        "repeated elements": (4, 0, (1 << 38,), (0,)),
        "overlapping rows": (4, 0, (2, 3), (1, 1)),
        "negative size": (4, 0, (-4,), (1,)),
        "negative stride": (4, 3, (4,), (-1,)),
        "negative offset": (4, -4, (4,), (1,)),
        "fewer strides": (4, 0, (2, 2), (2,)),
        "no elements of a huge size": (4, 0, (1 << 39, 0), (1, 1)),
        "many dimensions": (4, 0, (1,) * 5000, (1,) * 5000),
    }
    out = {}
    for title, (elements, offset, size, stride) in bad.items():
        body = state_of(tensor(storage_reference(elements), offset, size, stride))
        out[f"{title} (legacy)"] = legacy(body, ("0",), four)
        out[f"{title} (zip)"] = archive(body, {"0": bytes(16)})
    sound = tensor(storage_reference(4), 0, (4,), (1,))
    for title, entry, value in [
        ("shape", "shape", b"(" + number(1 << 30) + b"t"),
        ("steps", "stride", number(-1) + b"\x85"),
    ]:
        body = state_of(sound + b"}" + text(entry) + value + b"\x85sb")
        out[f"other {title} afterwards"] = legacy(body, ("0",), four)
    for power in (30, 40, 60, 62):
        body = state_of(tensor(storage_reference(1 << power), 0, (4,), (1,)))
        out[f"storage of 2**{power} (legacy)"] = legacy(body, ("0",), struct.pack("<q", 1 << power) + bytes(16))
        out[f"storage of 2**{power} (zip)"] = archive(body, {"0": bytes(16)})
        inner = legacy(whole(storage_reference(1 << power), 2), ("0",), struct.pack("<q", 1 << power) + bytes(16))
        loaded = call(name("torch.storage", "_load_from_bytes"), data(inner))
        out[f"storage of 2**{power} (pickle)"] = state_of(tensor(loaded, 0, (4,), (1,)))
    body = state_of(tensor(storage_reference(-4), 0, (4,), (1,)))
    out["storage of negative size"] = legacy(body, ("0",), struct.pack("<q", -4) + bytes(16))
    for kind in ("ComplexFloatStorage", "QInt8Storage", "UntypedStorage", "EvilStorage"):
        body = state_of(tensor(storage_reference(4, kind=kind), 0, (4,), (1,)))
        out[f"{kind}"] = legacy(body, ("0",), four)
    for title, encoding in [("latin1", "latin1"), ("another encoding", "rot13"), ("a number", None)]:
        written = text(encoding) if encoding else b"K\x01"
        decoded = call(name("_codecs", "encode"), text("\u01be" * 300), written)
        out[f"bytes beyond {title}"] = state_of(
            tensor(call(name("torch.storage", "_load_from_bytes"), decoded), 0, (4,), (1,))
        )
    array = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), b"K\x00\x85", data(b"b"))
    for title, code in [("objects", "O8"), ("structure", "V8"), ("text", "U8"), ("dates", "M8"), ("complex", "c16")]:
        dtype = call(name("numpy", "dtype"), text(code), b"\x89", b"\x88")
        filled = array + b"(K\x01" + b"K\x02\x85" + dtype + b"\x89" + data(bytes(16)) + b"tb"
        out[f"array of {title}"] = state_of(filled)
    dtype = call(name("numpy", "dtype"), text("f4"), b"\x89", b"\x88")
    beyond = array + b"(K\x01" + b"K\x04\x85" + dtype + b"\x89" + text("\u01be" * 16) + b"tb"
    out["array of text beyond latin1"] = state_of(beyond)
    for title, count in [("more", 1 << 30), ("fewer", 1)]:
        sized = b"\x8a\x08" + struct.pack("<q", count) + b"\x85"
        out[f"array of {title} elements"] = state_of(
            array + b"(K\x01" + sized + dtype + b"\x89" + data(bytes(16)) + b"tb"
        )
    return out


def networks() -> dict[str, Callable[[Path], object]]:
    """Whole generators with something in them that is none of a generator's."""
    model = random_model(8)

    def changed(key: str, value: Any) -> Callable[[Path], object]:
        state = files.rosinality_generator(model.generator)
        assert key in state
        return lambda path: torch.save({"g_ema": state | {key: value}, "latent_avg": torch.zeros(11)}, path)

    def named(key: str, value: Any) -> Callable[[Path], object]:
        return lambda path: torch.save({"G_ema": model.generator | {key: value}}, path)

    weight = "conv1.conv.weight"
    like = files.rosinality_generator(model.generator)[weight]
    half = torch.zeros(1 << 18, dtype=torch.float16)
    many = {f"mapping.x{i}": half for i in range(6000)}
    many |= {f"synthesis.b{r}.conv0.noise_const": half.view(512, 512) for r in range(16, 4000)}
    empty = {
        name: torch.empty(1 << 20, 0, 3, 3) if name.endswith("conv1.weight") else value
        for name, value in model.generator.items()
    }
    ghosts = {
        f"synthesis.b{4 << i}.{part}": value
        for i in range(11)
        for part, value in [("conv1.weight", torch.randn(1, 1, 3, 3)), ("conv0.weight", torch.randn(1, 1, 3, 3))]
    }
    ghosts |= {"synthesis.b4.const": torch.randn(1, 4, 4), "mapping.fc0.weight": torch.randn(2, 2)}
    no_blocks = {key: value for key, value in model.generator.items() if ".b8." not in key and "const" not in key}
    return {
        "integers for weights": changed(weight, like.long()),
        "booleans for weights": changed(weight, like > 0),
        "complex weights": changed(weight, like.to(torch.complex64)),
        "text for weights": changed(weight, "weights"),
        "a list for weights": changed(weight, [1.0, 2.0]),
        "None for weights": changed(weight, None),
        "not a number": changed(weight, like * float("nan")),
        "infinity": changed(weight, like * float("inf")),
        "a shape too many": changed(weight, like[None]),
        "a number for weights": changed(weight, torch.tensor(1.0)),
        "no elements": changed(weight, torch.empty(0)),
        "no elements, large": named("synthesis.b8.conv1.weight", torch.empty(1 << 30, 0, 3, 3)),
        "no elements everywhere": lambda path: torch.save({"G_ema": empty}, path),
        "w_avg of another size": named("mapping.w_avg", torch.zeros(5)),
        "filter of another size": named("synthesis.b8.conv0.resample_filter", torch.ones(600, 600)),
        "half of the blocks": lambda path: torch.save({"G_ema": no_blocks}, path),
        "one storage for thousands": lambda path: torch.save({"G_ema": model.generator | many}, path),
        "many blocks of nothing": lambda path: torch.save({"G_ema": ghosts}, path),
        "a block between the powers": named("synthesis.b12.conv1.weight", torch.randn(4, 4, 3, 3)),
        "unknown layers": named("synthesis.b8.conv2.weight", torch.randn(4, 4, 3, 3)),
    }


# --- archives and other files ----------------------------------------------------------------------------------------


def archives() -> dict[str, bytes]:
    """Zip files of torch's layout that lie."""
    body = state_of(tensor(storage_reference(1 << 24), 0, (4,), (1,)))
    good = state_of(tensor(storage_reference(4), 0, (4,), (1,)))
    inflating = archive(body, {"0": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)  # 64 KB
    lying = bytearray(archive(good, {"0": bytes(16)}))
    at = lying.index(b"PK\x01\x02")
    lying[at + 20 : at + 28] = struct.pack("<II", 0xFFFFFFFE, 0xFFFFFFFE)
    inflated = bytearray(archive(good, {"0": bytes(1 << 16)}, zipfile.ZIP_DEFLATED))
    at = inflated.rindex(b"archive/data/0") - 46
    inflated[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFFE)
    overlapping = bytearray(archive(good, {"0": bytes(16), "1": bytes(16)}))
    places = [i for i in range(len(overlapping)) if overlapping[i : i + 4] == b"PK\x01\x02"]
    for place in places:
        overlapping[place + 42 : place + 46] = struct.pack("<I", 0)
    moved = bytearray(archive(good, {"0": bytes(16)}))
    for place in [i for i in range(len(moved)) if moved[i : i + 4] == b"PK\x01\x02"]:
        moved[place + 42 : place + 46] = struct.pack("<I", 0x7FFFFFFF)
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as target:
        target.writestr("a/data.pkl", good)
        target.writestr("b/data.pkl", good)
    program = io.BytesIO()
    with zipfile.ZipFile(program, "w") as target:
        target.writestr("a/data.pkl", good)
        target.writestr("a/constants.pkl", good)
        target.writestr("a/code/__torch__.py", "raise SystemExit")
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as target:
        target.writestr("images/1.png", b"\x89PNG")
    entries = io.BytesIO()
    with zipfile.ZipFile(entries, "w") as target:
        for i in range(20_000):
            target.writestr(f"archive/data/{i}", b"")
    return {
        "compressed storage": inflating,
        "entry of 4 GB": bytes(lying),
        "entry that inflates to 4 GB": bytes(inflated),
        "overlapping entries": bytes(overlapping),
        "entries beyond the file": bytes(moved),
        "two pickles": twice.getvalue(),
        "TorchScript": program.getvalue(),
        "pictures": plain.getvalue(),
        "many entries": entries.getvalue(),
        "no storages": archive(good, {}),
        "half an archive": archive(good, {"0": bytes(16)})[:200],
        "only the end": b"PK\x03\x04" + b"PK\x05\x06" + bytes(18),
    }


def headers() -> dict[str, bytes]:
    """Safetensors with absurd headers."""

    def file(header: object, content: bytes = b"", size: int | None = None) -> bytes:
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(raw) if size is None else size) + raw + content

    def one(dtype: str, shape: list[Any], start: int, end: int) -> dict[str, Any]:
        return {"input.input": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}

    return {
        "header of 2**63": file(b"{}", size=1 << 63),
        "header beyond the file": file(b"{}", size=1000),
        "header of nothing": file(b"", size=0),
        "header that is no JSON": file(b"{" + b"x" * 100),
        "header in header": file(b'{"a":' + b"[" * 100_000),
        "braces": file(b'{"a":' * 100_000),
        "a number for a tensor": file({"a": 1}),
        "outside": file(one("F32", [4], 0, 16)),
        "backwards": file(one("F32", [4], 16, 0), bytes(16)),
        "size that does not fit": file(one("F32", [5], 0, 16), bytes(16)),
        "product that overflows": file(one("F32", [1 << 32, 1 << 32], 0, 16), bytes(16)),
        "negative size": file(one("F32", [-4], 0, 16), bytes(16)),
        "text for a size": file(one("F32", ["4"], 0, 16), bytes(16)),
        "unknown type": file(one("Q7", [4], 0, 16), bytes(16)),
        "integers": file(one("I64", [2], 0, 16), bytes(16)),
        "nothing of interest": file({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
        "no tensors": file({}),
        "no elements of a huge size": file(one("F32", [1 << 40, 0], 0, 0)),
    }


def others() -> dict[str, bytes]:
    """Files of other kinds."""
    return {
        "empty": b"",
        "one byte": b"\x80",
        "text": b"weights\n" * 100,
        "web page": b"<!DOCTYPE html><html><head><title>Quota exceeded</title></head></html>",
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "zeros": bytes(10_000),
        "ones": b"\xff" * 10_000,
        "gzip": gzip.compress(bytes(10_000)),
        "tar": bytes(257) + b"ustar" + bytes(1000),
        "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        "a number": pickle.dumps(5),
        "a text": pickle.dumps("weights"),
        "nothing": pickle.dumps(None),
        "an empty dict": pickle.dumps({}),
        "an empty tuple": pickle.dumps(()),
        "a tuple of three": pickle.dumps((1, 2, 3)),
        "G_ema of None": pickle.dumps({"G_ema": None}),
        "keys that are no text": pickle.dumps({1: 2, None: 3, (4,): 5, "g_ema": {1: 2}}),
        "oldest protocol": pickle.dumps({"G_ema": 1}, 0),
        "protocol of the future": b"\x80\x09}.",
        "nothing after the header": b"\x80\x04",
        "more than one pickle": pickle.dumps({}) * 3,
        "stack is empty": whole(b"0"),
        "memo is empty": whole(b"h\x07"),
    }


FAMILIES = (
    "ada-3",
    "ada-4-numpy2",
    "rosinality-trained",
    "rosinality-legacy",
    "tensorflow-4",
    "genforce",
    "safetensors",
)


def truncated() -> dict[str, tuple[str, float]]:
    """Places at which files are cut, as a share of their length."""
    shares = (0.0003, 0.003, 0.02, 0.1, 0.3, 0.5, 0.75, 0.9, 0.99, 0.9999)
    return {f"{family} at {share:.2%}": (family, share) for family in FAMILIES for share in shares}


# --- verdicts --------------------------------------------------------------------------------------------------------

GROUPS: dict[str, Callable[[], dict[str, bytes]]] = {
    "bomb": bombs,
    "cycle": cycles,
    "tensor": tensors,
    "archive": archives,
    "header": headers,
    "other": others,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def corpus(folder: Path) -> dict[str, Path]:
    """Every file, by its group and title."""
    contents = {f"program: {title}": value for title, value in programs(folder / "canary").items()}
    for group, make in GROUPS.items():
        contents |= {f"{group}: {title}": value for title, value in make().items()}
    whole_files = {family: files.FAMILIES[family](folder / family, random_model(8)) for family in FAMILIES}
    for title, (family, share) in truncated().items():
        raw = whole_files[family].read_bytes()
        contents[f"truncated: {title}"] = raw[: min(int(len(raw) * share), len(raw) - 1)]
    paths: dict[str, Path] = {}
    for title, content in contents.items():
        paths[title] = folder / f"{len(paths)}.bin"
        paths[title].write_bytes(content)
    for title, write in networks().items():
        paths[f"network: {title}"] = folder / f"{len(paths)}.bin"
        write(paths[f"network: {title}"])
    return paths


@pytest.fixture(scope="module")
def process() -> Iterator[LoadingProcess]:
    running = LoadingProcess()
    yield running
    running.end()


@pytest.mark.parametrize("group", ["program", *GROUPS, "network", "truncated"])
def test_refused_quickly_with_little_memory_and_nothing_runs(corpus, folder, process, group):
    problems = []
    titles = [title for title in corpus if title.startswith(f"{group}: ")]
    assert len(titles) >= 5
    for title in titles:
        verdict: Verdict = process.load(corpus[title])
        assert not (folder / "canary").exists(), f"something in the file was run: {title}"
        ours = verdict.error == "CheckpointError" and "Cause:" in verdict.message and "Remedy:" in verdict.message
        if not ours or verdict.seconds > SECONDS or verdict.growth > MEMORY:
            problems.append(f"{title}: {verdict}")
    assert not problems, "\n".join(problems)


def test_the_canary_would_show(tmp_path):
    """Python's own unpickler runs what the corpus holds."""
    canary = tmp_path / "canary"
    pickle.loads(programs(canary)["os.system"])
    assert canary.exists()


def test_a_valid_file_loads_in_the_same_process_afterwards(corpus, folder, process):
    verdict = process.load(files.write_nvidia(folder / "valid", random_model(8)))
    assert verdict.error == "", verdict


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (name("os", "system"), "os.system"),
        (stack_name("builtins", "eval"), "builtins.eval"),
        (name("some.package", "Thing"), "some.package.Thing"),
    ],
)
def test_what_a_file_names_is_said(tmp_path, body, named):
    path = tmp_path / "file"
    path.write_bytes(whole(body))
    with pytest.raises(CheckpointError, match=named):
        load_generator(path)


def test_a_file_cannot_change_the_stand_ins(tmp_path):
    """A state that is set on a function would stay for the files that are read after it."""
    path = tmp_path / "file"
    names = [("torch._utils", "_rebuild_tensor_v2"), ("_codecs", "encode"), ("collections", "OrderedDict")]
    names += [("numpy", "dtype"), ("torch", "FloatStorage"), ("dnnlib.tflib.network", "Network")]
    valid = files.write_nvidia(tmp_path / "valid", random_model(8), protocol=2)
    before = load_generator(valid).fingerprint
    from sisug.common.torch_files import arrays, pickles

    attributes = {key: dict(vars(value)) for key, value in pickles.STAND_INS.items() if hasattr(value, "__dict__")}
    for module, attribute in names:
        own = b"N}" + text("__defaults__") + b")s" + text("polluted") + b"\x88s\x86"
        for state in (b"}" + text("polluted") + b"\x88s", own):
            path.write_bytes(whole(name(module, attribute) + state + b"b", 2))
            with pytest.raises(CheckpointError):
                load_generator(path)
    after = {key: dict(vars(value)) for key, value in pickles.STAND_INS.items() if hasattr(value, "__dict__")}
    assert attributes == after
    assert not hasattr(arrays.StorageType, "polluted")
    assert load_generator(valid).fingerprint == before


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="folder"):
        load_generator(tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="not found"):
        load_generator(tmp_path / "none.pkl")


@pytest.mark.parametrize(
    "entry",
    [
        {"mapping_lr_mul": "0.01"},
        {"mapping_lr_mul": 0},
        {"mapping_lr_mul": -1.0},
        {"mapping_lr_mul": [0.01]},
        {"mapping_lr_mul": float("nan")},
        {"mapping_lr_mul": float("inf")},
        {"conv_clamp": "256"},
        {"conv_clamp": 0},
        {"conv_clamp": -256.0},
        {"conv_clamp": float("nan")},
        {"num_fp16_res": "all"},
        {"fingerprint": "0" * 64},
    ],
    ids=str,
)
def test_a_sidecar_that_lies_is_refused(tmp_path, entry):
    path = files.write_native(tmp_path / "file", random_model(8))
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | entry))
    with pytest.raises(CheckpointError, match=r"Cause.*Remedy"):
        load_generator(path)


@pytest.mark.parametrize("value", ["0.01", -1.0, float("nan"), float("inf"), True], ids=str)
def test_a_stored_multiplier_that_is_none_is_refused(tmp_path, value):
    """NVIDIA's files store how the mapping network's weights are scaled; a wrong guess would be wrong silently."""
    model = random_model(8)
    content = files.nvidia_content(model)
    for layer in ("fc0", "fc1"):
        generator = content["G_ema"].arguments[0]["state"]
        mapping = generator["_modules"]["mapping"].arguments[0]["state"]
        mapping["_modules"][layer].arguments[0]["state"]["bias_gain"] = value
    path = files.write_pickle(tmp_path / "file", content)
    with pytest.raises(CheckpointError):
        load_generator(path)
