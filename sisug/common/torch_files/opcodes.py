"""A pass over a pickle's opcodes before it is read (every stage): all sizes that it declares must lie within it."""

from __future__ import annotations

import pickle
import pickletools

MOST_OPCODES = 500_000
"""An opcode of one byte can make an object of a hundred; files of three 1024 px networks have 60,000."""


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
_EXTENSIONS = frozenset(b"\x82\x83\x84\x97\x98")


def checked_end(content: bytes | memoryview) -> int:
    """Where the pickle at the beginning of some bytes ends, after a check of every size that it declares.

    Raises:
        pickle.UnpicklingError: it is damaged, or would take more memory than it has bytes for.
    """
    view = memoryview(content)
    total, at, opcodes = len(view), 0, 0
    while at < total:
        code = view[at]
        opcodes += 1
        if code == _STOP:
            return at + 1
        if opcodes > MOST_OPCODES:
            raise pickle.UnpicklingError("it has more parts than any network has")
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
