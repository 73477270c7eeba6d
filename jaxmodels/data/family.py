"""The embedded knowledge graph: a family tree. It is synthetic: every person and every edge follows from the seed.

Couples have children, children marry into other families, take up a trade, move, and speak the language of the region
they were born in. Edges of kinship follow from those by rules (a parent's sibling is an aunt or uncle), so what is held
out can be inferred from what is left, though never by one rule alone.
"""

from typing import NamedTuple

import numpy as np

from jaxmodels.data.triples import KnowledgeGraph

FIRST = (
    "Ada Amir Anna Arne Bela Bruno Carla Chidi Clara Dario Dina Edda Elias Emma Enzo Eva Farid Fenna Felix Flora Gino "
    "Greta Hana Hugo Ida Igor Ines Ivo Jana Jonas Judit Kaito Karin Kofi Lea Leon Lina Luis Maja Marek Mila Mona Nadia "
    "Nils Nora Olaf Olga Omar Paula Pavel Petra Quinn Rafael Rosa Runa Samir Sara Sven Tara Theo Tilda Uma Vera Viktor "
    "Wanda Willem Yara Yusuf Zoe"
).split()
LAST = "Abel Berg Castro Dahl Endo Fischer Garcia Haas Ito Jansen Klein Lopes Moreau Novak Okafor Petrov".split()
CITIES = "Aldmoor Brightsea Corvale Dunhaven Eastmere Fernhill Greyport Highcliff Inverlea Junewood".split()
REGIONS, LANGUAGES = ("North", "Coast", "Plain"), ("Northern", "Coastal", "Plainspeak")
TRADES = "baker carpenter doctor farmer judge miner painter pilot singer smith tailor teacher".split()
SYMMETRIC = ("married_to", "sibling_of", "cousin_of")
KEPT = ("located_in", "spoken_in")  # geography is never held out


class _Person(NamedTuple):
    name: str
    last: str
    parents: tuple[int, ...]
    born: str
    lives: str
    trade: str


class _Tree(NamedTuple):
    people: list[_Person]
    couples: list[tuple[int, int]]


def family_tree(*, seed: int = 0, families: int = 16, generations: int = 4, held_out: float = 0.1) -> KnowledgeGraph:
    """A family tree as triples; with the defaults about 350 entities, 12 relations and 4,000 edges.

    Args:
        seed: of everything.
        families: couples of the first generation, at most 16.
        generations: of people.
        held_out: share of the edges in valid, and as many in test; both directions of a symmetric edge go together, and
            everyone keeps an edge in train.

    Raises:
        ValueError: too few or too many families, fewer than two generations, or shares that leave no edge for train.
    """
    if not 2 <= families <= len(LAST):
        raise ValueError(f"families: found {families}, expected 2 to {len(LAST)}")
    if generations < 2:
        raise ValueError(f"generations: found {generations}, expected at least 2")
    if not 0.0 < held_out < 0.5:
        raise ValueError(f"held_out: found {held_out}, expected above 0 and below 0.5")
    rng = np.random.default_rng(seed)
    edges = _edges(_grow(rng, families, generations))
    return _split(edges, rng, held_out)


def _grow(rng: np.random.Generator, families: int, generations: int) -> _Tree:
    people: list[_Person] = []
    used: dict[str, int] = {}

    def add(last: str, parents: tuple[int, ...], born: str, trade: str) -> int:
        free = [name for name in FIRST if f"{name} {last}" not in used]
        first = str(rng.choice(free or FIRST))
        used[f"{first} {last}"] = number = used.get(f"{first} {last}", 0) + 1
        name = f"{first} {last}" + (f" {'I' * number}" if number > 1 else "")
        lives = born if rng.random() < 0.6 else str(rng.choice(CITIES))
        people.append(_Person(name, last, parents, born, lives, trade))
        return len(people) - 1

    couples = []
    for last in LAST[:families]:
        town = str(rng.choice(CITIES))
        pair = [add(last, (), town if i else str(rng.choice(CITIES)), str(rng.choice(TRADES))) for i in range(2)]
        couples.append((pair[0], pair[1]))
    every, newest = list(couples), couples
    for _ in range(generations - 1):
        children = []
        for one, two in newest:
            for _ in range(int(rng.integers(2, 5))):
                home = people[two].lives
                trade = people[(one, two)[rng.integers(2)]].trade if rng.random() < 0.7 else str(rng.choice(TRADES))
                children.append(add(people[one].last, (one, two), home, trade))
        newest = _marry(rng, people, children)
        every += newest
    return _Tree(people, every)


