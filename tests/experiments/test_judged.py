"""Training under a judge: a resumed run whose judge had had enough is not trained on."""

import types

from rich.console import Console

from experiments.judged import fit_judged
from experiments.running import Running, Setup


def test_a_judge_who_has_had_enough_ends_the_run_before_it_begins(tmp_path):
    setup = Setup(Running(), None, Console(quiet=True), [])
    judge = types.SimpleNamespace(exhausted=lambda row=None: True)
    assert fit_judged(setup, None, None, judge, folder=tmp_path, every=1, label="", steps=1) is None
    assert not setup.clocks and not list(tmp_path.iterdir())
