import itertools

import numpy as np
import pytest

from experiments import command, sample_queries
from jaxmodels.data.query_files import read_queries
from jaxmodels.reasoning import sampling_run
from jaxmodels.reasoning.sampling import Limits
from jaxmodels.reasoning.sampling_run import SAMPLED, Settings
from jaxmodels.reasoning.structures import canonical
from tests.reasoning.small_triples import random_triples, write_folder

KG = random_triples(5)
COUNTS = {"train": {"1p": -1, "2p": 150}, "test": {"1p": 3, "pin": 20, "ip": 30}}
SETTINGS = Settings(attempts=64, patience=4)


def same(a, b):
    for split in ("train", "valid", "test"):
        one, two = getattr(a, split), getattr(b, split)
        assert list(one) == list(two)
        for name in one:
            parts = [(x.tokens, *x.easy, *x.hard) for x in (one[name], two[name])]
            assert all(x.dtype == np.int32 and np.array_equal(x, y) for x, y in zip(*parts, strict=True))


def test_counts_are_met_without_repetitions_and_1p_is_listed():
    found = sampling_run.sample_queries(KG, COUNTS, SETTINGS)
    assert {name: len(each.tokens) for name, each in found.test.items()} == {"1p": 3, "pin": 20, "ip": 30}
    assert not found.valid and len(found.train["2p"].tokens) == 150
    for name, each in found.test.items():
        assert len(np.unique(canonical(name, each.tokens), axis=0)) == len(each.tokens)
    pairs = {(h, r) for h, r, _ in KG.train.tolist()} | {(t, r + 1) for _, r, t in KG.train.tolist()}
    assert set(map(tuple, found.train["1p"].tokens.tolist())) == pairs
    assert not len(found.train["2p"].easy.idx) and len(found.train["2p"].easy.ptr) == 151


def test_a_structure_is_given_up_where_the_graph_has_no_more():
    seen = []
    wanted = {"train": {"2i": 100_000}}
    found = sampling_run.sample_queries(KG, wanted, SETTINGS, report=lambda *each: seen.append(each))
    count = len(found.train["2i"].tokens)
    assert 0 < count < 5_000
    assert [each[2] for each in seen[-5:]] == [count] * 5 and seen[-6][2] < count
    assert seen[0] == ("train", "2i", seen[0][2], 100_000)


def test_an_interrupted_run_goes_on_with_its_parts(tmp_path, monkeypatch):
    whole = sampling_run.sample_queries(KG, COUNTS, SETTINGS)
    parts = tmp_path / "q.parts"
    ticks = itertools.count(1)

    def stop(*_):
        if next(ticks) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampling_run.sample_queries(KG, COUNTS, SETTINGS, parts=parts, report=stop)
    kept = sorted(file.name for file in parts.glob("*.npz"))
    assert kept[:2] == ["train-1p-000000.npz", "train-2p-000000.npz"] and len(kept) == 4
    drawn, draw = [], sampling_run._Source.draw
    monkeypatch.setattr(sampling_run._Source, "draw", lambda self, *block: (drawn.append(block), draw(self, *block))[1])
    same(sampling_run.sample_queries(KG, COUNTS, SETTINGS, parts=parts), whole)
    assert drawn and not {f"{split}-{name}-{number:06d}.npz" for split, name, number in drawn} & set(kept)
    assert not list(parts.glob(".*"))
    for changed, message in (
        (SETTINGS._replace(seed=7), "settings.json: seed is 0, expected 7; remove the folder"),
        (SETTINGS._replace(limits=Limits(5)), "settings.json: evaluation is 100, expected 5"),
    ):
        with pytest.raises(ValueError, match=message):
            sampling_run.sample_queries(KG, COUNTS, changed, parts=parts)
    with pytest.raises(ValueError, match="settings.json: triples is .*, expected"):
        sampling_run.sample_queries(random_triples(6), COUNTS, SETTINGS, parts=parts)
    sampling_run.remove_parts(parts)
    assert not parts.exists()
    sampling_run.remove_parts(tmp_path)
    assert tmp_path.exists()


def test_two_processes_draw_what_one_does():
    whole = sampling_run.sample_queries(KG, COUNTS, SETTINGS)
    with sampling_run._Drawing(KG, SETTINGS, 2, None) as drawing:
        drawing._started.result()
        drawing._own.draw = None  # everything but 1p comes from the others
        for split, name in (("train", "2p"), ("test", "pin"), ("test", "ip")):
            found = sampling_run._collected(drawing, split, name, COUNTS[split][name], None)
            expected = getattr(whole, split)[name]
            np.testing.assert_array_equal(found.tokens, expected.tokens)
            np.testing.assert_array_equal(found.hard.idx, expected.hard.idx)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"workers": 0}, "workers: found 0, expected at least 1"),
        ({"settings": Settings(attempts=0)}, "attempts: found 0, expected at least 1"),
        ({"settings": Settings(patience=0)}, "patience: found 0, expected at least 1"),
        ({"settings": Settings(seed=-1)}, "seed: found -1, expected at least 0"),
        ({"counts": {"dev": {}}}, "counts: found split 'dev', expected train, valid, test"),
        ({"counts": {"test": {"2q": 1}}}, "no query structure '2q'"),
        ({"counts": {"test": {"2u-DM": 1}}}, "counts: '2u-DM' is a rewriting of '2u-DNF', expected that one"),
        ({"counts": {"test": {"2p": -1}}}, "counts: found -1 queries of 2p, expected 0 or more"),
    ],
)
def test_what_cannot_be_drawn_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        sampling_run.sample_queries(KG, **{"counts": COUNTS, **change})


def test_the_command_writes_a_file_of_queries(tmp_path, capsys, monkeypatch):
    write_folder(KG, tmp_path)
    out = tmp_path / "q.npz"
    flags = [f"--triples={tmp_path}", f"--out={out}", "--train=30", "--evaluation=5", "--max_answers=4", "--seed=3"]
    config = command.parse(sample_queries.Config, "", flags)
    sample_queries.main(config)
    text = capsys.readouterr().out
    assert "queries in" in text and "12 entities, 6 relations" in text
    data = read_queries(out)
    assert (
        list(data.test) == list(SAMPLED) and len(data.train["2p"].tokens) == 30 and len(data.train["pni"].tokens) == 3
    )
    assert {len(each.tokens) for name, each in data.test.items() if name != "1p"} == {5}
    for name, each in data.test.items():
        sizes = np.diff(each.hard.ptr)
        assert 1 <= sizes.min() and sizes.max() <= 4, name
    assert not out.with_name("q.npz.parts").exists()
    monkeypatch.setattr("sys.argv", ["sample_queries", *flags, "--structures", "2p", "3r"])
    with pytest.raises(SystemExit) as status:
        command.run(sample_queries.main, sample_queries.Config, "", "experiments.sample_queries")
    assert status.value.code == 2
    assert "Error: --structures: found '3r'; " in capsys.readouterr().err
