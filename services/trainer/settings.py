"""The trainer's settings; every threshold of its policies is here and in `configs/trainer.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from services.trainer.core.changes import ChangeLimits
from services.trainer.core.cleaning import Action, CleaningPolicy
from services.trainer.core.evidence import EvidencePolicy
from services.trainer.core.lifecycle import LifecyclePolicy
from services.trainer.core.near_duplicates import NearDuplicatePolicy
from services.trainer.core.replay_buffer import ReplayPolicy
from services.trainer.core.selection import SelectionPolicy
from services.trainer.core.training_schedule import SchedulePolicy
from twinloop.changes.allowed_paths import AllowedPath, ChangePolicy
from twinloop.settings_loader import ServiceSettings


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ScheduleSettings(_Section):
    """When a training starts."""

    min_rows: int = Field(default=16, ge=1)
    """Waiting corrections of a domain that start a training."""
    least_rows: int = Field(default=4, ge=1)
    """Fewer corrections of a domain are not trained but by an order; they wait. Never more than `min_rows`."""
    max_age_s: float = Field(default=3600.0, gt=0)
    """A correction that has waited this long starts one, where at least `least_rows` wait."""
    min_documents: int = Field(default=1, ge=1)
    """Waiting document changes of a domain that refresh its index."""
    documents_delay_s: float = Field(default=30.0, ge=0)
    """How long the first of them waits for others."""
    drift_min_ratings: int = Field(default=50, ge=1)
    """Ratings a domain needs before their share of `down` says anything."""
    drift_down_share: float = Field(default=0.3, gt=0, le=1)
    """Share of `down` that counts as drift ..."""
    drift_input_shift: float = Field(default=0.3, gt=0, le=1)
    """... and so does this distance of recent questions from earlier ones: Jensen-Shannon divergence in bits."""
    drift_window: int = Field(default=200, ge=1)
    """How many of the newest ratings of a domain are looked at."""
    drift_min_rows: int = Field(default=4, ge=1)
    """Waiting corrections that suffice under drift."""
    cooldown_s: float = Field(default=0.0, ge=0)
    """Least time between the starts of two trainings."""
    candidate_patience_s: float = Field(default=6 * 3600.0, gt=0)
    """A proposed release without a decision for this long counts as superseded."""
    max_attempts: int = Field(default=2, ge=1)
    """How often a dataset is tried before its rows are quarantined."""


class CleaningSettings(_Section):
    """What a correction and a document must be."""

    max_receipt_age_s: float = Field(default=30 * 86_400.0, gt=0)
    """A receipt older than this is refused."""
    max_question_characters: int = Field(default=2000, ge=1)
    """Longer questions are refused."""
    max_correction_characters: int = Field(default=600, ge=1)
    """Longer corrections are refused."""
    actions: dict[str, Action] = {"pii": "reject", "toxicity": "quarantine", "injection": "quarantine"}
    """What a classifier's finding of each label leads to; an unknown label quarantines."""
    document_actions: dict[str, Action] = {"injection": "reject", "toxicity": "ignore", "pii": "ignore"}
    """The same for documents, where anything but `ignore` refuses the document into the dead letters."""
    approved_publishers: tuple[str, ...] = ()
    """Publishers whose documents are taken; empty takes all."""
    approved_licences: tuple[str, ...] = ()
    """Licences under which documents are taken; empty takes all."""


class SelectionSettings(_Section):
    """How much one source may teach at once."""

    max_rows_per_rater: int = Field(default=5, ge=1)
    """Corrections one rater may have waiting a domain; imported rows are not counted."""
    max_rater_share: float = Field(default=0.25, gt=0, le=1)
    """Largest share of one dataset a rater may have."""
    min_rater_rows: int = Field(default=2, ge=1)
    """Rows a rater may have in a dataset however small it is."""
    max_rows_per_answer: int = Field(default=8, ge=1)
    """Rows of a dataset that may teach one and the same answer."""
    max_rows_per_domain: int = Field(default=512, ge=1)
    """Rows of a dataset a domain."""
    votes_to_override: int = Field(default=2, ge=1)
    """Raters who must agree before a taught fact is taught differently."""
    unknown_citation: Literal["wait", "closed_book"] = "closed_book"
    """A correction that cites no known document is taught without a passage, or waits for its document."""
    citation_patience_s: float = Field(default=86_400.0, ge=0)
    """How long it waits before it is refused."""
    citation_pattern: str = r"\[([a-z][a-z0-9_]*-[0-9]+)\]"
    """Regular expression of a citation in a correction; its only group is the document id."""
    near_duplicate_threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity from which two rows count as one."""


class ReplaySettings(_Section):
    """What is rehearsed."""

    policy: Literal["reservoir", "prioritised"] = "reservoir"
    """A uniform sample, or one that prefers what users hit as wrong."""
    max_rows: int = Field(default=2000, ge=0)
    """Rows kept a domain."""
    max_bytes: int = Field(default=4 * 1024 * 1024, ge=0)
    """Bytes of text kept a domain."""
    general_file: Path | None = Path("foundation/general_replay.jsonl")
    """What the foundation must keep knowing; null rehearses nothing of it."""
    probes: int = Field(default=32, ge=0)
    """Rows of that file with a passage that are not trained and measure grounding."""


class IndexSettings(_Section):
    """How a domain's documents are indexed; decided anew with every refresh."""

    exact_up_to: int = Field(default=100_000, ge=0)
    """Documents of a domain that are searched exactly; 0 makes every index approximate."""
    approximate: Literal["hnsw", "ivf"] = "hnsw"
    """The kind of index above that: both find less than all and are rebuilt whole by every refresh."""

    def kind_for(self, documents: int) -> Literal["flat", "hnsw", "ivf"]:
        return "flat" if documents <= self.exact_up_to else self.approximate


