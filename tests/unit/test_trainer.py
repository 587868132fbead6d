"""The trainer: losses that mean the same however batches are cut, resume, checkpoints, stops."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_assets import LENGTHS, InMemory, losses, make_trainer, weights
from transformers import Seq2SeqTrainer
from whisper_assets import TRANSCRIPT, TRANSLATION, tiny

from training.base.errors import Lines, UserError, handled
from training.config.arguments import training_arguments
from training.config.load import config_from
from training.data.batch_policy import BatchPolicy, longest_first
from training.data.sampler import DurationBatchSampler, EpochBatches, FullContextBatch, Supervised, filler
from training.decoding.predict import predict
from training.engine import checkpoint
from training.engine import freezing as trainable
from training.engine.trainer import NotFiniteError
from training.evaluation.evaluate import evaluate
from training.models.architecture import DecodeOptions

durations = st.lists(st.floats(0.1, 30), min_size=4, max_size=80)


@given(
    durations,
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from([None, 10.0, 60.0]),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_every_utterance_once_per_epoch_over_all_ranks(seconds, world, epoch, max_seconds, rows, share):
    per_rank = []
    for rank in range(world):
        sampler = DurationBatchSampler(
            seconds,
            max_seconds=max_seconds,
            batch_size=rows,
            full_share=share,
            full_rows=3,
            rank=rank,
            world=world,
        )
        sampler.set_epoch(epoch)
        per_rank.append(list(sampler))
        assert len(per_rank[-1]) == len(sampler)
    flat = [i for batches in per_rank for batch in batches for i in batch if i >= 0]
    assert sorted(flat) == list(range(len(seconds)))
    fillers = [i for batches in per_rank for batch in batches for i in batch if i < 0]
    assert len(fillers) < world


@given(durations, st.floats(1, 60))
@settings(max_examples=60, deadline=None)
def test_padded_length_of_a_batch_stays_under_the_bound(seconds, bound):
    for batch in DurationBatchSampler(seconds, max_seconds=bound):
        assert len(batch) == 1 or len(batch) * max(seconds[i] for i in batch) <= bound + 1e-6
    for batch in longest_first(seconds, bound):
        assert len(batch) == 1 or len(batch) * max(seconds[i] for i in batch) <= bound + 1e-6


def test_epochs_are_shuffled_and_repeatable():
    sampler = DurationBatchSampler(np.linspace(1, 10, 50), batch_size=4, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_clips_of_a_batch_are_alike_and_share_it_with_others_in_the_next_epoch():
    seconds = np.random.default_rng(0).lognormal(1.0, 0.6, 2000).clip(0.3, 30)
    sampler = DurationBatchSampler(seconds, max_seconds=60.0, seed=1)

    def padded(batches):
        return 1 - seconds.sum() / sum(len(batch) * seconds[batch].max() for batch in batches)

    epochs = [sampler.batches(epoch) for epoch in range(2)]
    assert all(padded(batches) < 0.05 for batches in epochs)
    assert len(epochs[0]) == len(epochs[1])
    partners = [
        {frozenset(pair) for b in batches for pair in itertools.combinations(b, 2)} for batches in epochs
    ]
    assert len(partners[0] & partners[1]) < 0.3 * len(partners[0])


def test_the_set_share_of_clips_comes_in_small_batches_at_the_whole_context_drawn_anew_each_epoch():
    seconds = np.linspace(0.5, 9, 400)
    policy = BatchPolicy(max_seconds=30.0, full_share=0.1)
    sampler = DurationBatchSampler(seconds, seed=3, **policy.bounds())
    found = []
    for epoch in range(2):
        full = [batch for batch in sampler.batches(epoch) if isinstance(batch, FullContextBatch)]
        assert [len(batch) for batch in full] == [4] * 10, (
            "not 15 clips of 2 s, which are as many seconds unpadded"
        )
        found.append({clip for batch in full for clip in batch})
        assert np.mean(seconds[list(found[-1])]) == pytest.approx(seconds.mean(), rel=0.2), "of all lengths"
    assert len(found[0] & found[1]) < 20
    assert sampler.batches(0) == sampler.batches(0)


@pytest.mark.parametrize(
    ("limits", "rows"),
    [
        ({"max_seconds": 30.0}, 4),
        ({"max_seconds": 320.0}, 10),
        ({"max_seconds": 30.0, "batch_size": 1}, 1),
        ({"batch_size": 8}, 8),
    ],
)
def test_a_batch_at_the_whole_context_holds_what_its_padded_seconds_allow(limits, rows):
    assert BatchPolicy(**limits).full_rows == rows


def test_of_few_clips_one_still_comes_at_the_whole_context():
    sampler = DurationBatchSampler([1.0, 2.0, 3.0], batch_size=2, full_share=0.02)
    full = [batch for batch in sampler.batches() if isinstance(batch, FullContextBatch)]
    assert full == [[2]] and len(sampler) == len(sampler.batches())


def test_marked_batches_reach_the_collator_through_the_loader():
    architecture = tiny(full_context_share=0.5)
    rows = InMemory(architecture)
    sampler = EpochBatches(DurationBatchSampler(rows.durations, batch_size=2, full_share=0.5, full_rows=2))
    lengths = {}
    for batch in sampler:
        made = architecture.train_collate([Supervised(rows)[item] for item in batch])
        lengths |= dict.fromkeys(made["ids"], made["input_features"].shape[-1])
    assert list(lengths.values()).count(3000) == (len(rows) + 1) // 2
    assert max(frames for frames in lengths.values() if frames != 3000) < 1000


def test_a_filler_supervises_nothing():
    architecture = tiny()
    rows = Supervised(InMemory(architecture))
    batch = architecture.collate([rows[filler(2)]])
    assert batch["ids"] == ["u2"]
    assert (batch["labels"] == -100).all()


# Trap 7.
def test_accumulating_one_by_four_is_four_by_one(tmp_path):
    """Different numbers of tokens per utterance: a mean of batch means would differ."""
    seconds = (1.0, 1.0, 1.0, 1.0)
    whole = make_trainer(tmp_path / "a", batch_size=4, steps=3, lengths=seconds)
    whole.train()
    parts = make_trainer(tmp_path / "b", batch_size=1, accumulation=4, steps=3, lengths=seconds)
    parts.train()
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=2e-5)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, rtol=1e-3, atol=1e-5)


# Trap 22.
def test_the_trainer_holds_the_processor(tmp_path):
    trainer = make_trainer(tmp_path)
    assert trainer.processing_class is trainer.architecture.processor


# Trap 27.
def test_checkpointing_below_frozen_parts_loses_no_gradient(tmp_path):
    """The encoder's first layer gets an input without a gradient: re-entrant checkpoints stop there."""
    settings = training_arguments(config_from({"training": {"gradient_checkpointing": True}}))
    chosen = {name: settings[name] for name in settings if name.startswith("activation_checkpointing")}
    trained = []
    for arguments in ({}, chosen):
        torch.manual_seed(0)
        architecture = tiny(encoder_context="full")
        start = {name: value.detach().clone() for name, value in architecture.model.named_parameters()}
        trainable.apply(architecture, freeze_feature_encoder=True)
        trainer = make_trainer(tmp_path, steps=2, architecture=architecture, **arguments)
        trainer.train()
        trained.append(weights(trainer))
    assert architecture.model.is_gradient_checkpointing
    name = "model.encoder.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(trained[1][name], start[name])
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, rtol=1e-4, atol=1e-6)


