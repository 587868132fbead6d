"""Whisper with domain tokens: prompts, what the model is asked for, what learns, folders for stock transformers."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, Seq2SeqTrainingArguments, set_seed
from whisper_assets import SIZES, TEXTS, TRANSCRIPT, example, noise

from training.api.swapping import check_swap_test
from training.base.errors import UserError
from training.data.batch_policy import BatchPolicy
from training.decoding.loading import Trained, load_trained, with_domain
from training.decoding.predict import predict
from training.engine import freezing as trainable
from training.engine.trainer import SpeechTrainer
from training.models.architecture import Architecture, BuildContext
from training.models.batch import model_inputs
from training.models.common.targets import IGNORED
from training.models.domain_whisper.build import DomainWhisper
from training.models.domain_whisper.collator import (
    AS_IT_IS,
    AUTO,
    NONE,
    SWAP,
    DataCollatorSpeechSeq2SeqDomain,
)
from training.models.domain_whisper.config import Options
from training.models.domain_whisper.tokens import add_domains
from training.transcription.transcriber import Transcriber

ROOT = Path(__file__).parents[2]
DOMAINS = ("normal", "dyslexic")


def tiny(source: Any = None, **options: Any) -> Architecture:
    chosen = {"sizes": SIZES, "max_label_tokens": 64, "language": "vi", "domain": "normal", **options}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DomainWhisper.build(
            Options(unfreeze={"encoder_blocks": 1, "decoder_blocks": 1}, **chosen),
            BuildContext(texts=lambda: iter(TEXTS), source=source),
        )


def spoken(name: str, domain: str | None, seconds: float = 1.0, text: str | None = TRANSCRIPT) -> Any:
    texts = {} if text is None else {"transcribe": text}
    return replace(example(name, seconds, **texts), domain=domain)


def features(architecture: Architecture, *domains: str | None) -> list[dict[str, Any]]:
    return [architecture.encode(spoken(f"u{i}", domain), noise(1.0, i)) for i, domain in enumerate(domains)]


def ids(architecture: Architecture, *tokens: str) -> list[int]:
    return architecture.processor.tokenizer.convert_tokens_to_ids(list(tokens))


def prompt(architecture: Architecture, domain: str) -> list[int]:
    return ids(architecture, "<|vi|>", "<|transcribe|>", f"<|domain:{domain}|>", "<|notimestamps|>")


def text_ids(architecture: Architecture) -> list[int]:
    return architecture.processor.tokenizer(f" {TRANSCRIPT}", add_special_tokens=False).input_ids


# Trap 3.
def test_whole_tensors_the_domain_stands_in_each_rows_prompt_and_is_a_label():
    architecture = tiny()
    start, end = ids(architecture, "<|startoftranscript|>", "<|endoftext|>")
    batch = architecture.collate(features(architecture, "normal", "dyslexic", None))
    text, off = text_ids(architecture), IGNORED
    assert batch["prompt_length"] == 5
    for row, domain in enumerate(("normal", "dyslexic", "normal")):
        given = prompt(architecture, domain)
        assert batch["decoder_input_ids"][row, 0].tolist() == [start, *given, *text]
        assert batch["labels"][row, 0].tolist() == [off, off, given[2], off, *text, end]
    assert "weights" not in batch


def test_the_domain_is_no_label_where_it_is_not_to_be_learnt_or_nothing_is():
    architecture = tiny(domain_supervised=False)
    batch = architecture.collate(features(architecture, "dyslexic"))
    assert batch["labels"][0, 0, :4].tolist() == [IGNORED] * 4
    architecture = tiny()
    silent = architecture.encode(spoken("s", "dyslexic", text=None), noise(1.0))
    batch = architecture.collate([silent, *features(architecture, "normal")])
    assert batch["labels"][0].eq(IGNORED).all() and batch["labels"][1].ne(IGNORED).any()


def test_utterances_of_no_domain_or_an_unknown_one_are_refused_by_name():
    architecture = tiny(domain=None)
    with pytest.raises(ValueError, match="names no domain"):
        features(architecture, None)
    with pytest.raises(ValueError, match=r"domain 'child' is none of model.domains \(normal, dyslexic\)"):
        architecture.encode.check(spoken("u", "child"), 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domains": ["a b"]}, "names of letters"),
        ({"domains": ["auto"]}, "none of as_it_is"),
        ({"domains": ["a", "a"]}, "each once"),
        ({"domain": "child"}, "'child' is none of the domains"),
        ({"domain_weights": {"child": 2.0}}, "'child' is none of the domains"),
        ({"domain_weights": {"normal": 0.0}}, "more than 0"),
    ],
)
def test_domains_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Options(sizes=SIZES, **options)


def test_more_blocks_than_there_are_is_said():
    chosen = Options(sizes=SIZES, unfreeze={"encoder_blocks": 3})
    with pytest.raises(UserError, match=r"model.unfreeze.encoder_blocks: 3, but the encoder has 2"):
        DomainWhisper.build(chosen, BuildContext(texts=lambda: iter(TEXTS)))


# Tokens


# Trap 5.
def test_tokens_are_added_out_of_reach_of_timestamps_and_weights_stay_tied():
    architecture = tiny()
    model, tokenizer = architecture.model, architecture.processor.tokenizer
    tokens = ids(architecture, *(f"<|domain:{name}|>" for name in DOMAINS))
    assert tokens == [len(tokenizer) - 2, len(tokenizer) - 1]
    assert tokenizer.all_special_ids[-1] not in tokens, (
        "Whisper's tokenizer takes what follows for timestamps"
    )
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
    assert model.config.vocab_size == len(model.proj_out.weight) == len(tokenizer)
    assert set(tokens) <= set(model.generation_config.suppress_tokens)
    assert (
        tokenizer.decode(
            [*prompt(architecture, "dyslexic"), *text_ids(architecture)], skip_special_tokens=True
        ).strip()
        == TRANSCRIPT
    )


# Trap 5.
def test_a_padded_embedding_never_shrinks():
    architecture = tiny()
    model = architecture.model
    model.resize_token_embeddings(model.config.vocab_size + 40)
    before = model.proj_out.weight.clone()
    tokens = add_domains(model, architecture.processor, (*DOMAINS, "child"), "name")
    assert len(model.proj_out.weight) == len(before)
    assert tokens[2] == len(architecture.processor.tokenizer) - 1
    others = [row for row in range(len(before)) if row != tokens[2]]
    assert torch.equal(model.proj_out.weight[others], before[others])
    pieces = architecture.processor.tokenizer(" child", add_special_tokens=False).input_ids
    mean = before[pieces].mean(dim=0)
    assert (model.proj_out.weight[tokens[2]] - mean).norm() < 0.5 * mean.norm()


# What the model is asked for


def test_a_prompt_may_be_the_other_domains_or_without_any():
    architecture = tiny()
    trained = Trained(architecture, None, "domain_whisper", None)
    swapped = with_domain(trained, SWAP).architecture
    assert swapped.encode.prompt(spoken("u", "normal"), "transcribe") == prompt(architecture, "dyslexic")
    assert swapped.encode.prompt(spoken("u", "dyslexic"), "transcribe") == prompt(architecture, "normal")
    fixed = with_domain(trained, "dyslexic").architecture
    assert fixed.encode.prompt(spoken("u", None), "transcribe") == prompt(architecture, "dyslexic")
    bare = with_domain(trained, NONE).architecture
    assert bare.encode.prompt(spoken("u", "normal"), "transcribe") == ids(
        architecture, "<|vi|>", "<|transcribe|>", "<|notimestamps|>"
    )
    batch = bare.collate(features(bare, "normal", None))
    assert batch["prompt_length"] == 4 and batch["labels"][:, 0, 2].eq(IGNORED).all()
    with pytest.raises(UserError, match=r"--domain child: this model knows normal, dyslexic"):
        with_domain(trained, "child")


@pytest.mark.parametrize("asked", [None, SWAP, AS_IT_IS])
def test_a_recording_has_no_domain_of_its_own(asked):
    trained = Trained(tiny(domain=None), Path("run"), "domain_whisper", None)
    with pytest.raises(UserError, match=r"--domain normal, dyslexic, or auto"):
        Transcriber(trained, domain=asked)
    assert Transcriber(trained, domain="auto").trained.architecture.encode.asked == AUTO
    spoken_for = Trained(tiny(domain="normal"), Path("run"), "domain_whisper", None)
    Transcriber(spoken_for, domain=asked)


def test_a_base_in_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^model\.name: '.*gone/folder' cannot be loaded"):
        tiny(name=str(tmp_path / "gone" / "folder"), sizes=None)


def test_a_swap_test_needs_transcripts():
    translates = Trained(tiny(task="translate", target_language="en"), Path("run"), "domain_whisper", None)
    with pytest.raises(
        UserError, match=r"^--swap_test: compares transcripts, and run was trained to translate"
    ):
        check_swap_test(translates, None)


def test_what_a_model_cannot_be_asked_is_refused():
    alone = Trained(tiny(domains=["normal"]), None, "domain_whisper", None)
    with pytest.raises(
        UserError, match=r"^--swap_test: this model knows normal alone; there is no other domain"
    ):
        with_domain(alone, SWAP, "--swap_test")
    untaught = Trained(tiny(domain_supervised=False), None, "domain_whisper", None)
    with pytest.raises(
        UserError, match=r"--domain auto: this model was not trained .* name one: normal, dysl"
    ):
        with_domain(untaught, AUTO)


def test_auto_is_the_domain_that_the_model_finds_likeliest_row_by_row():
    architecture = tiny()
    asked = with_domain(Trained(architecture, None, "domain_whisper", None), AUTO).architecture
    model = asked.model.eval()
    batch = asked.collate(features(asked, "normal", "dyslexic", "normal"))
    tokens = ids(architecture, *(f"<|domain:{name}|>" for name in DOMAINS))
    with torch.no_grad():
        states = model.encode(batch["input_features"])
        logits = model(
            encoder_outputs=(states,), decoder_input_ids=batch["decoder_input_ids"][:, 0, :3]
        ).logits[:, -1]
    wanted = [DOMAINS[int(row[tokens].argmax())] for row in logits]
    heard = asked.domains.predict(model, batch)
    assert heard.domains == wanted
    for row, domain in enumerate(wanted):
        assert heard.batch["decoder_input_ids"][row, 0, 1:5].tolist() == prompt(architecture, domain)
    told = architecture.collate(features(architecture, "normal"))
    assert (
        architecture.domains.predict(model, told).domains == [None]
        and architecture.domains.predict(model, told).batch is told
    )


def sound(domain: str | None) -> np.ndarray:
    """Noise, or a tone: what tells the populations apart."""
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    return noise(1.0) if domain == "normal" else 0.1 * tone


class Utterances(torch.utils.data.Dataset[Any]):
    def __init__(self, architecture: Architecture, domains: tuple[str, ...]) -> None:
        self.manifest = [spoken(f"u{i}", domain) for i, domain in enumerate(domains)]
        self.rows = [architecture.encode(row, sound(row.domain)) for row in self.manifest]
        self.durations = np.ones(len(self.rows), np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.rows[row]


def fit(
    architecture: Architecture, folder: Any, steps: int, mode: str = "all", rate: float = 3e-3, **more: Any
) -> SpeechTrainer:
    set_seed(1)
    model, plan = trainable.apply(architecture, mode=mode)
    trainer = SpeechTrainer(
        architecture=architecture,
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(folder), max_steps=steps, learning_rate=rate, weight_decay=0.5, report_to=[],
            use_cpu=True, remove_unused_columns=False, disable_tqdm=True, save_strategy="no", logging_steps=1,
        ),
        train_dataset=more.pop("data", None) or Utterances(architecture, ("normal", "dyslexic") * 2),
        eval_dataset=None,
        policy=BatchPolicy(batch_size=4, eval_seconds=8.0),
        score=None,
        no_decay=plan.rows,
    )  # fmt: skip
    trainer.train()
    return trainer


class Conventions(Utterances):
    """The same sound twice, in two domains with two texts: the token alone can tell which is wanted."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture, ())
        for domain, text in (("normal", "Xin chào"), ("dyslexic", "meeting nhé")):
            self.manifest.append(spoken(domain, domain, text=text))
            self.rows.append(architecture.encode(self.manifest[-1], noise(1.0, 5)))
        self.durations = np.ones(2, np.float32)


