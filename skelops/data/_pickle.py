"""Unpickle plain data and nothing else: built-in containers and NumPy arrays of plain dtypes.

The published archives of PYSKL and ST-GCN are pickles, and a pickle is a program. This reader runs
the standard library's machine with every instruction that could import, call or change anything
replaced: a global is looked up in the table below and nowhere else, a call goes to a function of
this module, and only an empty array and a dtype take a state.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import struct
from pathlib import Path
from types import MethodType
from typing import IO, Any, ClassVar

import numpy as np

_ARRAY = object()  # stands for the class numpy.ndarray, so that nothing can instantiate it
_REFUSED = ("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4",
            "NEXT_BUFFER", "READONLY_BUFFER")  # fmt: skip
_ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, AssertionError,
           OverflowError, RecursionError, struct.error, pickle.UnpicklingError)  # fmt: skip


def load(file: str | Path | IO[bytes]) -> Any:
    """Read a pickle of plain data; nothing in it is imported, called or executed.

    Admits dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, bool, None, and
    NumPy arrays and scalars of booleans, integers, floating numbers and strings, in protocols 0 to
    5 and from Python 2 (whose strings are read as Latin-1). Memory stays proportional to the size
    of the file.

    Args:
        file: a path, or a seekable binary file at the start of the pickle.

    Returns:
        The data.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: an empty, truncated or damaged file, or anything but plain data; the message
            names the file, the byte and, where it is one, the global.
    """
    if isinstance(file, (str, Path)):
        with open(file, "rb") as opened:
            return load(opened)
    try:
        return _Unpickler(_BoundedFile(file)).load()
    except _ERRORS as error:
        raise ValueError(
            f"{getattr(file, 'name', 'pickle')}: expected a pickle of plain data, got {error} "
            f"before byte {file.tell()}"
        ) from error


class _BoundedFile:
    """A file of which no more bytes can be asked for than there are."""

    def __init__(self, file: IO[bytes]) -> None:
        start = file.tell()
        self.end = file.seek(0, os.SEEK_END)
        file.seek(start)
        self.size, self.file, self.readline = self.end - start, file, file.readline

    def read(self, size: int) -> bytes:
        missing = size - (self.end - self.file.tell())
        if missing > 0:
            raise ValueError(f"the end of the file, {missing} bytes short,")
        return self.file.read(size)


def _refuse(unpickler: Any) -> None:
    raise ValueError("an instruction that plain data have no use for")


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """The methods ``make_*`` are all that a pickle can call."""

    def __init__(self, file: _BoundedFile) -> None:
        super().__init__(file, encoding="latin1")
        self.left = 4 * file.size  # bytes that copies may take; each needs its source in the file
        self.globals: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _ARRAY,
            ("numpy", "dtype"): self.make_dtype,
            ("_codecs", "encode"): self.make_bytes,
        }
        for package in ("numpy.core", "numpy._core"):
            self.globals[f"{package}.multiarray", "_reconstruct"] = self.make_empty
            self.globals[f"{package}.multiarray", "scalar"] = self.make_scalar
            self.globals[f"{package}.numeric", "_frombuffer"] = self.make_array
        for module in ("builtins", "__builtin__"):
            self.globals[module, "bytes"] = self.make_no_bytes
            self.globals[module, "set"] = self.make_set
            self.globals[module, "frozenset"] = self.make_frozenset

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.globals:
            raise ValueError(f"the global {module}.{name}")
        return self.globals[module, name]

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if type(function) is not MethodType or type(args) is not tuple:
            raise ValueError(f"a call of {type(function).__name__}")
        self.append(function(*args))

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if type(made) is np.ndarray and made.shape == (0,):
            self.fill(made, *state)
        elif isinstance(made, np.dtype):
            self.set_order(made, *state)
        else:
            raise ValueError(f"a state for {type(made).__name__}")

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch: ClassVar = {
        **dict.fromkeys(range(256), _refuse),
        **pickle._Unpickler.dispatch,  # type: ignore[attr-defined]
        **{getattr(pickle, name)[0]: _refuse for name in _REFUSED},
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }

    def charge(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ValueError("more data than the file holds")

    def make_dtype(self, spec: str, align: int = 0, copy: int = 1) -> np.dtype:
        if type(spec) is not str or not re.fullmatch(r"[biufSU][1-9]\d{0,5}", spec):
            raise ValueError(f"the dtype {spec!r}")
        return np.dtype(spec, copy=True)

    def set_order(self, dtype: np.dtype, version: int, order: str, *rest: Any) -> None:
        if version != 3 or order not in ("<", ">", "|", "=") or rest[:3] != (None, None, None):
            raise ValueError(f"the dtype state {(version, order, *rest)}")
        size = (dtype.itemsize, dtype.alignment) if dtype.kind in "SU" else (-1, -1)
        dtype.__setstate__((3, order, None, None, None, *size, 8 if dtype.kind == "U" else 0))

    def make_empty(self, kind: Any, shape: Any, code: Any) -> np.ndarray:
        if kind is not _ARRAY or shape != (0,) or code not in (b"b", "b"):
            raise ValueError(f"an array made of {(kind, shape, code)}")
        return np.empty(0, np.int8)

    def fill(
        self, array: np.ndarray, version: int, shape: Any, dtype: Any, fortran: Any, data: Any
    ) -> None:
        data = data.encode("latin1") if type(data) is str else data
        _check_size(dtype, shape, data)
        self.charge(len(data))
        array.__setstate__((1, shape, dtype, bool(fortran), bytes(data)))

    def make_array(
        self, data: Any, dtype: Any, shape: Any, order: str, axes: tuple[int, ...] | None = None
    ) -> np.ndarray:
        _check_size(dtype, shape, data)
        if axes is not None:
            return np.ndarray(shape, dtype, data).transpose(axes)
        return np.ndarray(shape, dtype, data, order=order)

    def make_scalar(self, dtype: Any, data: Any) -> Any:
        data = data.encode("latin1") if type(data) is str else data
        _check_size(dtype, (), data)
        return np.frombuffer(data, dtype)[0]

    def make_bytes(self, text: str, encoding: str) -> bytes:
        if type(text) is not str or encoding != "latin1":
            raise ValueError(f"text in the encoding {encoding!r}")
        self.charge(len(text))
        return text.encode("latin1")

    def make_no_bytes(self) -> bytes:
        return b""

    def make_set(self, items: Any = ()) -> set:
        self.charge(8 * len(items))
        return set(items)

    def make_frozenset(self, items: Any = ()) -> frozenset:
        return frozenset(self.make_set(items))


def _check_size(dtype: Any, shape: Any, data: Any) -> None:
    if not isinstance(dtype, np.dtype) or type(data) not in (bytes, bytearray):
        raise ValueError(f"an array of {type(data).__name__} as {dtype}")
    if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"an array of shape {shape}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for an array {dtype} {shape}")
