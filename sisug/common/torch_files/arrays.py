"""Tensors and arrays that a file describes, not read yet (every stage): sizes are checked before bytes are."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

MOST_DIMENSIONS = 8

MOST_REPEATED = 2**24
"""Elements of a tensor up to which some may be the same, as `expand` makes them."""


class Sealed:
    """What a file can make, but not change afterwards: checks hold for good."""

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a state for a tensor")


@dataclass(frozen=True)
class StorageType(Sealed):
    """Type of the elements of a storage, which files name as a class of torch.

    Args:
        dtype: torch's type.
    """

    dtype: torch.dtype

    @classmethod
    def named(cls, name: str) -> StorageType:
        """Type by the name of torch's class.

        Raises:
            pickle.UnpicklingError: it is none of numbers.
        """
        try:
            return cls(_STORAGES[name])
        except KeyError:
            raise pickle.UnpicklingError(f"a storage of type {name[:50]}") from None


_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_NUMPY = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "b1": torch.bool,
}


@dataclass(eq=False)
class LazyStorage(Sealed):
    """Elements of a storage: how many, and a call that gives their bytes.

    Args:
        dtype: type of the elements; None where `inner` tells it.
        elements: how many, or more.
        read: gives the bytes, as many as the elements take.
        inner: gives the storage that these bytes are a file of.
    """

    dtype: torch.dtype | None
    elements: int
    read: Callable[[], bytes | memoryview]
    inner: Callable[[], LazyStorage] | None = None
    held: Tensor | None = field(default=None, repr=False)

    def tensor(self) -> Tensor:
        """The elements, flat.

        Raises:
            pickle.UnpicklingError: the file has fewer or more bytes than it declares.
        """
        if self.held is None:
            if self.inner is not None:
                self.held = self.inner().tensor()
            else:
                assert self.dtype is not None
                self.held = from_bytes(self.read(), self.dtype, self.elements)
        return self.held


def from_bytes(content: bytes | memoryview, dtype: torch.dtype, elements: int) -> Tensor:
    """A flat tensor of these bytes, which it copies unless they can be written to (as those of a private map can).

    Raises:
        pickle.UnpicklingError: there are fewer or more bytes than the elements take.
    """
    if len(content) != elements * dtype.itemsize:
        raise pickle.UnpicklingError(f"{elements:,} elements of {dtype} in {len(content):,} bytes")
    view = memoryview(content).cast("B")
    if not elements:
        return torch.empty(0, dtype=dtype)
    if view.readonly:
        flat = torch.empty(elements, dtype=dtype)
        flat.view(torch.uint8).numpy()[:] = view
        return flat
    return torch.frombuffer(view, dtype=dtype)


@dataclass(frozen=True, eq=False)
class LazyTensor(Sealed):
    """A tensor that a file describes, not read yet.

    Args:
        storage: where its elements lie.
        offset: of its first element.
        shape: sizes.
        stride: steps, elements.
    """

    storage: LazyStorage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Read it, as a tensor of its own.

        Raises:
            pickle.UnpicklingError: it reaches outside of its storage.
        """
        flat = self.storage.tensor()
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        if 0 not in self.shape and last >= len(flat):
            raise pickle.UnpicklingError(f"a tensor of shape {self.shape} reaches outside of {len(flat):,} elements")
        if 0 in self.shape:
            return flat.new_empty(self.shape)
        return flat.as_strided(self.shape, self.stride, self.offset)


def rebuild_tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> LazyTensor:
    """Stands for torch._utils._rebuild_tensor_v2; gradients and hooks are of no use here.

    Raises:
        pickle.UnpicklingError: it is no sound description of a tensor.
    """
    if not isinstance(storage, LazyStorage):
        raise pickle.UnpicklingError("a tensor without a storage")
    shape, steps = _numbers(size), _numbers(stride)
    (start,) = _numbers((offset,))
    if len(shape) != len(steps):
        raise pickle.UnpicklingError("a tensor with a step for some of its sizes only")
    elements = math.prod(shape)
    last = start + sum((size - 1) * step for size, step in zip(shape, steps, strict=True))
    # Elements that are used twice would make much of little.
    reach = 0
    for step, size in sorted((step, size) for size, step in zip(shape, steps, strict=True) if size > 1):
        if elements > MOST_REPEATED and step <= reach:
            raise pickle.UnpicklingError("a tensor that repeats its elements")
        reach += (size - 1) * step
    if elements and storage.dtype is not None and last >= storage.elements:
        raise pickle.UnpicklingError(f"a tensor of shape {shape} reaches outside of {storage.elements:,} elements")
    return LazyTensor(storage, start, shape, steps)


