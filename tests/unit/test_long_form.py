"""Training for recordings of any length: joined neighbours, times in the labels, the text before in the prompt."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ctc_assets import tiny as tiny_ctc
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_files import manifest, sound
from torch.utils.data import DataLoader
from whisper_assets import SIZES, example, noise, tiny

from training.base.errors import UserError
from training.config.load import config_from
from training.data.augment import Moved, make_augment
from training.data.dataset import SpeechDataset
from training.data.example import AudioRef, Example, Segment, Word
from training.data.long_form import LongForm, Part, placed, segments
from training.data.manifest import load_manifest
from training.data.options import Augmentation
from training.data.recordings import before, sequences
from training.data.sampler import CUTS, EpochBatches, NeighbourBatches, Neighbours, Supervised, parted
from training.engine import long_form, run
from training.engine.fit import fit
from training.models.architecture import BuildContext
from training.models.domain_whisper.build import DomainWhisper
from training.models.domain_whisper.config import Options as DomainOptions
from training.models.lookup import load
from training.planning import worst_case

RATE = 16_000
OFF = -100
BLOCKS = {"encoder_blocks": 1, "decoder_blocks": 1}
TEXTS = ("mot hai", "ba bon nam", "sau", "bay tam", "chin muoi")


def timed(task: str = "transcribe", module: str = "whisper", **options: Any) -> Any:
    """A tiny Whisper whose vocabulary has OpenAI's timestamps, which one of its own never has."""
    chosen = {"sizes": SIZES, "max_label_tokens": 64, "task": task, **options}
    build = load(module)
    architecture = build.build(
        build.Options(**chosen),
        BuildContext(texts=lambda: iter([(t, "vi", " ".join(TEXTS)) for t in ("transcribe",)] * 3)),
    )
    times = [f"<|{n * 0.02:.2f}|>" for n in range(1501)]
    architecture.processor.tokenizer.add_tokens(times)
    return architecture


def ids(architecture: Any, *tokens: str) -> list[int]:
    return architecture.processor.tokenizer.convert_tokens_to_ids(list(tokens))


def text(architecture: Any, words: str) -> list[int]:
    return architecture.processor.tokenizer(f" {words}", add_special_tokens=False).input_ids


# Whole tensors


def test_whole_tensors_of_times_and_previous_text_beside_a_plain_row() -> None:
    made = timed()
    start, prev, vi, task, plain, end = ids(
        made,
        "<|startoftranscript|>",
        "<|startofprev|>",
        "<|vi|>",
        "<|transcribe|>",
        "<|notimestamps|>",
        "<|endoftext|>",
    )
    t0, t1, t2, t3 = ids(made, "<|0.00|>", "<|0.52|>", "<|0.70|>", "<|1.50|>")
    one, two, old = text(made, "mot hai"), text(made, "ba"), text(made, "chin muoi")
    both = replace(
        example("a", 1.5, transcribe="mot hai ba"),
        segments={
            "transcribe": (
                Segment(text="mot hai", start=0.0, end=0.511),
                Segment(text="ba", start=0.7, end=1.5),
            )
        },
        previous={"transcribe": "chin muoi"},
    )
    rows = [made.encode(both, noise(1.5)), made.encode(example("b", 1.0, transcribe="ba"), noise(1.0))]
    batch = made.train_collate(rows)
    marked = [t0, *one, t1, t2, *two, t3]
    width = len(old) + 4 + len(marked)
    assert batch["decoder_input_ids"].tolist() == [
        [[prev, *old, start, vi, task, *marked]],
        [[start, vi, task, plain, *two, *[end] * (width - 4 - len(two))]],
    ]
    assert batch["labels"].tolist() == [
        [[OFF] * (len(old) + 3) + [*marked, end]],
        [[OFF] * 3 + [*two, end] + [OFF] * (width - 4 - len(two))],
    ]
    assert "prompt_length" not in batch
    with pytest.raises(ValueError, match="prompts of different lengths"):
        made.collate(rows)


