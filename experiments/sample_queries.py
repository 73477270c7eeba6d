"""Draw logical queries with exact answers from a knowledge graph's triples.

    python -m experiments.sample_queries --triples=FOLDER --out=queries.npz

FOLDER holds train.txt, valid.txt and test.txt (or .txt.gz), `head<TAB>relation<TAB>tail` on every line. The file that
comes out is what `jaxmodels.data.query_files.read_queries` reads. Queries depend on the triples, the seed and the
limits; not on the number of processes, nor on whether the run was interrupted: --resume goes on with what was drawn.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import command
from jaxmodels.data.query_files import SPLITS, QueryData, write_queries
from jaxmodels.data.triples import KnowledgeGraph, divided_graph, knowledge_graph
from jaxmodels.reasoning.noise import noisy_triples
from jaxmodels.reasoning.sampling import Limits
from jaxmodels.reasoning.sampling_run import SAMPLED, Settings, default_counts, remove_parts, sample_queries
from jaxmodels.rules import nearest


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of `experiments.sample_queries`."""

    triples: Path
    """Folder of train.txt, valid.txt and test.txt, also .txt.gz; or one file of triples, of which some become valid and
    test."""
    held_out: float = 0.1
    """Share of one file's triples that become valid, and as many test."""
    out: Path = Path("queries.npz")
    """File to write; finished blocks lie in a folder of the same name with .parts at the end until it is complete."""
    seed: int = 0
    """Seed of the draws."""
    structures: tuple[str, ...] = SAMPLED
    """Which structures to draw, as '1p 2p 2i'."""
    train: int = 10_000
    """Training queries of 2p, 3p, 2i and 3i each; structures with negation get a tenth, 1p all there are."""
    evaluation: int = 1_000
    """Queries of each structure in valid and in test; 1p all there are."""
    max_answers: int = 100
    """Most hard answers of a query of valid and test; 0 for no limit."""
    max_train_answers: int = 0
    """Most answers of a training query; 0 for no limit."""
    max_negated_train_answers: int = 100
    """The same for structures with negation."""
    easy: Literal["small", "small_and_big"] = "small"
    """Easy answers of valid and test: all on the smaller graph, as published, or without those that the bigger one
    takes away from a query with negation."""
    test_noise: float = 0.0
    """Share of the test triples whose tail is replaced before answers are found, to see what a wrong test costs."""
    workers: int = 1
    """Processes."""
    resume: bool = False
    """Go on with an interrupted run of the same flags."""


def main(config: Config) -> None:
    """Reads the triples, draws, writes one file and prints a table."""
    for name in config.structures:
        if name not in SAMPLED:
            hint = nearest(name, SAMPLED)
            raise ValueError(f"--structures: found '{name}'{hint or '; expected some of ' + ', '.join(SAMPLED)}")
    if not 0.0 <= config.test_noise <= 1.0:
        raise ValueError(f"--test_noise: found {config.test_noise}, expected 0 to 1")
    console = Console(file=sys.stdout)
    if config.triples.is_file():
        graph = divided_graph(config.triples, share=config.held_out, seed=config.seed)
    else:
        graph = knowledge_graph(config.triples)
    for split in SPLITS:
        if graph.dropped[split] or graph.duplicates[split]:
            console.print(
                f"{split}: left out {graph.dropped[split]:,} triples with a name that train lacks, "
                f"{graph.duplicates[split]:,} repeated lines"
            )
    if config.test_noise:
        test = noisy_test(graph, config.test_noise, config.seed)
        console.print(f"test: {int((test != graph.test).any(1).sum()):,} of {len(test):,} triples have another tail")
        graph = graph._replace(test=test)
    parts = config.out.with_name(config.out.name + ".parts")
    if not config.resume:
        remove_parts(parts)
    for flag in ("train", "evaluation", "max_answers", "max_train_answers", "max_negated_train_answers"):
        if getattr(config, flag) < 0:
            raise ValueError(f"--{flag}: found {getattr(config, flag)}, expected at least 0")
    limits = Limits(
        config.max_answers or None,
        config.max_train_answers or None,
        config.max_negated_train_answers or None,
        lost=config.easy == "small",
    )
    counts = {
        split: {name: count for name, count in wanted.items() if name in config.structures}
        for split, wanted in default_counts(config.train, config.evaluation).items()
    }
    began = time.perf_counter()
    with console.status("") as status:

        def report(split: str, name: str, found: int, wanted: int) -> None:
            status.update(f"{split} {name}: {found:,}{f' of {wanted:,}' if wanted >= 0 else ''}")

        settings = Settings(config.seed, limits=limits)
        data = sample_queries(graph, counts, settings, workers=config.workers, parts=parts, report=report)
    write_queries(config.out, data)
    remove_parts(parts)
    _show(console, data, time.perf_counter() - began, config.out)


def noisy_test(graph: KnowledgeGraph, eta: float, seed: int) -> np.ndarray:
    """The test triples (E, 3), a share of them with another tail (uniform), in their order."""
    random = np.random.default_rng((seed, 11))
    count = len(graph.test)
    return noisy_triples(
        graph.test, random.permutation(count), random.random(count), eta=eta, entities=len(graph.entities)
    )


def _show(console: Console, data: QueryData, seconds: float, out: Path) -> None:
    table = Table("structure", *SPLITS, "hard answers (test, mean)")
    total = 0
    for name in SAMPLED:
        found = [getattr(data, split).get(name) for split in SPLITS]
        sizes = [0 if each is None else len(each.tokens) for each in found]
        total += sum(sizes)
        hard = f"{len(found[2].hard.idx) / sizes[2]:.1f}" if sizes[2] else ""
        table.add_row(name, *(f"{size:,}" for size in sizes), hard)
    console.print(table)
    rate = f"{total:,} queries in {seconds:.1f} s, {total / seconds:,.0f} a second"
    console.print(f"{rate}; {len(data.entities):,} entities, {2 * len(data.relations):,} relations; wrote {out}")


if __name__ == "__main__":
    command.run(main, Config, __doc__ or "", "experiments.sample_queries")