class FoundationSettings(_Section):
    """The frozen model that adapters are trained for."""

    source: str = "foundation/tiny"
    """A folder in Hugging Face layout, which bootstrap also puts into the store, or a hub name with `revision`."""
    revision: str | None = None
    """Full commit id of a hub name."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format it computes in."""
    device: str = "cpu"
    """Torch device, such as `cpu` or `cuda:0`."""
    threads: int = Field(default=1, ge=1, le=256)
    """Torch threads of the child; another number gives other bytes."""


class JobSettings(_Section):
    """The child process that trains."""

    timeout_s: float = Field(default=600.0, gt=0)
    """A child that runs longer, for each domain it trains, is killed; it counts as one attempt."""
    stop_grace_s: float = Field(default=3.0, ge=0)
    """Time a stopped child has before it is killed."""
    module: str = "services.trainer.learning.job"
    """The program that learns: its `main([job file])` returns an exit status; the README beside it tells the files."""
    nice: int = Field(default=10, ge=0, le=19)
    """How far the child stands back for other processes of the machine: training takes what serving leaves."""
    keep_warm: bool = True
    """Keep one child waiting with its imports done, at some 250 MB, so that a training starts at once."""
    learning: dict[str, JsonValue] = {}
    """Passed to the learning job as its `settings`."""


class EvidenceSettings(_Section):
    """What the trainer itself holds to be a failed training."""

    min_update_exact_match: float = Field(default=0.8, ge=0, le=1)
    """Share of the taught rows the new adapter must answer exactly."""
    max_probe_drop: float = Field(default=0.15, ge=0, le=1)
    """How much the share of right answers from a given passage may fall."""
    max_replay_loss: float = Field(default=0.3, ge=0, le=1)
    """How much of the replay rows may be forgotten."""
    max_update_drop: float = Field(default=0.3, ge=0, le=1)
    """How much of any one earlier update may be lost ..."""
    min_update_rows: int = Field(default=8, ge=1)
    """... where at least this many of its rows were asked; fewer say nothing."""


class BootstrapSettings(_Section):
    """What the first release of an installation is made of, besides the foundation and the embedder."""

    rules: Path = Path("configs/rules.json")
    """Router rules."""
    prompt: dict[str, JsonValue] = {"kind": "tagged"}
    """The prompt format, as `PromptFormat` reads it; kind `auto` is `chat` where the tokenizer has a template."""
    rank: int = Field(default=16, ge=1, le=512)
    """Rank of every adapter; it cannot change later, because adapters are swapped in place."""
    alpha: float = Field(default=64.0, gt=0)
    """LoRA alpha of every adapter."""
    store_foundation: bool = True
    """Put the foundation's files into the store; set it to false for large models that every host has anyway."""


class ChangeSettings(_Section):
    """What people and programs may propose to change of router rules and prompt."""

    allowed: tuple[AllowedPath, ...] = ()
    """The paths that may change, each with its bounds; without any, every proposal is refused."""
    max_differences: int = Field(default=100, ge=1)
    """Values one proposal of a person may change."""
    max_differences_of_programs: int = Field(default=20, ge=1)
    """Values one proposal of a program may change."""
    max_open: int = Field(default=50, ge=1)
    """Changes that may wait at once for another person or for their release."""
    replay_queries: int = Field(default=2000, ge=0, le=100_000)
    """How many of the newest recorded queries a change is replayed over."""
    probes_file: Path | None = Path("configs/qa/probes.jsonl")
    """The gatekeeper's probes, of which questions and domains are read; null leaves them out of the report."""

    def policy(self) -> ChangePolicy:
        return ChangePolicy(
            allowed=self.allowed,
            max_differences=self.max_differences,
            max_differences_of_programs=self.max_differences_of_programs,
        )

    def limits(self) -> ChangeLimits:
        return ChangeLimits(max_open=self.max_open)


