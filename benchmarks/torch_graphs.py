"""N2 plainly in PyTorch, and GCN, GAT and GIN by PyTorch Geometric: what the benchmark of graphs compares with.

N2 here follows the released code's structure (dense batches with explicit proximity matrices, one step module applied L
times, sparse sums over normalised edges with their self loops prepared beforehand) and its parameter names, so that
`jaxmodels.graphs.n2_names` carries weights across.
"""

import numpy as np
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch.nn import functional

LIMIT = 1e4


class Proximity(nn.Module):
    """psi of (B, k or 1, m, q) and (B, k or 1, n, q): (B, m, n), rows clipped by a factor without gradient."""

    def __init__(self, pieces: int):
        super().__init__()
        self.lambda_copies = nn.Parameter(torch.randn(pieces, 1, 1))

    def forward(self, a, b):
        lam = self.lambda_copies[None] / (len(self.lambda_copies) * a.shape[-1])
        # Where one side has a single piece the weighted pieces of the other are summed first.
        if b.shape[1] == 1:
            psi = (lam * a).sum(1) @ b[:, 0].mT
        elif a.shape[1] == 1:
            psi = a[:, 0] @ (lam * b).sum(1).mT
        else:
            psi = ((lam * a) @ b.mT).sum(1)
        with torch.no_grad():
            size = psi.sum(-1, keepdim=True).abs()
            factor = torch.where(size > LIMIT, LIMIT / size.clamp(min=LIMIT), torch.ones_like(size))
        return psi * factor


