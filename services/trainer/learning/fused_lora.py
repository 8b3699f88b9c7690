"""peft's LoRA layer with a forward and backward of few operations: the same numbers up to rounding, in less time.

peft scales and adds a whole output for every layer, and autograd repeats both. On a small model these passes over
memory cost as much as the products. Here the low-rank product is accumulated into the frozen one in place, both ways.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners import lora
from torch import nn


class FusedLinear(lora.Linear):
    """Takes the place of `peft.tuners.lora.Linear` (see `LoraConfig._register_custom_module`).

    Computes as peft does where something asks for it: under autocast, with other than one plain adapter, or while a
    forward hook watches a factor.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        a, b = self._factors()
        if args or kwargs or a is None or b is None or not self._is_plain(x, a, b):
            output: torch.Tensor = super().forward(x, *args, **kwargs)
            return output
        base = self.get_base_layer()
        scaling = self.scaling[self.active_adapters[0]]
        fused: torch.Tensor = _LowRankUpdate.apply(x, base.weight, base.bias, a.weight, b.weight, scaling)  # type: ignore[no-untyped-call]
        return fused

    def _factors(self) -> tuple[nn.Module | None, nn.Module | None]:
        names = self.active_adapters
        if len(names) != 1 or names[0] not in self.lora_A or names[0] in self.lora_variant:
            return None, None
        return self.lora_A[names[0]], self.lora_B[names[0]]

    def _is_plain(self, x: torch.Tensor, a: nn.Module, b: nn.Module) -> bool:
        weight = self.get_base_layer().weight
        return not (
            self.disable_adapters
            or self.merged
            or torch.is_autocast_enabled(x.device.type)
            or a._forward_hooks
            or b._forward_hooks
            or weight.requires_grad
            or not isinstance(self.lora_dropout[self.active_adapters[0]], nn.Identity)
            or {x.dtype, a.weight.dtype, b.weight.dtype} != {weight.dtype}
        )


class _LowRankUpdate(torch.autograd.Function):
    """x W' + bias + scaling (x A') B', with gradients for x, A and B; W is frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = torch.mm(rows, a.t())
        out = torch.mm(rows, weight.t()) if bias is None else torch.addmm(bias, rows, weight.t())
        out.addmm_(low, b.t(), alpha=scaling)
        ctx.save_for_backward(rows, low, weight, a, b)
        ctx.scaling = scaling
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, low, weight, a, b = ctx.saved_tensors
        (gradient,) = gradients
        back = gradient.reshape(-1, gradient.shape[-1])
        low_back = torch.mm(back, b).mul_(ctx.scaling)
        into_x = None
        if ctx.needs_input_grad[0]:
            into_x = torch.mm(back, weight).addmm_(low_back, a).view(*gradient.shape[:-1], -1)
        into_a = torch.mm(low_back.t(), rows)
        into_b = torch.mm(back.t(), low).mul_(ctx.scaling)
        return into_x, None, None, into_a, into_b, None