def test_golden_losses_of_four_steps(tmp_path):
    """The first loss is near that of a uniform guess; all four are what they were when this was written."""
    trainer = make_trainer(tmp_path)
    trainer.train()
    guess = math.log(trainer.model.config.vocab_size)
    assert losses(trainer)[0] == pytest.approx(guess, rel=0.05)
    assert losses(trainer) == pytest.approx([6.0353789, 5.8639622, 5.7831836, 5.7429976], rel=1e-3)


@pytest.mark.parametrize("steps", [3, 4])
def test_a_run_that_has_had_its_steps_is_not_trained_again(tmp_path, steps):
    """The steps end within an epoch: transformers would take one more."""
    whole = make_trainer(tmp_path / "whole", steps=steps, save_strategy="steps", save_steps=steps)
    whole.train()
    again = make_trainer(tmp_path / "whole", steps=steps, save_strategy="steps", save_steps=steps)
    output = again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{steps}"))
    assert output.global_step == again.state.global_step == steps
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name


@pytest.mark.parametrize("stop", [2, 3, 4, 5])
def test_resumed_losses_and_weights_are_bit_equal(tmp_path, stop):
    """With dropout, so that the generators matter; stops inside an epoch, at its end and after it."""
    options = {"steps": 8, "dropout": 0.2, "save_strategy": "steps", "save_steps": 1}
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    again = make_trainer(tmp_path / "whole", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{stop}"))
    assert losses(again) == losses(whole)
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name


@pytest.mark.parametrize("share", [0.4, 0.5])
def test_the_end_of_a_run_is_scored_and_can_be_the_best(tmp_path, share):
    """Neither share divides the five steps: what comes behind the last evaluation is scored at the end."""
    steps = {"eval_steps": share, "save_steps": share, "eval_strategy": "steps", "save_strategy": "steps"}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    trainer = make_trainer(tmp_path, steps=5, **steps, **best)
    trainer.train()
    scored = {row["step"]: row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row}
    assert list(scored) == ([2, 4, 5] if share == 0.4 else [3, 5])
    assert min(scored, key=lambda step: scored[step]) == 5
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-5")


def test_of_evaluations_with_one_score_that_with_the_lowest_loss_is_the_best(tmp_path):
    """All hypotheses of a young model are empty: its word error rate stays at 100 %."""
    steps = {"eval_steps": 1, "save_steps": 1, "eval_strategy": "steps", "save_strategy": "steps"}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_wer", "greater_is_better": False}
    trainer = make_trainer(tmp_path, steps=3, **steps, **best)
    trainer.score = lambda *_: {"wer": 100.0}
    trainer.train()
    scored = {row["step"]: row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row}
    assert trainer.state.best_global_step == min(scored, key=lambda step: scored[step]) == 3
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")


# Trap 28.
def test_checkpoints_hold_no_pickles(tmp_path):
    trainer = make_trainer(tmp_path, steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    suffixes = {path.suffix for path in (tmp_path / "checkpoint-1").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors"}


class Trace:
    """A pickle that leaves a file behind when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


# Trap 28.
def test_no_pickle_beside_a_checkpoint_is_loaded(tmp_path):
    options = {"steps": 2, "save_strategy": "steps", "save_steps": 1}
    whole = make_trainer(tmp_path, **options)
    whole.train()
    names = ("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_0.pth")
    for name in (*names, "training_args.bin", "pytorch_model.bin"):
        (tmp_path / "checkpoint-1" / name).write_bytes(pickle.dumps(Trace(tmp_path / name)))
    again = make_trainer(tmp_path, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []
    assert losses(again) == losses(whole)


def test_half_written_checkpoints_are_passed_over_with_the_reason(tmp_path):
    trainer = make_trainer(tmp_path, steps=4, save_strategy="steps", save_steps=1)
    trainer.train()
    (tmp_path / "checkpoint-4" / checkpoint.MARKER).unlink()
    model = tmp_path / "checkpoint-3" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-100])
    (tmp_path / "checkpoint-2" / "optimizer.safetensors").unlink()
    said: list[str] = []
    with handled(Lines(lambda record, text: said.append(text))):
        found = checkpoint.latest(tmp_path)
    assert found == tmp_path / "checkpoint-1"
    assert "stopped while writing it" in said[0] and "checkpoint-4" in said[0]
    assert "model.safetensors has" in said[1]
    assert "optimizer.safetensors is missing" in said[2]
    with pytest.raises(UserError, match="not a whole checkpoint"):
        checkpoint.find(tmp_path, str(tmp_path / "checkpoint-3"))
    with pytest.raises(UserError, match="no such folder; the run has checkpoint-1"):
        checkpoint.find(tmp_path, str(tmp_path / "nowhere"))


def test_the_older_checkpoint_is_deleted_only_when_the_new_one_is_whole(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, steps=2, save_strategy="steps", save_steps=1, save_total_limit=1)
    seen = []
    monkeypatch.setattr(
        checkpoint,
        "mark_complete",
        lambda folder, mark=checkpoint.mark_complete: (
            seen.append(sorted(p.name for p in tmp_path.glob("checkpoint-*"))),
            mark(folder),
        ),
    )
    trainer.train()
    assert seen == [["checkpoint-1"], ["checkpoint-1", "checkpoint-2"]]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_a_loss_that_is_not_finite_names_the_utterances(tmp_path):
    trainer = make_trainer(tmp_path, steps=8, batch_size=1)
    trainer.train_dataset.rows[3]["input_features"] = trainer.train_dataset.rows[3]["input_features"] * float(
        "nan"
    )
    with pytest.raises(NotFiniteError, match=r"utterances u3;"):
        trainer.train()


def test_evaluation_is_keyed_by_id_and_leaves_the_random_draws_alone(tmp_path):
    trainer = make_trainer(tmp_path)
    before = torch.get_rng_state()
    metrics = trainer.evaluate()
    assert torch.equal(torch.get_rng_state(), before)
    assert {"eval_loss", "eval_wer", "eval_cer", "eval_bleu", "eval_chrf"} <= metrics.keys()
    assert [row.example.id for row in trainer.last_predictions] == [f"u{i}" for i in range(len(LENGTHS))]
    assert set(trainer.last_predictions[0].hypotheses) == {"transcribe", "translate"}


def test_hypotheses_do_not_depend_on_the_batch_in_full_context(tmp_path):
    architecture = tiny(encoder_context="full")
    dataset = InMemory(architecture)
    together = predict(architecture, dataset, batch_seconds=60.0, options=DecodeOptions(max_new_tokens=8))
    alone = predict(architecture, dataset, batch_seconds=0.1, options=DecodeOptions(max_new_tokens=8))
    texts = [[(h.id, h.task, h.text) for h in result.hypotheses] for result in (together, alone)]
    assert texts[0] == texts[1]
    assert together.loss == pytest.approx(alone.loss, rel=1e-5)


# Trap 19.
def test_ignored_labels_never_reach_decode():
    """What is decoded is what was generated, id by id: a -100 made 0 on the way would read as "!"."""
    architecture = tiny(encoder_context="full")
    dataset = InMemory(architecture)
    generated: list[list[int]] = []
    decoded: list[list[int]] = []

    class Watched(type(architecture)):
        def generate(self, *args, **options):
            said = super().generate(*args, **options)
            generated.extend(row for ids in said.values() for row in ids.tolist())
            return said

        def text(self, ids):
            decoded.append(list(ids))
            return super().text(ids)

    watched = Watched(
        **{one.name: getattr(architecture, one.name) for one in dataclasses.fields(architecture)}
    )
    result = predict(watched, dataset, options=DecodeOptions(max_new_tokens=6), batch_seconds=4.0)
    assert min(min(ids) for ids in decoded) >= 0
    assert decoded == generated
    assert [row.id for row in result.examples] == [row.id for row in dataset.manifest]


def test_rows_without_a_language_are_scored_in_the_models():
    """An annotation system exports no such column: normalisation, tags and replaced words need the language."""
    architecture = tiny(encoder_context="full")
    dataset = InMemory(architecture)
    dataset.manifest = [
        dataclasses.replace(row, language=None, target_language=None, word_languages=())
        for row in dataset.manifest
    ]
    whole = {"transcribe": TRANSCRIPT, "translate": TRANSLATION}
    dataset.manifest[0] = dataclasses.replace(dataset.manifest[0], texts=whole)
    dataset.manifest[1] = dataclasses.replace(dataset.manifest[1], language="en")
    result = predict(architecture, dataset, options=DecodeOptions(max_new_tokens=4))
    spoken = [(row.language, row.target_language) for row in result.examples]
    assert spoken == [("en", "vi") if i == 1 else ("vi", "vi") for i in range(len(LENGTHS))]
    report = evaluate(result.examples, result.hypotheses, meta={}, resamples=50).report
    assert set(report["normalisation"]["transcribe"]) == {"vi", "en"}
    assert report["word_languages"] is not None
    assert report["translation"]["words_replaced"] is not None


def test_two_ranks_see_what_one_sees():
    architecture = tiny(encoder_context="full")
    dataset = InMemory(architecture)
    whole = predict(architecture, dataset, options=DecodeOptions(max_new_tokens=4), batch_seconds=2.0)
    parts = [
        predict(
            architecture,
            dataset,
            options=DecodeOptions(max_new_tokens=4),
            batch_seconds=2.0,
            rank=rank,
            world=2,
        )
        for rank in range(2)
    ]
    rows = sorted((row for part in parts for row in part.predictions), key=lambda row: row.row)
    assert [row.example.id for row in rows] == [row.example.id for row in whole.predictions]
    assert sum(part.items for part in parts) == whole.items


def test_speed_and_history_are_in_the_log(tmp_path):
    trainer = make_trainer(tmp_path, steps=2)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert all(row["audio_hours_per_second"] > 0 and row["learning_rate"] >= 0 for row in rows)
    batches = list(DurationBatchSampler(LENGTHS, batch_size=2, seed=1))[:2]
    assert trainer.audio_seconds == pytest.approx(sum(LENGTHS[i] for batch in batches for i in batch))


def test_scheduler_and_optimizer_survive_as_json_and_safetensors(tmp_path):
    trainer = make_trainer(tmp_path, steps=2, save_strategy="steps", save_steps=2)
    trainer.train()
    folder = Path(tmp_path / "checkpoint-2")
    before = trainer.optimizer.state_dict()
    checkpoint.load_optimizer(trainer.optimizer, folder)
    after = trainer.optimizer.state_dict()
    assert json.loads((folder / checkpoint.SCHEDULER).read_text())["last_epoch"] == 2
    for index, entries in before["state"].items():
        for name, value in entries.items():
            assert torch.equal(after["state"][index][name], value)


@pytest.mark.parametrize("gpus", [1, 2])
def test_supervised_tokens_are_counted_as_transformers_counts_them(tmp_path, monkeypatch, gpus):
    """With several GPUs in one process, `DataParallel` gives each a row: the count must have as many."""
    trainer = make_trainer(tmp_path)
    monkeypatch.setattr(trainer.args, "_n_gpu", gpus)
    batches = [trainer.data_collator([trainer.train_dataset[i] for i in rows]) for rows in ((0, 1), (2,))]
    device = torch.device("cpu")
    ours = trainer._get_num_items_in_batch(batches, device)
    theirs = Seq2SeqTrainer._get_num_items_in_batch(trainer, batches, device)
    assert ours.shape == theirs.shape and torch.equal(ours, theirs.to(ours.dtype))
