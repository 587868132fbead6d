"""``polyvox lm causal``: sentences by a bad hand, the folder that is written, what is refused before any training."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.base.errors import UserError
from training.cli import lm
from training.models.voxlm import causal_lm as causal

TEXTS = ("a cat sat on the mat", "the dog ran home", "we met at noon")
SMALL = ("--vocab_size", "300", "--hidden_size", "16", "--layers", "1", "--heads", "2", "--batch_size", "2")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf8")
    return path


def call(text: Path, output: Path, *more: str) -> int:
    return lm.main(["causal", "--text", str(text), "--output", str(output), *SMALL, *more])


def test_the_folder_loads_in_stock_transformers(text, tmp_path, capsys) -> None:
    folder = tmp_path / "deep" / "llm"
    assert call(text, folder, "--steps", "2", "--seed", "0") == 0
    assert "parameters from 3 sentences" in capsys.readouterr().out
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (model.config.hidden_size, model.config.vocab_size) == (16, len(tokenizer))
    assert tokenizer.decode(tokenizer("the dög ran").input_ids) == "the dög ran"
    with pytest.raises(UserError, match="--overwrite replaces it"):
        call(text, folder, "--steps", "1")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--steps", "0"), r"--steps 0: more than 0"),
        (("--learning_rate", "nan"), r"--learning_rate nan: more than 0"),
        (("--seed", "-1"), r"--seed -1"),
        (("--heads", "3"), r"--hidden_size 16: must be a multiple of twice the heads \(3\)"),
    ],
)
def test_sizes_that_cannot_be_are_refused(text, tmp_path, more, message) -> None:
    with pytest.raises(UserError, match=message):
        call(text, tmp_path / "llm", *more)
    assert not (tmp_path / "llm").exists()


def test_a_file_in_the_place_of_the_folder_is_said_before_training(text, tmp_path, monkeypatch) -> None:
    """transformers' save_pretrained would log a line and write nothing."""
    monkeypatch.setattr(causal, "train", lambda *args, **more: pytest.fail("trained"))
    with pytest.raises(UserError, match=r"--output: .*text\.txt cannot be written to"):
        call(text, text)
    assert text.read_text(encoding="utf8").startswith("a cat")


def test_a_sentence_is_taught_from_a_bad_copy_and_supervised_alone() -> None:
    tokenizer = causal.train_tokenizer(TEXTS, 300)
    rows = causal.Repeating(tokenizer, TEXTS, "Transcribe the speech.", seed=1)
    first, again = rows[0], rows[0]
    assert first["input_ids"] != again["input_ids"]  # a new copy each time
    for row in (first, again):
        taught = [
            token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100
        ]
        assert tokenizer.decode(taught) == f"{TEXTS[0]}<|im_end|>"
        assert row["labels"][-len(taught) :] == taught
    batch = causal.collate([rows[0], rows[1]])
    ends = batch["labels"] == tokenizer.eos_token_id
    assert ends.sum(dim=1).tolist() == [1, 1]
    assert batch["attention_mask"].sum(dim=1).tolist() == [
        int(row.nonzero()[-1]) + 1 for row in (batch["labels"] != -100)
    ]