def test_the_translation_has_its_own_times_and_previous_text() -> None:
    made = timed("both")
    row = replace(
        example("a", 1.0, transcribe="mot", translate="hai ba"),
        segments={
            t: (Segment(text=x, start=0.1, end=1.0),)
            for t, x in (("transcribe", "mot"), ("translate", "hai ba"))
        },
        previous={"transcribe": "bon", "translate": "nam sau"},
    )
    batch = made.train_collate([made.encode(row, noise(1.0))])
    start, prev, vi, asr, st_, end, t1, t2 = ids(
        made, "<|startoftranscript|>", "<|startofprev|>", "<|vi|>", "<|transcribe|>", "<|translate|>", "<|endoftext|>",
        "<|0.10|>", "<|1.00|>",
    )  # fmt: skip
    for number, (task, spoken, old) in enumerate(((asr, "mot", "bon"), (st_, "hai ba", "nam sau"))):
        head, body = [prev, *text(made, old), start, vi, task], [t1, *text(made, spoken), t2]
        found = batch["decoder_input_ids"][0, number].tolist()
        assert found[: len(head) + len(body)] == [*head, *body]
        labels = [i for i in batch["labels"][0, number].tolist() if i != OFF]
        assert labels == [*body, end]
        assert batch["labels"][0, number, len(head) - 1].item() == t1, (
            "the first label follows the task token"
        )


def test_a_domain_is_learnt_behind_a_previous_text_too() -> None:
    made = timed(module="domain_whisper", language="vi", domain="normal", unfreeze=BLOCKS)
    plain = replace(example("a", 1.0, transcribe="mot"), domain="dyslexic")
    long = replace(
        plain,
        segments={"transcribe": (Segment(text="mot", start=0.0, end=1.0),)},
        previous={"transcribe": "ba bon"},
    )
    batch = made.train_collate([made.encode(one, noise(1.0)) for one in (long, plain)])
    start, prev, vi, task, domain, off, end, t0, t1 = ids(
        made, "<|startoftranscript|>", "<|startofprev|>", "<|vi|>", "<|transcribe|>", "<|domain:dyslexic|>",
        "<|notimestamps|>", "<|endoftext|>", "<|0.00|>", "<|1.00|>",
    )  # fmt: skip
    old, mot = text(made, "ba bon"), text(made, "mot")
    assert batch["decoder_input_ids"][0, 0].tolist() == [prev, *old, start, vi, task, domain, t0, *mot, t1]
    assert batch["labels"][0, 0].tolist() == [OFF] * (len(old) + 3) + [domain, t0, *mot, t1, end]
    assert batch["labels"][1, 0, :5].tolist() == [OFF, OFF, domain, OFF, mot[0]]
    assert batch["decoder_input_ids"][1, 0, :5].tolist() == [start, vi, task, domain, off]


def test_previous_text_gives_way_to_the_labels_and_times_to_a_long_text() -> None:
    made = timed(max_label_tokens=32)
    long = " ".join(["mot hai ba bon"] * 12)
    labels = made.encode.labels(example("a", 1.0, transcribe="mot"), "transcribe")
    row = replace(example("a", 1.0, transcribe="mot"), previous={"transcribe": long})
    kept = made.encode.targets(row, RATE)["before"]["transcribe"]
    assert kept == [*ids(made, "<|startofprev|>"), *text(made, long)[-(32 - len(labels) - 2) :]]
    assert len(kept) + len(labels) + 1 == 32
    words = next(
        " ".join(["mot"] * n) for n in range(40, 0, -1) if len(text(made, " ".join(["mot"] * n))) <= 32 - 5
    )
    tight = replace(
        example("t", 1.0, transcribe=words),
        segments={"transcribe": (Segment(text=words, start=0.0, end=1.0),)},
    )
    plain = made.encode.targets(replace(tight, segments={}), RATE)
    assert len(plain["labels"]["transcribe"]) + 1 == 32 and made.encode.targets(tight, RATE) == plain


def test_whisper_takes_no_more_than_223_tokens_of_previous_text() -> None:
    made = timed(max_label_tokens=448)
    row = replace(example("a", 1.0, transcribe="mot"), previous={"transcribe": "mot hai ba bon " * 200})
    assert len(made.encode.targets(row, RATE)["before"]["transcribe"]) == 224


