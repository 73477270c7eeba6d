"""Wrong input of the recommendation command line: one line with what was found and expected, and status 2."""

import sys

import pytest

from experiments import command, recommendation
from tests.experiments.recommendation_sets import ratings_csv, users_dat


def error_of(monkeypatch, capsys, *argv):
    """Standard error of a command line that fails on wrong input."""
    monkeypatch.setattr(sys, "argv", ["recommendation", *argv])
    with pytest.raises(SystemExit) as stop:
        command.run(recommendation.main, recommendation.Config, recommendation.__doc__, "experiments.recommendation")
    error = capsys.readouterr().err
    assert stop.value.code == 2, error
    return error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--dataset=steem200k",), "--dataset: found 'steem200k', expected interests, or --data_dir with another"),
        (("--dataset=steem200k",), "did you mean 'steam-200k'?"),
        (
            ("--dataset=steam200k",),
            "Error: --data_dir: --dataset=steam-200k needs the folder that holds it, found none",
        ),
        (("--dataset=tiny", "--data_dir=/nowhere"), "Error: --data_dir: /nowhere: no such folder"),
        (("--epochs=0",), "Error: --epochs: found 0, expected at least 1"),
        (("--batch_size=0",), "Error: --batch_size: found 0"),
        (("--at", "0"), "Error: --at: found 0, expected numbers from 1"),
        (("--at", "3", "900"), "Error: --at: found 900, expected at most 800, the items of interests"),
        (("--select=precision@4",), "Error: --select: found 'precision@4', expected one of precision@3"),
        (("--method=unis", "--vectors=2"), "Error: --vectors: --method=unis has no such option; it takes --margin"),
        (("--method=hars", "--memories=3"), "Error: --memories: --method=hars has no such option; it takes --margin"),
        (("--vectors=0",), "Error: found vectors=0"),
        (("--beta=2",), "Error: beta: found 2.0"),
        (("--strategy=two_stage", "--pool=3"), "Error: pool: found 3, expected at least the 10 negatives"),
        (("--split=given",), "Error: --split=given: interests has no matrices"),
        (("--split=latest",), "Error: --split=latest: interests has no times"),
    ],
)
def test_wrong_flags(argv, message, tmp_path, monkeypatch, capsys):
    error = error_of(monkeypatch, capsys, f"--workdir={tmp_path}", "--no-references", *argv)
    assert message in error and error.count("\n") == 1, error


def test_an_unknown_method_names_the_known_ones(monkeypatch, capsys):
    error = error_of(monkeypatch, capsys, "--method=dpcnl")
    assert "--method" in error and "dpcml" in error and "transcf" in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.csv: is empty, expected rows of user, item"),
        ("user,rating\n1,2\n", "mine.csv: found columns user, rating, expected one named 'item'"),
        ("1,2,5\n1,3,nan\n", "mine.csv:2: rating is 'nan', expected a number"),
        ("1,2\n1,3\n", "mine.csv: no user has 5 items or more"),
        (
            "\n".join(f"{u},{i + 3 * u}" for u in range(2) for i in range(5)),
            "no user of mine has enough validation items",
        ),
    ],
)
def test_wrong_files(text, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.csv").write_text(text)
    error = error_of(
        monkeypatch, capsys, "--dataset=mine", f"--data_dir={tmp_path}", f"--workdir={tmp_path}/w", "--no-references"
    )
    assert message in error and error.count("\n") == 1, error


def test_names_that_a_folder_does_not_hold(tmp_path, monkeypatch, capsys):
    folder = ratings_csv(users_dat(tmp_path))
    error = error_of(monkeypatch, capsys, "--dataset=mime", f"--data_dir={folder}", f"--workdir={tmp_path}/w")
    assert f"--dataset: {folder} holds no 'mime'" in error and "did you mean 'mine'?" in error
    error = error_of(monkeypatch, capsys, "--dataset=tiny", f"--data_dir={folder}", "--least_rating=4")
    assert "users.dat has no ratings" in error
    error = error_of(monkeypatch, capsys, "--dataset=tiny", f"--data_dir={folder}", "--split=given")
    assert "user_train_matrix.npz: found no such file" in error
