"""Reads published data that exist only as pickles, without running anything that a file asks for.

A pickle is a small program. What it can reach from here is a short allow-list: every name that it looks up is either
in `pickled_values.CONTAINERS` (and `ARRAYS`, on request) or refused, and each of those stands for a constructor of
ours that takes data and returns data. So whatever a file calls (REDUCE, NEWOBJ), it calls one of them; what they return
cannot be called; a state that a file sets (BUILD) is checked by our stand-ins, and refused by the constructors
themselves. Opcodes that lead elsewhere (persistent ids, extension codes, instances in the old style, buffers out of
band) are refused before anything is loaded, as are lengths and memo numbers that would only reserve memory. A file may
still be as large as the limit allows, and take the time that its own nesting costs.
"""

import copyreg
import io
import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmodels.data.pickled_values import ARRAYS, CONTAINERS, settled

REFUSED = frozenset("EXT1 EXT2 EXT4 PERSID BINPERSID INST OBJ NEWOBJ_EX NEXT_BUFFER READONLY_BUFFER".split())
LINE, TWO_LINES, UNKNOWN, COUNTED = -1, -2, -3, -10  # of an opcode's argument; COUNTED less the width of the count


def load_pickle(file: Path | str, *, arrays: bool = False, max_bytes: int = 1 << 30) -> Any:
    """The data of one pickle of plain containers.

    Args:
        file: written by any protocol, Python 2 included (whose strings are read as latin1 with `arrays`, else UTF-8).
        arrays: admit NumPy arrays of numbers and strings, and SciPy's CSR matrices.
        max_bytes: larger files are refused.

    Returns:
        dict (a defaultdict loses its factory), list, tuple, set, frozenset, str, bytes, int, float, bool and None;
        with `arrays` also numpy.ndarray and scipy.sparse.csr_matrix.

    Raises:
        ValueError: no such file, one that is too large, truncated or no pickle, or one that asks for anything else:
            names the file and what it asked for.
    """
    path = Path(file)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ValueError(f"{size} bytes are more than the limit of {max_bytes}")
        return _load(path.read_bytes(), arrays)
    except FileNotFoundError:
        raise ValueError(f"{path}: found no such file; expected a pickle") from None
    except Exception as error:  # a broken pickle may raise anything
        what = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: expected a pickle of plain data: {what[:200]}") from None


def _load(data: bytes, arrays: bool) -> Any:
    _scan(data)
    copyreg.clear_extension_cache()  # what is in it would be handed out without a look-up
    return settled(_Unpickler(data, arrays).load())


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, arrays: bool):
        super().__init__(io.BytesIO(data), encoding="latin1" if arrays else "utf-8")
        self._admitted: Mapping[tuple[str, str], Any] = CONTAINERS | ARRAYS if arrays else CONTAINERS

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._admitted:
            return self._admitted[module, name]
        why = ", as arrays were not asked for" if (module, name) in ARRAYS else ""
        raise ValueError(f"refused '{f'{module}.{name}'[:80]}'{why}")

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("refused a persistent id")


def _argument_sizes() -> list[int]:
    sizes = [UNKNOWN] * 256
    counts = {
        pickletools.TAKEN_FROM_ARGUMENT1: 1,
        pickletools.TAKEN_FROM_ARGUMENT4: 4,
        pickletools.TAKEN_FROM_ARGUMENT4U: 4,
        pickletools.TAKEN_FROM_ARGUMENT8U: 8,
    }
    for opcode in pickletools.opcodes:
        width = opcode.arg.n if opcode.arg else 0
        if width in counts:  # so many bytes say how many bytes follow
            width = COUNTED - counts[width]
        sizes[ord(opcode.code)] = UNKNOWN if opcode.name in REFUSED else width
    sizes[ord("c")] = TWO_LINES
    return sizes


SIZES = _argument_sizes()
NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}


def _scan(data: bytes) -> None:
    """Refuses what must not be loaded at all: one pass over the opcodes, which it does not carry out."""
    at, end = 0, len(data)
    while at < end:
        code, start = data[at], at + 1
        size = SIZES[code]
        if size >= 0:
            at = start + size
        elif size == UNKNOWN:
            name = NAMES.get(code)
            raise ValueError(f"refused opcode {name}" if name else f"no opcode {code}, at byte {at}")
        elif size <= COUNTED:
            at = start + COUNTED - size
            at += int.from_bytes(data[start:at], "little")
        else:
            at = _line_end(data, start) if size == LINE else _line_end(data, _line_end(data, start))
        if at > end:
            break
        if code == ord("r") or code == ord("p"):  # no writer numbers more objects than it has written bytes
            number = int.from_bytes(data[start:at], "little") if code == ord("r") else int(data[start:at])
            if not 0 <= number <= start:
                raise ValueError(f"memo number {number} at byte {start}")
        elif code == ord("."):
            if at < end:
                raise ValueError(f"{end - at} bytes follow its end")
            return
    raise ValueError("truncated")


def _line_end(data: bytes, start: int) -> int:
    return data.find(b"\n", start) + 1 or len(data) + 1
