"""A small Llama decoded straight from its weights: the same arithmetic as the model's own forward, with less overhead.

A model of a few million parameters spends its time in Python and in per-operation overhead. Here projections that read
the same input are one product, the rows' low-rank updates of such a group are one pair of products, and there are no
module calls, mask builders or cache objects. Tokens equal those of `ModelDecoder` (tested); logits differ by rounding.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

from twinloop.model_runtime.adapter_bank import ActiveRows, AdapterBank, Mix
from twinloop.model_runtime.decoding import prompt_positions

MAX_PARAMETERS = 50_000_000
"""Above it arithmetic outweighs overhead, and the copy of the weights that grouping needs is no longer small."""


def is_small_llama(model: Any) -> bool:
    """A plain Llama in float32 on the CPU whose rotary table does not depend on the prompt's length."""
    if type(model) is not LlamaForCausalLM or model.device.type != "cpu" or model.dtype != torch.float32:
        return False
    config = model.config
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    plain = config.hidden_act == "silu" and rope in ("default", "llama3", "linear")
    return bool(plain and model.num_parameters() <= MAX_PARAMETERS)


class LlamaDecoder:
    """Implements `Decoder` for models that `is_small_llama` accepts; keeps a grouped copy of their weights.

    With `merge`, a batch whose rows all run under one adapter uses weights with its update added in: faster, at a copy
    of the weights an adapter in use. Answers then equal unmerged ones up to rounding.
    """

    def __init__(self, model: Any, bank: AdapterBank, *, merge: bool = False) -> None:
        config = model.config
        self._bank, self._merge = bank, merge
        self._rotary = model.model.rotary_emb
        self._embedding, self._head = model.model.embed_tokens.weight, model.lm_head.weight
        self._norm, self._eps = model.model.norm.weight, config.rms_norm_eps
        self._layers = [_Layer(layer, f"model.layers.{n}.") for n, layer in enumerate(model.model.layers)]
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._head_size = config.head_dim
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._length = 0
        self._real: torch.Tensor | None = None
        self._cos = self._sin = self._next = torch.empty(0)

    def start(self, tokens: torch.Tensor, real: torch.Tensor, *, room: int) -> torch.Tensor:
        rows, length = tokens.shape
        shape = (rows, self._kv_heads, length + room, self._head_size)
        self._keys = [self._embedding.new_empty(shape) for _ in self._layers]
        self._values = [self._embedding.new_empty(shape) for _ in self._layers]
        self._length = 0
        padded = not bool(real.all())
        self._real = functional.pad(real, (0, room), value=True)[:, None, None, :] if padded else None
        positions = prompt_positions(real)
        self._tabulate(int(positions.max()) + room + 1)
        self._next = positions[:, -1] + 1
        return self._forward(
            tokens, positions, mask=_prompt_mask(real) if padded else None, causal=not padded
        )

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = None if self._real is None else self._real[..., : self._length + 1]
        positions = self._next[:, None]
        self._next = self._next + 1
        return self._forward(tokens[:, None], positions, mask=mask, causal=False)

    def kept_mixes(self) -> int:
        """Grouped factors held now; they go with the bank's mixes."""
        return len(self._layers[0].qkv.known)

    def _tabulate(self, positions: int) -> None:
        if positions > len(self._cos):
            cos, sin = self._rotary(self._embedding[:1], torch.arange(positions)[None])
            half = sin.shape[-1] // 2
            # The sign of the rotated half sits in the table: one operation less per layer.
            self._cos, self._sin = cos[0], torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, *, mask: torch.Tensor | None, causal: bool
    ) -> torch.Tensor:
        rows, new = tokens.shape
        updates = _Updates(self._bank.active, new=new, merge=self._merge)
        cos, sin = self._cos[positions][:, :, None], self._sin[positions][:, :, None]
        x = functional.embedding(tokens.reshape(-1), self._embedding)
        for number, layer in enumerate(self._layers):
            qkv = layer.qkv(self._normed(x, layer.norm_1), updates).view(rows, new, -1, self._head_size)
            attended = self._attended(number, qkv, cos, sin, mask=mask, causal=causal)
            x = x + layer.o(attended.reshape(rows * new, -1), updates)
            gate, up = layer.gate_up(self._normed(x, layer.norm_2), updates).chunk(2, dim=-1)
            x = x + layer.down(functional.silu(gate) * up, updates)
        self._length += new
        last = x.view(rows, new, -1)[:, -1]
        return functional.linear(self._normed(last, self._norm), self._head)

    def _attended(
        self,
        number: int,
        qkv: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        *,
        mask: torch.Tensor | None,
        causal: bool,
    ) -> torch.Tensor:
        """Attention output [rows, new, heads, head size]; appends to the cache."""
        start, end = self._length, self._length + qkv.shape[1]
        turned = self._heads + self._kv_heads
        qk = qkv[:, :, :turned]
        first, second = qk.chunk(2, dim=-1)
        qk = torch.addcmul(qk * cos, torch.cat((second, first), dim=-1), sin).transpose(1, 2)
        keys, values = self._keys[number], self._values[number]
        keys[:, :, start:end] = qk[:, self._heads :]
        values[:, :, start:end] = qkv[:, :, turned:].transpose(1, 2)
        out = functional.scaled_dot_product_attention(
            qk[:, : self._heads],
            keys[:, :, :end],
            values[:, :, :end],
            attn_mask=mask,
            is_causal=causal,
            enable_gqa=self._heads != self._kv_heads,
        )
        return out.transpose(1, 2)

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, (x.shape[-1],), weight, self._eps)


