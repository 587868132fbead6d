"""A small causal language model from scratch, for speech models without a pretrained one.

A speech model needs a language model that can repeat its prompt. A pretrained one can; a model that was trained on single
sentences cannot. This one is trained to repeat: the user's turn is a corrupted copy of a sentence (tokens repeated,
dropped or replaced, pauses between them), the assistant's turn is the sentence. A projector can then map audio to its
embeddings.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from training.models.common.plain_text import many_text_ids
from training.models.common.targets import IGNORED, rectangle
from training.models.voxlm.stored_config import CHAT_TEMPLATE, END, TURN, check_instruction

PAD, PAUSE = "<|endoftext|>", "<|pause|>"
MOST_REPEATS = 4


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of about ``vocab_size`` tokens with ChatML's turns; every byte is in it."""
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[PAD, TURN, END, PAUSE],
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, pad_token=PAD, eos_token=END, extra_special_tokens=[TURN, PAUSE]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a Qwen2 model."""

    vocab_size: int = 600
    hidden_size: int = 128
    layers: int = 3
    heads: int = 4
    intermediate_size: int = 384
    positions: int = 1024


@dataclass
class Repeating(torch.utils.data.Dataset):
    """Sentences to repeat from a corrupted copy, a new copy each time one is drawn: ``input_ids`` and ``labels``."""

    tokenizer: Any
    texts: Sequence[str]
    instruction: str
    seed: int = 0
    _draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        check_instruction(self.tokenizer, self.instruction, "--instruction")
        turns = [{"role": "user", "content": "\0" + self.instruction}]
        asked = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        parts = asked.split("\0")
        self._before, self._after = (self.tokenizer(p, add_special_tokens=False).input_ids for p in parts)
        self._content = many_text_ids(self.tokenizer, self.texts)
        self._noise = sorted({token for ids in self._content for token in ids})

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        sentence = self._content[index]
        prompt = [*self._before, *self.copy(sentence), *self._after]
        response = [*sentence, self.tokenizer.eos_token_id]
        return {"input_ids": [*prompt, *response], "labels": [*[IGNORED] * len(prompt), *response]}

    def copy(self, ids: Sequence[int]) -> list[int]:
        """A corrupted copy of the ids: tokens repeated, dropped or replaced, pauses between them."""
        draw, pause = self._draw, self.tokenizer.convert_tokens_to_ids(PAUSE)
        found: list[int] = [pause] * draw.randint(0, MOST_REPEATS)
        for token in ids:
            chance = draw.random()
            if chance < 0.03:
                continue
            shown = draw.choice(self._noise) if chance < 0.08 else token
            found += [shown] * draw.randint(1, MOST_REPEATS) + [pause] * draw.choice((0, 0, 0, 1, 2))
        return found + [pause] * draw.randint(0, MOST_REPEATS)


def collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A batch, padded on the right; the attention mask marks the padding."""
    return {
        "input_ids": rectangle([row["input_ids"] for row in rows], 0),
        "attention_mask": rectangle([[1] * len(row["input_ids"]) for row in rows], 0),
        "labels": rectangle([row["labels"] for row in rows], IGNORED),
    }


class _Lines(TrainerCallback):
    """A line for each logged loss."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in (logs or {}):
            self.report(f"step {state.global_step:>6}/{state.max_steps}  loss {logs['loss']:.4f}")


def _model(tokenizer: PreTrainedTokenizerFast, sizes: Sizes) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=sizes.hidden_size,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.heads,
            intermediate_size=sizes.intermediate_size,
            max_position_embeddings=sizes.positions,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.05,
        )
    )


def train(
    texts: Sequence[str],
    folder: Path,
    *,
    sizes: Sizes | None = None,
    instruction: str = "Transcribe the speech.",
    steps: int = 500,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    seed: int = 42,
    report: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train on ``texts`` and write model and tokenizer into ``folder``; returns the losses of the log's last line."""
    sizes = sizes or Sizes()
    torch.manual_seed(seed)
    texts = sorted({" ".join(text.split()) for text in texts})
    tokenizer = train_tokenizer(texts, sizes.vocab_size)
    model = _model(tokenizer, sizes)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, steps // 20),
            weight_decay=0.01,
            adam_beta2=0.98,
            logging_steps=max(1, steps // 10),
            save_strategy="no",
            report_to="none",
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=False,
        ),
        train_dataset=Repeating(tokenizer, texts, instruction, seed),
        data_collator=collate,
    )
    for default in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(default)
    trainer.add_callback(_Lines(report))
    trainer.train()
    losses = [row for row in trainer.state.log_history if "loss" in row]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"loss": float(losses[-1]["loss"]), "sentences": len(texts), "parameters": model.num_parameters()}
