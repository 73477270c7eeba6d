"""What the package hands on: every name documented, every tuner under contract, no unsafe reader of files."""

import ast
import inspect
from pathlib import Path

import jaxmodels as jm
from experiments.methods import METHODS
from tests.tuning.test_contracts import CASES

ROOT = Path(__file__).parents[1]


def test_every_public_name_exists_and_says_what_it_is():
    assert jm.__all__ == sorted(jm.__all__)
    for name in jm.__all__:
        text = inspect.getdoc(getattr(jm, name)) or ""
        assert len(text) > 20, name
        if inspect.isfunction(getattr(jm, name)) and inspect.signature(getattr(jm, name)).parameters:
            assert "Args:" in text or "Raises:" in text or "Returns" in text, name


def test_every_tuner_of_the_command_line_is_under_contract():
    covered = set()
    for build in CASES.values():
        config = build().config
        covered |= {part["method"] for part in config.get("parts", {"": config}).values()}
    for name, choice in METHODS.items():
        extra = {"steps_per_epoch": 1} if name == "snella" else {}
        assert choice.factory(**choice.options, **extra).config["method"] in covered, name


def test_a_file_imports_only_from_its_own_floor_or_below():
    for path in (ROOT / "jaxmodels").rglob("*.py"):
        parts = path.relative_to(ROOT / "jaxmodels").with_suffix("").parts
        if parts == ("__init__",):
            continue
        for module in imported(path):
            if module.startswith("jaxmodels."):
                other = module.split(".")[1]
                assert below(other, parts[0]), f"{'/'.join(parts)} imports {module}"


def below(other: str, floor: str) -> bool:
    # Ports know rules, backbones know ports; weights know backbones, whose parameters they fill.
    order = {"atomic": 0, "rules": 0, "ports": 1, "method": 2, "nn": 3, "backbones": 4}
    order |= {"weights": 5, "data": 5, "training": 5}
    if other == floor:
        return True
    return order.get(other, 6) < order.get(floor, 6)


def imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def test_nothing_unpickles_or_needs_another_framework():
    forbidden = {"pickle", "torch", "tensorflow", "joblib", "dill", "cloudpickle"}
    reader = ROOT / "jaxmodels/data/restricted_pickle.py"  # of an allow-list: its tests try every other way out
    for path in (ROOT / "jaxmodels").rglob("*.py"):
        allowed = {"pickle"} if path == reader else set()
        assert not (forbidden - allowed) & {module.split(".")[0] for module in imported(path)}, path
        text = path.read_text()
        assert "allow_pickle=True" not in text and "eval(" not in text.replace("_eval(", ""), path
