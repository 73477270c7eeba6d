"""Sampling logical queries with exact answers, against a generator that works query by query over Python sets.

    python -m benchmarks.sampling FOLDER               # FOLDER holds train.txt, valid.txt, test.txt; two minutes

The other side follows the published generator (BetaE's `create_queries`, Ren and Leskovec 2020, arXiv 2010.11465): one
draw at a time, dictionaries of sets. Both draw by the same rules and limits; before anything is timed, the sets of
queries that `jaxmodels` drew are computed by the other side too and have to be equal. Printed are accepted queries per
second of CPU time on one core, and their ratio; both sides take turns.
"""

import argparse
import random
import statistics
import time
from collections import defaultdict

import numpy as np

from jaxmodels.data.query_structures import NEGATION, UNION, structure_of
from jaxmodels.data.triples import knowledge_graph, with_inverses
from jaxmodels.reasoning.sampling import Limits, block, split_of
from jaxmodels.reasoning.sampling_run import SAMPLED
from jaxmodels.reasoning.structures import has, is_chain, is_union


class Sets:
    """One graph as dictionaries of sets."""

    def __init__(self, triples, entities):
        self.everything = set(range(entities))
        self.tails, self.heads = defaultdict(set), defaultdict(lambda: defaultdict(list))
        for head, relation, tail in with_inverses(np.unique(triples, axis=0)).tolist():
            if tail not in self.tails[head, relation]:
                self.tails[head, relation].add(tail)
                self.heads[tail][relation].append(head)
        self.answers = [entity for entity in range(entities) if entity in self.heads]
        self.incoming = {entity: list(lists) for entity, lists in self.heads.items()}

    def ground(self, node, at):
        """Tokens of a node that `at` answers; None where the draw fails."""
        if not is_chain(node):
            parts, seen = [], []
            for child in node[:-1] if is_union(node) else node:
                part = self.ground(child, at)
                if part is None or (child, part) in seen:
                    return None
                seen.append((child, part))
                parts += part
            return [*parts, UNION] if is_union(node) else parts
        tokens, before = [], None
        for letter in reversed(node[1]):
            if letter == "n":
                tokens.insert(0, NEGATION)
                continue
            for _ in range(40):
                relation = random.choice(self.incoming[at])
                if before is None or relation != before ^ 1:
                    break
            else:
                return None
            before, at = relation, random.choice(self.heads[at][relation])
            tokens.insert(0, relation)
        start = [at] if node[0] == "e" else self.ground(node[0], at)
        return None if start is None else start + tokens

    def evaluate(self, node, tokens):
        """The answers; `tokens` is an iterator."""
        if is_chain(node):
            found = {next(tokens)} if node[0] == "e" else self.evaluate(node[0], tokens)
            for letter in node[1]:
                token = next(tokens)
                if letter == "n":
                    found = self.everything - found
                else:
                    found = set().union(*(self.tails.get((entity, token), ()) for entity in found))
            return found
        parts = [self.evaluate(child, tokens) for child in (node[:-1] if is_union(node) else node)]
        if is_union(node):
            next(tokens)
            return set.union(*parts)
        return set.intersection(*parts)


def one_by_one(big, small, name, limits, seconds, train):
    """Accepted queries per second."""
    tree, found = structure_of(name), set()
    began = time.process_time()
    while time.process_time() - began < seconds:
        tokens = big.ground(tree, random.choice(big.answers))
        if tokens is None:
            continue
        answers = big.evaluate(tree, iter(tokens))
        known = set() if train else small.evaluate(tree, iter(tokens))
        gained, lost = len(answers - known), len(known - answers)
        most = (limits.train_negated if has(name, "n") else limits.train) if train else limits.evaluation
        if not gained or (most is not None and max(gained, lost) > most):
            continue
        if has(name, "n") and not train and not lost:
            continue
        found.add(tuple(tokens))
    return len(found) / (time.process_time() - began)


def in_blocks(split, name, limits, number):
    """Accepted queries per second."""
    began = time.process_time()
    drawn = block(split, name, seed=0, number=number, attempts=8192, limits=limits)
    return len(drawn.tokens) / (time.process_time() - began)


def check(split, big, small, name, limits):
    """Raises AssertionError unless the answers of one block are those over Python sets."""
    drawn = block(split, name, seed=1, number=0, attempts=1024, limits=limits)
    for i, tokens in enumerate(drawn.tokens[:100].tolist()):
        answers, known = (sets.evaluate(structure_of(name), iter(tokens)) for sets in (big, small))
        for lists, expected in ((drawn.easy, known), (drawn.hard, answers - known)):
            found = lists.values[lists.starts[i] : lists.starts[i + 1]]
            assert found.tolist() == sorted(expected), (name, tokens)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn of the other side")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    kg, limits = knowledge_graph(options.folder), Limits()
    files = [kg.train, kg.valid, kg.test]
    print(f"{'':9}{'':7}{'one by one':>12}{'in blocks':>12}{'ratio':>8}   (accepted queries / CPU second)")
    for name_of_split, at in (("train", 0), ("test", 2)):
        split = split_of(kg, name_of_split)
        nothing = np.zeros((0, 3), np.int32)
        graphs = [Sets(np.concatenate([nothing, *files[:stop]]), len(kg.entities)) for stop in (at + 1, at)]
        for name in SAMPLED[1:]:
            check(split, *graphs, name, limits)
            rates = [
                (
                    one_by_one(*graphs, name, limits, options.seconds, name_of_split == "train"),
                    in_blocks(split, name, limits, turn),
                )
                for turn in range(options.turns)
            ]
            theirs, ours = (statistics.median(each) for each in zip(*rates, strict=True))
            ratio = ours / theirs if theirs else float("inf")
            print(f"{name_of_split:9}{name:7}{theirs:12,.0f}{ours:12,.0f}{ratio:8.0f}", flush=True)


if __name__ == "__main__":
    main()
