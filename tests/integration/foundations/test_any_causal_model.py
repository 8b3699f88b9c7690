"""Other foundations than the shipped one: the real learning job, bank and answer engine on tiny random models."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from schemas.event import DOMAINS
from schemas.releases import Release
from services.inference.answering import AnswerEngine, Asked
from services.inference.releases import ReadyRelease
from services.trainer.bootstrap import first_release
from services.trainer.identity_adapter import stored_shapes
from services.trainer.learning.dataset import TrainingRow, rows_to_jsonl
from services.trainer.learning.job import RESULT, read_job, run_job
from services.trainer.settings import TrainerSection
from twinloop.model_runtime.adapter_bank import AdapterBank, linear_shapes
from twinloop.model_runtime.foundation import Foundation, FoundationSpec, folder_digest, load_foundation
from twinloop.model_runtime.generation import Generation, GenerationItem, Generator
from twinloop.model_runtime.prompt import PromptFormat
from twinloop.registry.blobs import open_store
from twinloop.registry.manifests import read_files
from twinloop.registry.releases import load_release
from twinloop.registry.store_settings import StoreSettings
from twinloop.retrieval.coverage import TermWeights
from twinloop.retrieval.document import Document
from twinloop.retrieval.hashing_embedder import HashingEmbedder
from twinloop.retrieval.index import DomainIndex
from twinloop.routing.domain_choice import DomainChooser
from twinloop.routing.rules import read_rules
from twinloop.signing import create_keys, load_signer

ROOT = Path(__file__).resolve().parents[3]
ADAPTER, INDEX, NOTHING = "a" * 64, "b" * 64, "0" * 64
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FACTS = {"When is rent due?": "day 5 [law-1]", "How long is notice?": "30 days [law-2]"}


@dataclass(frozen=True)
class Kind:
    """One architecture as it comes from elsewhere: configuration, tokenizer and the prompt that suits it."""

    name: str
    make_model: Callable[[int], Any]
    specials: tuple[str, ...]
    chat_template: str | None
    prompt: PromptFormat
    adapted: frozenset[str]
    """Last parts of the paths of every module that is to be adapted."""


def _qwen2(vocabulary: int) -> Any:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            max_position_embeddings=512,
            initializer_range=0.2,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


def _gpt2(vocabulary: int) -> Any:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=512,
            initializer_range=0.2,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


QWEN2 = Kind(
    "qwen2",
    _qwen2,
    ("<|endoftext|>", "<|im_end|>", "<|im_start|>"),
    CHAT_TEMPLATE,
    PromptFormat(kind="chat", max_passages=3, min_passage_score=-1.0, system="Cite."),
    frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
)
GPT2 = Kind(
    "gpt2",
    _gpt2,
    ("<|endoftext|>",),
    None,
    PromptFormat(kind="tagged", max_passages=3, min_passage_score=-1.0),
    frozenset({"c_attn", "c_proj", "c_fc"}),
)


def _tokenizer(kind: Kind) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={t: n for n, t in enumerate((*kind.specials, *alphabet))}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in kind.specials])
    end = kind.specials[1] if kind.chat_template else kind.specials[0]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end)
    fast.chat_template = kind.chat_template
    return fast


@dataclass
class Learned:
    """A foundation, and what its learning job wrote."""

    kind: Kind
    folder: Path
    foundation: Foundation
    output: Path
    again: Path

    @property
    def adapter(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.output / "adapter").iterdir()}


@pytest.fixture(scope="module", params=[QWEN2, GPT2], ids=lambda kind: kind.name)
def learned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    kind: Kind = request.param
    folder = tmp_path_factory.mktemp(kind.name)
    torch.manual_seed(42)
    tokenizer = _tokenizer(kind)
    kind.make_model(len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [
        TrainingRow(f"r{n}", "law", question, answer) for n, (question, answer) in enumerate(FACTS.items())
    ]
    (folder / "rows.jsonl").write_text(rows_to_jsonl(rows))
    for output in ("out", "again"):
        job = {
            "version": 1,
            "foundation": {"source": "model", "digest": folder_digest(folder / "model")},
            "prompt": json.loads(kind.prompt.to_json()),
            "domain": "law",
            "rows": "rows.jsonl",
            "settings": {"rank": 8, "alpha": 32.0, "learning_rate": 0.01, "max_steps": 150, "batch_size": 2},
            "output": output,
        }
        (folder / "job.json").write_text(json.dumps(job))
        run_job(read_job(folder / "job.json"), report=lambda _event: None)
    return Learned(
        kind=kind,
        folder=folder,
        foundation=load_foundation(FoundationSpec(source=str(folder / "model"))),
        output=folder / "out",
        again=folder / "again",
    )


class WatchedGenerator(Generator):
    """The real generator, keeping the prompts it was given."""

    seen: Sequence[str] = ()

    def answer_batch(self, items: Sequence[GenerationItem]) -> list[Generation]:
        self.seen = [item.prompt for item in items]
        return super().answer_batch(items)


def _document(number: int, text: str) -> Document:
    return Document(
        id=f"law-{number}",
        domain="law",
        title="",
        text=text,
        source="test",
        licence="CC0",
        publisher="test",
        retrieved_at=0,
    )


def _ready(kind: Kind) -> ReadyRelease:
    embedder = HashingEmbedder(dim=64)
    documents = [
        _document(1, "Rent is due on day 5."),
        _document(2, "Notice is 30 days."),
        _document(3, "Rent is rent."),
    ]
    index = DomainIndex.build(documents, embedder, domain="law")
    release = Release(
        foundation=NOTHING,
        embedder=NOTHING,
        adapters=dict.fromkeys(DOMAINS, ADAPTER),
        indexes=dict.fromkeys(DOMAINS, INDEX),
        rules=NOTHING,
        prompt=NOTHING,
    )
    rules = read_rules((ROOT / "configs" / "rules.json").read_bytes(), name="rules")
    terms = TermWeights.of(document.searchable_text() for document in documents)
    return ReadyRelease(
        NOTHING,
        release,
        dict.fromkeys(DOMAINS, index),
        dict.fromkeys(DOMAINS, terms),
        kind.prompt,
        DomainChooser(rules),
    )


def _generator(learned: Learned) -> tuple[AdapterBank, WatchedGenerator]:
    bank = AdapterBank(learned.foundation.model)
    bank.load(ADAPTER, learned.adapter)
    return bank, WatchedGenerator(learned.foundation, bank, max_new_tokens=32)


def _engine(learned: Learned, generator: Generator) -> AnswerEngine:
    return AnswerEngine(
        lambda _new, _prompt: generator,
        chat=learned.foundation.chat_template,
        retrieve=3,
        clock_ms=lambda: 0.0,
    )


def test_every_linear_module_but_the_head_is_adapted(learned: Learned) -> None:
    config = json.loads(learned.adapter["adapter_config.json"])
    shapes = linear_shapes(learned.foundation.model)
    assert set(config["target_modules"]) == learned.kind.adapted
    assert {path.split(".")[-1] for path in shapes} == learned.kind.adapted
    stored = stored_shapes(learned.folder / "model")
    assert stored is None or dict(stored) == shapes


def test_a_job_learns_and_repeats_to_the_same_bytes(learned: Learned) -> None:
    result, again = (json.loads((folder / RESULT).read_bytes()) for folder in (learned.output, learned.again))
    assert result["files"] == again["files"]
    assert result["metrics"]["update_exact_match"] == 1.0


def test_peft_loads_the_adapter_and_the_bank_computes_the_same(learned: Learned) -> None:
    bank, generator = _generator(learned)
    with torch.inference_mode():
        ours = generator.next_token_logits([GenerationItem("When is rent due?", adapter=ADAPTER)])
        bare = generator.next_token_logits([GenerationItem("When is rent due?")])
    bank.close()
    fresh = load_foundation(FoundationSpec(source=str(learned.folder / "model")))
    tokens = torch.tensor([generator.encoded("When is rent due?")])
    config = peft.LoraConfig.from_pretrained(str(learned.output / "adapter"))
    config.fan_in_fan_out = learned.kind.name == "gpt2"  # peft finds it out by itself, with a warning
    model = peft.PeftModel.from_pretrained(fresh.model, str(learned.output / "adapter"), config=config)
    with torch.inference_mode():
        theirs = model(input_ids=tokens).logits[:, -1]
    assert not torch.allclose(ours, bare, atol=1e-2)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_learned_answers_are_served_with_their_citations_and_equal_each_time(learned: Learned) -> None:
    bank, generator = _generator(learned)
    engine, ready = _engine(learned, generator), _ready(learned.kind)
    asked = [Asked(question, "law", ready, use_retrieval=False) for question in FACTS]
    first, second = engine.answer(asked), engine.answer(asked)
    bank.close()
    assert [each.text for each in first] == list(FACTS.values())
    assert [[c.document_id for c in each.citations] for each in first] == [["law-1"], ["law-2"]]
    assert [each.text for each in second] == [each.text for each in first]


def test_the_prompt_shows_several_passages_in_the_tokenizers_own_template(learned: Learned) -> None:
    bank, generator = _generator(learned)
    asked = Asked("When is rent due?", "law", _ready(learned.kind))
    produced = _engine(learned, generator).answer([asked])
    bank.close()
    prompt = generator.seen[0]
    assert len(produced[0].passages) == 3
    assert all(f"[law-{number}]" in prompt for number in (1, 2, 3))
    assert prompt.endswith(
        "<|im_start|>assistant\n" if learned.kind.chat_template else "<|q|>When is rent due?<|a|>"
    )
    assert prompt.startswith("<|im_start|>system" if learned.kind.chat_template else "<|ctx|>")


def test_rows_of_a_mixed_batch_answer_as_they_do_alone(learned: Learned) -> None:
    bank, generator = _generator(learned)
    items = [GenerationItem("How long is notice?", adapter=adapter) for adapter in (ADAPTER, None, ADAPTER)]
    with torch.inference_mode():
        mixed = generator.next_token_logits(items)
        alone = torch.cat([generator.next_token_logits([item]) for item in items])
    bank.close()
    torch.testing.assert_close(mixed, alone, atol=1e-4, rtol=1e-4)


def test_the_first_release_takes_the_chat_template_where_there_is_one(
    learned: Learned, tmp_path: Path
) -> None:
    section = TrainerSection.model_validate(
        {
            "foundation": {"source": str(learned.folder / "model")},
            "bootstrap": {
                "rules": str(ROOT / "configs" / "rules.json"),
                "prompt": {"kind": "auto", "max_passages": 3},
            },
        }
    )
    store = open_store(StoreSettings(url=f"file://{tmp_path}/store", create_folder=True))
    create_keys(tmp_path / "keys", {"trainer-1": ("trainer",)})
    signer = load_signer(tmp_path / "keys", "trainer-1")
    release_id = first_release(store, signer, section, documents=[], now_ms=0)
    release = load_release(store, release_id, verify=lambda _message, _block: None).release
    prompt = PromptFormat.from_json(store.get(release.prompt))
    assert prompt.kind == ("chat" if learned.kind.chat_template else "tagged")
    bank = AdapterBank(learned.foundation.model)
    bank.load(release.adapters["law"], read_files(store, release.adapters["law"], kind="adapter"))
    generator = Generator(learned.foundation, bank)
    with torch.inference_mode():
        under, bare = (
            generator.next_token_logits([GenerationItem("When?", adapter=adapter)])
            for adapter in (release.adapters["law"], None)
        )
    bank.close()
    assert torch.equal(under, bare)
