"""Load a frozen causal language model: from a verified folder, or from the hub at a pinned commit."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from twinloop.errors import ArtifactError, ConfigError

DigestOf = Callable[[Path], str]
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
# They describe or sign the folder, so they cannot be part of what its digest covers.
_BESIDE_THE_MODEL = {"MANIFEST.json", "README.md"}
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".py", ".so"}


@dataclass(frozen=True)
class FoundationSpec:
    """Which foundation to load, exactly."""

    source: str
    """A local folder in Hugging Face layout, or a hub name (`organisation/name`)."""
    digest: str | None = None
    """SHA-256 of the folder as `digest_of` computes it; None only while a foundation is being made."""
    revision: str | None = None
    """Full commit id; required for a hub name, meaningless for a folder."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "cpu"
    threads: int = 1
    """Torch threads, pinned: another number gives other last bits."""


@dataclass(frozen=True)
class Foundation:
    """A loaded, frozen model in evaluation mode and its tokenizer."""

    model: Any
    tokenizer: Any
    spec: FoundationSpec
    digest: str | None
    """Digest of the folder that was loaded; None for a hub model, which `spec.revision` names."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.spec.device)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Token ids that end an answer."""
        found: set[int] = set()
        for value in (self.tokenizer.eos_token_id, self.model.generation_config.eos_token_id):
            found.update(value if isinstance(value, list) else [] if value is None else [value])
        return frozenset(found)

    @property
    def context_tokens(self) -> int:
        """Positions the model can read: prompt and answer together."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def chat_template(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The tokenizer's own template up to the assistant's turn, for `prompt.render(..., chat=...)`."""
        if not self.tokenizer.chat_template:
            raise ConfigError(
                f"foundation {self.spec.source}: its tokenizer has no chat template; use kind 'tagged'"
            )
        text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return str(text)


def folder_digest(folder: Path) -> str:
    """SHA-256 over the canonical JSON of {relative path: SHA-256 of the file}, without MANIFEST.json and README.md."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in _BESIDE_THE_MODEL:
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(digests, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def pin_torch(threads: int = 1, *, device: str = "cpu") -> None:
    """Fix the thread count and ask for deterministic kernels, for the whole process."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    # Some CUDA kernels (cumsum among them) have no deterministic form: there it warns, on a CPU it is a guard.
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    # Nothing here reads memory before writing it; filling every new tensor costs a small model some 5 % of its time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False


def load_foundation(spec: FoundationSpec, *, digest_of: DigestOf = folder_digest) -> Foundation:
    """Load, verify and freeze a foundation; code from a model repository is never run.

    Raises ConfigError when there is no such foundation, the hub name has no pinned commit or the device is absent,
    and ArtifactError when the folder's bytes are not what `spec.digest` promises.
    """
    pin_torch(spec.threads, device=spec.device)
    _require_device(spec.device)
    folder = Path(spec.source)
    if folder.is_dir():
        digest = _verified(folder, spec, digest_of)
        options: dict[str, Any] = {"local_files_only": True}
    else:
        if spec.revision is None or not _COMMIT.match(spec.revision):
            raise ConfigError(
                f"foundation {spec.source!r}: no such folder, and a hub name needs `revision`, a full commit id. "
                "Build the shipped tiny one with `python -m twinloop.foundation_training`, or mend the path"
            )
        digest, options = None, {"revision": spec.revision}
    tokenizer = load_tokenizer(spec.source, revision=spec.revision)
    try:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            spec.source,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=getattr(torch, spec.dtype),
            **options,
        )
    except (OSError, ValueError, KeyError) as cause:
        raise ConfigError(f"foundation {spec.source!r} cannot be loaded: {cause}") from cause
    model.to(spec.device).eval().requires_grad_(False)
    return Foundation(model=model, tokenizer=tokenizer, spec=spec, digest=digest)


def load_tokenizer(source: str, *, revision: str | None) -> Any:
    """The tokenizer of a folder, or of a hub name at a full commit; raises ConfigError where it cannot be had."""
    options: dict[str, Any] = {"local_files_only": True} if Path(source).is_dir() else {"revision": revision}
    try:
        return transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as cause:
        raise ConfigError(f"foundation {source!r}: its tokenizer cannot be loaded: {cause}") from cause


def _verified(folder: Path, spec: FoundationSpec, digest_of: DigestOf) -> str:
    digest = digest_of(folder)
    if spec.digest is not None and digest != spec.digest:
        raise ArtifactError(
            f"foundation {folder}: digest is {digest}, the release names {spec.digest}; fetch or build it again"
        )
    unsafe = sorted(path.name for path in folder.rglob("*") if path.suffix in _PICKLES)
    if unsafe:
        raise ArtifactError(f"foundation {folder}: {unsafe} could run code when read; take them out")
    return digest


def _require_device(device: str) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: this machine has no CUDA; set device to 'cpu'")