class _Updates:
    """The low-rank updates of one forward, over rows flattened to [rows * new, features]."""

    def __init__(self, active: ActiveRows | None, *, new: int, merge: bool) -> None:
        alone = active is not None and active.foreign is None
        self.merged: Mix | None = active.mix if merge and alone and active is not None else None
        self._active, self._new = active, new
        self._foreign: dict[int, torch.Tensor] = {}

    def add(self, group: _Group, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """y with each row's update of x added in place."""
        if self._active is None or self.merged is not None:
            return y
        return self._add_to_prompts(group, x, y) if self._new > 1 else self._add_to_step(group, x, y)

    def _add_to_prompts(self, group: _Group, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Run by run and module by module: the fewest multiplications."""
        assert self._active is not None
        for segment in self._active.segments:
            rows = slice(segment.start * self._new, segment.end * self._new)
            factors = None if segment.mix is None else group.factors(segment.mix)
            if factors is None:
                continue
            down, up = factors
            low = torch.mm(x[rows], down)
            for ranks, columns in group.blocks(low.shape[1]):
                y[rows, columns].addmm_(low[:, ranks], up[ranks, columns])
        return y

    def _add_to_step(self, group: _Group, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """All adapters and modules at once: the fewest operations."""
        assert self._active is not None
        factors = group.factors(self._active.mix)
        if factors is None:
            return y
        down, up = factors
        low = torch.mm(x, down)
        if self._active.foreign is not None:
            # Filled, not multiplied: an overflow in a foreign adapter must not become NaN here.
            low.masked_fill_(self._spread(self._active.foreign, low.shape[1]), 0.0)
        return y.addmm_(low, up)

    def _spread(self, foreign: torch.Tensor, width: int) -> torch.Tensor:
        """[rows, ranks] repeated for every module of a group."""
        if width not in self._foreign:
            self._foreign[width] = foreign.repeat(1, width // foreign.shape[1])
        return self._foreign[width]


class _Group:
    """Linear modules that read the same input, as one product."""

    def __init__(self, parent: Any, names: Sequence[str], path: str) -> None:
        modules = [getattr(parent, name) for name in names]
        self._paths = [path + name for name in names]
        self._sizes = [module.out_features for module in modules]
        self._weight = torch.cat([module.weight for module in modules]).t().contiguous()
        biases = [module.bias for module in modules if module.bias is not None]
        self._bias = torch.cat(biases) if len(biases) == len(modules) else None
        self.known: weakref.WeakKeyDictionary[Mix, tuple[torch.Tensor, torch.Tensor] | None]
        self.known = weakref.WeakKeyDictionary()
        self._merged: weakref.WeakKeyDictionary[Mix, torch.Tensor] = weakref.WeakKeyDictionary()

    def __call__(self, x: torch.Tensor, updates: _Updates) -> torch.Tensor:
        weight = self._weight if updates.merged is None else self._merged_weight(updates.merged)
        y = torch.mm(x, weight) if self._bias is None else torch.addmm(self._bias, x, weight)
        return updates.add(self, x, y)

    def _merged_weight(self, mix: Mix) -> torch.Tensor:
        known = self._merged.get(mix)
        if known is None:
            factors = self._grouped(mix)
            known = self._weight if factors is None else torch.addmm(self._weight, *factors)
            self._merged[mix] = known
        return known

    def factors(self, mix: Mix) -> tuple[torch.Tensor, torch.Tensor] | None:
        """A of all members side by side [in, members * ranks], B block-diagonal [members * ranks, out]."""
        if mix not in self.known:
            self.known[mix] = self._grouped(mix)
        return self.known[mix]

    def blocks(self, ranks: int) -> Iterator[tuple[slice, slice]]:
        """Where each member's block lies in the block-diagonal B, as (its ranks, its outputs)."""
        each, column = ranks // len(self._sizes), 0
        for number, size in enumerate(self._sizes):
            yield slice(number * each, (number + 1) * each), slice(column, column + size)
            column += size

    def _grouped(self, mix: Mix) -> tuple[torch.Tensor, torch.Tensor] | None:
        if not any(path in mix.modules for path in self._paths):
            return None
        ranks, width = len(mix.owner), self._weight.shape[0]
        down = self._weight.new_zeros(len(self._paths) * ranks, width)
        up = self._weight.new_zeros(len(self._paths) * ranks, sum(self._sizes))
        for path, (band, columns) in zip(self._paths, self.blocks(len(up)), strict=True):
            if path in mix.modules:
                down[band] = mix.modules[path].down
                up[band, columns] = mix.modules[path].up.t()
        return down.t().contiguous(), up


class _Layer:
    """One Llama block under short names."""

    def __init__(self, layer: Any, path: str) -> None:
        self.norm_1, self.norm_2 = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        self.qkv = _Group(layer.self_attn, ("q_proj", "k_proj", "v_proj"), path + "self_attn.")
        self.o = _Group(layer.self_attn, ("o_proj",), path + "self_attn.")
        self.gate_up = _Group(layer.mlp, ("gate_proj", "up_proj"), path + "mlp.")
        self.down = _Group(layer.mlp, ("down_proj",), path + "mlp.")


def _prompt_mask(real: torch.Tensor) -> torch.Tensor:
    """Causal and not on padding; a padded query sees itself alone, for it must not be NaN and is never read."""
    length = real.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return (causal & real[:, None, None, :]) | torch.eye(length, dtype=torch.bool)
