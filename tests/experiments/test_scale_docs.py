"""The command lines of docs/scale.md are those of the programs: each is parsed by the flags it would meet."""

import importlib.metadata
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from experiments import command, scale, vtab

TRAIN = {
    "fits": True, "advice": None, "needed": 3 * scale.GiB, "arguments": scale.GiB, "temporaries": 2 * scale.GiB,
    "devices": 16, "flops": 2e12, "accessed": 5e9, "trained": 1000, "frozen": 2000,
    "collectives": [{"kind": "all-reduce", "bytes": 4000}, {"kind": "all-gather", "bytes": 7_000_000}],
    "roofline": {"seconds": 0.1, "bound": "memory"},
}  # fmt: skip

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


def stub(monkeypatch, answers):
    """`experiments.vtab` replaced: each call takes the next (exit status, train plan); returns the calls."""
    calls = []

    def run(line, **_):
        status, train = answers[len(calls)]
        calls.append(line)
        if train is not None:
            path = next(each for each in line if each.startswith("--plan_out=")).removeprefix("--plan_out=")
            Path(path).write_text(json.dumps({"train": train, "evaluate": TRAIN}))
        return subprocess.CompletedProcess(line, status, "", "Traceback\nError: the compiler stopped\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.0.0")  # no plan is compiled: libtpu may be missing
    return calls


def config(tmp_path, **options):
    docs = tmp_path / "scale.md"
    docs.write_text(f"before\n{scale.BEGIN}\nold\n{scale.END}\nafter\n")
    options = {"backbones": ("b16",), "methods": ("lora",), "chips": ("v5e:4x4",), **options}
    return scale.Config(workdir=tmp_path / "plans", docs=docs, **options)


def test_a_plan_is_compiled_once_and_written_between_the_markers(monkeypatch, tmp_path):
    calls, settings = stub(monkeypatch, [(0, TRAIN)]), config(tmp_path)
    scale.main(settings)
    scale.main(settings)
    assert len(calls) == 1 and {"--batch_size=1024", "--rank=8", "--mesh=data:-1"} <= set(calls[0])
    text = settings.docs.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| `lora`")]
    assert "| 1.00 | 2.00 | 3.00 | yes | 2.00 | 5.0 | 0.004 | all-gather 7.0 | 100.0 (memory) | 10,240 |" in row
    assert "1 of 1 cases planned" in text


def test_advice_is_followed_and_both_rows_are_shown(monkeypatch, tmp_path):
    large = {**TRAIN, "fits": False, "advice": "fsdp", "flops": None, "roofline": None, "collectives": None}
    calls = stub(monkeypatch, [(3, large), (0, TRAIN)])
    settings = config(tmp_path, methods=("full",))
    scale.main(settings)
    assert "--mesh=data:-1,fsdp:4" in calls[1]
    assert ["no: fsdp" in line for line in settings.docs.read_text().splitlines() if "`full`" in line] == [True, False]


def test_a_failed_plan_is_shown_with_its_reason_and_tried_again(monkeypatch, tmp_path):
    calls, settings = stub(monkeypatch, [(2, None), (0, TRAIN)]), config(tmp_path)
    scale.main(settings)
    assert "failed: exit status 2: Error: the compiler stopped" in settings.docs.read_text()
    scale.main(settings)
    assert len(calls) == 2 and "failed" not in settings.docs.read_text()


def test_without_compile_what_is_missing_is_named(monkeypatch, tmp_path):
    calls, settings = stub(monkeypatch, []), config(tmp_path, compile=False, images=32)
    scale.main(settings)
    text = settings.docs.read_text()
    assert (
        not calls
        and "Not planned yet: ViT-B/16 on v5e:4x4 (lora)." in text
        and "0 of 1 cases planned; 32 images" in text
    )


def test_docs_without_a_place_for_the_tables_are_refused(tmp_path):
    settings = config(tmp_path, compile=False)
    settings.docs.write_text("nothing")
    with pytest.raises(ValueError, match="has no place for the tables"):
        scale.main(settings)