# Trap 3.
def test_the_token_alone_decides_between_two_texts_of_one_sound(tmp_path):
    architecture = tiny(domain_supervised=False)
    data = Conventions(architecture)
    fit(architecture, tmp_path, 60, data=data)
    said = {
        p.example.id: p.hypotheses["transcribe"].text
        for p in predict(architecture, data, with_loss=False).predictions
    }
    assert said == {"normal": "Xin chào", "dyslexic": "meeting nhé"}
    swapped = with_domain(Trained(architecture, None, "domain_whisper", None), SWAP).architecture
    other = Conventions(swapped)
    said = {
        p.example.id: p.hypotheses["transcribe"].text
        for p in predict(swapped, other, with_loss=False).predictions
    }
    assert said == {"normal": "meeting nhé", "dyslexic": "Xin chào"}


def test_a_model_that_learnt_the_domains_says_which_it_hears(tmp_path):
    architecture = tiny()
    fit(architecture, tmp_path, 60, rate=1e-2)
    asked = with_domain(Trained(architecture, None, "domain_whisper", None), AUTO).architecture
    data = Utterances(asked, ("normal", "dyslexic"))
    found = predict(asked, data, with_loss=False).predictions
    assert [p.hypotheses["transcribe"].domain for p in found] == ["normal", "dyslexic"]
    assert [p.example.domain for p in found] == ["normal", "dyslexic"], "the truth stays beside it"


