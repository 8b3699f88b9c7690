from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from twinloop.errors import ArtifactError, NotReady
from twinloop.model_runtime.adapter_bank import AdapterBank
from twinloop.model_runtime.foundation import Foundation

TOKENS = torch.randint(5, 261, (5, 9), generator=torch.Generator().manual_seed(1))
ROWS = ["a", None, "b", "a", "c"]


@pytest.fixture
def bank(foundation: Foundation) -> Iterator[AdapterBank]:
    bank = AdapterBank(foundation.model)
    yield bank
    bank.close()


@pytest.fixture
def adapters(foundation: Foundation, make_adapter: Any) -> dict[str, dict[str, bytes]]:
    """Three adapters of different ranks and different targets."""
    model = foundation.model
    return {
        "a": make_adapter(model, 1),
        "b": make_adapter(model, 2, rank=8),
        "c": make_adapter(model, 3, rank=2, targets=("q_proj", "down_proj")),
    }


def _logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=tokens).logits
    return logits


def _peft_logits(model: Any, adapters: dict[str, dict[str, bytes]], folder: Path) -> torch.Tensor:
    from peft import PeftModel

    for name, files in adapters.items():
        (folder / name).mkdir()
        for file, data in files.items():
            (folder / name / file).write_bytes(data)
    names = sorted(adapters)
    peft_model = PeftModel.from_pretrained(model, folder / names[0], adapter_name=names[0])
    for name in names[1:]:
        peft_model.load_adapter(folder / name, adapter_name=name)
    peft_model.eval()
    with torch.inference_mode():
        logits: torch.Tensor = peft_model(
            input_ids=TOKENS, adapter_names=[row if row else "__base__" for row in ROWS]
        ).logits
    peft_model.unload()
    return logits


def test_a_mixed_batch_equals_peft(
    foundation: Foundation, bank: AdapterBank, adapters: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    for name, files in adapters.items():
        bank.load(name, files)
    with bank.use(ROWS):
        ours = _logits(foundation.model, TOKENS)
    theirs = _peft_logits(foundation.model, adapters, tmp_path)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours[0], _logits(foundation.model, TOKENS)[0], atol=1e-2)


def test_a_single_token_step_of_a_mixed_batch_equals_one_adapter_runs(
    foundation: Foundation, bank: AdapterBank, adapters: dict[str, dict[str, bytes]]
) -> None:
    for name, files in adapters.items():
        bank.load(name, files)
    with bank.use(ROWS):
        mixed = _logits(foundation.model, TOKENS[:, :1])
    for row, name in enumerate(ROWS):
        with bank.use([name] * len(ROWS)):
            alone = _logits(foundation.model, TOKENS[:, :1])
        assert torch.allclose(mixed[row], alone[row], atol=1e-5)


@pytest.mark.parametrize("length", [1, 9])
def test_a_row_without_an_adapter_is_the_base_bit_for_bit(
    foundation: Foundation, bank: AdapterBank, adapters: dict[str, dict[str, bytes]], length: int
) -> None:
    bank.load("a", adapters["a"])
    base = _logits(foundation.model, TOKENS[:, :length])
    with bank.use(["a", None, "a", None, None]):
        mixed = _logits(foundation.model, TOKENS[:, :length])
    assert torch.equal(mixed[[1, 3, 4]], base[[1, 3, 4]])
    with bank.use([None] * 5):
        assert torch.equal(_logits(foundation.model, TOKENS[:, :length]), base)


def test_leaving_the_block_restores_what_was_used_before(
    foundation: Foundation, bank: AdapterBank, adapters: dict[str, dict[str, bytes]]
) -> None:
    bank.load("a", adapters["a"])
    base = _logits(foundation.model, TOKENS)
    with pytest.raises(RuntimeError), bank.use(["a"] * 5):
        raise RuntimeError
    assert torch.equal(_logits(foundation.model, TOKENS), base)


def test_an_adapter_that_is_not_resident_is_not_ready(bank: AdapterBank) -> None:
    with pytest.raises(NotReady, match="missing-one"), bank.use(["missing-one", None]):
        pass


def test_loading_again_and_evicting_twice_change_nothing(
    bank: AdapterBank, adapters: dict[str, dict[str, bytes]]
) -> None:
    bank.load("a", adapters["a"])
    bank.load("a", adapters["a"])
    assert bank.resident() == {"a"}
    bank.evict("a")
    bank.evict("a")
    assert bank.resident() == frozenset()


def test_a_running_batch_keeps_the_adapter_that_is_evicted_under_it(
    foundation: Foundation, bank: AdapterBank, adapters: dict[str, dict[str, bytes]]
) -> None:
    bank.load("a", adapters["a"])
    with bank.use(["a"] * 5):
        before = _logits(foundation.model, TOKENS)
        bank.evict("a")
        assert torch.equal(_logits(foundation.model, TOKENS), before)


def test_another_thread_loads_and_evicts_while_one_generates(
    foundation: Foundation, bank: AdapterBank, adapters: dict[str, dict[str, bytes]]
) -> None:
    for name in ("a", "b"):
        bank.load(name, adapters[name])
    rows = ["a", "b", "a", "b", None]
    with bank.use(rows):
        expected = _logits(foundation.model, TOKENS)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            bank.load("c", adapters["c"])
            bank.evict("c")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(20):
            with bank.use(rows):
                assert torch.equal(_logits(foundation.model, TOKENS), expected)
    finally:
        stop.set()
        thread.join()


def test_a_thread_without_a_block_of_its_own_runs_the_base(
    foundation: Foundation, bank: AdapterBank, adapters: dict[str, dict[str, bytes]]
) -> None:
    bank.load("a", adapters["a"])
    base = _logits(foundation.model, TOKENS)
    seen: list[torch.Tensor] = []
    with bank.use(["a"] * 5):
        thread = threading.Thread(target=lambda: seen.append(_logits(foundation.model, TOKENS)))
        thread.start()
        thread.join()
    assert torch.equal(seen[0], base)


def test_an_adapter_of_another_base_is_refused(bank: AdapterBank, gpt2: Any, make_adapter: Any) -> None:
    with pytest.raises(ArtifactError, match="another base"):
        bank.load("x", make_adapter(gpt2, 1))


def test_the_transposed_linear_of_gpt2_is_served_too(gpt2: Any, make_adapter: Any) -> None:
    bank = AdapterBank(gpt2)
    bank.load("a", make_adapter(gpt2, 1))
    bank.load("b", make_adapter(gpt2, 2))
    rows = ["a", "b", None, "a", "b"]
    with bank.use(rows):
        mixed = _logits(gpt2, TOKENS)
    assert torch.equal(mixed[2], _logits(gpt2, TOKENS)[2])
    for row in (0, 1):
        with bank.use([rows[row]] * 5):
            assert torch.allclose(mixed[row], _logits(gpt2, TOKENS)[row], atol=1e-5)
