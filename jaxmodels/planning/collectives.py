"""What a compiled program sends between chips, read from its optimised HLO text.

The text is the program of one device, so shapes are those of its part. What counts as the bytes of a collective:

- all-reduce, all-to-all, collective-permute: the operands (as large as the result);
- reduce-scatter: the operands (the group's size times the result);
- all-gather, collective-broadcast: the result.

A collective inside the body of a while loop (`lax.scan`, `lax.fori_loop`) is counted once, however often the loop runs:
the text does not say how often. Unrolled loops are counted in full.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


class Collective(NamedTuple):
    """All collectives of one kind over groups of one size.

    Attributes:
        kind: one of `KINDS`.
        group: devices that take part together.
        number: how many there are.
        bytes: of one device, over all of them; see the module for what is counted.
    """

    kind: str
    group: int
    number: int
    bytes: int


def collectives(hlo: str, *, devices: int) -> tuple[Collective, ...]:
    """The collectives of a program by kind and group size, largest first.

    Args:
        hlo: text of the optimised program, as of `compiled.as_text()`.
        devices: that the program runs on; the group of a collective that names none.

    >>> collectives('%s = f32[8,4]{1,0} all-reduce(%x), replica_groups={{0,1},{2,3}}', devices=4)
    (Collective(kind='all-reduce', group=2, number=1, bytes=128),)
    """
    totals: dict[tuple[str, int], tuple[int, int]] = {}
    for kind, group, size in _found(hlo, devices):
        count, total = totals.get((kind, group), (0, 0))
        totals[kind, group] = count + 1, total + size
    rows = (Collective(kind, group, count, total) for (kind, group), (count, total) in totals.items())
    return tuple(sorted(rows, key=lambda row: (-row.bytes, row.kind, row.group)))


def _found(hlo: str, devices: int) -> Iterator[tuple[str, int, int]]:
    """(kind, group, bytes) of each collective.

    The TPU compiler spreads one asynchronous collective over several fusions (its start, what it overlaps with, its
    end) and repeats the instruction in each, with the same channel: within fusions a channel counts once. It also
    writes a reduce-scatter as a fusion, named all-reduce-scatter, of an all-reduce and a slice.
    """
    fused = set(re.findall(r" fusion\(.*?calls=%?([\w.\-]+)", hlo))
    computation = ""
    definitions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for line in hlo.splitlines():
        if header := _COMPUTATION.match(line):
            computation = header[1]
        if not (instruction := _INSTRUCTION.match(line)):
            continue
        name, definition = instruction.groups()
        definitions[name] = definition
        if not any(kind in definition for kind in KINDS):
            continue
        result, op, operands, attributes = _parse(definition)
        kind = op.removesuffix("-start")
        if kind not in KINDS:
            continue
        channel = re.search(r"channel_id=(\d+)", attributes)
        if computation in fused and channel:
            if (kind, channel[1]) in seen:
                continue
            seen.add((kind, channel[1]))
        group = _group(attributes, devices)
        scatters = computation in fused and "all-reduce-scatter" in computation
        yield "reduce-scatter" if scatters else kind, group, _size(op, result, operands, definitions, group)


def _size(op: str, result: str, operands: str, definitions: dict[str, str], group: int) -> int:
    kind = op.removesuffix("-start")
    if op != kind and kind != "all-reduce" and result.startswith("("):
        taken, given = (_bytes(part) for part in _parts(result)[:2])  # a start holds (operands, results, context...)
        return given if kind in _BY_RESULT else taken
    if kind == "reduce-scatter":
        sizes = [_bytes(_type_of(operand, definitions)) for operand in _parts(f"({operands})")]
        return sum(sizes) if all(sizes) else group * _bytes(result)
    return _bytes(result)


def _type_of(operand: str, definitions: dict[str, str]) -> str:
    """The type before an operand's name ('f32[8] %x'), or the one it was defined with."""
    before, _, name = operand.strip().rpartition(" ")
    definition = definitions.get(name.lstrip("%"), "")
    return before or (_parse(definition)[0] if definition else "")


def _group(attributes: str, devices: int) -> int:
    """Size of the first group; groups are written in full, as a grid, or as axes of a mesh."""
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", attributes):
        return len(set(re.findall(r"\d+", pairs[1])))
    if full := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return full[1].count(",") + 1
    if grid := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(grid[1])
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\][^{]*\{(.*?)\}", attributes):
        sizes = dict(re.findall(r"'([^']*)'=(\d+)", mesh[1]))
        named = re.findall(r"'([^']*)'(?::\(\d+\)(\d+))?", mesh[2])  # 'axis' or a part of it, 'axis':(before)size
        return math.prod(int(part or sizes[axis]) for axis, part in named)
    return devices


def _bytes(type_text: str) -> int:
    """Bytes of all arrays of a type.

    >>> _bytes('(bf16[2,3]{1,0:T(8,128)(2,1)}, (s4[3], pred[]), token[])')
    15
    """
    total = 0
    for dtype, sides in _ARRAY.findall(type_text):
        bits = 8 if dtype == "pred" else int((re.search(r"\d+", dtype) or "0")[0])
        total += -(-bits * math.prod(int(side) for side in re.findall(r"\d+", sides)) // 8)
    return total


def _parse(definition: str) -> tuple[str, str, str, str]:
    """'type op(operands), attributes' in its four parts; a tuple's type is in parentheses and holds spaces."""
    end = _closing(definition, 0) + 1 if definition.startswith("(") else definition.index(" ")
    result, rest = definition[:end], definition[end:].strip()
    opening = rest.find("(")
    closing = _closing(rest, opening)
    return result, rest[:opening], rest[opening + 1 : closing], rest[closing + 1 :]


def _parts(tuple_text: str) -> list[str]:
    """The members of '(a, (b, c), d[1,2]{1,0:T(8,128)})', split where no bracket is open."""
    parts, depth, start = [], 0, 1
    for i, letter in enumerate(tuple_text):
        depth += (letter in "([{") - (letter in ")]}")
        if (letter == "," and depth == 1) or depth == 0:
            parts.append(tuple_text[start:i])
            start = i + 1
    return parts


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis that opens at `opening` closes."""
    depth = 0
    for i in range(opening, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    return len(text)


_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (.*)")
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\]")
_BY_RESULT = ("all-gather", "collective-broadcast")
