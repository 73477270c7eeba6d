"""Stand-ins for what a pickle builds, so that a file reaches no constructor but these.

A pickle builds an array in steps (an empty one, then its state), and NumPy's own steps trust the state. Here a step
only stores; `settled` checks sizes and types once everything is read, and builds the array from its bytes. Nothing
here can be hashed, so none of it hides in a set or a key.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse

PLAIN = re.compile(r"[biufcSU][0-9]{1,6}")  # bool, integers, floats, complex, bytes, str: nothing that holds objects
DEPTH = 64  # of containers in containers


class Maker:
    """A constructor that a file may call, and do nothing else with."""

    __slots__ = ("_make",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, make: Callable[..., Any]):
        self._make = make

    def __call__(self, *args: Any) -> Any:
        """What a file's call builds."""
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("refused to change a constructor")


class Dtype:
    """What `numpy.dtype` is called with; only plain ones."""

    __slots__ = ("name", "order")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: Any, align: Any = False, copy: Any = True):
        if not isinstance(name, str) or not PLAIN.fullmatch(name):
            raise ValueError(f"refused an array of dtype {_short(name)}; expected plain numbers or strings")
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        known = isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", ">", "|", "=")
        if not known or any(part is not None for part in state[2:5]):
            raise ValueError("refused an array of a structured dtype; expected plain numbers or strings")
        self.order = state[1]


class Array:
    """What `numpy.core.multiarray._reconstruct` or `numpy.core.numeric._frombuffer` builds."""

    __slots__ = ("dtype", "data", "order", "shape")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.dtype, self.data, self.order, self.shape = None, None, "C", None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("expected the five parts of an array's state")
        _, self.shape, self.dtype, fortran, self.data = state
        self.order = "F" if fortran else "C"


class Csr:
    """What `scipy.sparse.csr_matrix` builds."""

    __slots__ = ("state",)
    __hash__ = None  # type: ignore[assignment]

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ValueError("expected the named parts of a CSR matrix")
        self.state = state


class Ndarray:
    """Stands for the class `numpy.ndarray`, which a file hands to `_reconstruct`."""

    __slots__ = ()


def reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    """`numpy.core.multiarray._reconstruct`: an array whose state follows."""
    if kind is not Ndarray:
        raise ValueError("expected a plain numpy.ndarray")
    return Array()


def _empty_dict(factory: Any = None) -> dict[Any, Any]:
    return {}  # without the factory: reading what a file lacks is an error, never a new entry


def _without_arguments(kind: type) -> Callable[[], Any]:
    return lambda: kind()  # a default factory, or empty bytes: arguments are refused


def _items(items: Any = ()) -> list[Any] | tuple[Any, ...]:
    if not isinstance(items, list | tuple):
        raise ValueError(f"a set of {type(items).__name__}; expected a list")
    return items


def _encoded(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("refused '_codecs.encode' of anything but bytes written as latin1")
    return text.encode("latin1")


def frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """`numpy.core.numeric._frombuffer`, how protocol 5 writes an array."""
    found = Array()
    found.data, found.dtype, found.shape, found.order = data, dtype, shape, order
    return found


_BUILTINS = {
    "set": Maker(lambda *items: set(_items(*items))),
    "frozenset": Maker(lambda *items: frozenset(_items(*items))),
    **{kind.__name__: Maker(_without_arguments(kind)) for kind in (list, dict, int, float, str, bytes)},
    "long": Maker(_without_arguments(int)),  # of Python 2
}
CONTAINERS: dict[tuple[str, str], Any] = {
    **{(module, name): maker for module in ("builtins", "__builtin__") for name, maker in _BUILTINS.items()},
    ("collections", "defaultdict"): Maker(_empty_dict),
    ("_codecs", "encode"): Maker(_encoded),  # how protocols 0 to 2 write bytes
}
ARRAYS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): Ndarray,
    ("numpy", "dtype"): Maker(Dtype),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Maker(reconstruct) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): Maker(frombuffer) for core in ("core", "_core")},
    **{(f"scipy.sparse.{module}", "csr_matrix"): Csr for module in ("csr", "_csr")},
}