def test_weights_of_domains_multiply_their_losses():
    architecture, plain = tiny(domain_weights={"dyslexic": 3.0}), tiny()
    rows = features(architecture, "normal", "dyslexic")
    batch = architecture.collate(rows)
    assert batch["weights"].tolist() == [1.0, 3.0]
    architecture.model.eval()
    one, two = (
        architecture.model(**model_inputs(plain.collate([row])), num_items_in_batch=10).loss for row in rows
    )
    both = architecture.model(**model_inputs(batch), num_items_in_batch=10).loss
    torch.testing.assert_close(both, one + 3 * two)


# What learns


def parameters(architecture: Architecture) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in architecture.model.named_parameters()}


def test_blocks_change_exactly_what_the_guide_unfreezes(tmp_path):
    """The last blocks (of the decoder attention and MLP alone) and the rows of the domains' tokens; weight decay on."""
    architecture = tiny()
    before = parameters(architecture)
    trainer = fit(architecture, tmp_path, 3, mode="blocks")
    after = parameters(architecture)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    kinds = ("self_attn", "encoder_attn", "fc1", "fc2")
    wanted = {
        name
        for name in before
        if name.startswith("model.encoder.layers.1.")
        or any(name.startswith(f"model.decoder.layers.1.{kind}.") for kind in kinds)
    }
    # The softmax over keys is blind to what is added to all of them: no gradient ever reaches such a bias.
    assert changed - {"model.decoder.embed_tokens.weight"} == wanted
    table = "model.decoder.embed_tokens.weight"
    rows = (before[table] != after[table]).any(dim=1).nonzero().flatten().tolist()
    assert rows == ids(architecture, *(f"<|domain:{name}|>" for name in DOMAINS))
    assert trainer.bare_model.proj_out.weight is trainer.bare_model.model.decoder.embed_tokens.weight


