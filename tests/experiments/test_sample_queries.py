import dataclasses

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


def test_wrong_flags_are_named(config):
    for flag in ("evaluation", "max_answers", "max_train_answers", "max_negated_train_answers"):
        with pytest.raises(ValueError, match=f"--{flag}: found -5, expected at least 0"):
            sample_queries.main(dataclasses.replace(config, **{flag: -5}))