def settled(value: Any) -> Any:
    """`value` with every stand-in replaced by the array or matrix that it stands for.

    Raises:
        ValueError: a size that its bytes do not have, CSR pieces that do not fit, containers nested deeper than 64.
    """
    return _settled(value, {}, DEPTH)


def _settled(value: Any, done: dict[int, Any], depth: int) -> Any:
    if not isinstance(value, list | tuple | dict | Array | Csr | Dtype | Maker | type):
        return value
    if not depth:
        raise ValueError(f"containers nested deeper than {DEPTH}, or one that holds itself")
    if id(value) not in done:  # what a file names twice is walked once
        done[id(value)] = _rebuilt(value, done, depth - 1)
    return done[id(value)]


def _rebuilt(value: Any, done: dict[int, Any], depth: int) -> Any:
    match value:
        case list():
            return [_settled(item, done, depth) for item in value]
        case tuple():
            return tuple(_settled(item, done, depth) for item in value)
        case dict():
            return {key: _settled(item, done, depth) for key, item in value.items()}
        case Array():
            return _array(value)
        case Csr():
            return _csr(value)
    raise ValueError("a constructor where data were expected")


def _array(found: Array) -> np.ndarray:
    if not isinstance(found.dtype, Dtype):
        raise ValueError("an array without a dtype")
    data = found.data.encode("latin1") if isinstance(found.data, str) else found.data  # str: written by Python 2
    if not isinstance(data, bytes | bytearray):
        raise ValueError(f"an array: expected its bytes, found {type(data).__name__}")
    shape = found.shape
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 32:
        raise ValueError(f"an array of shape {_short(shape)}")
    dtype = np.dtype(found.dtype.name).newbyteorder(found.dtype.order)
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} and dtype {dtype}: found {len(data)} bytes")
    if not data:
        return np.zeros(shape, dtype.newbyteorder("="))
    order = "F" if found.order == "F" else "C"
    return np.frombuffer(data, dtype).reshape(shape, order=order).astype(dtype.newbyteorder("="))


def _csr(found: Csr) -> scipy.sparse.csr_matrix:
    state = getattr(found, "state", {})
    shape = state.get("_shape", state.get("shape"))
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"a CSR matrix of shape {_short(shape)}")
    parts = []
    for name, kinds in (("data", "biuf"), ("indices", "iu"), ("indptr", "iu")):
        part = state.get(name)
        array = _array(part) if isinstance(part, Array) else None
        if array is None or array.ndim != 1 or array.dtype.kind not in kinds:
            raise ValueError(f"a CSR matrix: expected a list of numbers as its '{name}'")
        parts.append(array)
    return csr_of(*parts, shape=shape)


def csr_of(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, *, shape: tuple[int, int]
) -> scipy.sparse.csr_matrix:
    """A CSR matrix of pieces from a file.

    Raises:
        ValueError: row starts that are not (rows + 1) rising numbers up to the number of entries, or a column outside.
    """
    rows, columns = shape
    if len(indptr) != rows + 1 or indptr[0] != 0 or indptr[-1] != len(indices) or (indptr[1:] < indptr[:-1]).any():
        raise ValueError(f"a CSR matrix of shape {shape}: its row starts do not fit its {len(indices)} entries")
    if len(data) != len(indices):
        raise ValueError(f"a CSR matrix of shape {shape}: {len(data)} values for {len(indices)} column indices")
    if len(indices) and not (0 <= indices.min() and indices.max() < columns):
        raise ValueError(f"a CSR matrix of shape {shape}: columns {indices.min()} to {indices.max()}, some outside")
    return scipy.sparse.csr_matrix((data, indices.astype(np.int64), indptr.astype(np.int64)), shape=shape)


def _short(value: Any) -> str:
    return repr(value)[:60] if isinstance(value, str | int | tuple) else type(value).__name__
