"""RCPMOD plainly in PyTorch, float64: what the benchmark of outliers compares with.

In the way of the released code (github.com/180400518/RCPMOD): boolean indexing of available rows, one NT-Xent over a
(2B)^2 matrix whose negatives are picked by a mask, neighbours by scikit-learn, one encoding per neighbour column, and
imputation that encodes them again. With `lean=False` it also does what that code does for nothing: it builds masks and
lists of neighbours by Python loops, imputes by the latents of all objects' neighbours where only missing ones are
needed, encodes all objects twice before an epoch, and those with a view once more for the errors of its scores.
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


def others(rows, lean):
    """(2B, 2B): neither the row itself nor its positive."""
    if lean:
        mask, at = ~torch.eye(2 * rows, dtype=torch.bool), torch.arange(rows)
        mask[at, at + rows] = mask[at + rows, at] = False
        return mask
    mask = torch.ones(2 * rows, 2 * rows).fill_diagonal_(0)
    for one, two in zip(range(rows), range(rows, 2 * rows), strict=True):
        mask[one, two] = 0
        mask[two, one] = 0
    return mask.bool()


def parts(a, b, lean, tau=TAU):
    """Positive (2B, 1) and negative (2B, 2B - 2) logits."""
    rows = len(a)
    h = torch.cat([a, b])
    sim = h @ h.T / tau
    positive = torch.cat([torch.diag(sim, rows), torch.diag(sim, -rows)])[:, None]
    return h, positive, sim[others(rows, lean)].reshape(2 * rows, -1)


def nt_xent(a, b, lean, bank=None):
    h, positive, negative = parts(a, b, lean)
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


def get_knn(views, has, count, lean):
    """(2, n, count) object ids, as released: 40 or 140 neighbours are asked for and then filtered."""
    asked = 40 if count < 10 else 140
    ids = [np.flatnonzero(has[:, v]) for v in (0, 1)]
    lacking = [np.flatnonzero(~has[:, v]) for v in (0, 1)]
    trees = [NearestNeighbors(n_neighbors=asked).fit(views[v][ids[v]]) for v in (0, 1)]
    near = [trees[v].kneighbors(views[v][ids[v]])[1][:, 1:] for v in (0, 1)]
    if lean:
        near = [ids[v][near[v]] for v in (0, 1)]
    else:
        near = [np.array([[ids[v][j] for j in row] for row in near[v]]) for v in (0, 1)]
    out = np.zeros((2, len(has), count), np.int64)
    for v in (0, 1):
        out[v, ids[v]] = near[v][:, :count]
        for row, i in enumerate(ids[1 - v]):
            if not has[i, v]:
                able = near[1 - v][row]
                kept = able[has[able, v]] if lean else np.array([j for j in able if j not in lacking[v]])
                out[v, i] = kept[:count]
    return out


class Loop:
    """One pair of views: an epoch, and the scores."""

    def __init__(self, views, has, widths, *, lean, batch_size=256, neighbours=6, bank=5, seed=0):
        torch.manual_seed(seed)
        self.lean = lean
        self.x = [torch.from_numpy(np.asarray(x, np.float64)) for x in views]
        self.has, self.f = has, [torch.from_numpy(has[:, v]) for v in (0, 1)]
        self.nets = [AutoEncoder(w) for w in widths]
        self.optimizer = torch.optim.Adam([p for net in self.nets for p in net.parameters()], lr=1e-3)
        self.batch, self.k, self.blocks, self.memory = batch_size, neighbours, bank, []
        self.raw, self.random = get_knn(views, has, neighbours, lean), np.random.RandomState(seed)
        self.near = self.far = self.raw

    def epoch(self, number: int, weight: float = 0.01) -> float:
        """Trains one epoch, searches for neighbours included, and returns the sum of the losses."""
        with torch.no_grad():
            for _ in range(1 if self.lean else 2):
                latents = [net(x).numpy() for net, x in zip(self.nets, self.x, strict=True)]
        if number % 50 == 0:
            self.near = get_knn(latents, self.has, self.k, self.lean)
        if number % 5 == 0:
            self.far = get_knn(latents, self.has, 50, self.lean)[:, :, -1]
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
        contrast = nt_xent(a, b, self.lean, bank)
        chosen = torch.topk((a * b).sum(1), max(int(len(a) * 0.05), 1), largest=False).indices
        self.memory = [*self.memory, [each[used][chosen] for each in x]][-self.blocks :]
        made = [net.decoder(each) for net, each in zip(self.nets, z, strict=True)]
        loss = sum(((made[v] - x[v]) ** 2)[f[v]].sum(1).mean() for v in (0, 1)) + contrast
        for j in range(self.k):
            pair = [unit(self.nets[v](self.x[v][self.near[v][rows, j]])) for v in (0, 1)]
            loss = loss + nt_xent(*pair, self.lean) / self.k
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
        lacking = ~f.numpy()
        ids = self.near[v][rows[lacking] if self.lean else rows]
        z = z.clone()
        if lacking.any():
            found = self.nets[v](self.x[v][ids.ravel()]).reshape(*ids.shape, -1)
            z[~f] = (found if self.lean else found[lacking]).mean(1)
        return z

    def errors(self, v, z):
        """Squared reconstruction errors of all objects; where the view is missing they mean nothing."""
        if self.lean:
            return ((self.nets[v].decoder(z) - self.x[v]) ** 2).sum(1)
        out = torch.zeros(len(z), dtype=z.dtype)
        for chosen in (self.f[0] & self.f[1], self.f[v] & ~self.f[1 - v]):
            x, made = self.x[v][chosen], []
            for batch in x.split(self.batch):
                made.append(self.nets[v].decoder(self.nets[v](batch)))
            out[chosen] = ((torch.cat(made) - x) ** 2).sum(1)
        return out

    @torch.no_grad()
    def scores(self, weight: float = 0.6) -> np.ndarray:
        """The fused scores of all objects."""
        rows = np.arange(len(self.has))
        z = [net(x) for net, x in zip(self.nets, self.x, strict=True)]
        errors = []
        for v in (0, 1):
            error = self.errors(v, z[v])
            own = error[self.f[v]]
            errors.append(torch.where(self.f[v], (error - own.min()) / (own.max() - own.min()), torch.nan))
        attribute = sum(torch.where(torch.isnan(errors[v]), errors[1 - v], errors[v]) for v in (0, 1)).numpy()
        a, b = (unit(self.imputed(v, rows, z[v], self.f[v])) for v in (0, 1))
        _, positive, negative = parts(a, b, self.lean)
        logits = torch.cat([positive, negative], 1)
        each = functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long), reduction="none").numpy()
        contrast = (each[: len(rows)] + each[len(rows) :]) / 2
        return weight * _minmax(attribute) + _minmax(contrast)


def _minmax(x):
    return (x - x.min()) / (x.max() - x.min())
