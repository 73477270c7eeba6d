"""A synthetic recommendation set in which users have several interests, some of them small.

Items belong to kinds, whose sizes are very unequal, and lie around their kind's centre. A user has one to four kinds
with unequal shares, and a taste of its own within each; popular items come more often. No data set of interactions may
be shipped with this package, so the embedded example is this one, and says so.
"""

from typing import NamedTuple

import numpy as np

from jaxmodels.data.interactions import Interactions, of_lists

SPACE = 6  # dimensions in which items and tastes lie
SHARES = ((1.0,), (0.65, 0.35), (0.5, 0.3, 0.2), (0.4, 0.25, 0.2, 0.15))  # of a user's interests, by their number


class Interests(NamedTuple):
    """What was generated.

    Attributes:
        data: lists of items per user.
        kinds: (N,) the kind of each item.
        held: (M, G) the share that each kind has of a user's interactions, as drawn from; 0 for most.
    """

    data: Interactions
    kinds: np.ndarray
    held: np.ndarray


def latent_interests(
    users: int = 1000, items: int = 800, *, kinds: int = 16, fewest: int = 15, most: int = 40, seed: int = 0
) -> Interests:
    """Draws a set.

    Args:
        users: M.
        items: N.
        kinds: G; the k-th is in proportion to 1 / (k + 3).
        fewest: items of a user, at least.
        most: items of a user, at most.
        seed: of all draws.

    Raises:
        ValueError: more items per user than there are, or too few kinds.
    """
    if not 1 <= fewest <= most < items or kinds < len(SHARES):
        raise ValueError(f"found {fewest} to {most} of {items} items and {kinds} kinds, expected fewer items, 4 kinds")
    random = np.random.default_rng(seed)
    size = 1 / (np.arange(kinds) + 3.0)
    kind = np.sort(random.choice(kinds, items, p=size / size.sum()))
    centre = random.normal(size=(kinds, SPACE))
    centre /= np.linalg.norm(centre, axis=1, keepdims=True)
    place = centre[kind] + 0.22 * random.normal(size=(items, SPACE))
    popularity = np.log(1 / (random.permutation(items) + 20.0))
    held, lists = np.zeros((users, kinds)), []
    present = np.unique(kind)
    for user in range(users):
        share = SHARES[random.choice(len(SHARES), p=(0.15, 0.3, 0.3, 0.25))]
        own = random.choice(present, min(len(share), len(present)), replace=False)
        held[user, own] = np.array(share[: len(own)]) / sum(share[: len(own)])
        taste = centre[own] + 0.15 * random.normal(size=(len(own), SPACE))
        far = ((place[:, None] - taste[None]) ** 2).sum(2)
        logits = np.where(kind[:, None] == own[None], popularity[:, None] - 6.0 * far, -np.inf)
        chance = np.exp(logits - logits.max(0)) / np.exp(logits - logits.max(0)).sum(0)
        weight = 0.97 * (chance * held[user, own]).sum(1) + 0.03 / items  # now and then anything at all
        count = int(random.integers(fewest, most + 1))
        lists.append(np.argpartition(random.gumbel(size=items) + np.log(weight), -count)[-count:])
    return Interests(of_lists(lists, items), kind, held)