def _numbers(values: object) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > MOST_DIMENSIONS:
        raise pickle.UnpicklingError("sizes that are no list of a few numbers")
    for value in values:
        if type(value) is not int or not 0 <= value < 2**40:
            shown = value if type(value) is int and abs(value) < 2**64 else type(value).__name__
            raise pickle.UnpicklingError(f"a size of {shown}")
    return tuple(values)


def rebuild_parameter(data: object, *_: object) -> LazyTensor:
    """Stands for torch._utils._rebuild_parameter.

    Raises:
        pickle.UnpicklingError: it holds no tensor.
    """
    if not isinstance(data, LazyTensor):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return data


@dataclass(frozen=True, eq=False)
class Latin1(Sealed):
    """Bytes that Python 3 wrote in Python 2's protocol, as text; decoded when they are needed.

    Args:
        text: one character a byte.
    """

    text: str

    def encoded(self) -> bytes:
        """The bytes."""
        return _latin1_bytes(self.text)


def latin1(text: object, encoding: object = "latin1") -> Latin1:
    """Stands for _codecs.encode, for the one encoding that pickles use it with.

    Raises:
        pickle.UnpicklingError: another encoding.
    """
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("text in an encoding that pickles do not use")
    return Latin1(text)


def _latin1_bytes(text: str) -> bytes:
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise pickle.UnpicklingError("bytes that are written as text hold characters beyond a byte") from None


def bytes_of(content: object) -> bytes | memoryview:
    """Bytes, in whatever way a pickle wrote them.

    Raises:
        pickle.UnpicklingError: it is something else.
    """
    if isinstance(content, Latin1):
        return content.encoded()
    if isinstance(content, str):  # Python 2 had one type for both
        return _latin1_bytes(content)
    if isinstance(content, (bytes, memoryview)):
        return content
    if isinstance(content, bytearray):
        return bytes(content)
    raise pickle.UnpicklingError("bytes were expected")


class NumpyDtype:
    """numpy's type of elements, by its code.

    Args:
        code: like "f4".
    """

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code.lstrip("<=|"), "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str):
            self.order = state[1]

    def torch_dtype(self) -> torch.dtype:
        """Torch's type.

        Raises:
            pickle.UnpicklingError: objects, text, or the byte order of other machines.
        """
        if self.code not in _NUMPY or self.order == ">":
            raise pickle.UnpicklingError(f"an array of type {self.order}{self.code}"[:80])
        return _NUMPY[self.code]


def numpy_dtype(code: object, *_: object) -> NumpyDtype:
    """Stands for numpy.dtype.

    Raises:
        pickle.UnpicklingError: no code of a type.
    """
    if isinstance(code, Latin1):
        code = code.text
    if not isinstance(code, str) or len(code) > 8:
        raise pickle.UnpicklingError("an array of a type that has parts")
    return NumpyDtype(code)


def numpy_scalar(dtype: object, content: object = b"") -> float | int | bool:
    """Stands for numpy's scalars: a Python number.

    Raises:
        pickle.UnpicklingError: no number.
    """
    if not isinstance(dtype, NumpyDtype):
        raise pickle.UnpicklingError("a number without a type")
    number: float | int | bool = from_bytes(bytes_of(content), dtype.torch_dtype(), 1).item()
    return number


class NumpyArray:
    """An array of a pickle, not read yet."""

    __slots__ = ("content", "dtype", "fortran", "shape")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype: NumpyDtype | None = None
        self.fortran = False
        self.content: object = b""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array without a state")
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, NumpyDtype):
            raise pickle.UnpicklingError("an array without a type")
        self.shape, self.dtype, self.fortran, self.content = _numbers(shape), dtype, bool(fortran), content

    def tensor(self) -> Tensor:
        """Read it.

        Raises:
            pickle.UnpicklingError: objects instead of numbers, or a size that does not fit.
        """
        if self.dtype is None:
            raise pickle.UnpicklingError("an array without a type")
        flat = from_bytes(bytes_of(self.content), self.dtype.torch_dtype(), math.prod(self.shape))
        if self.fortran:
            return flat.reshape(self.shape[::-1]).permute(*range(len(self.shape) - 1, -1, -1))
        return flat.reshape(self.shape)


class Number:
    """A single number as a tensor: TensorFlow files keep scalar variables so.

    Args:
        value: the number.
    """

    __slots__ = ("shape", "value")

    def __init__(self, value: float) -> None:
        self.value, self.shape = value, ()

    def tensor(self) -> Tensor:
        """Read it."""
        return torch.tensor(float(self.value))


def empty_array(*_: Any) -> NumpyArray:
    """Stands for numpy's array, which gets its content from its state afterwards."""
    return NumpyArray()


def array_from_buffer(content: object, dtype: object, shape: object, order: object = "C") -> NumpyArray:
    """Stands for numpy's array in pickles of protocol 5."""
    array = NumpyArray()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array
