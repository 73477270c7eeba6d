"""DPCML plainly in PyTorch, in the released code's structure: what the benchmark of recommendation compares with.

Distances through tensors of differences (also the regularisation's (M, C, C, d) at every step and the catalogue's
(users, C, N, d) at prediction), negatives drawn by a Python loop over the training pairs before each epoch, and an
evaluator that goes from user to user.
"""

from typing import Any

import numpy as np
import torch
from torch import nn


class Dpcml(nn.Module):
    """C vectors per user on the unit sphere; items in the unit ball when looked up."""

    def __init__(self, users: int, items: int, dim: int, vectors: int, margin=1.0, weight=10.0, low=0.05, high=0.25):
        super().__init__()
        self.shape, self.margin, self.weight, self.low, self.high = (vectors, dim), margin, weight, low, high
        self.user = nn.Embedding(users, vectors * dim)
        self.item = nn.Embedding(items, dim, max_norm=1.0)
        nn.init.normal_(self.user.weight, 0, 0.01)
        nn.init.normal_(self.item.weight, 0, dim**-0.5)

    def nearest(self, users: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(b, C, d) and (b, s, d) -> (b, s)."""
        return ((users[:, :, None] - rows[:, None]) ** 2).sum(-1).min(1).values

    def forward(self, user: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        rows = self.item(torch.cat([positive[:, None], negative], 1))
        far = self.nearest(self.user(user).unflatten(-1, self.shape), rows)
        loss = torch.relu(self.margin + far[:, 0] - far[:, 1:].min(1).values).sum()
        if self.weight:
            every = self.user.weight.unflatten(-1, self.shape)
            apart = ((every[:, :, None] - every[:, None]) ** 2).sum(-1)
            off = 1 - torch.eye(self.shape[0])
            loss = loss + self.weight * torch.relu((self.low - apart) * off).mean()
            loss = loss + self.weight * torch.relu((apart - self.high) * off).mean()
        return loss

    @torch.no_grad()
    def hold(self) -> None:
        """Puts the users back on the sphere, after every optimizer step."""
        every = self.user.weight.unflatten(-1, self.shape)
        self.user.weight.copy_((every / every.norm(dim=-1, keepdim=True)).flatten(1))

    @torch.no_grad()
    def predict(self, user: torch.Tensor) -> torch.Tensor:
        """Scores (b, N), higher is better."""
        every = self.user(user).unflatten(-1, self.shape)
        return -((every[:, :, None] - self.item.weight[None, None]) ** 2).sum(-1).min(1).values


def sampled(pairs: np.ndarray, known: list[set[int]], items: int, count: int, random: Any) -> np.ndarray:
    """Negatives (pairs, count): a block of draws for each pair, known ones redrawn one by one."""
    found = []
    for user, _ in pairs:
        row = random.randint(0, items, count)
        for place in range(count):
            while int(row[place]) in known[user]:
                row[place] = random.randint(0, items)
        found.append(row)
    return np.array(found)


def epoch(model: Dpcml, optimizer: torch.optim.Optimizer, pairs: np.ndarray, known: list, count: int, batch: int,
          random: Any, steps: int) -> None:  # fmt: skip
    """The first steps of an epoch, and the share of its sampling that belongs to them."""
    pairs = pairs[random.permutation(len(pairs))[: steps * batch]]
    negatives = sampled(pairs, known, model.item.num_embeddings, count, random)
    for first in range(0, len(pairs), batch):
        rows = torch.from_numpy(pairs[first : first + batch])
        optimizer.zero_grad()
        loss = model(rows[:, 0], rows[:, 1], torch.from_numpy(negatives[first : first + batch]))
        loss.backward()
        optimizer.step()
        model.hold()


def evaluated(model: Dpcml, users: list[int], held: list, known: list, at: tuple[int, ...] = (5, 3)) -> dict:
    """Metrics of some users, one after another; those with too few items are skipped for each K."""
    each: dict[str, list[float]] = {name: [] for name in ("map", "mrr", "auc", "ndcg")}
    each |= {f"{name}@{k}": [] for k in at for name in ("precision", "recall", "ndcg")}
    for first in range(0, len(users), 100):
        chunk = users[first : first + 100]
        scores = model.predict(torch.tensor(chunk)).numpy()
        for user, row in zip(chunk, scores, strict=True):
            wanted, seen = np.fromiter(held[user], int), np.fromiter(known[user], int)
            row[seen] = -np.inf
            order = torch.topk(torch.from_numpy(row), len(row) - len(seen)).indices.numpy()
            hits = np.isin(order, wanted).astype(float)
            places, n = np.flatnonzero(hits) + 1, len(wanted)
            for k in at:
                if n >= k:
                    gain = (hits[:k] / np.log2(np.arange(2, k + 2))).sum()
                    each[f"precision@{k}"].append(hits[:k].sum() / k)
                    each[f"recall@{k}"].append(hits[:k].sum() / n)
                    each[f"ndcg@{k}"].append(gain / (1 / np.log2(np.arange(2, k + 2))).sum())
            if n >= 3:
                each["map"].append((np.arange(1, n + 1) / places).mean())
                each["mrr"].append(1 / places[0])
                ascending = len(order) - places + 1
                each["auc"].append((ascending.sum() - n * (n + 1) / 2) / (n * (len(order) - n)))
                each["ndcg"].append((1 / np.log2(places + 1)).sum() / (1 / np.log2(np.arange(2, n + 2))).sum())
    return {name: float(np.mean(values)) for name, values in each.items() if values}
