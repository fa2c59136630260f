"""Pickles as data (every stage): a reader that runs nothing a file names, and takes no more memory than a file has.

Every class and function that a network's file names is replaced by an inert stand-in; any other is refused by name.
Before the reader starts, one pass over the opcodes checks that all declared sizes lie within the file.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from sisug.common.torch_files.arrays import (
    Latin1,
    LazyStorage,
    NumpyArray,
    NumpyDtype,
    StorageType,
    array_from_buffer,
    empty_array,
    latin1,
    numpy_dtype,
    numpy_scalar,
    rebuild_parameter,
    rebuild_tensor,
)
from sisug.common.torch_files.opcodes import checked_end, find
from sisug.errors import CheckpointError

LARGE = 4096
"""Bytes from which on a part of a pickle is not copied: weights, not names."""


class PickledDict(dict[Any, Any]):
    """Stands for OrderedDict and dnnlib's EasyDict."""

    __slots__ = ()

    def __init__(self, pairs: object = ()) -> None:
        super().__init__()
        if not isinstance(pairs, (list, tuple)) or any(type(p) not in (list, tuple) or len(p) != 2 for p in pairs):
            raise pickle.UnpicklingError("a dictionary of something that is no list of pairs")
        for key, value in pairs:
            self[_plain(key)] = value

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
        class_name = meta.get("class_name")
        self.class_name = class_name if isinstance(class_name, str) else ""
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
    """argparse's namespace, which trainers store beside their weights, and what such namespaces hold: none is used."""

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


def _default_dict(*_: object) -> PickledDict:
    """What makes its missing entries is of no use here."""
    return PickledDict()


def _set(items: object = ()) -> set[Any]:
    if not isinstance(items, (list, tuple)):
        raise pickle.UnpicklingError("a set of something that is no list")
    return {_plain(item) for item in items}


def _size(items: object = ()) -> tuple[Any, ...]:
    if not isinstance(items, (list, tuple)):
        raise pickle.UnpicklingError("a size that is no list")
    return tuple(items)


def storage_from_bytes(content: object) -> LazyStorage:
    """Stands for torch.storage._load_from_bytes: a storage within a pickle, opened when it is needed."""
    from sisug.common.torch_files.torch_legacy import embedded_storage

    return embedded_storage(content)


PATHS = [
    f"{module}.{name}"
    for module in ("pathlib", "pathlib._local")  # the second since Python 3.13
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
]

DTYPES = "float16 float32 float64 bfloat16 half float double int8 int16 int32 int64 uint8 bool complex64 complex128"

NUMPY = [f"{package}.multiarray" for package in ("numpy.core", "numpy._core")]

STAND_INS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": PickledDict,
    "dnnlib.util.EasyDict": PickledDict,
    "torch_utils.persistence._reconstruct_persistent_obj": PersistentObject,
    "dnnlib.tflib.network.Network": TensorFlowNetwork,
    "collections.defaultdict": _default_dict,
    "argparse.Namespace": Arguments,
    "types.SimpleNamespace": Arguments,
    **dict.fromkeys(PATHS, Arguments),
    "torch.device": Arguments,
    **{f"torch.{name}": Arguments for name in DTYPES.split()},
    **{
        f"{module}.{name}": Arguments
        for module in ("builtins", "__builtin__")
        for name in ("list", "dict", "int", "long", "float", "str", "tuple", "bool")
    },
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


STATEFUL = (PickledDict, PersistentObject, TensorFlowNetwork, Arguments, NumpyDtype, NumpyArray)
"""Stand-ins that take a state after they were made."""


