"""RCPMOD plainly in PyTorch, float64: what the benchmark of outliers compares with.

Written from the description of the released code and in its way: boolean indexing of available rows, one NT-Xent over a
(2B)^2 matrix whose negatives are picked by a mask, neighbours by scikit-learn, one encoding per neighbour column, and
imputation that encodes them again. Masks are built by slices, not by a Python loop over rows, which is kinder to it.
"""

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.nn import functional

TAU, EPSILON = 0.5, 1e-6


class AutoEncoder(nn.Module):
    """D - hidden - L and back."""

    def __init__(self, widths):
        super().__init__()
        self.encoder, self.decoder = stack(widths), nn.Sequential(*stack(widths[::-1]), nn.Sigmoid())

    def forward(self, x):
        return self.encoder(x)


def stack(widths) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


def parts(a, b, tau=TAU):
    """Positive (2B, 1) and negative (2B, 2B - 2) logits."""
    rows = len(a)
    h = torch.cat([a, b])
    sim = h @ h.T / tau
    positive = torch.cat([torch.diag(sim, rows), torch.diag(sim, -rows)])[:, None]
    mask = ~torch.eye(2 * rows, dtype=torch.bool)
    at = torch.arange(rows)
    mask[at, at + rows] = mask[at + rows, at] = False
    return h, positive, sim[mask].reshape(2 * rows, -1)


def nt_xent(a, b, bank=None):
    h, positive, negative = parts(a, b)
    logits = [positive, negative] + ([h @ bank.T / TAU] if bank is not None else [])
    target = torch.zeros(len(h), dtype=torch.long)
    return functional.cross_entropy(torch.cat(logits, 1), target, reduction="sum") / len(h)


def unit(z):
    return functional.normalize(z, dim=1)


def distance(a, b):
    return torch.linalg.vector_norm(a - b + EPSILON, dim=1)


def uniform(z):
    with torch.no_grad():
        dots = z @ z.T
        dots.fill_diagonal_(-1)
        found = dots.argmax(1)
    return -torch.log(len(z) * distance(z, z[found])).mean()


def get_knn(views, has, count):
    """(2, n, count) object ids, as released: 40 or 140 neighbours are asked for and then filtered."""
    asked = 40 if count < 10 else 140
    ids = [np.flatnonzero(has[:, v]) for v in (0, 1)]
    trees = [NearestNeighbors(n_neighbors=asked).fit(views[v][ids[v]]) for v in (0, 1)]
    near = [ids[v][trees[v].kneighbors(views[v][ids[v]], return_distance=False)[:, 1:]] for v in (0, 1)]
    out = np.zeros((2, len(has), count), np.int64)
    for v in (0, 1):
        out[v, ids[v]] = near[v][:, :count]
        for row, i in enumerate(ids[1 - v]):
            if not has[i, v]:
                able = near[1 - v][row]
                out[v, i] = able[has[able, v]][:count]
    return out


class Loop:
    """One pair of views: an epoch, and the scores."""

    def __init__(self, views, has, widths, *, batch_size=256, neighbours=6, bank=5, seed=0):
        torch.manual_seed(seed)
        self.x = [torch.from_numpy(np.asarray(x, np.float64)) for x in views]
        self.has, self.f = has, [torch.from_numpy(has[:, v]) for v in (0, 1)]
        self.nets = [AutoEncoder(w) for w in widths]
        self.optimizer = torch.optim.Adam([p for net in self.nets for p in net.parameters()], lr=1e-3)
        self.batch, self.k, self.blocks, self.memory = batch_size, neighbours, bank, []
        self.raw, self.random = get_knn(views, has, neighbours), np.random.RandomState(seed)
        self.near = self.far = self.raw

    def epoch(self, number: int, weight: float = 0.01) -> float:
        """Trains one epoch, searches for neighbours included, and returns the sum of the losses."""
        with torch.no_grad():
            latents = [net(x).numpy() for net, x in zip(self.nets, self.x, strict=True)]
        if number % 50 == 0:
            self.near = get_knn(latents, self.has, self.k)
        if number % 5 == 0:
            self.far = get_knn(latents, self.has, 50)[:, :, -1]
        n, total = len(self.has), 0.0
        column = self.random.choice(self.k, n)
        order = np.random.RandomState(1).permutation(n)
        for start in range(0, n, self.batch):
            rows = order[start : start + self.batch]
            if len(rows) > 1:
                total += self.step(rows, column, number >= 50, weight)
        return total

    def step(self, rows, column, impute, weight):
        x, f = [x[rows] for x in self.x], [f[rows] for f in self.f]
        z = [net(each) for net, each in zip(self.nets, x, strict=True)]
        if impute:
            filled, used = [self.imputed(v, rows, z[v], f[v]) for v in (0, 1)], torch.ones(len(rows), dtype=torch.bool)
        else:
            filled, used = z, f[0] & f[1]
        a, b = (unit(each[used]) for each in filled)
        bank = None
        if self.memory:
            bank = torch.cat([unit(self.nets[v](torch.cat([block[v] for block in self.memory]))) for v in (0, 1)])
        contrast = nt_xent(a, b, bank)
        chosen = torch.topk((a * b).sum(1), max(int(len(a) * 0.05), 1), largest=False).indices
        self.memory = [*self.memory, [each[used][chosen] for each in x]][-self.blocks :]
        made = [net.decoder(each) for net, each in zip(self.nets, z, strict=True)]
        loss = sum(((made[v] - x[v]) ** 2)[f[v]].sum(1).mean() for v in (0, 1)) + contrast
        for j in range(self.k):
            pair = [unit(self.nets[v](self.x[v][self.near[v][rows, j]])) for v in (0, 1)]
            loss = loss + nt_xent(*pair) / self.k
        for v in (0, 1):
            own, here = z[v][f[v]], rows[f[v].numpy()]
            near = self.nets[v](self.x[v][self.raw[v][here, column[here]]])
            far = self.nets[v](self.x[v][self.far[v][here]])
            loss = loss + weight * (torch.relu(distance(own, near) - distance(own, far)).mean() + uniform(own))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def imputed(self, v, rows, z, f):
        ids = self.near[v][rows[~f.numpy()]]
        z = z.clone()
        if len(ids):
            z[~f] = self.nets[v](self.x[v][ids.ravel()]).reshape(*ids.shape, -1).mean(1)
        return z

    @torch.no_grad()
    def scores(self, weight: float = 0.6) -> np.ndarray:
        """The fused scores of all objects."""
        rows = np.arange(len(self.has))
        z = [net(x) for net, x in zip(self.nets, self.x, strict=True)]
        errors = []
        for v in (0, 1):
            error = ((self.nets[v].decoder(z[v]) - self.x[v]) ** 2).sum(1)
            own = error[self.f[v]]
            errors.append(torch.where(self.f[v], (error - own.min()) / (own.max() - own.min()), torch.nan))
        attribute = sum(torch.where(torch.isnan(errors[v]), errors[1 - v], errors[v]) for v in (0, 1)).numpy()
        a, b = (unit(self.imputed(v, rows, z[v], self.f[v])) for v in (0, 1))
        _, positive, negative = parts(a, b)
        logits = torch.cat([positive, negative], 1)
        each = functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long), reduction="none").numpy()
        contrast = (each[: len(rows)] + each[len(rows) :]) / 2
        return weight * _minmax(attribute) + _minmax(contrast)


def _minmax(x):
    return (x - x.min()) / (x.max() - x.min())
