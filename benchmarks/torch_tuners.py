"""AdaptFormer, VPT-deep and SNELL, plainly in PyTorch on a `transformers` ViT: what the benchmark compares with."""

import torch
from torch import nn


class AdaptFormer(nn.Module):
    """x + MLP(LN2 x) + 0.1 up(ReLU(down x)): replaces an MLP and needs the block's residual stream."""

    def __init__(self, mlp: nn.Module, norm: nn.Module, width: int, hidden: int):
        super().__init__()
        self.mlp, self.norm = mlp, norm
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        norm.register_forward_pre_hook(self._remember)

    def _remember(self, module, inputs):
        self.residual = inputs[0]

    def forward(self, x):
        return self.mlp(x) + 0.1 * self.up(torch.relu(self.down(self.residual)))


class Prompts(nn.Module):
    """Deep prompts: rows 1..n are overwritten before every block but the first, where they are inserted."""

    def __init__(self, block: nn.Module, width: int, prompts: int, first: bool):
        super().__init__()
        self.block, self.first = block, first
        self.prompt = nn.Parameter(torch.empty(1, prompts, width).uniform_(-0.06, 0.06))

    def forward(self, x, *args, **kwargs):
        rest = x[:, 1:] if self.first else x[:, 1 + self.prompt.shape[1] :]
        rows = self.prompt.expand(x.shape[0], -1, -1)
        return self.block(torch.cat([x[:, :1], rows, rest], dim=1), *args, **kwargs)


class Snell(nn.Module):
    """y = x W0 + b + x D^s, D = 0.1 (dist_1 - dist_2); merged again in the backward pass, as the official code does."""

    def __init__(self, linear: nn.Linear, rank: int, sparsity: float):
        super().__init__()
        self.linear, self.sparsity = linear, sparsity
        piece = rank // 2

        def factor(width):
            bound = (width * piece) ** -0.5
            return nn.Parameter(torch.empty(2, width, piece).uniform_(-bound, bound))

        self.rows, self.columns = factor(linear.in_features), factor(linear.out_features)

    def branch(self, x):
        merged = 0.1 * (torch.cdist(self.rows[0], self.columns[0]) - torch.cdist(self.rows[1], self.columns[1]))
        size = merged.detach().abs()
        # torch.quantile refuses more than 16 million values and sorts; kthvalue selects.
        threshold = size.flatten().kthvalue(max(1, int(self.sparsity * size.numel()))).values
        return x @ (merged * torch.where(size > threshold, size, torch.zeros(())))

    def forward(self, x):
        extra = torch.utils.checkpoint.checkpoint(self.branch, x, use_reentrant=False)
        return self.linear(x) + extra
