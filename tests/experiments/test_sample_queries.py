import dataclasses

import numpy as np
import pytest

from experiments import sample_queries
from jaxmodels.data.query_files import read_queries


@pytest.fixture
def config(tmp_path):
    lines = [f"e{i}\tr{k}\te{(i * (k + 3) + k) % 20}\n" for i in range(20) for k in range(4)]
    file = tmp_path / "all.tsv"
    file.write_text("".join([*lines, lines[0]]))
    structures = ("1p", "2p", "2in")
    return sample_queries.Config(
        file, out=tmp_path / "queries.npz", structures=structures, train=20, evaluation=5, held_out=0.15
    )


def test_one_file_of_triples_is_enough(config, capsys):
    sample_queries.main(config)
    out = capsys.readouterr().out
    assert "train: left out 0 triples with a name that train lacks, 1 repeated lines" in out
    data = read_queries(config.out)
    assert len(data.entities) == 20 and len(data.relations) == 4
    assert len(data.train["2p"].tokens) == 20 and len(data.test["2p"].tokens) == 5


def test_easy_answers_may_be_those_of_both_graphs(config):
    def easy(which):
        sample_queries.main(dataclasses.replace(config, easy=which))
        data = read_queries(config.out)
        return len(data.test["2in"].easy.idx), data.test["2in"].tokens.tolist(), data.test["2in"].hard.idx.tolist()

    small, tokens, hard = easy("small")
    both, *same = easy("small_and_big")
    assert both < small and same == [tokens, hard]


def test_test_triples_may_be_wrong_and_nothing_else(config, capsys):
    def drawn(**flags):
        sample_queries.main(dataclasses.replace(config, **flags))
        return read_queries(config.out)

    clean, noisy = drawn(), drawn(test_noise=0.5)
    assert "test: 6 of 12 triples have another tail" in capsys.readouterr().out
    for split in ("train", "valid"):
        for name, each in getattr(clean, split).items():
            assert each.tokens.tolist() == getattr(noisy, split)[name].tokens.tolist()

    def edges(data):
        one = data.test["1p"]
        rows = np.repeat(np.arange(len(one.tokens)), np.diff(one.hard.ptr))
        return {(*map(int, one.tokens[r]), int(t)) for r, t in zip(rows, one.hard.idx, strict=True)}

    assert len(edges(clean) & edges(noisy)) >= 6 and edges(clean) != edges(noisy)
    with pytest.raises(ValueError, match="--test_noise: found 1.5, expected 0 to 1"):
        drawn(test_noise=1.5)


def test_wrong_flags_are_named(config):
    for flag in ("evaluation", "max_answers", "max_train_answers", "max_negated_train_answers"):
        with pytest.raises(ValueError, match=f"--{flag}: found -5, expected at least 0"):
            sample_queries.main(dataclasses.replace(config, **{flag: -5}))
