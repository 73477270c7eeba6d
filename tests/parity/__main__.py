"""Checks every fixture file under a folder: `python -m tests.parity DIR [--method NAME]`.

DIR has one sub-folder per method or backbone. One line per file: the worst error of each compared quantity, PASS, FAIL
or SKIPPED. Exits with 1 on any failure, on a file nobody knows, and on a file of which nothing was compared.
"""

import argparse
import fnmatch
import importlib
import sys
import traceback
from pathlib import Path

import jax

from tests.parity.compare import Checker, Quantity

METHODS = ("vit", "res_tuning", "snell", "peft_baselines", "vtab", "n2", "lod", "dpcml", "rcpmod")


def checker_for(method: str, file: Path) -> Checker | None:
    """The function that checks `file`, or None when nobody knows it."""
    if method not in METHODS:
        return None
    for pattern, checker in importlib.import_module(f"tests.parity.{method}").CHECKERS:
        if fnmatch.fnmatchcase(file.name, pattern):
            return checker
    return None


def check(method: str, file: Path) -> tuple[bool, str]:
    """Checks one file; returns (passed, one line of what was found)."""
    checker = checker_for(method, file)
    if checker is None:
        return False, f"FAIL     {method}/{file.name}: no checker knows this file"
    try:
        with jax.default_matmul_precision("highest"):
            quantities = checker(file)
    except Exception as error:  # a broken file or a broken checker is a failure of that file, not of the run
        return False, f"FAIL     {method}/{file.name}: {type(error).__name__}: {error} ({_where(error)})"
    if not quantities:
        return False, f"FAIL     {method}/{file.name}: nothing was compared"
    passed = all(q.passed for q in quantities)
    return passed, f"{'PASS' if passed else 'FAIL':8} {method}/{file.name}: {', '.join(map(_show, quantities))}"


def _where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _show(quantity: Quantity) -> str:
    verdict = "" if quantity.passed else f" > {quantity.limit:.0e} FAILED"
    return f"{quantity.name} {quantity.error:.1e}{verdict}"


def files_of(folder: Path, method: str | None) -> list[tuple[str, Path]]:
    """(method, file) for every fixture file below `folder`; notes in Markdown are not fixtures."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and method in (None, path.name))
    return [(path.name, file) for path in folders for file in sorted(path.iterdir()) if file.suffix != ".md"]


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("dir", type=Path, help="folder with one sub-folder per method or backbone")
    parser.add_argument("--method", help="check this sub-folder only")
    arguments = parser.parse_args(argv)
    if not arguments.dir.is_dir():
        print(f"{arguments.dir}: expected a folder of fixtures, found nothing", file=sys.stderr)
        return 2
    files = files_of(arguments.dir, arguments.method)
    if not files:
        print(f"{arguments.dir}: holds no fixture file{f' of {arguments.method}' if arguments.method else ''}")
        return 1
    failures = 0
    for method, file in files:
        passed, line = check(method, file)
        failures += not passed
        print(line, flush=True)
    print(f"{len(files) - failures} of {len(files)} files passed")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