def test_the_loss_of_mixed_rows_is_that_of_each_alone() -> None:
    """Also that what stands before the text is not trained on."""
    made = timed()
    made.model.resize_token_embeddings(len(made.processor.tokenizer))
    made.model.eval()
    timed_row = replace(
        example("a", 1.0, transcribe="mot hai"),
        segments={"transcribe": (Segment(text="mot hai", start=0.0, end=1.0),)},
        previous={"transcribe": "chin"},
    )
    rows = [made.encode(one, noise(1.0)) for one in (timed_row, example("b", 1.0, transcribe="ba"))]
    with torch.no_grad():
        whole = made.loss(made.train_collate(rows), items=1).loss
        alone = sum(made.loss(made.train_collate([row]), items=1).loss for row in rows)
    torch.testing.assert_close(whole, alone)


# Times


def test_words_are_parted_at_pauses_and_a_clip_without_words_is_one_segment() -> None:
    words = tuple(
        Word(text=w, start=s, end=e) for w, s, e in (("mot", 0.2, 0.4), ("hai", 0.5, 0.8), ("ba", 1.4, 3.0))
    )
    row = replace(example("a", 2.0, transcribe="mot hai ba", translate="one two three"), words=words)
    assert segments(row, 2.0) == {
        "transcribe": (Segment(text="mot hai", start=0.2, end=0.8), Segment(text="ba", start=1.4, end=2.0)),
        "translate": (Segment(text="one two three", start=0.2, end=2.0),),
    }
    assert segments(example("b", 2.0, transcribe="x"), 1.9) == {
        "transcribe": (Segment(text="x", start=0.0, end=1.9),)
    }


def test_times_follow_speed_shift_and_the_place_in_a_joined_sample() -> None:
    one, two = example("a", 1.0, transcribe="mot"), example("b", 2.0, transcribe="hai")
    found = placed([Part(one, 1.0, Moved(scale=2.0, lead=0.1), 0.0), Part(two, 2.0, Moved(lead=0.5), 3.0)])
    assert found == {
        "transcribe": (Segment(text="mot", start=0.1, end=2.1), Segment(text="hai", start=3.5, end=5.5))
    }


def test_augmentation_says_where_the_speech_has_moved() -> None:
    changes = Augmentation(speed={"prob": 1.0, "low": 0.8, "high": 0.8}, shift={"prob": 1.0, "seconds": 0.5})
    augment = make_augment(changes, sample_rate=RATE, seed=0, spectrogram=False)
    assert augment is not None
    clip = np.ones(RATE, np.float32)
    changed, moved = augment.moved(clip, augment.generator(0, 0))
    spoken = np.flatnonzero(np.abs(changed) > 0.5)
    assert moved.scale == pytest.approx(1.25, abs=1e-3)
    assert spoken[0] / RATE == pytest.approx(moved.lead, abs=0.01)
    assert spoken[-1] / RATE == pytest.approx(moved.lead + moved.scale, abs=0.01)


# Recordings


def table(folder: Path, rows: list[dict[str, Any]]) -> Any:
    common = {"audio_path": "a.wav", "duration": 1.0, "transcript": "x"}
    return load_manifest(
        manifest(folder / "m.tsv", [{**common, "id": str(n), **row} for n, row in enumerate(rows)])
    )


def test_rows_of_a_recording_follow_each_other_by_position_start_or_row(tmp_path: Path) -> None:
    talks = [{"talk": t, "audio_path": f"{i}.wav"} for i, t in enumerate("abaab")]
    assert sequences(table(tmp_path, talks)) == [[0, 2, 3], [1, 4]]
    places = [{**row, "position": p} for row, p in zip(talks, (3, 1, 2, 1, 0), strict=True)]
    assert sequences(table(tmp_path, places)) == [[3, 2, 0], [4, 1]]
    stretches = [{"start": s, "end": s + 1} for s in (4, 0, 2)]
    assert sequences(table(tmp_path, stretches)) == [[1, 2, 0]]
    assert sequences(table(tmp_path, [{}, {}])) == []
    assert before(5, [[0, 2, 3], [1, 4]]).tolist() == [-1, -1, 0, 2, 1]


def test_neighbours_of_another_language_domain_or_choice_of_texts_are_not_one_sample(tmp_path: Path) -> None:
    rows = [
        {"talk": "a", "language": c, "translation": t}
        for c, t in (("ko", "x"), ("ko", "x"), ("en", "x"), ("en", ""))
    ]
    assert sequences(table(tmp_path, rows)) == [[0, 1], [2], [3]]
    with pytest.raises(
        UserError, match=r"m\.tsv:3: position: '' is no number|m\.tsv:3: position: None is no number"
    ):
        sequences(table(tmp_path, [{"talk": "a", "position": 1}, {"talk": "a", "position": ""}]))