def test_the_table_counts_rows_that_learn():
    architecture = tiny()
    model, plan = trainable.apply(architecture, mode="blocks")
    rows = {row.what: row for row in trainable.table(model, plan)}
    name = "model.decoder.embed_tokens.weight"
    size, width = architecture.model.proj_out.weight.shape
    assert rows[f"trainable: 2 of {size:,} rows of {name}"].parameters == 2 * width
    assert rows[f"frozen: the other rows of {name}"].parameters == (size - 2) * width
    assert sum(row.parameters for what, row in rows.items() if what != "total") == rows["total"].parameters


def test_adapters_go_to_the_same_blocks_and_the_tokens_learn_beside_them(tmp_path):
    pytest.importorskip("peft")
    architecture = tiny()
    before = parameters(architecture)
    trainer = fit(architecture, tmp_path, 3, mode="lora", rate=1e-2)
    merged = trainable.merge(trainer.bare_model)
    after = dict(merged.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    table = "model.decoder.embed_tokens.weight"
    assert changed and all(".layers.1." in name for name in changed - {table})
    rows = (before[table] != after[table]).any(dim=1).nonzero().flatten().tolist()
    assert rows == ids(architecture, *(f"<|domain:{name}|>" for name in DOMAINS))
    assert merged.proj_out.weight is merged.model.decoder.embed_tokens.weight, "trap 5: still tied"


# Folders


def test_the_folder_is_stock_whispers_and_ours(tmp_path):
    architecture = tiny()
    architecture.model.save_pretrained(tmp_path)
    architecture.processor.save_pretrained(tmp_path)
    again = load_trained(tmp_path)
    assert again.model_type == "domain_whisper"
    row = spoken("u", "dyslexic")
    np.testing.assert_array_equal(
        again.architecture.encode(row, noise(1.0))["labels"]["transcribe"],
        architecture.encode(row, noise(1.0))["labels"]["transcribe"],
    )
    stock, processor = (
        AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path),
        AutoProcessor.from_pretrained(tmp_path),
    )
    assert type(stock).__name__ == "WhisperForConditionalGeneration"
    start = [
        *processor.tokenizer.convert_tokens_to_ids(["<|startoftranscript|>"]),
        *prompt(architecture, "dyslexic"),
    ]
    sound = processor(noise(1.0), sampling_rate=16000, return_tensors="pt").input_features
    said = stock.generate(sound, decoder_input_ids=torch.tensor([start]), max_new_tokens=6, num_beams=1)
    full = DataCollatorSpeechSeq2SeqDomain(tasks=("transcribe",), start_id=start[0], pad_id=0, context="full")
    batch = full([architecture.encode(row, noise(1.0))])
    ours = architecture.generate(batch, max_new_tokens=6, num_beams=1)["transcribe"][0]
    tail = said[0].tolist()[-len(ours) :]
    assert tail == ours.tolist()
    assert not set(tail) & set(ids(architecture, *(f"<|domain:{name}|>" for name in DOMAINS)))


def test_the_snippets_of_the_docs_transcribe_without_us(tmp_path):
    """Stock transformers alone: what we hear at 30 s; then on a trimmed context, which is not compared."""
    architecture = tiny()
    architecture.model.save_pretrained(tmp_path / "run")
    architecture.processor.save_pretrained(tmp_path / "run")
    soundfile.write(tmp_path / "clip.wav", noise(1.0), 16000, subtype="FLOAT")
    page = (ROOT / "docs" / "domains.md").read_text(encoding="utf8")
    snippet = "".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    for theirs, ours in (("outputs/demo_domain_whisper", "run"), ("|ko|", "|vi|"), ('"ko"', '"vi"')):
        assert theirs in snippet
        snippet = snippet.replace(theirs, ours)
    snippet += "import sys; assert 'training' not in sys.modules and len(ids) == 1 and count == 75"
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    row = architecture.encode(spoken("u", "dyslexic"), noise(1.0))
    batch = replace(architecture.collate, context="full")([row])
    ours = architecture.generate(batch, num_beams=1)["transcribe"][0]
    assert done.stdout == f"{architecture.text(ours)}\n"
