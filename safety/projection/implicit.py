"""Gradients of a projection through its optimality conditions.

At a solution with active rows A_a, z = x - W^-1 A_a' (A_a W^-1 A_a')^-1 (A_a x - b_a) and nearby solutions satisfy the
same equation with the same rows; its derivative is that of the KKT system (B. Amos, J. Z. Kolter, "OptNet", ICML 2017,
eq. 6, for this quadratic). No solver is unrolled. Where a row is active with a zero multiplier the projection has a
kink and this is one of its one-sided derivatives.
"""

from __future__ import annotations

import torch

RIDGE = 1e-13  # keeps the system regular where two active rows are parallel to rounding


def attach_gradient(
    z: torch.Tensor,
    x: torch.Tensor,
    A: torch.Tensor,
    b: torch.Tensor,
    weights: torch.Tensor | None,
    active: torch.Tensor,
) -> torch.Tensor:
    """z [B, n] with the gradient of the projection in x [B, n], A [B, m, n], b [B, m], weights [B or 1, n].

    active: [B, m] bool, linearly independent rows. The value of z is unchanged.
    """
    most = int(active.sum(-1).max()) if active.numel() else 0
    if most == 0:
        formula = x
    else:
        present, index = active.to(torch.int8).topk(most, dim=-1)
        mask = present.bool()
        rows = A.gather(1, index[..., None].expand(-1, -1, A.shape[-1]))
        bounds = torch.where(mask, b.gather(1, index), 0.0)
        # The scale of a row changes nothing but the conditioning, so it needs no gradient of its own.
        length = rows.detach().norm(dim=-1).clamp_min(1e-300)
        rows = torch.where(mask[..., None], rows / length[..., None], 0.0)
        bounds = torch.where(mask, bounds / length, 0.0)
        weighted = rows if weights is None else rows / weights[:, None, :]
        gram = weighted @ rows.transpose(1, 2)
        gram = gram + torch.diag_embed(torch.where(mask, RIDGE, 1.0).to(gram))
        excess = (rows @ x[..., None])[..., 0] - bounds
        formula = x - (weighted.transpose(1, 2) @ torch.linalg.solve(gram, excess[..., None]))[..., 0]
    return formula + (z - formula).detach()
