"""The configurations that `behaviour.py` runs, and what is read from each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A configuration, what it is run with, and what is read from its run.

    ``config``: a file of ``configs/``, or the text of one. ``corpus``: the folder in ``data`` that it reads. ``after``:
    the cases whose models it starts from. ``prepare``: what else it starts from, by folder the command that makes it.
    ``evaluations``: by name, the options of ``polyvox evaluate``; where the name begins with ``first``, of the model
    before it has learnt. ``transcribing``: options of ``polyvox transcribe``, which takes the model of the first
    evaluation.
    """

    name: str
    config: str
    corpus: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 20
    after: tuple[str, ...] = ()
    prepare: Mapping[str, str] = field(default_factory=dict)
    evaluations: Mapping[str, str] = field(default_factory=lambda: {"last": ""})
    transcribing: str = ""


def folder_of(name: str, evaluation: str) -> str:
    """The run's folder that an evaluation reads."""
    return f"outputs/first/{name}" if evaluation.startswith("first") else f"outputs/{name}"


TINY = "_base_: [{root}/configs/base.yaml, {root}/configs/profiles/cpu.yaml]\n"
TINY_E2E = """
model:
  type: e2e
  language: vi
  task: both
  sizes:
    vocab_size: 300
    encoder: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 48,
              conv_dim: [16, 16, 16, 16], conv_stride: [10, 8, 4, 2], conv_kernel: [20, 16, 8, 3],
              feat_extract_norm: layer, num_conv_pos_embeddings: 15, num_conv_pos_embedding_groups: 4}
    decoder: {d_model: 24, decoder_layers: 2, decoder_attention_heads: 2, decoder_ffn_dim: 48}
augmentation:
  speed: {prob: 0.5}
  volume: {prob: 0.5}
  noise: {prob: 0.5}
training:
  batch_size: 4
  gradient_accumulation_steps: 2
  learning_rate: 2.0e-3
  label_smoothing_factor: 0.1
  freeze_encoder_epochs: 0.5
  eval_steps: 0.25
  save_steps: 0.25
  report_to: none
evaluation: {num_beams: 2, max_new_tokens: 40, max_utterances: 10}
"""
TINY_DOMAINS = """
paths: {splits_dir: data/korean_splits}
model:
  type: domain_whisper
  language: ko
  domains: [normal, dyslexic]
  unfreeze: {encoder_blocks: 1, decoder_blocks: 1}
  full_context_share: 0.25
  encoder_context: trimmed
  sizes: {init_std: 0.08, vocab_size: 600, d_model: 32, encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2,
          decoder_attention_heads: 2, encoder_ffn_dim: 64, decoder_ffn_dim: 64, dropout: 0.1}
augmentation:
  shift: {prob: 0.5}
  volume: {prob: 0.5}
training:
  max_batch_seconds: 30
  learning_rate: 3.0e-3
  average_checkpoints: 2
  eval_steps: 0.25
  save_steps: 0.25
  report_to: none
evaluation: {max_new_tokens: 40, max_utterances: 10}
"""
TINY_VOXLM = """
paths: {splits_dir: data/english_splits}
model:
  type: voxlm
  audio_encoder: outputs/demo_voxlm_encoder
  llm: outputs/demo_voxlm_llm
  language: en
  encoder_context: trimmed
  stack: 8
  projector_width: 32
  aligner: {width: 16, layers: 1, heads: 2}
training:
  batch_size: 3
  gradient_accumulation_steps: 2
  learning_rate: 5.0e-3
  eval_steps: 0.5
  save_steps: 0.5
  report_to: none
evaluation: {num_beams: 2, max_new_tokens: 30}
"""
STILL = {
    "training.learning_rate": 0,
    "training.max_steps": 1,
    "training.ema_decay": "null",
    "training.average_checkpoints": "null",
}
"""A run of one step that changes nothing: it leaves the first weights."""
UNTAUGHT = {"first": "", "first, beam": "--beam_width 4"}
"""Of a CTC model that has learnt for some steps only, which writes nothing; before them it writes letters at random."""
TAUGHT = {"last": "", "last, beam": "--beam_width 4"}
LANGUAGE_MODEL = {
    "outputs/demo_voxlm_llm": "lm causal --text data/english_splits/train.csv --output outputs/demo_voxlm_llm --steps 120"
}
ENCODER = ("demo_voxlm_encoder",)
CASES = (
    Case(name="demo_ctc", config="demo_ctc", corpus="export", steps=64, evaluations=UNTAUGHT),
    Case(
        name="digits_ctc",
        config="digits_ctc",
        corpus="digits",
        steps=160,
        # With fewer steps a shorter memory; and a score that tells their models apart.
        overrides={"training.ema_decay": 0.9, "training.metric_for_best_model": "cer"},
        evaluations=TAUGHT,
    ),
    Case(name="demo_whisper", config="demo_whisper", corpus="export"),
    Case(name="demo_e2e", config="demo_e2e", corpus="export"),
    Case(name="demo_domain_base", config="demo_domain_base", corpus="korean"),
    Case(
        name="demo_domain_whisper",
        config="demo_domain_whisper",
        corpus="korean",
        after=("demo_domain_base",),
        evaluations={"last": "--swap_test"},
        transcribing="--domain auto",
    ),
    Case(name="demo_voxlm_encoder", config="demo_voxlm_encoder", corpus="english"),
    Case(
        name="demo_voxlm",
        config="demo_voxlm",
        corpus="english",
        overrides={"training.max_batch_seconds": 20},
        after=ENCODER,
        prepare=LANGUAGE_MODEL,
    ),
    Case(
        name="demo_voxlm_phase2",
        config="demo_voxlm",
        corpus="english",
        overrides={"training.max_batch_seconds": 20, "training.phase": 2, "model.name": "outputs/demo_voxlm"},
        after=("demo_voxlm",),
    ),
    Case(
        name="tiny_e2e",
        config=TINY_E2E,
        corpus="export",
        steps=40,
    ),
    Case(
        name="tiny_domain",
        config=TINY_DOMAINS,
        corpus="korean",
        steps=40,
        evaluations={"last, auto": "--domain auto"},
        transcribing="--domain normal",
    ),
    Case(
        name="tiny_voxlm",
        config=TINY_VOXLM,
        corpus="english",
        overrides={"training.trainable": "lora", "training.lora.r": 4},
        after=ENCODER,
        prepare=LANGUAGE_MODEL,
    ),
    Case(
        name="tiny_voxlm_phase2",
        config=TINY_VOXLM,
        corpus="english",
        overrides={"training.phase": 2, "model.name": "outputs/tiny_voxlm"},
        after=("tiny_voxlm",),
    ),
)


def unlisted() -> list[str]:
    """Demo and digits configurations that no case runs."""
    shipped = {
        path.stem for pattern in ("demo_*", "digits*") for path in (ROOT / "configs").glob(f"{pattern}.yaml")
    }
    return sorted(shipped - {case.config for case in CASES})


def chosen(names: Sequence[str]) -> list[Case]:
    """These cases (all where none is named) and those that they start from, in order."""
    known = {case.name: case for case in CASES}
    wanted: set[str] = set()
    waiting = list(names or known)
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        waiting += known[name].after
    return [case for case in CASES if case.name in wanted]
