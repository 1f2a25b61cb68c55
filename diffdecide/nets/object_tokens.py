"""The conditioner: a scene of object tokens, read under the goal embedding of the current sub-goal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from diffdecide.nets.mlp import check_sizes


@dataclass(frozen=True)
class ObjectContext:
    """What the denoiser is conditioned on.

    Attributes:
        context: [B, C]
        target_logits: [B, K] score of each token to be the target; absent tokens carry `ABSENT`, never -inf.
    """

    context: Tensor
    target_logits: Tensor


ABSENT = -1e4  # finite, so that rows without any token stay free of NaN, also in half precision


class ObjectTokens(ModelMixin, ConfigMixin):
    """Encodes the agent's own sensors and a set of object tokens into one context vector.

    Which object is the target is read from the goal embedding by a pointer (Vinyals et al. 2015): the query comes
    from the goal embedding alone, the keys from the tokens. The token pointed at enters the context through the soft
    choice, the others through a few latent queries that attend to all tokens (Perceiver, Jaegle et al. 2021) and
    through a masked maximum (PointNet, Qi et al. 2017). The order of the tokens does not matter, absent tokens never
    do. Goal, return and cost budget each have a learned null embedding for classifier-free guidance.

    Args:
        ego_dim: E, the agent's own sensors.
        token_dim: F, features of one token.
        goal_dim: G, goal embedding.
        context_dim: C, width of the result.
        width: inner width.
        heads, layers, queries: attention heads, attention layers and latent queries.
        pointer_features: (start, stop) of the token features that the pointer's keys see, such as the one-hot kind;
            all features when None.
    """

    @register_to_config
    def __init__(
        self,
        ego_dim: int,
        token_dim: int,
        goal_dim: int,
        context_dim: int = 128,
        width: int = 64,
        heads: int = 2,
        layers: int = 1,
        queries: int = 4,
        pointer_features: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        check_sizes(ego_dim=ego_dim, token_dim=token_dim, goal_dim=goal_dim, context_dim=context_dim, width=width)
        check_sizes(heads=heads, layers=layers, queries=queries)
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width=} and {heads=}")
        start, stop = pointer_features or (0, token_dim)
        if not 0 <= start < stop <= token_dim:
            raise ValueError(f"pointer_features must lie within the {token_dim} token features, got {pointer_features}")
        self._pointer = slice(start, stop)
        self.sizes = {"ego_dim": ego_dim, "token_dim": token_dim, "goal_dim": goal_dim}

        self.null_goal = nn.Parameter(torch.zeros(goal_dim))
        self.null_return = nn.Parameter(torch.zeros(width))
        self.null_budget = nn.Parameter(torch.zeros(width))
        self.embed_return = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.embed_budget = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.embed_token = nn.Sequential(nn.Linear(token_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.embed_target = nn.Linear(token_dim, width)
        self.embed_ego = nn.Linear(ego_dim, width)
        self.embed_goal = nn.Linear(goal_dim, width)
        self.pointer_query = nn.Sequential(nn.Linear(goal_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.pointer_key = nn.Linear(stop - start, width)

        self.latents = nn.Parameter(torch.randn(queries, width, generator=torch.Generator().manual_seed(0)) * 0.02)
        self.nothing = nn.Parameter(torch.zeros(width))  # an ever-present token: an empty scene can be attended to
        self.blocks = nn.ModuleList(_CrossAttention(width, heads) for _ in range(layers))
        self.join = nn.Sequential(
            nn.Linear(width * (queries + 6), 2 * context_dim), nn.SiLU(), nn.Linear(2 * context_dim, context_dim)
        )

    def forward(
        self,
        ego: Tensor,
        tokens: Tensor,
        token_mask: Tensor,
        goal: Tensor | None = None,
        return_to_go: Tensor | None = None,
        cost_budget: Tensor | None = None,
        *,
        drop_goal: Tensor | None = None,
        drop_return: Tensor | None = None,
        drop_budget: Tensor | None = None,
    ) -> ObjectContext:
        """Encode a batch.

        Args:
            ego: [B, E] normalised sensors.
            tokens: [B, K, F].
            token_mask: [B, K] bool, True where a token is present.
            goal: [B, G] embedding of the current sub-goal; None is the null goal.
            return_to_go, cost_budget: [B] normalised; None is the null embedding.
            drop_goal, drop_return, drop_budget: [B] bool, True replaces that sample's input by its null embedding.

        Raises:
            ValueError: a shape does not fit the configuration.
        """
        self._check(ego, tokens, token_mask, goal)
        rows = len(ego)
        goal = self.null_goal.expand(rows, -1) if goal is None else _or_null(goal, self.null_goal, drop_goal)
        present = token_mask.bool()
        # Whatever stands in an absent slot (even NaN) must not reach any product.
        tokens = torch.where(present[..., None], tokens, torch.zeros((), dtype=tokens.dtype, device=tokens.device))

        keys = self.pointer_key(tokens[..., self._pointer])
        logits = (keys @ self.pointer_query(goal)[..., None]).squeeze(-1) * keys.shape[-1] ** -0.5
        logits = logits.masked_fill(~present, ABSENT)
        choice = logits.softmax(-1) * present
        target = self.embed_target((choice[..., None, :] @ tokens).squeeze(-2))

        ego_width, goal_width = self.embed_ego(ego), self.embed_goal(goal)
        about = ego_width + goal_width + target
        # Each token is seen relative to the target: what is an obstacle depends on where one is headed.
        seen = self.embed_token(tokens) + about[:, None]
        largest = seen.masked_fill(~present[..., None], ABSENT).amax(1) if tokens.shape[1] else torch.zeros_like(about)
        largest = torch.where(present.any(1, keepdim=True), largest, self.nothing)
        memory = torch.cat((self.nothing.expand(rows, 1, -1), seen), 1)
        visible = F.pad(present, (1, 0), value=True)[:, None, None]
        latent = self.latents + about[:, None]
        for block in self.blocks:
            latent = block(latent, memory, visible)

        wanted = _scalar(return_to_go, self.embed_return, self.null_return, drop_return, rows)
        budget = _scalar(cost_budget, self.embed_budget, self.null_budget, drop_budget, rows)
        parts = (latent.flatten(1), largest, target, ego_width, goal_width, wanted, budget)
        return ObjectContext(self.join(torch.cat(parts, -1)), logits)

    def _check(self, ego: Tensor, tokens: Tensor, token_mask: Tensor, goal: Tensor | None) -> None:
        sizes = self.sizes
        if ego.ndim != 2 or ego.shape[1] != sizes["ego_dim"]:
            raise ValueError(f"ego must have shape [B, {sizes['ego_dim']}], got {tuple(ego.shape)}")
        rows = len(ego)
        if tokens.ndim != 3 or len(tokens) != rows or tokens.shape[2] != sizes["token_dim"]:
            raise ValueError(f"tokens must have shape [{rows}, K, {sizes['token_dim']}], got {tuple(tokens.shape)}")
        if token_mask.shape != tokens.shape[:2]:
            raise ValueError(f"token_mask must have shape {tuple(tokens.shape[:2])}, got {tuple(token_mask.shape)}")
        if goal is not None and goal.shape != (rows, sizes["goal_dim"]):
            raise ValueError(f"goal must have shape [{rows}, {sizes['goal_dim']}], got {tuple(goal.shape)}")


class _CrossAttention(nn.Module):
    """Latent queries [B, Q, W] attend to a memory [B, K, W]; then a feed-forward layer. Both are residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_memory, self.norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, latent: Tensor, memory: Tensor, visible: Tensor) -> Tensor:
        query = self.query(self.norm_query(latent)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        keys, values = self.key_value(self.norm_memory(memory)).chunk(2, -1)
        keys = keys.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        values = values.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        read = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible)
        latent = latent + self.out(read.transpose(1, 2).flatten(2))
        return latent + self.feed(self.norm(latent))


def _or_null(value: Tensor, null: Tensor, drop: Tensor | None) -> Tensor:
    if drop is None:
        return value + 0 * null  # keeps the null embedding in the graph, which DistributedDataParallel insists on
    return torch.where(drop.bool()[:, None], null.to(value.dtype), value)


def _scalar(value: Tensor | None, embed: nn.Module, null: Tensor, drop: Tensor | None, rows: int) -> Tensor:
    if value is None:
        return null.expand(rows, -1)
    if value.shape != (rows,):
        raise ValueError(f"return_to_go and cost_budget must have shape [{rows}], got {tuple(value.shape)}")
    return _or_null(embed(value[:, None]), null, drop)