def encode(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    """dropout(LeakyReLU(linear))."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LeakyReLU(), nn.Dropout(dropout))


class Communicator(nn.Module):
    """Pseudo nodes among themselves: displacements (B, k, p, q) and values (B, p, d)."""

    def __init__(self, inputs: int, outputs: int, state: int, pieces: int, dropout: float):
        super().__init__()
        self.pnode_agg, self.shape = Proximity(pieces), (state, pieces)
        self.glob2disp = encode(inputs, state * pieces, dropout)
        self.glob2value = encode(inputs, outputs, dropout)

    def forward(self, pseudo, gathered):
        mixed = self.pnode_agg(pseudo, pseudo) @ gathered
        return self.glob2disp(mixed).unflatten(-1, self.shape).permute(0, 3, 1, 2), self.glob2value(mixed)


class Step(nn.Module):
    """(Q, F, R) -> (Q', F', R')."""

    def __init__(self, width: int, state: int, pieces: int, dropout: float):
        super().__init__()
        for name in ("collection1", "inspection", "collection2", "dispatch"):
            setattr(self, name, Proximity(pieces))
        joined = 2 * width + state
        self.pnode_agg1 = Communicator(width, width, state, pieces, dropout)
        self.pnode_agg2 = Communicator(joined + width, state, state, pieces, dropout)
        self.hstate_interface = encode(joined, state, dropout)
        self.feat_ff = encode(state, width, dropout)
        for name in ("phidden_norm", "hidden_norm", "pout_norm", "out_norm"):
            setattr(self, name, nn.LayerNorm(state))
        self.feat_norm = nn.LayerNorm(width)

    def forward(self, q, f, r, edges, mask, count):
        nodes = q[:, None]
        moved, shared = self.pnode_agg1(r, self.collection1(r, nodes) @ f / count)
        r = self.phidden_norm(r + moved)
        signal = self.inspection(nodes, r) @ shared
        h = torch.cat([f, signal, q], -1)
        h = local(edges, h.flatten(0, 1)).view(h.shape)
        hidden = self.hidden_norm(self.hstate_interface(h) + q) * mask
        gathered = torch.cat([self.collection2(r, hidden[:, None]) @ h / count, shared], -1)
        moved, values = self.pnode_agg2(r, gathered)
        r = self.pout_norm(r + moved)
        c = self.dispatch(hidden[:, None], r) @ values
        return self.out_norm(hidden + c) * mask, self.feat_norm(self.feat_ff(c) + f) * mask, r


def local(edges, x):
    """The normalised sum over edges, as torch_scatter and `index_add_` do it."""
    receivers, senders, weights = edges
    return torch.zeros_like(x).index_add_(0, receivers, x[senders] * weights[:, None])


class N2(nn.Module):
    """N2 on dense batches: x (B, n, d), mask (B, n, 1) of real nodes, edges over the B n slots."""

    def __init__(
        self, inputs: int, outputs: int, *, level: str = "node", steps: int, width: int, state_width: int, pieces: int,
        pseudo_nodes: int, dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.level, self.steps = level, steps
        self.node_state_interface = encode(inputs, state_width, dropout)
        self.feat_ff = encode(inputs, width, dropout)
        self.pnode_state = nn.Parameter(torch.randn(1, pseudo_nodes, state_width))
        self.class_neuron = nn.Parameter(torch.randn(1, outputs, state_width))
        self.out_ff = Proximity(pieces)
        self.node_state_updater = Step(width, state_width, pieces, dropout)
        if level == "graph":
            self.pnode_agg, self.out_norm = encode(pseudo_nodes * pieces, 1, dropout), nn.LayerNorm(state_width)

    def forward(self, x, edges, mask):
        q, f = self.node_state_interface(x) * mask, self.feat_ff(x) * mask
        r, count = self.pnode_state[None].expand(len(x), -1, -1, -1), mask.sum(1, keepdim=True)
        for _ in range(self.steps):
            q, f, r = self.node_state_updater(q, f, r, edges, mask, count)
        if self.level == "graph":
            pooled = self.pnode_agg(r.permute(0, 3, 1, 2).flatten(2)).mT
            scores = self.out_ff(self.out_norm(pooled)[:, None], self.class_neuron[None])[:, 0]
        else:
            scores = self.out_ff(q[:, None], self.class_neuron[None])[mask[..., 0] > 0]
        return functional.log_softmax(scores, -1)


def normalised_edges(senders: np.ndarray, receivers: np.ndarray, nodes: int) -> tuple[torch.Tensor, ...]:
    """Receivers, senders and weights of D^-1/2 (A + missing loops) D^-1/2."""
    lonely = np.setdiff1d(np.arange(nodes), receivers[senders == receivers])
    senders, receivers = np.concatenate([senders, lonely]), np.concatenate([receivers, lonely])
    root = np.bincount(receivers, minlength=nodes).astype(np.float32) ** -0.5
    weights = root[senders] * root[receivers]
    return torch.from_numpy(receivers).long(), torch.from_numpy(senders).long(), torch.from_numpy(weights)


class NodePeer(nn.Module):
    """GCN, GAT or GIN layers on nodes in the arrangement of `jaxmodels.graphs.peers.Peer`."""

    def __init__(
        self, kind: str, inputs: int, outputs: int, *, depth: int, width: int, dropout: float, residual: bool,
        heads: int = 8,
    ):  # fmt: skip
        super().__init__()
        self.dropout, self.residual = nn.Dropout(dropout), residual
        self.activation = functional.elu if kind == "gat" else functional.relu
        widths = [width if residual else inputs, *[width] * (depth - 1)]
        lasts = [not residual and i == depth - 1 for i in range(depth)]
        self.layers = nn.ModuleList(
            layer(kind, a, outputs if last else width, heads, dropout, last)
            for a, last in zip(widths, lasts, strict=True)
        )
        if residual:
            self.inward, self.outward = nn.Linear(inputs, width), nn.Linear(width, outputs)
            self.norms, self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth)), nn.LayerNorm(width)

    def forward(self, x, edges):
        if self.residual:
            x = self.inward(x)
            for conv, norm in zip(self.layers, self.norms, strict=True):
                x = x + self.dropout(self.activation(conv(norm(x), edges)))
            return functional.log_softmax(self.outward(self.norm(x)), -1)
        for conv in self.layers[:-1]:
            x = self.activation(conv(self.dropout(x), edges))
        return functional.log_softmax(self.layers[-1](self.dropout(x), edges), -1)


def layer(kind: str, inputs: int, outputs: int, heads: int, dropout: float, last: bool) -> nn.Module:
    if kind == "gcn":
        return pyg.GCNConv(inputs, outputs, cached=True)
    if kind == "gat":
        heads = 1 if last else heads
        return pyg.GATConv(inputs, outputs // heads, heads, concat=not last, dropout=dropout)
    if kind == "gin":
        mlp = nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, outputs))
        return pyg.GINConv(mlp, train_eps=True)
    raise ValueError(f"kind: found '{kind}', expected gcn, gat or gin")
