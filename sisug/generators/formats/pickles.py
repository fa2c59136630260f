"""Pickles as data (generators): a reader that runs nothing a file names, and takes no more memory than a file has.

Every class and function that a StyleGAN2 file names is replaced by an inert stand-in; any other is refused by name.
Before the reader starts, one pass over the opcodes checks that all declared sizes lie within the file.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from sisug.errors import CheckpointError
from sisug.generators.formats.arrays import (
    Latin1,
    LazyStorage,
    StorageType,
    array_from_buffer,
    empty_array,
    latin1,
    numpy_dtype,
    numpy_scalar,
    rebuild_parameter,
    rebuild_tensor,
)

MOST_OPCODES = 500_000
"""An opcode of one byte can make an object of a hundred; files of three 1024 px networks have 60,000."""
MOST_TUPLES = 20_000
"""Nested tuples as a key would overflow the stack of Python's hash; files have a few thousand, not nested."""


class PickledDict(dict[Any, Any]):
    """Stands for OrderedDict and dnnlib's EasyDict."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Attributes of the dictionary itself are of no use here."""


class PersistentObject:
    """A module of NVIDIA's PyTorch files: its class's name and its attributes, without its source code.

    Args:
        meta: what the file holds in place of the object.
    """

    __slots__ = ("class_name", "state")

    def __init__(self, meta: object) -> None:
        if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
            raise pickle.UnpicklingError("a persistent object without a state")
        self.class_name = str(meta.get("class_name"))
        self.state: Mapping[str, Any] = meta["state"]

    def __setstate__(self, state: object) -> None:
        """The state is in the constructor's argument."""


class TensorFlowNetwork:
    """dnnlib's network of a TensorFlow file: its settings and variables."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Mapping[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a network without a state")
        self.state = state


class Arguments:
    """argparse's namespace, which trainers store beside their weights, and what such namespaces hold."""

    __slots__ = ()

    def __init__(self, *_: object) -> None:
        """Whatever it was made with is of no use here."""

    def __setstate__(self, state: object) -> None:
        """A training command is of no use here."""


def _bytes(*arguments: object) -> bytes | Latin1:
    """What Python 3 writes for bytes in Python 2's protocol."""
    if not arguments:
        return b""
    if len(arguments) == 1 and isinstance(arguments[0], Latin1):
        return arguments[0]
    raise pickle.UnpicklingError("bytes of something that is no text")


def _set(items: object = ()) -> set[Any]:
    if not isinstance(items, (list, tuple)):
        raise pickle.UnpicklingError("a set of something that is no list")
    return set(items)


def _size(items: object = ()) -> tuple[Any, ...]:
    if not isinstance(items, (list, tuple)):
        raise pickle.UnpicklingError("a size that is no list")
    return tuple(items)


def storage_from_bytes(content: object) -> LazyStorage:
    """Stands for torch.storage._load_from_bytes: a storage within a pickle, opened when it is needed."""
    from sisug.generators.formats.torch_legacy import embedded_storage

    return embedded_storage(content)


NUMPY = [f"{package}.multiarray" for package in ("numpy.core", "numpy._core")]

STAND_INS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": PickledDict,
    "dnnlib.util.EasyDict": PickledDict,
    "torch_utils.persistence._reconstruct_persistent_obj": PersistentObject,
    "dnnlib.tflib.network.Network": TensorFlowNetwork,
    "argparse.Namespace": Arguments,
    "pathlib.PosixPath": Arguments,
    "torch.device": Arguments,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_parameter": rebuild_parameter,
    "torch.storage._load_from_bytes": storage_from_bytes,
    "torch.Size": _size,
    "_codecs.encode": latin1,
    "numpy.dtype": numpy_dtype,
    "numpy.ndarray": empty_array,
    **{f"{module}.scalar": numpy_scalar for module in NUMPY},
    **{f"{module}._reconstruct": empty_array for module in NUMPY},
    "numpy.core.numeric._frombuffer": array_from_buffer,
    "numpy._core.numeric._frombuffer": array_from_buffer,
    **{f"{module}.set": _set for module in ("builtins", "__builtin__")},
    **{f"{module}.bytes": _bytes for module in ("builtins", "__builtin__")},
}
"""What a file may name, and what stands for it here."""


class _Reader(pickle.Unpickler):
    """Python's unpickler with stand-ins for all it may name.

    Args:
        content: the pickle.
        storage_of: makes a storage from its description, in files that keep storages outside of the pickle.
    """

    def __init__(self, content: bytes | memoryview, storage_of: Callable[[object], LazyStorage] | None) -> None:
        super().__init__(_Bytes(content), encoding="latin1")
        self.storage_of = storage_of

    def find_class(self, module: str, name: str, /) -> Any:
        full = f"{module}.{name}"
        if full in STAND_INS:
            return STAND_INS[full]
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return StorageType.named(name)
        raise CheckpointError(
            f"the file names {full[:200]}",
            "opening it in the usual way would run that, and no StyleGAN2 file of a known family needs it",
            "nothing was run; get the file from its publisher, or save its weights alone "
            "(`torch.save({'g_ema': g_ema.state_dict()}, ...)`, or safetensors)",
        )

    def persistent_load(self, pid: object, /) -> Any:
        if self.storage_of is None:
            raise pickle.UnpicklingError("it refers to something outside of itself")
        return self.storage_of(pid)