# Joining


def neighbours(count: int, seconds: float = 1.0, **more: Any) -> Neighbours:
    half = count // 2
    chosen: dict[str, Any] = {
        "prob": 0.5, "most": 6, "longest": 8.0, "seed": 1, "pause": 0.2, "most_tokens": 1000,
        "sequences": [list(range(half)), list(range(half, count))], "tokens": np.full(count, 10),
    }  # fmt: skip
    return Neighbours(**{**chosen, **more})


@given(
    st.lists(st.floats(0.3, 7.0), min_size=6, max_size=60),
    st.integers(1, 3),
    st.floats(0.0, 1.0),
    st.sampled_from(
        [
            {"batch_size": 1},
            {"batch_size": 4},
            {"max_seconds": 12.0},
            {"max_seconds": 12.0, "full_share": 0.3, "full_rows": 2},
        ]
    ),
)
@settings(max_examples=60, deadline=None)
def test_every_clip_comes_once_in_every_epoch_in_as_many_batches(seconds, world, prob, limits):
    joining = neighbours(len(seconds), prob=prob)
    counts = set()
    for epoch in range(CUTS + 1):
        found: list[int] = []
        for rank in range(world):
            sampler = NeighbourBatches(seconds, joining=joining, seed=1, rank=rank, world=world, **limits)
            sampler.set_epoch(epoch)
            batches = list(EpochBatches(sampler))
            counts.add(len(batches))
            assert len(batches) == len(sampler)
            for batch in batches:
                assert len(batch[0]) == 2 or len(batch) <= 2
                for unit, *_ in batch:
                    rows = unit if isinstance(unit, tuple) else (unit,)
                    found += [row for row in rows if row >= 0]
                    assert list(rows) == list(range(rows[0], rows[0] + len(rows))), "neighbours, in order"
                    assert len(rows) == 1 or sum(seconds[row] + 0.2 for row in rows) - 0.2 <= 8.0 + 1e-6
        assert sorted(found) == list(range(len(seconds)))
    assert len(counts) == 1


def test_the_share_of_joined_clips_is_the_asked_one_and_tokens_bound_a_sample() -> None:
    joining = neighbours(4000, prob=0.5)
    units = joining.units(np.ones(4000), 0)
    share = sum(len(unit) for unit in units if isinstance(unit, tuple)) / 4000
    assert 0.45 < share < 0.55
    assert joining.units(np.ones(4000), 1) != units == joining.units(np.ones(4000), 0)
    few = neighbours(100, prob=1.0, most_tokens=20).units(np.ones(100), 0)
    assert {len(unit) for unit in few if isinstance(unit, tuple)} == {2}


def test_batches_are_parted_where_most_utterances_are_and_joined_ones_last() -> None:
    assert parted([[1, 2, 3, 4], [5]], 3) == [[1, 2], [3, 4], [5]]
    assert parted([[(1, 2, 3)], [4]], 4) == [[1], [2], [3], [4]]


def test_the_planned_batch_is_at_least_as_heavy_as_any_that_is_drawn() -> None:
    config = config_from({"model": {"type": "whisper", "sizes": SIZES}, "training": {"batch_size": 4}})
    seconds, joining = np.full(60, 1.5), neighbours(60, prob=0.7)
    sampler = worst_case.make_sampler(config, seconds, joining)
    drawn = [
        (len(batch), max(seconds[list(u) if isinstance(u, tuple) else [u]].sum() for u in batch))
        for epoch in range(CUTS)
        for batch in sampler.batches(epoch)
    ]
    rows, longest = worst_case.heaviest(config, seconds, joining=joining)
    assert longest > 4.0 and rows * longest >= max(n * s for n, s in drawn)


# Drawing


def clips(folder: Path, times: Mapping[int, str] | None = None, **more: Any) -> Any:
    """``times``: the cells ``words`` of some rows."""
    rows = [
        {
            "id": f"u{i}", "audio_path": sound(folder / f"{i}.wav", 0.5 + 0.1 * i, rate=RATE, seed=i).name,
            "duration": 0.5 + 0.1 * i, "transcript": words, "talk": "a",
            "words": (times or {}).get(i, ""), **more,
        }
        for i, words in enumerate(TEXTS)
    ]  # fmt: skip
    return load_manifest(manifest(folder / "m.tsv", rows))