def _marry(rng: np.random.Generator, people: list[_Person], children: list[int]) -> list[tuple[int, int]]:
    """Pairs of another family, in random order; some stay alone, and the second of a pair moves to the first."""
    waiting, pairs = list(rng.permutation(children)), []
    while waiting:
        one = int(waiting.pop())
        others = [int(i) for i in waiting if people[i].last != people[one].last]
        if not others or rng.random() < 0.15:
            continue
        two = others[0]
        waiting.remove(two)
        people[two] = people[two]._replace(lives=people[one].lives)
        pairs.append((one, two))
    return pairs


def _edges(tree: _Tree) -> dict[str, list[tuple[str, str]]]:
    """Relation -> (head, tail), facts first and then what follows from them."""
    people, name = tree.people, [person.name for person in tree.people]
    pairs = range(len(people))
    parents = [set(person.parents) for person in people]
    siblings = [{j for j in pairs if j != i and parents[i] and parents[i] == parents[j]} for i in pairs]
    spouse = {a: b for pair in tree.couples for a, b in (pair, pair[::-1])}
    aunts = [{x for p in parents[i] for s in siblings[p] for x in (s, spouse.get(s)) if x is not None} for i in pairs]
    region = {city: REGIONS[i % len(REGIONS)] for i, city in enumerate(CITIES)}
    tongue = dict(zip(REGIONS, LANGUAGES, strict=True))
    cousins = [{j for p in parents[i] for s in siblings[p] for j in pairs if s in parents[j]} for i in pairs]
    return {
        "parent_of": [(name[p], name[i]) for i in pairs for p in sorted(parents[i])],
        "married_to": [(name[a], name[b]) for a, b in sorted(spouse.items())],
        "born_in": [(person.name, person.born) for person in people],
        "lives_in": [(person.name, person.lives) for person in people],
        "works_as": [(person.name, person.trade) for person in people],
        "located_in": sorted(region.items()),
        "spoken_in": [(tongue[r], r) for r in REGIONS],
        "speaks": [(person.name, tongue[region[person.born]]) for person in people],
        "sibling_of": [(name[i], name[j]) for i in pairs for j in sorted(siblings[i])],
        "grandparent_of": [(name[g], name[i]) for i in pairs for p in sorted(parents[i]) for g in sorted(parents[p])],
        "aunt_or_uncle_of": [(name[a], name[i]) for i in pairs for a in sorted(aunts[i])],
        "cousin_of": [(name[i], name[j]) for i in pairs for j in sorted(cousins[i])],
    }


def _split(edges: dict[str, list[tuple[str, str]]], rng: np.random.Generator, held_out: float) -> KnowledgeGraph:
    listed = [(h, r, t) for r, pairs in edges.items() for h, t in dict.fromkeys(pairs)]
    entities = list(dict.fromkeys(x for h, _, t in listed for x in (h, t)))
    place, relation = {x: i for i, x in enumerate(entities)}, {r: 2 * i for i, r in enumerate(edges)}
    draw: dict[tuple[str, ...], float] = {}
    left = np.zeros(len(entities), int)
    for h, _, t in listed:
        left[place[h]] += 1
        left[place[t]] += 1
    found: dict[str, list[tuple[int, int, int]]] = {"train": [], "valid": [], "test": []}
    for h, r, t in listed:
        key = (r, *sorted((h, t))) if r in SYMMETRIC else (r, h, t)
        u = draw.setdefault(key, 1.0 if r in KEPT else float(rng.random()))
        split = "test" if u < held_out else "valid" if u < 2 * held_out else "train"
        if split != "train" and min(left[place[h]], left[place[t]]) <= 2:
            split = "train"
            draw[key] = 1.0
        if split != "train":
            left[[place[h], place[t]]] -= 1
        found[split].append((place[h], relation[r], place[t]))
    arrays = {split: np.array(rows, np.int32).reshape(-1, 3) for split, rows in found.items()}
    return KnowledgeGraph(tuple(entities), tuple(edges), **arrays, dropped={}, duplicates={})