class _Reader(pickle._Unpickler):  # the one in C cannot be told what to leave out
    """Python's own unpickler in Python, with stand-ins for all that a file may name, and without what runs things.

    Args:
        content: the pickle.
        storage_of: makes a storage from its description, in files that keep storages outside of the pickle.
        strict: whether entries under tuples and other keys that may be slow to compare are refused, not left out.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(
        self, content: bytes | memoryview, storage_of: Callable[[object], LazyStorage] | None, strict: bool
    ) -> None:
        super().__init__(_View(content), encoding="latin1")  # type: ignore[arg-type]  # views for bytes
        self.storage_of, self.strict = storage_of, strict

    def find_class(self, module: str, name: str, /) -> Any:
        """The stand-in of a class or function; any other is refused by name."""
        full = f"{module}.{name}"
        if full in STAND_INS:
            return STAND_INS[full]
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return StorageType.named(name)
        raise CheckpointError(
            f"the file names {full[:200]}",
            "opening it in the usual way would run that, and no network's file of a known kind needs it",
            "nothing was run; get the file from its publisher, or save its weights alone "
            "(`torch.save({'g_ema': g_ema.state_dict()}, ...)`, or safetensors)",
        )

    def persistent_load(self, pid: object, /) -> Any:
        """A storage that lies outside of the pickle."""
        if self.storage_of is None:
            raise pickle.UnpicklingError("it refers to something outside of itself")
        return self.storage_of(pid)

    def _decode_string(self, value: bytes | memoryview) -> str | memoryview:
        """Text or bytes of Python 2, which had one type for both; what is large is no text."""
        return value if isinstance(value, memoryview) else value.decode("latin1")

    def load_reduce(self) -> None:
        """Call a stand-in; nothing else can be called."""
        arguments, call = self.stack.pop(), self.stack[-1]
        if not any(call is known for known in STAND_INS.values()) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("it calls something that cannot be called")
        self.stack[-1] = call(*arguments)

    def load_newobj(self) -> None:
        """Make an object of a stand-in's class."""
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, type) or not any(kind is known for known in STAND_INS.values()) or arguments != ():
            raise pickle.UnpicklingError("it makes an object of something that is no class")
        self.append(kind())

    def load_build(self) -> None:
        """Give a stand-in its state."""
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, STATEFUL):
            raise pickle.UnpicklingError("it gives a state to something that has none")
        made.__setstate__(state)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _put(self.stack[-1], [key, value], self.strict)

    def load_setitems(self) -> None:
        items = self.pop_mark()
        _put(self.stack[-1], items, self.strict)

    def load_dict(self) -> None:
        items = self.pop_mark()
        made: dict[Any, Any] = {}
        _put(made, items, self.strict)
        self.append(made)

    def load_additems(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        if type(target) is not set:
            raise pickle.UnpicklingError("it adds items to something that is no set")
        target |= _set(items)

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise pickle.UnpicklingError("it adds items to something that is no list")
        self.stack[-1].extend(items)

    def refuse(self) -> None:
        """What no file of a known family has."""
        raise pickle.UnpicklingError("it makes objects in a way that no StyleGAN2 file does")


for _opcode_bytes, _load in {
    pickle.REDUCE: _Reader.load_reduce,
    pickle.NEWOBJ: _Reader.load_newobj,
    pickle.BUILD: _Reader.load_build,
    pickle.SETITEM: _Reader.load_setitem,
    pickle.SETITEMS: _Reader.load_setitems,
    pickle.DICT: _Reader.load_dict,
    pickle.ADDITEMS: _Reader.load_additems,
    pickle.APPEND: _Reader.load_append,
    pickle.APPENDS: _Reader.load_appends,
    **dict.fromkeys((pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.FROZENSET), _Reader.refuse),
}.items():
    _Reader.dispatch[_opcode_bytes[0]] = _load


def _put(target: object, items: list[Any], strict: bool) -> None:
    """Entries of a dictionary, keys and values in turns."""
    if type(target) not in (dict, PickledDict) or len(items) % 2:
        raise pickle.UnpicklingError("it gives entries to something that is no dictionary")
    assert isinstance(target, dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
        if strict or _is_plain(key):  # no weights lie under others
            target[_plain(key)] = value


def _is_plain(key: object) -> bool:
    """Whether a key is quick to compare.

    A tuple of tuples could take for ever; so could many large numbers, all with the same remainder by 2^61 - 1, which
    is what Python looks them up by.
    """
    if type(key) is int:
        return abs(key) < 2**60
    return type(key) in (str, float, bool, bytes, type(None))


def _plain(key: object) -> object:
    if not _is_plain(key):
        raise pickle.UnpicklingError("a key that is neither text nor a small number")
    return key


class _View:
    """Reads a view; large parts come as views of it, so that nothing of them is copied or even fetched.

    Args:
        content: the pickle.
    """

    def __init__(self, content: bytes | memoryview) -> None:
        self.view, self.at = memoryview(content), 0

    def read(self, size: int) -> bytes | memoryview:
        part = self.view[self.at : self.at + size]
        self.at += len(part)
        return part if size >= LARGE else bytes(part)

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        part = self.view[self.at : self.at + len(target)]
        target[: len(part)] = part
        self.at += len(part)
        return len(part)

    def readline(self) -> bytes:
        end = find(self.view, self.at) + 1
        part = bytes(self.view[self.at : end or len(self.view)])
        self.at += len(part)
        return part


def read_pickle(
    content: bytes | memoryview,
    storage_of: Callable[[object], LazyStorage] | None = None,
    *,
    strict: bool = False,
) -> tuple[Any, int]:
    """The object in a pickle, made of plain data and stand-ins, and where the pickle ends.

    Args:
        content: bytes that begin with a pickle.
        storage_of: makes a storage from its description, in files that keep storages outside of the pickle.
        strict: whether entries under other keys than text and small numbers are refused; otherwise they are left out.

    Raises:
        CheckpointError: the pickle names something that is not on the list.
        pickle.UnpicklingError: it is damaged, or declares sizes beyond its end.
    """
    end = checked_end(content)
    try:
        return _Reader(memoryview(content)[:end], storage_of, strict).load(), end
    except (CheckpointError, pickle.UnpicklingError):
        raise
    except Exception as error:  # damaged pickles raise whatever their bytes happen to ask for
        raise pickle.UnpicklingError(f"{type(error).__name__}: {str(error)[:200]}") from error