def dataset(
    folder: Path,
    architecture: Any,
    shares: tuple[float, float],
    cut: float = 0.0,
    times: Mapping[int, str] | None = None,
    **changes: Any,
) -> SpeechDataset:
    rows = clips(folder, times)
    augment = make_augment(Augmentation(**changes), sample_rate=RATE, seed=1, spectrogram=False)
    drawn = LongForm(*shares, 1, before(len(rows), sequences(rows)), cut)
    return SpeechDataset(rows, architecture.encode, RATE, augment=augment, long_form=drawn)


def test_a_joined_sample_has_the_times_of_each_clip_and_the_text_before_the_first(tmp_path: Path) -> None:
    made = timed(max_label_tokens=200)
    data = dataset(tmp_path, made, (1.0, 1.0), join={"prob": 1.0, "pause": 0.1})
    found = data.drawn((2, 3), 0)
    assert found["id"] == "u2+u3"
    prev, task_ids = ids(made, "<|startofprev|>"), ids(made, "<|vi|>", "<|transcribe|>")
    assert found["before"]["transcribe"] == [*prev, *text(made, "mot hai ba bon nam")]
    pause = found["seconds"] - 0.7 - 0.8
    assert 0 <= pause <= 0.1
    marks = [f"<|{round(t / 0.02) * 0.02:.2f}|>" for t in (0.0, 0.7, 0.7 + pause, 1.5 + pause)]
    one, two, three, four = ids(made, *marks)
    end = made.processor.tokenizer.eos_token_id
    assert found["labels"]["transcribe"] == [
        *task_ids, one, *text(made, "sau"), two, three, *text(made, "bay tam"), four, end,
    ]  # fmt: skip
    assert "before" not in data.drawn(0, 0), "no clip comes before the first"


def test_a_cut_sample_goes_on_into_the_next_clip_whose_start_alone_is_its_label(tmp_path: Path) -> None:
    made = timed(max_label_tokens=200)
    data = dataset(tmp_path, made, (1.0, 0.0), cut=1.0, join={"prob": 1.0, "pause": 0.0})
    heard: list[np.ndarray] = []
    encode = data.encode
    data.encode = lambda example, waveform: heard.append(waveform) or encode(example, waveform)
    found = data.drawn((1, 2), 0)
    one, two, after = (data.manifest.waveform(row, RATE) for row in (1, 2, 3))
    length = len(one) + len(two)
    taken = len(heard[0]) - length
    assert 0.3 * RATE <= taken <= 0.9 * len(after)
    np.testing.assert_array_equal(heard[0], np.concatenate([one, two, after[:taken]]))
    marks = ids(made, "<|0.00|>", "<|0.60|>", "<|1.30|>")
    end = made.processor.tokenizer.eos_token_id
    assert found["labels"]["transcribe"] == [
        *ids(made, "<|vi|>", "<|transcribe|>"), marks[0], *text(made, "ba bon nam"), marks[1],
        marks[1], *text(made, "sau"), marks[2], marks[2], end,
    ]  # fmt: skip
    assert len(data.drawn((3, 4), 0)["labels"]["transcribe"]) and len(heard[1]) / RATE == pytest.approx(
        0.8 + 0.9
    )
    data.max_seconds = 1.5
    data.drawn((1, 2), 0)
    assert len(heard[2]) == length, "no room for a third of a second"
    assert not LongForm(0.0, 0.0, 1, data.long_form.before, 1.0).drawn(0, (1, 2)).cut, "never without times"


def test_a_clip_is_not_cut_before_its_first_word(tmp_path: Path) -> None:
    """Its label would be a time behind the end of the sound."""
    made = timed(max_label_tokens=200)
    late = {2: '[["sau", 0.65, 0.7]]'}
    data = dataset(tmp_path, made, (1.0, 0.0), cut=1.0, times=late, join={"prob": 1.0, "pause": 0.0})
    for epoch in range(8):
        found = data.drawn((0, 1), epoch)
        assert found["seconds"] == pytest.approx(0.5 + 0.6)
        assert found["labels"]["transcribe"][-2:-1] == ids(made, "<|1.10|>")