class TrainerSection(_Section):
    """Everything only the trainer knows."""

    seed: int = 42
    """Decides samples, held-out rows and the training itself."""
    feedback_licence: str = "internal: users' corrections under the service's terms"
    """The licence written into every dataset."""
    foundation: FoundationSettings = FoundationSettings()
    """The frozen model that adapters are trained for."""
    embedder: dict[str, JsonValue] = {"kind": "hashing", "dim": 1024}
    """Specification of the embedder; its digest must be the active release's."""
    poll_timeout_s: float = Field(default=0.2, gt=0)
    """Longest wait of one poll; also how late a schedule or a finished child is noticed."""
    commit_interval_s: float = Field(default=0.1, ge=0)
    """Statuses and offsets are committed at most this often."""
    checkpoint_interval_s: float = Field(default=2.0, ge=0)
    """The checkpoint is written at most this often, and always around a training."""
    max_pending_rows: int = Field(default=20_000, ge=1)
    """Above this many waiting corrections reading feedback pauses."""
    max_pending_documents: int = Field(default=20_000, ge=1)
    """Above this many waiting document changes reading documents pauses."""
    max_seen_ids: int = Field(default=50_000, ge=1000)
    """Feedback ids remembered, so that a repeated id does nothing."""
    bootstrap: BootstrapSettings = BootstrapSettings()
    """What the first release is made of."""
    schedule: ScheduleSettings = ScheduleSettings()
    """When a training starts."""
    classifiers: tuple[dict[str, JsonValue], ...] = (
        {"kind": "pii"},
        {"kind": "toxicity"},
        {"kind": "injection"},
    )
    """Specifications of the safety classifiers that look at corrections and documents, for `build_classifier`."""
    cleaning: CleaningSettings = CleaningSettings()
    """What a correction and a document must be."""
    selection: SelectionSettings = SelectionSettings()
    """How much one source may teach at once."""
    replay: ReplaySettings = ReplaySettings()
    """What is rehearsed."""
    index: IndexSettings = IndexSettings()
    """How documents are indexed."""
    job: JobSettings = JobSettings()
    """The child process that trains."""
    evidence: EvidenceSettings = EvidenceSettings()
    """What counts as a failed training."""
    changes: ChangeSettings = ChangeSettings()
    """What may be proposed to change of router rules and prompt."""

    def schedule_policy(self) -> SchedulePolicy:
        names = SchedulePolicy.__dataclass_fields__
        return SchedulePolicy(**{k: v for k, v in self.schedule.model_dump().items() if k in names})

    def cleaning_policy(self) -> CleaningPolicy:
        return CleaningPolicy(
            max_receipt_age_s=self.cleaning.max_receipt_age_s,
            max_correction_characters=self.cleaning.max_correction_characters,
            max_question_characters=self.cleaning.max_question_characters,
            actions=self.cleaning.actions,
        )

    def lifecycle_policy(self) -> LifecyclePolicy:
        names = SelectionPolicy.__dataclass_fields__
        chosen = {k: v for k, v in self.selection.model_dump().items() if k in names}
        return LifecyclePolicy(
            selection=SelectionPolicy(
                **chosen,
                near_duplicates=NearDuplicatePolicy(threshold=self.selection.near_duplicate_threshold),
            ),
            replay=ReplayPolicy(
                policy=self.replay.policy,
                max_rows=self.replay.max_rows,
                max_bytes=self.replay.max_bytes,
                seed=self.seed,
            ),
            max_seen_ids=self.max_seen_ids,
            candidate_patience_s=self.schedule.candidate_patience_s,
            rating_window=self.schedule.drift_window,
            question_window=self.schedule.drift_window,
            least_questions=self.schedule.drift_min_ratings,
            max_attempts=self.schedule.max_attempts,
        )

    def evidence_policy(self) -> EvidencePolicy:
        return EvidencePolicy(**self.evidence.model_dump())


class TrainerSettings(ServiceSettings):
    """Settings of the trainer process."""

    trainer: TrainerSection = TrainerSection()
    """Everything only the trainer knows."""

    @property
    def key_id(self) -> str:
        """The key proposals are signed with."""
        return self.keys.key_id or "trainer-1"

    @property
    def checkpoint_file(self) -> Path:
        return self.state_folder / f"trainer-{self.instance}" / "checkpoint.json"

    @property
    def work_folder(self) -> Path:
        return self.state_folder / f"trainer-{self.instance}" / "work"
