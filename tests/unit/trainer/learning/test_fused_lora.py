from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from torch import nn

from services.trainer.learning.fused_lora import FusedLinear


class _Two(nn.Module):
    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.first = nn.Linear(8, 12, bias=bias)
        self.second = nn.Linear(12, 6, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return result


def _adapted(*, fused: bool, bias: bool) -> Any:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=3, lora_alpha=12, target_modules=["first", "second"])
    if fused:
        config._register_custom_module({nn.Linear: FusedLinear})
    model = peft.inject_adapter_in_model(config, _Two(bias=bias), adapter_name="learned")
    for number, (name, parameter) in enumerate(sorted(model.named_parameters())):
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    return model


def _run(model: Any) -> dict[str, torch.Tensor]:
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(9)).requires_grad_(True)
    out = model(x)
    torch.autograd.backward(out.square().sum())
    assert x.grad is not None
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    return {"out": out.detach(), "x": x.grad, **gradients}


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_peft(bias: bool) -> None:
    fused, plain = _adapted(fused=True, bias=bias), _adapted(fused=False, bias=bias)
    assert isinstance(fused.first, FusedLinear)
    assert not isinstance(plain.first, FusedLinear)
    ours, theirs = _run(fused), _run(plain)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 6
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-5)


def test_a_watched_factor_is_computed_by_peft_so_that_the_hook_sees_it() -> None:
    model, seen = _adapted(fused=True, bias=False), []
    hook = model.first.lora_A["learned"].register_forward_hook(lambda *_: seen.append("A"))
    watched = model(torch.ones(1, 2, 8))
    hook.remove()
    torch.testing.assert_close(model(torch.ones(1, 2, 8)), watched)
    assert seen == ["A"]


def test_under_autocast_it_computes_as_peft_does() -> None:
    x = torch.ones(1, 2, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = _adapted(fused=True, bias=False)(x), _adapted(fused=False, bias=False)(x)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, theirs)
