"""The command lines of docs/scale.md are those of the programs: each is parsed by the flags it would meet."""

import re
import shlex
from pathlib import Path

import pytest

from experiments import command, scale, vtab

DOCS = Path(__file__).parents[2] / "docs" / "scale.md"
PROGRAMS = {"experiments.vtab": vtab.Config, "experiments.scale": scale.Config}
LAUNCHES = ("TPU VM", "GKE with xpk", "SLURM", "Any machines")


def code_lines(text):
    """Lines of fenced code blocks, backslash continuations joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()]


def commands(text):
    """(module, arguments) of every `python -m experiments...`; what a shell would put in is replaced by 0."""
    found = []
    for line in code_lines(text):
        match = re.search(r"python3? -m (experiments\.\w+)([^\"&;|#]*)", line)  # a quote ends a --command="..."
        if match:
            arguments = re.sub(r"\$\{?\w+\}?|\$\([^)]*\)", "0", match[2])
            found.append((match[1], shlex.split(arguments)))
    return found


COMMANDS = commands(DOCS.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("module", "arguments"), COMMANDS, ids=[" ".join([m, *a]) for m, a in COMMANDS])
def test_every_command_is_understood(module, arguments):
    assert isinstance(command.parse(PROGRAMS[module], "", arguments), PROGRAMS[module])


def test_commands_are_found_behind_continuations_quotes_and_variables():
    text = '```bash\nssh me --command="cd x && python -m experiments.vtab --method=lora \\\n  --process_id=$ID"\n```\n'
    assert commands(text) == [("experiments.vtab", ["--method=lora", "--process_id=0"])]


def test_a_flag_that_is_not_there_is_refused():
    with pytest.raises(SystemExit) as status:
        command.parse(vtab.Config, "", ["--no_such_flag=1"])
    assert status.value.code == 2


@pytest.mark.parametrize("launch", LAUNCHES)
def test_each_way_to_launch_has_a_section_with_a_command(launch):
    text = DOCS.read_text(encoding="utf-8")
    section = re.search(rf"^### {re.escape(launch)}$(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE)
    assert section, f"docs/scale.md has no section '### {launch}'"
    assert any(module == "experiments.vtab" for module, _ in commands(section[1]))


def test_the_tables_of_the_plans_have_their_place():
    text = DOCS.read_text(encoding="utf-8")
    assert text.index(scale.BEGIN) < text.index(scale.END)
