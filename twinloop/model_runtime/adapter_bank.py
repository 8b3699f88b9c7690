"""One frozen base model, many LoRA adapters resident under their digests, and batches that mix them.

The low-rank products of a mixed batch are computed together (the idea of Punica, arXiv 2310.18547, and S-LoRA,
arXiv 2311.03285): factors of the distinct adapters are laid side by side, every row passes through all of them in one
matrix product, and what is not the row's own is set to zero between A and B. Results equal one-adapter runs up to
float rounding; rows without an adapter give the base model's exact output.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from twinloop.errors import ArtifactError, NotReady
from twinloop.model_runtime.adapter_files import parse_adapter

_KEPT_MIXES = 16


@dataclass(frozen=True)
class _Factors:
    """One module's factors: `down` [sum of ranks, in] and `up` [out, sum of ranks], the scaling inside `up`."""

    down: torch.Tensor
    up: torch.Tensor


@dataclass(frozen=True)
class _Mix:
    """Distinct adapters laid side by side; `owner` [sum of ranks] says whose each low-rank column is."""

    modules: Mapping[str, _Factors]
    owner: torch.Tensor


@dataclass(frozen=True)
class ActiveRows:
    """What one `use` block applies: the mix, and per row which low-rank columns are foreign (None: none are)."""

    modules: Mapping[str, _Factors]
    foreign: torch.Tensor | None

    def apply(self, module: str, *, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """y plus the rows' low-rank updates of x; x is [rows, tokens, in] or [rows, in], y likewise with out."""
        factors = self.modules.get(module)
        if factors is None:
            return y
        low = nn.functional.linear(x, factors.down)
        if self.foreign is not None:
            # Filled, not multiplied: an overflow in a foreign adapter must not become NaN here.
            low = low.masked_fill(self.foreign if x.dim() == 3 else self.foreign[:, 0], 0.0)
        return y + nn.functional.linear(low, factors.up)


class AdapterBank:
    """Resident adapters of one model; `load` and `evict` may run in another thread than `use`."""

    def __init__(self, model: nn.Module) -> None:
        self._shapes = _linear_shapes(model)
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        # Both maps are replaced whole by one assignment and never changed in place: a running batch keeps what it took.
        self._resident: Mapping[str, Mapping[str, _Factors]] = {}
        self._mixes: OrderedDict[tuple[str, ...], _Mix] = OrderedDict()
        self._writing = threading.Lock()
        self._thread = threading.local()
        modules = dict(model.named_modules())
        self._hooks = [modules[path].register_forward_hook(self._hook(path)) for path in self._shapes]

    def load(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Make an adapter resident under its digest; the caller has checked the bytes against it.

        Idempotent. Raises ArtifactError when the files are refused or do not fit this model.
        """
        if digest in self._resident:
            return
        factors = self._fitted(digest, files)
        with self._writing:
            self._resident = {**self._resident, digest: factors}

    def evict(self, digest: str) -> None:
        """Forget an adapter; a batch that is using it finishes with it. Unknown digests are ignored."""
        with self._writing:
            self._resident = {known: factors for known, factors in self._resident.items() if known != digest}
            self._mixes = OrderedDict((key, mix) for key, mix in self._mixes.items() if digest not in key)

    def resident(self) -> frozenset[str]:
        """Digests that `use` accepts now."""
        return frozenset(self._resident)

    @contextlib.contextmanager
    def use(self, rows: Sequence[str | None]) -> Iterator[ActiveRows | None]:
        """Within the block, row i of every forward in this thread runs under rows[i]; None is the bare base.

        Raises NotReady naming the digests that are not resident.
        """
        active = self._activated(rows)
        before = self.active
        self._thread.active = active
        try:
            yield active
        finally:
            self._thread.active = before

    @property
    def active(self) -> ActiveRows | None:
        """What this thread's current `use` block applies."""
        return getattr(self._thread, "active", None)

    def close(self) -> None:
        """Take the hooks off the model, leaving it as it was."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, path: str) -> Any:
        def add_update(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            active = self.active
            return output if active is None else active.apply(path, x=inputs[0], y=output)

        return add_update

    def _activated(self, rows: Sequence[str | None]) -> ActiveRows | None:
        distinct = tuple(sorted({digest for digest in rows if digest is not None}))
        if not distinct:
            return None
        resident = self._resident
        missing = [digest for digest in distinct if digest not in resident]
        if missing:
            raise NotReady(f"adapters {missing} are not resident; load them before the batch")
        mix = self._mix(distinct, resident)
        if len(distinct) == 1 and None not in rows:
            return ActiveRows(mix.modules, None)
        place = {digest: number for number, digest in enumerate(distinct)}
        owners = torch.tensor([-1 if d is None else place[d] for d in rows], device=self._device)
        return ActiveRows(mix.modules, (owners[:, None] != mix.owner[None, :])[:, None, :])

    def _mix(self, distinct: tuple[str, ...], resident: Mapping[str, Mapping[str, _Factors]]) -> _Mix:
        known = self._mixes.get(distinct)
        if known is not None:
            return known
        mix = _side_by_side([resident[digest] for digest in distinct], device=self._device)
        with self._writing:
            kept = OrderedDict(list(self._mixes.items())[-(_KEPT_MIXES - 1) :])
            if all(digest in self._resident for digest in distinct):
                kept[distinct] = mix
            self._mixes = kept
        return mix

    def _fitted(self, digest: str, files: Mapping[str, bytes]) -> dict[str, _Factors]:
        adapter = parse_adapter(files)
        fitted = {}
        for path, (a, b) in adapter.factors.items():
            shape = self._shapes.get(path)
            if shape is None:
                raise ArtifactError(f"adapter {digest}: this model has no linear module {path}; it is for another base")
            if (a.shape[1], b.shape[0]) != shape:
                raise ArtifactError(
                    f"adapter {digest}: {path} maps {a.shape[1]} to {b.shape[0]}, this model's maps {shape[0]} to {shape[1]}"
                )
            down = a.to(device=self._device, dtype=self._dtype).contiguous()
            up = (b.float() * adapter.config.scaling).to(device=self._device, dtype=self._dtype).contiguous()
            if not bool(torch.isfinite(down).all() and torch.isfinite(up).all()):
                raise ArtifactError(f"adapter {digest}: {path} overflows {self._dtype}")
            fitted[path] = _Factors(down, up)
        return fitted


def _linear_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """(in, out) of every linear module but the output head, by path."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    shapes = {}
    for path, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, nn.Linear):
            shapes[path] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            shapes[path] = (module.weight.shape[0], module.weight.shape[1])
    return shapes


def _side_by_side(adapters: Sequence[Mapping[str, _Factors]], *, device: torch.device) -> _Mix:
    """Lay adapters next to each other; ranks may differ, and where one leaves a module alone it gets zeros."""
    ranks = [next(iter(adapter.values())).down.shape[0] for adapter in adapters]
    owner = torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(ranks)).to(device)
    modules = {}
    for path in sorted({path for adapter in adapters for path in adapter}):
        example = next(adapter[path] for adapter in adapters if path in adapter)
        downs, ups = [], []
        for adapter, rank in zip(adapters, ranks, strict=True):
            factors = adapter.get(path)
            downs.append(factors.down if factors else example.down.new_zeros(rank, example.down.shape[1]))
            ups.append(factors.up if factors else example.up.new_zeros(example.up.shape[0], rank))
        modules[path] = _Factors(torch.cat(downs), torch.cat(ups, dim=1).contiguous())
    return _Mix(modules, owner)