def test_what_is_cut_is_not_trained_without_its_time(tmp_path: Path) -> None:
    """Labels that are too long with times have none: then the sound ends where the texts end."""
    made = timed(max_label_tokens=200)
    data = dataset(tmp_path, made, (1.0, 0.0), cut=1.0, join={"prob": 1.0, "pause": 0.0})
    longest = len(data.drawn((1, 2), 0)["labels"]["transcribe"])
    data.encode = replace(data.encode, max_label_tokens=longest - 2)
    found = data.drawn((1, 2), 0)
    assert found["labels"]["transcribe"][2] == ids(made, "<|notimestamps|>")[0]
    assert found["seconds"] == pytest.approx(0.6 + 1.0 + 0.7), (
        "a second between the clips, and nothing after them"
    )


def test_what_may_be_cut_counts_in_the_length_of_a_sample() -> None:
    joining = neighbours(8, sequences=[list(range(8))], prob=1.0, most=2, longest=3.5, pause=0.0)
    sampler = NeighbourBatches(np.ones(8), joining=joining, batch_size=4)
    longer = NeighbourBatches(np.ones(8), joining=replace(joining, cut=True), batch_size=4)
    assert (sampler.longest(), longer.longest()) == (2.0, 3.0)
    assert longer.units == sampler.units


def test_what_is_drawn_depends_on_seed_epoch_and_row_alone(tmp_path: Path) -> None:
    made = timed(max_label_tokens=200)
    data = dataset(tmp_path, made, (0.5, 0.5), cut=0.5, join={"prob": 0.5, "pause": 0.1}, speed={"prob": 0.5})
    joining = neighbours(5, sequences=[list(range(5))], prob=0.6, longest=3.0)

    def epochs(workers: int) -> list[Any]:
        sampler = EpochBatches(NeighbourBatches(data.durations, joining=joining, batch_size=2, seed=1))
        context = multiprocessing.get_context("fork") if workers else None
        loader = DataLoader(
            Supervised(data),
            batch_sampler=sampler,
            collate_fn=list,
            num_workers=workers,
            multiprocessing_context=context,
        )
        found = []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            found += [
                (row["id"], row["labels"], row.get("before"), row["seconds"])
                for batch in loader
                for row in batch
            ]
        return found

    alone = epochs(0)
    assert alone == epochs(2)
    assert any("+" in name for name, *_ in alone) and any(before_ for _, _, before_, _ in alone)


def test_the_shares_are_kept_and_a_selection_keeps_its_own_neighbours() -> None:
    drawn = LongForm(0.5, 0.3, 7, before(2000, [list(range(2000))]))
    found = [drawn.drawn(epoch, (row,)) for epoch in range(2) for row in range(2000)]
    assert 0.47 < np.mean([one.timestamps for one in found]) < 0.53
    assert 0.27 < np.mean([one.previous_text for one in found]) < 0.33
    assert found[:2000] != found[2000:]
    assert drawn.select([3, 1, 2]).before.tolist() == [2, -1, 1]


def test_a_first_clip_has_no_previous_text_and_a_window_bounds_it() -> None:
    rows = [
        Example(id=str(i), audio=AudioRef(path="-"), duration=12.0, texts={"transcribe": f"t{i}"})
        for i in range(6)
    ]
    drawn = LongForm(0.0, 1.0, 0, before(6, [list(range(6))]))
    assert not drawn.drawn(0, (0,)).previous_text
    assert drawn.previous(rows, 5) == {"transcribe": "t2 t3 t4"}


# Configuration


def test_a_vocabulary_of_ones_own_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vocabulary of one's own .* has no timestamp tokens"):
        config_from({"model": {"type": "whisper", "sizes": SIZES, "timestamps": 0.5}})
    own = tiny()
    own.save(tmp_path, own.model)
    module = load("whisper")
    with pytest.raises(UserError, match=r"model.timestamps: the vocabulary of .* has no timestamp tokens"):
        module.build(module.Options(name=str(tmp_path), timestamps=0.5), BuildContext())
    assert (
        module.build(
            module.Options(name=str(tmp_path), previous_text=0.5), BuildContext()
        ).long_form.prompt_tokens
        == 224
    )


def configured(**blocks: Any) -> Any:
    return config_from(
        {
            "model": {"type": "whisper", "sizes": SIZES, "previous_text": 0.5},
            "augmentation": {"join": {"prob": 0.5, "most": 4}, "speed": {"prob": 0.5, "low": 0.8}},
            **blocks,
        }
    )


