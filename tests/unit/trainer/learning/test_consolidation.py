from __future__ import annotations

from collections.abc import Sequence

import pytest
import safetensors.torch
import torch
from torch import nn

from services.trainer.learning.consolidation import (
    consolidated,
    estimate_fisher,
    fisher_from_bytes,
    fisher_to_bytes,
    pull_back,
)
from services.trainer.learning.dataset import Example
from twinloop.errors import ArtifactError

EXAMPLES = [Example(str(number), (1,), 1) for number in range(3)]


def _parameters() -> dict[str, nn.Parameter]:
    return {"a": nn.Parameter(torch.tensor([1.0, 2.0])), "b": nn.Parameter(torch.tensor([3.0]))}


def test_fisher_of_a_group_is_the_mean_squared_single_example_gradient_scaled_to_mean_one() -> None:
    torch.manual_seed(1)
    linears = {"a": nn.Linear(3, 2, bias=False), "b": nn.Linear(2, 4, bias=False)}
    inputs = torch.randn(len(EXAMPLES), 5, 3)

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        return torch.tanh(linears["b"](torch.tanh(linears["a"](chosen)))).square().sum()

    def backward(group: Sequence[Example]) -> None:
        torch.autograd.backward(loss(inputs[[int(example.row_id) for example in group]]))

    squares = {name: torch.zeros_like(linear.weight) for name, linear in linears.items()}
    for number in range(len(EXAMPLES)):
        weights = [linear.weight for linear in linears.values()]
        for square, gradient in zip(
            squares.values(), torch.autograd.grad(loss(inputs[[number]]), weights), strict=True
        ):
            square += gradient**2
    mean = sum(float(square.sum()) for square in squares.values()) / 14
    fisher = estimate_fisher(linears, [EXAMPLES[:2], EXAMPLES[2:]], backward=backward)
    assert all(torch.allclose(fisher[name], squares[name] / mean, rtol=1e-4) for name in linears)
    assert all(linear.weight.grad is None for linear in linears.values())


def test_the_pull_back_is_the_gradient_of_the_quadratic_penalty() -> None:
    parameters = _parameters()
    anchor = {"a": torch.tensor([0.0, 2.0]), "b": torch.tensor([5.0])}
    fisher = {"a": torch.tensor([4.0, 1.0]), "b": torch.tensor([2.0])}
    penalty = sum((0.5 / 2 * fisher[n] * (p - anchor[n]) ** 2).sum() for n, p in parameters.items())
    assert isinstance(penalty, torch.Tensor)
    expected = torch.autograd.grad(penalty, list(parameters.values()))
    parameters["a"].grad = torch.tensor([1.0, 1.0])
    pull_back(parameters, anchor, fisher, strength=0.5)
    assert parameters["a"].grad is not None
    assert parameters["b"].grad is not None
    assert torch.allclose(parameters["a"].grad, expected[0] + 1)
    assert torch.allclose(parameters["b"].grad, expected[1])


def test_old_information_fades_by_the_decay() -> None:
    old, new = {"a": torch.tensor([2.0])}, {"a": torch.tensor([1.0])}
    assert consolidated(old, new, decay=0.5)["a"].item() == 2.0
    assert consolidated(None, new, decay=0.5)["a"].item() == 1.0


def test_fisher_bytes_read_back_and_are_stable() -> None:
    fisher = {"b": torch.tensor([0.5]), "a": torch.tensor([1.0, 2.0])}
    data = fisher_to_bytes(fisher)
    assert fisher_to_bytes(dict(reversed(list(fisher.items())))) == data
    assert torch.equal(fisher_from_bytes(data, _parameters())["a"], fisher["a"])


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": torch.ones(2)},
        {"a": torch.ones(3), "b": torch.ones(1)},
        {"a": torch.ones(2), "b": torch.tensor([-1.0])},
        {"a": torch.ones(2), "b": torch.tensor([float("nan")])},
    ],
)
def test_fisher_of_another_adapter_is_refused(tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ArtifactError, match="fisher"):
        fisher_from_bytes(safetensors.torch.save(tensors), _parameters())


def test_broken_fisher_bytes_are_refused() -> None:
    with pytest.raises(ArtifactError, match="safetensors"):
        fisher_from_bytes(b"nothing", _parameters())