class _Bytes(io.RawIOBase):
    """Reads a view without copying it as a whole."""

    def __init__(self, content: bytes | memoryview) -> None:
        self.view, self.at = memoryview(content), 0

    def readinto(self, buffer: Any, /) -> int:
        target = memoryview(buffer).cast("B")
        part = self.view[self.at : self.at + len(target)]
        target[: len(part)] = part
        self.at += len(part)
        return len(part)

    def read(self, size: int = -1, /) -> bytes:
        end = len(self.view) if size < 0 else self.at + size
        part = bytes(self.view[self.at : end])
        self.at += len(part)
        return part

    def readline(self, size: int | None = -1, /) -> bytes:
        end = find(self.view, self.at) + 1
        part = bytes(self.view[self.at : end or len(self.view)])
        self.at += len(part)
        return part


def read_pickle(
    content: bytes | memoryview, storage_of: Callable[[object], LazyStorage] | None = None
) -> tuple[Any, int]:
    """The object in a pickle, made of plain data and stand-ins, and where the pickle ends.

    Args:
        content: bytes that begin with a pickle.
        storage_of: makes a storage from its description, in files that keep storages outside of the pickle.

    Raises:
        CheckpointError: the pickle names something that is not on the list.
        pickle.UnpicklingError: it is damaged, or declares sizes beyond its end.
    """
    end = checked_end(content)
    try:
        return _Reader(memoryview(content)[:end], storage_of).load(), end
    except (CheckpointError, pickle.UnpicklingError):
        raise
    except Exception as error:  # damaged pickles raise whatever their bytes happen to ask for
        raise pickle.UnpicklingError(f"{type(error).__name__}: {str(error)[:200]}") from error


def find(view: memoryview, start: int) -> int:
    """Place of the next end of line; -1 where there is none within 10,000 bytes."""
    at = bytes(view[start : start + 10_000]).find(b"\n")
    return at if at < 0 else start + at


_LINES = {ord("c"): 2, ord("i"): 2}
_FIXED: dict[int, int] = {}
_COUNTED: dict[int, tuple[int, bool]] = {}
_TEXT: set[int] = set()
for _opcode in pickletools.opcodes:
    _code = ord(_opcode.code)
    _length = 0 if _opcode.arg is None else _opcode.arg.n
    if _length >= 0:
        _FIXED[_code] = 1 + _length
    elif _length == pickletools.UP_TO_NEWLINE:
        _TEXT.add(_code)
    else:
        _bytes_of_length = {
            pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
            pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
            pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
            pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
        }
        _COUNTED[_code] = _bytes_of_length[_length]

_STOP, _PUT, _LONG_BINPUT, _FRAME = ord("."), ord("p"), ord("r"), 0x95
_TUPLES = frozenset(b"t\x85\x86\x87")
_EXTENSIONS = frozenset(b"\x82\x83\x84\x97\x98")


def checked_end(content: bytes | memoryview) -> int:
    """Where the pickle at the beginning of some bytes ends, after a check of every size that it declares.

    Raises:
        pickle.UnpicklingError: it is damaged, or would take more memory than it has bytes for.
    """
    view = memoryview(content)
    total, at, opcodes, tuples = len(view), 0, 0, 0
    while at < total:
        code = view[at]
        opcodes += 1
        if code == _STOP:
            return at + 1
        if code in _TUPLES:
            tuples += 1
        if opcodes > MOST_OPCODES or tuples > MOST_TUPLES:
            raise pickle.UnpicklingError("it has more parts than any StyleGAN2 file")
        if code in _EXTENSIONS:
            raise pickle.UnpicklingError("it refers to Python's registry of extensions")
        if code == _LONG_BINPUT and int.from_bytes(view[at + 1 : at + 5], "little") > opcodes:
            raise pickle.UnpicklingError("it numbers parts that it does not have")
        if code == _FRAME and int.from_bytes(view[at + 1 : at + 9], "little") > total - at:
            raise pickle.UnpicklingError("a frame reaches beyond the end")
        step = _FIXED.get(code)
        if step is not None:
            at += step
        elif code in _COUNTED:
            width, signed = _COUNTED[code]
            size = int.from_bytes(view[at + 1 : at + 1 + width], "little", signed=signed)
            if size < 0 or size > total - at:
                raise pickle.UnpicklingError(f"a part of {size:,} bytes reaches beyond the end")
            at += 1 + width + size
        elif code in _TEXT:
            start = at + 1
            for _ in range(_LINES.get(code, 1)):
                newline = find(view, start)
                if newline < 0:
                    raise pickle.UnpicklingError("a line without an end")
                if code == _PUT and not bytes(view[start:newline]).isdigit():
                    raise pickle.UnpicklingError("a part without a number")
                if code == _PUT and int(bytes(view[start:newline])) > opcodes:
                    raise pickle.UnpicklingError("it numbers parts that it does not have")
                start = newline + 1
            at = start
        else:
            raise pickle.UnpicklingError(f"byte {at:,} is no opcode")
    raise pickle.UnpicklingError("it ends too early")
