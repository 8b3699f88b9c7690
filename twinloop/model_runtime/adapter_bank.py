"""One frozen base model, many LoRA adapters resident under their digests, and batches that mix them.

The low-rank products of a mixed batch are computed together (the idea of Punica, arXiv 2310.18547, and S-LoRA,
arXiv 2311.03285). While one token per row is decoded, factors of the distinct adapters are laid side by side, every
row passes through all of them in one product, and what is not the row's own is set to zero between A and B. While
prompts are read there are many tokens per row, so each run of equal rows gets a product of its own. Results equal
one-adapter runs up to float rounding; rows without an adapter give the base model's exact output.
"""

from __future__ import annotations

import contextlib
import itertools
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
class Factors:
    """One module's factors: `down` [sum of ranks, in] and `up` [out, sum of ranks], the scaling inside `up`."""

    down: torch.Tensor
    up: torch.Tensor


@dataclass(frozen=True, eq=False)
class Mix:
    """Distinct adapters laid side by side; `owner` [sum of ranks] says whose each low-rank column is.

    Compared and hashed by identity: a decoder may key its own layout of the factors by it.
    """

    modules: Mapping[str, Factors]
    owner: torch.Tensor


@dataclass(frozen=True)
class Segment:
    """Neighbouring rows [start, end) under one adapter; `mix` holds it alone, None is the bare base."""

    start: int
    end: int
    mix: Mix | None


@dataclass(frozen=True)
class ActiveRows:
    """What one `use` block applies, in two forms: runs of equal rows, and all rows against all their adapters."""

    segments: tuple[Segment, ...]
    mix: Mix
    foreign: torch.Tensor | None
    """Boolean [rows, sum of ranks]: low-rank columns that are not the row's own; None where there are none."""

    def apply(self, module: str, *, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """y [rows, tokens, out] plus the rows' low-rank updates of x [rows, tokens, in]; y may be changed in place."""
        if self.foreign is not None and x.shape[1] > 1:
            for segment in self.segments:
                rows = slice(segment.start, segment.end)
                if segment.mix is not None and module in segment.mix.modules:
                    y[rows] += _update(segment.mix.modules[module], x[rows], None)
            return y
        factors = self.mix.modules.get(module)
        return y if factors is None else y + _update(factors, x, self.foreign)


class AdapterBank:
    """Resident adapters of one model; `load` and `evict` may run in another thread than `use`."""

    def __init__(self, model: nn.Module) -> None:
        self._shapes = linear_shapes(model)
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        # Both maps are replaced whole by one assignment and never changed in place: a running batch keeps what it took.
        self._resident: Mapping[str, Mapping[str, Factors]] = {}
        self._mixes: OrderedDict[tuple[str, ...], Mix] = OrderedDict()
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
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """(in, out) of every module an adapter may change, by its path in the model."""
        return self._shapes

    @property
    def active(self) -> ActiveRows | None:
        """What this thread's current `use` block applies."""
        return getattr(self._thread, "active", None)

    def close(self) -> None:
        """Take the hooks off the model, leaving it as it was."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, path: str) -> Any:
        def add_update(
            _module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> torch.Tensor:
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
            return ActiveRows((Segment(0, len(rows), mix),), mix, None)
        alone = {digest: self._mix((digest,), resident) for digest in distinct}
        place = {digest: number for number, digest in enumerate(distinct)}
        owners = torch.tensor([-1 if row is None else place[row] for row in rows], device=self._device)
        return ActiveRows(_segments(rows, alone), mix, owners[:, None] != mix.owner[None, :])

    def _mix(self, distinct: tuple[str, ...], resident: Mapping[str, Mapping[str, Factors]]) -> Mix:
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

    def _fitted(self, digest: str, files: Mapping[str, bytes]) -> dict[str, Factors]:
        adapter = parse_adapter(files)
        fitted = {}
        for path, (a, b) in adapter.factors.items():
            shape = self._shapes.get(path)
            if shape is None:
                raise ArtifactError(
                    f"adapter {digest}: this model has no linear module {path}; it is for another base"
                )
            if (a.shape[1], b.shape[0]) != shape:
                sizes = f"{a.shape[1]} to {b.shape[0]}, this model's {shape[0]} to {shape[1]}"
                raise ArtifactError(f"adapter {digest}: {path} maps {sizes}; it is for another base")
            down = a.to(device=self._device, dtype=self._dtype).contiguous()
            up = (b.float() * adapter.config.scaling).to(device=self._device, dtype=self._dtype).contiguous()
            if not bool(torch.isfinite(down).all() and torch.isfinite(up).all()):
                raise ArtifactError(f"adapter {digest}: {path} overflows {self._dtype}")
            fitted[path] = Factors(down, up)
        return fitted


def _update(factors: Factors, x: torch.Tensor, foreign: torch.Tensor | None) -> torch.Tensor:
    low = nn.functional.linear(x, factors.down)
    if foreign is not None:
        # Filled, not multiplied: an overflow in a foreign adapter must not become NaN here.
        low = low.masked_fill(foreign[:, None] if x.dim() == 3 else foreign, 0.0)
    return nn.functional.linear(low, factors.up)


def _segments(rows: Sequence[str | None], alone: Mapping[str, Mix]) -> tuple[Segment, ...]:
    segments, start = [], 0
    for digest, run in itertools.groupby(rows):
        end = start + len(list(run))
        segments.append(Segment(start, end, None if digest is None else alone[digest]))
        start = end
    return tuple(segments)


def linear_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """(in, out) of every linear module but the output head, by path."""
    find_head: Any = getattr(model, "get_output_embeddings", None)
    head = find_head() if find_head else None
    shapes = {}
    for path, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, nn.Linear):
            shapes[path] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            shapes[path] = (module.weight.shape[0], module.weight.shape[1])
    return shapes


def keeps_weights_transposed(model: nn.Module) -> bool:
    """Whether the linear modules store [in, out], as GPT-2's do, instead of [out, in]."""
    return any(isinstance(module, Conv1D) for module in model.modules())


def _side_by_side(adapters: Sequence[Mapping[str, Factors]], *, device: torch.device) -> Mix:
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
        modules[path] = Factors(torch.cat(downs), torch.cat(ups, dim=1).contiguous())
    return Mix(modules, owner)