def test_a_configuration_says_what_is_joined(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    architecture, rows = tiny(previous_text=0.5), clips(tmp_path)
    joining = long_form.neighbours_to_join(configured(), architecture, rows)
    assert joining is not None and joining.sequences == [[0, 1, 2, 3, 4]] and joining.stretch == 1.25
    assert joining.tokens.tolist() == [
        len(architecture.processor.tokenizer(f" {t}", add_special_tokens=False).input_ids) for t in TEXTS
    ]
    assert isinstance(configured().data.source.batches(rows, joining)(batch_size=2), NeighbourBatches)
    assert long_form.neighbours_to_join(configured(), tiny_ctc(), rows) is None
    unnamed = clips(tmp_path / "unnamed", talk="")
    assert long_form.neighbours_to_join(configured(), architecture, unnamed) is None
    assert long_form.draws(configured(), architecture, unnamed) is not None
    assert caplog.text.count("do not say which recording") == 2
    with pytest.raises(UserError, match=r"join.after_epochs: this model joins from the start"):
        long_form.neighbours_to_join(
            configured(augmentation={"join": {"prob": 0.5, "after_epochs": 1}}), architecture, rows
        )
    shards = SimpleNamespace(
        data=SimpleNamespace(source=SimpleNamespace(batches_by_length=False)),
        augmentation=configured().augmentation,
    )
    with pytest.raises(UserError, match=r"cannot be joined over data\.shards"):
        long_form.neighbours_to_join(shards, architecture, rows)  # type: ignore[arg-type]


def test_the_plan_counts_the_previous_text_in_training_alone() -> None:
    config = configured(training={"batch_size": 2})
    durations = np.linspace(1, 3, 16)
    known = worst_case.Known(train=durations, dev=durations)
    plain = worst_case.load(config, tiny(max_label_tokens=448), known)
    long = worst_case.load(config, tiny(max_label_tokens=448, previous_text=0.5), known)
    widths = [made.train["labels"].shape[-1] for made in (plain, long)]
    assert widths[1] - widths[0] == 224
    assert plain.evaluation is not None and long.evaluation is not None
    assert plain.evaluation["labels"].shape == long.evaluation["labels"].shape


def test_domain_whisper_has_the_same_abilities() -> None:
    options = DomainOptions(
        sizes=SIZES, previous_text=0.2, language="vi", max_label_tokens=64, unfreeze=BLOCKS
    )
    texts = [("transcribe", "vi", "mot hai")] * 3
    made = DomainWhisper.build(options, BuildContext(texts=lambda: iter(texts)))
    assert made.long_form is not None and made.long_form.previous_text == 0.2 and made.train_collate.mixed


def test_a_run_trains_on_joined_clips_with_previous_text(tmp_path: Path) -> None:
    rows = clips(tmp_path / "data")
    config = config_from(
        {
            "model": {
                "type": "whisper",
                "sizes": SIZES,
                "previous_text": 1.0,
                "task": "transcribe",
                "max_label_tokens": 64,
            },
            "augmentation": {"join": {"prob": 1.0, "most": 3}},
            "data": {"train": str(rows.path)},
            "training": {
                "batch_size": 2,
                "max_steps": 3,
                "eval_strategy": "no",
                "load_best_model_at_end": False,
                "report_to": "none",
            },
            "dataloader": {"num_workers": 0},
            "profile": {"device": "cpu"},
            "output": {"dir": str(tmp_path / "run")},
        }
    )
    made = run.build(config)
    seen: list[Any] = []
    loss = type(made.architecture).loss
    watched = replace(made.architecture)
    object.__setattr__(
        watched, "loss", lambda batch, **more: seen.append(batch) or loss(made.architecture, batch, **more)
    )
    results = fit(replace(made, architecture=watched))
    assert results["steps"] == 3 and np.isfinite(results["train_loss"])
    assert any("+" in name for batch in seen for name in batch["ids"])
    prev = ids(made.architecture, "<|startofprev|>")[0]
    first = torch.cat([batch["decoder_input_ids"][:, 0, 0] for batch in seen])
    assert (first == prev).any() and (first != prev).any(), (
        "the first clip of a recording has no text before it"
    )
