"""Elastic weight consolidation over adapter weights (arXiv 1612.00796), in its online form (arXiv 1805.06370)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import safetensors.torch
import torch
from torch import nn

from services.trainer.learning.dataset import Example
from twinloop.errors import ArtifactError

Parameters = Mapping[str, nn.Parameter]
Fisher = Mapping[str, torch.Tensor]


def estimate_fisher(
    linears: Mapping[str, nn.Linear],
    groups: Iterable[Sequence[Example]],
    *,
    backward: Callable[[Sequence[Example]], None],
) -> dict[str, torch.Tensor]:
    """Diagonal of the empirical Fisher information of the layers' weights: mean squared single-example gradient.

    `backward` runs a group of examples through the model and back from their summed loss, in batch-first tensors; every
    example's own gradient is the product of its layer inputs and output gradients, so that one pass serves a group. The
    result is scaled to mean 1, which makes lambda mean the same for every update.
    """
    total = {name: torch.zeros_like(linear.weight, dtype=torch.float32) for name, linear in linears.items()}
    watches = [linear.register_forward_hook(_squares_into(total[name])) for name, linear in linears.items()]
    try:
        for group in groups:
            backward(group)
    finally:
        for watch in watches:
            watch.remove()
        for linear in linears.values():
            linear.weight.grad = None
    count = sum(value.numel() for value in total.values())
    mean = sum(float(value.double().sum()) for value in total.values()) / max(count, 1)
    return {name: value / mean if mean > 0 else value for name, value in total.items()}


def consolidated(parent: Fisher | None, new: Fisher, *, decay: float) -> dict[str, torch.Tensor]:
    """What the next update must respect: the new information plus what stays of the parent's."""
    if parent is None:
        return dict(new)
    return {name: value + decay * parent[name] for name, value in new.items()}


def pull_back(parameters: Parameters, anchor: Fisher, fisher: Fisher, *, strength: float) -> None:
    """Add the gradient of (strength / 2) * sum F * (theta - anchor)^2 to the parameters' gradients."""
    for name, parameter in parameters.items():
        pull = strength * fisher[name] * (parameter.detach() - anchor[name])
        parameter.grad = pull if parameter.grad is None else parameter.grad.add_(pull)


def fisher_to_bytes(fisher: Fisher) -> bytes:
    """Safetensors; equal values give equal bytes."""
    tensors = {name: value.detach().cpu().float().contiguous() for name, value in sorted(fisher.items())}
    return safetensors.torch.save(tensors)


def fisher_from_bytes(data: bytes, parameters: Parameters) -> dict[str, torch.Tensor]:
    """Read Fisher information for exactly these parameters; raises ArtifactError when it is for others."""
    try:
        tensors = safetensors.torch.load(data)
    except Exception as cause:  # the parser raises several unrelated classes on broken bytes
        raise ArtifactError(f"fisher: not a safetensors file: {cause}") from cause
    if set(tensors) != set(parameters):
        raise ArtifactError(
            f"fisher: is for other modules, among them {sorted(set(tensors) ^ set(parameters))[:3]}"
        )
    for name, value in tensors.items():
        if (
            value.shape != parameters[name].shape
            or not bool(torch.isfinite(value).all())
            or bool((value < 0).any())
        ):
            raise ArtifactError(
                f"fisher: {name} has another shape than the adapter, or values that cannot be squares"
            )
    return {name: value.to(parameters[name].device) for name, value in tensors.items()}


def _squares_into(total: torch.Tensor) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
    """A forward hook that adds each example's squared weight gradient to `total` once the output's is known."""

    def watch(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        x = inputs[0].detach()

        def add(gradient: torch.Tensor) -> None:
            each = torch.bmm(gradient.float().transpose(1, 2), x.float())
            total.add_(each.square_().sum(0))

        if output.requires_grad:
            output.register_hook(add)  # type: ignore[no-untyped-call]

    return watch
