"""Plan vision transformers on TPU slices that are not there, and write the tables of docs/scale.md.

    python -m experiments.scale                     every plan (hours on two cores), then the tables
    python -m experiments.scale --backbones b16 --chips v5e:4x4
    python -m experiments.scale --no_compile        the tables of the plans that are there

Each plan is a command of its own, `python -m experiments.vtab --plan=...`, whose answer is kept in the work folder: a
second run compiles only what is missing. Where a step does not fit, the plan's advice is followed and both rows are
shown: 'fsdp' takes the mesh data:-1,fsdp:4; 'data' (activations are most of it, and every chip is on that axis already)
recomputes activations with --remat, then halves the batch. A plan that fails is shown with its reason, and tried again
by the next run. Needs the extra [plan].
"""

import dataclasses
import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from rich.console import Console

from experiments import command
from jaxmodels.atomic import write_text
from jaxmodels.backbones.vit import SIZES
from jaxmodels.planning.chips import parse as parse_chips

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- plans -->", "<!-- /plans -->"
GiB, FOLLOWED = 1024**3, 3  # pieces of advice followed for one step, at most

METHODS: dict[str, tuple[str, ...]] = {
    "full": (),
    "lora": ("--rank=8",),
    "snell": ("--rank=32",),
    "res_tuning": (),
    "res_tuning_bypass": (),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of `experiments.scale`."""

    backbones: tuple[tyro.extras.literal_type_from_choices(SIZES), ...] = ("b16", "l16", "h14")  # type: ignore[valid-type]
    """Vision transformer sizes."""
    methods: tuple[tyro.extras.literal_type_from_choices(METHODS), ...] = tuple(METHODS)  # type: ignore[valid-type]
    """Tuners: LoRA of rank 8, SNELL of rank 32, the others as experiments.vtab starts them."""
    chips: tuple[str, ...] = ("v5e:4x4", "v5e:16x16")
    """TPU slices."""
    images: int = 64
    """Images per chip and step."""
    workdir: Path = Path("runs/scale")
    """Folder of the finished plans, one JSON file each."""
    docs: Path = Path("docs/scale.md")
    """File whose tables are replaced."""
    compile: bool = True
    """Compile what is missing; without it the tables show what is there."""


class Case(NamedTuple):
    """One row: what is planned.

    Attributes:
        chips: the slice.
        backbone: size of the vision transformer.
        method: a key of `METHODS`.
        images: per chip.
        mesh: sizes of the axes.
        remat: whether activations are recomputed.
    """

    chips: str
    backbone: str
    method: str
    images: int
    mesh: str = "data:-1"
    remat: bool = False

    @property
    def batch(self) -> int:
        """Images of the global batch."""
        chip, shape = parse_chips(self.chips)
        count = self.images
        for side in shape:
            count *= side
        return count

    @property
    def flags(self) -> list[str]:
        """Of `experiments.vtab`, which plans it."""
        flags = [f"--plan={self.chips}", "--plan_steps=train", f"--backbone={self.backbone}", f"--method={self.method}"]
        flags += [*METHODS[self.method], f"--batch_size={self.batch}", f"--mesh={self.mesh}"]
        return flags + ["--remat"] * self.remat

    @property
    def file(self) -> str:
        """Name of the stored plan."""
        parts = [*self[:3], str(self.images), self.mesh, *["remat"] * self.remat]
        return "-".join(part.replace(":", "_").replace(",", "_") for part in parts) + ".json"


def main(config: Config) -> None:
    """Compiles what is missing and writes the tables, after every plan: a run can be watched and stopped."""
    console = Console()
    text = config.docs.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"--docs: {config.docs} has no place for the tables, expected {BEGIN} and {END}")
    cases = [
        Case(chips, backbone, method, config.images)
        for chips in config.chips
        for backbone in config.backbones
        for method in config.methods
    ]
    for case in cases if config.compile else ():
        for each, found in chain(case, config.workdir, compiling=True):
            console.print(f"{' '.join(each.flags)}: {summary(found)}", highlight=False, soft_wrap=True, emoji=False)
        write_tables(config, cases)
    write_tables(config, cases)


def write_tables(config: Config, cases: list[Case]) -> None:
    """Replaces what is between the markers; nothing else changes."""
    text = config.docs.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    write_text(config.docs, f"{before}{BEGIN}\n{tables(cases, config.workdir)}\n{END}{after}")


def chain(case: Case, workdir: Path, *, compiling: bool) -> Iterator[tuple[Case, dict[str, Any]]]:
    """The plan of a case, then, as long as it does not fit, those that follow its advice."""
    for _ in range(1 + FOLLOWED):
        found = planned(case, workdir, compiling=compiling)
        if found is None:
            return
        yield case, found
        following = followed(case, found)
        if following is None:
            return
        case = following


def followed(case: Case, found: dict[str, Any]) -> Case | None:
    """The case that follows a plan's advice, None where there is none to follow.

    >>> case = Case('v5e:4x4', 'h14', 'full', 64)
    >>> followed(case, {'train': {'fits': False, 'advice': 'fsdp'}}).mesh
    'data:-1,fsdp:4'
    >>> followed(case, {'train': {'fits': False, 'advice': 'data'}}).remat
    True
    """
    train = found.get("train")
    if train is None or train["fits"]:
        return None
    if train["advice"] == "fsdp" and "fsdp" not in case.mesh:
        return case._replace(mesh="data:-1,fsdp:4")
    if train["advice"] == "data" and not case.remat:
        return case._replace(remat=True)
    return case._replace(images=case.images // 2) if train["advice"] == "data" and case.images > 1 else None


def planned(case: Case, workdir: Path, *, compiling: bool) -> dict[str, Any] | None:
    """The stored plan of a case, compiled by `experiments.vtab` in a process of its own where there is none.

    Returns:
        Its JSON with 'flags', or 'flags' and the 'error' that it ended with; None where it is missing.
    """
    path = workdir / case.file
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["flags"] == case.flags and not ("error" in found and compiling):
            return found
    if not compiling:
        return None
    workdir.mkdir(parents=True, exist_ok=True)
    answer = (workdir / f"{path.stem}.part").resolve()
    answer.unlink(missing_ok=True)
    started = time.perf_counter()
    line = [sys.executable, "-m", "experiments.vtab", *case.flags, f"--plan_out={answer}"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    found = {"flags": case.flags, "libtpu": importlib.metadata.version("libtpu")}
    found["wall"] = time.perf_counter() - started
    if done.returncode in (0, command.DOES_NOT_FIT):
        found |= json.loads(answer.read_text(encoding="utf-8"))
        answer.unlink()
    else:
        last = [each for each in done.stderr.splitlines() if each.strip()] or ["no message"]
        found["error"] = f"exit status {done.returncode}: {last[-1].strip()[:200]}"
    write_text(path, json.dumps(found, indent=1) + "\n")
    return found


def summary(found: dict[str, Any]) -> str:
    """A plan in a few words."""
    if "error" in found:
        return found["error"]
    train = found["train"]
    verdict = "fits" if train["fits"] else f"does not fit, advice {train['advice']}"
    return f"{verdict}, {train['needed'] / GiB:.2f} GiB; compiled in {found['wall']:.0f} s"


def tables(cases: list[Case], workdir: Path) -> str:
    """Markdown: what was planned, then a table per slice and backbone."""
    rows = {case: list(chain(case, workdir, compiling=False)) for case in cases}
    done = sum(bool(found) for found in rows.values())
    versions = sorted({f"libtpu {found['libtpu']}" for each in rows.values() for _, found in each})
    count = f"{done} of {len(cases)} cases planned" + (f" ({', '.join(versions)})" if versions else "")
    lines = [f"{count}; {cases[0].images} images per chip and step."]
    missing = []
    for chips, backbone in dict.fromkeys((case.chips, case.backbone) for case in cases):
        group = [case for case in cases if case[:2] == (chips, backbone)]
        own = [row for case in group for row in rows[case]]
        left = [case.method for case in group if not rows[case]]
        if left:
            missing.append(f"{_title(backbone)} on {chips} ({', '.join(left)})")
        if own:
            memory = f"{parse_chips(chips)[0].memory / GiB:.2f} GiB"
            lines += ["", f"**{_title(backbone)} on {chips}**, chips of {memory}", ""]
            lines += [_line(HEAD), _line(["---", "---", *["---:"] * (len(HEAD) - 2)])]
            lines += [_line(cells(case, found)) for case, found in own]
    return "\n".join(lines + (["", f"Not planned yet: {'; '.join(missing)}."] if missing else []))


def _title(backbone: str) -> str:
    """A size as papers write it.

    >>> _title('b16'), _title('ti16')
    ('ViT-B/16', 'ViT-Ti/16')
    """
    name = backbone.rstrip("0123456789")
    return f"ViT-{name.capitalize()}" + (f"/{backbone[len(name) :]}" if name != backbone else "")


HEAD = [
    "method", "mesh", "batch", "arguments GiB", "temporaries GiB", "total GiB", "fits", "TFLOP", "GB accessed",
    "all-reduced MB", "other collectives MB", "roofline ms", "images/s at most", "trained", "frozen",
]  # fmt: skip


def cells(case: Case, found: dict[str, Any]) -> list[str]:
    """A row; bytes, operations and times are those of one chip."""
    first = [f"`{case.method}`", f"`{case.mesh}`{' remat' if case.remat else ''}", f"{case.batch:,}"]
    if "error" in found:
        return [*first, f"failed: {found['error']}", *[""] * (len(HEAD) - 4)]
    train = found["train"]
    row = first + [f"{train[name] / GiB:.2f}" for name in ("arguments", "temporaries", "needed")]
    row.append("yes" if train["fits"] else f"no: {train['advice']}")
    if train["flops"] is None:
        row += ["?"] * 6
    else:
        row += [f"{train['flops'] / 1e12:.2f}", f"{train['accessed'] / 1e9:.1f}", *_sent(train["collectives"])]
        row += [_roof(train["roofline"]), f"{case.batch / train['roofline']['seconds']:,.0f}"]
    return [*row, f"{train['trained']:,}", f"{train['frozen']:,}"]


def _sent(collectives: list[dict[str, Any]]) -> tuple[str, str]:
    """Megabytes all-reduced, and those of each other kind."""
    totals: dict[str, int] = {}
    for each in collectives:
        totals[each["kind"]] = totals.get(each["kind"], 0) + each["bytes"]
    reduced = totals.pop("all-reduce", 0)
    return f"{reduced / 1e6:.3f}", ", ".join(f"{kind} {size / 1e6:.1f}" for kind, size in totals.items()) or "none"


def _roof(times: dict[str, Any]) -> str:
    return f"{1e3 * times['seconds']:.1f} ({times['bound']})"


def _line(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"


if __name__ == "__main__":
    command.run(main, Config, __doc__, "experiments.scale")
