"""GQE, Query2Box and BetaE, plainly in PyTorch: what the benchmark compares with.

Formulas are those of the published models; queries are grouped by structure, so that each is embedded by one walk. The
loss, the negatives and Adam are as in training; batches come from our loader, which is faster than theirs.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jaxmodels.data.query_structures import structure_of
from jaxmodels.reasoning.structures import Algebra, disjuncts, has, rewrite, walk


class Attention(nn.Module):
    """Weights of k branches, a softmax over branches for each dimension."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.layer1, self.layer2 = nn.Linear(inputs, inputs), nn.Linear(inputs, outputs)
        for layer in (self.layer1, self.layer2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x):
        return torch.softmax(self.layer2(torch.relu(self.layer1(x))), dim=0)


class Gate(Attention):
    """What shrinks the smallest offset."""

    def forward(self, x):
        return torch.sigmoid(self.layer2(torch.relu(self.layer1(x)).mean(0)))


class Reasoner(nn.Module):
    """One of the three models.

    Args:
        kind: gqe, query2box or betae.
        entities: number of entities.
        relations: with their inverses.
        dim: D.
        gamma: margin.
        hidden: betae, width of the projection.
    """

    def __init__(self, kind: str, entities: int, relations: int, dim: int, gamma: float, hidden: int):
        super().__init__()
        self.kind, self.gamma, self.dim = kind, gamma, dim
        bound, width = (gamma + 2.0) / dim, dim * (2 if kind == "betae" else 1)
        self.entity = nn.Parameter(torch.empty(entities, width).uniform_(-bound, bound))
        self.relation = nn.Parameter(torch.empty(relations, dim).uniform_(-bound, bound))
        self.center_net = Attention(width, dim)
        if kind == "query2box":
            self.offset = nn.Parameter(torch.empty(relations, dim).uniform_(0, bound))
            self.offset_net = Gate(dim, dim)
        if kind == "betae":
            sizes = [3 * dim, hidden, hidden, 2 * dim]
            self.projection = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
            for layer in self.projection:
                nn.init.xavier_uniform_(layer.weight)

    def algebra(self) -> Algebra:
        if self.kind == "gqe":
            return Algebra(
                lambda ids: self.entity[ids],
                lambda x, ids: x + self.relation[ids],
                None,
                lambda parts: self._mixed(torch.stack(parts)),
                None,
            )
        if self.kind == "query2box":
            return Algebra(
                lambda ids: (self.entity[ids], torch.zeros(len(ids), self.dim)),
                lambda x, ids: (x[0] + self.relation[ids], x[1] + self.offset[ids]),
                None,
                self._boxes,
                None,
            )
        return Algebra(lambda ids: _regular(self.entity[ids]), self._project, lambda x: 1.0 / x, self._betas, None)

    def _mixed(self, stacked):
        return (self.center_net(stacked) * stacked).sum(0)

    def _boxes(self, parts):
        offsets = torch.stack([part[1] for part in parts])
        return self._mixed(torch.stack([part[0] for part in parts])), offsets.min(0).values * self.offset_net(offsets)

    def _project(self, x, ids):
        x = torch.cat([x, self.relation[ids]], -1)
        for layer in self.projection[:-1]:
            x = torch.relu(layer(x))
        return _regular(self.projection[-1](x))

    def _betas(self, parts):
        stacked = torch.stack(parts)
        weights = self.center_net(stacked)
        return (torch.cat([weights, weights], -1) * stacked).sum(0)

    def scores(self, structure: str, tokens: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """(n, K) scores of entities (n, K) or (1, K)."""
        if has(structure, "u"):
            rows = tokens.numpy()
            each = [
                self._scored(part.structure, torch.from_numpy(rewrite(rows, part)), ids)
                for part in disjuncts(structure)
            ]
            return torch.stack(each).max(0).values
        return self._scored(structure_of(structure), tokens, ids)

    def _scored(self, structure, tokens, ids):
        query, points = walk(structure, tokens, self.algebra()), self.entity[ids]
        if self.kind == "gqe":
            return self.gamma - (points - query[:, None]).abs().sum(-1)
        if self.kind == "query2box":
            center, offset = (part[:, None] for part in query)
            delta = (points - center).abs()
            inside = torch.minimum(delta, offset)
            return self.gamma - torch.relu(delta - offset).sum(-1) - 0.02 * inside.abs().sum(-1)
        entity = torch.distributions.Beta(*_regular(points).chunk(2, -1))
        asked = torch.distributions.Beta(*query[:, None].chunk(2, -1))
        return self.gamma - torch.distributions.kl_divergence(entity, asked).abs().sum(-1)

    def loss(self, batch, negatives: int) -> torch.Tensor:
        """The weighted loss of a batch of our loader, with fresh negatives."""
        positive, negative, weight = [], [], []
        for name, rows in batch.items():
            answers = torch.from_numpy(rows["positive"]).long()
            wrong = torch.randint(len(self.entity), (len(answers), negatives))
            both = self.scores(name, torch.from_numpy(rows["query"]).long(), torch.cat([answers[:, None], wrong], 1))
            positive.append(both[:, 0])
            negative.append(both[:, 1:])
            weight.append(torch.from_numpy(rows["weight"]))
        w = torch.cat(weight)
        true = functional.logsigmoid(torch.cat(positive))
        false = functional.logsigmoid(-torch.cat(negative)).mean(1)
        return -((w * true).sum() + (w * false).sum()) / w.sum() / 2


def _regular(x):
    return torch.clamp(x + 1.0, 0.05, 1e9)


def trained(model: Reasoner, loader, steps: int, rate: float, negatives: int) -> None:
    """Path, other, path for `steps` steps, with the two drops of the rate."""
    warm, optimizer = float(steps // 2), torch.optim.Adam(model.parameters(), lr=rate)
    for step in range(steps):
        for batch in loader[step]:
            optimizer.zero_grad()
            model.loss(batch, negatives).backward()
            optimizer.step()
        if step >= warm:
            rate, warm = rate / 5, math.ceil(warm * 1.5)
            optimizer = torch.optim.Adam(model.parameters(), lr=rate)


@torch.no_grad()
def all_scores(model: Reasoner, structure: str, tokens: np.ndarray) -> np.ndarray:
    """Scores of all entities for each query, 32 queries at a time."""
    everyone = torch.arange(len(model.entity))[None]
    rows = torch.from_numpy(tokens).long()
    return np.concatenate([model.scores(structure, part, everyone).numpy() for part in rows.split(32)])
