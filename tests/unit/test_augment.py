"""Changes of the training clips: each does what it says, draws are repeatable, evaluation is left alone."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from ctc_assets import noise, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_files import manifest, sound
from torch.utils.data import DataLoader

from training.base.errors import UserError
from training.config.load import config_from
from training.data.augment import Augment, coloured_noise, make_augment
from training.data.dataset import DataError, SpeechDataset, joined, validate
from training.data.manifest import load_manifest
from training.data.options import Augmentation
from training.data.sampler import DurationBatchSampler, EpochBatches, Joining, Supervised, filler
from training.engine.fit import joining

RATE = 16_000
EVERYTHING = {
    "speed": {"prob": 0.5},
    "shift": {"prob": 0.5},
    "noise": {"prob": 0.5},
    "volume": {"prob": 0.5},
    "spec": {"prob": 0.5},
}


def augment(seed: int = 1, **changes: dict) -> Augment:
    made = make_augment(Augmentation(**changes), sample_rate=RATE, seed=seed, spectrogram=True)
    assert made is not None
    return made


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform))))


@given(st.floats(0.5, 2.0))
@settings(max_examples=20, deadline=None)
def test_speed_changes_length_and_pitch_together(factor):
    tone = np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE).astype(np.float32)
    changed = augment(speed={"prob": 1.0, "low": factor, "high": factor}).sound(tone, draw())
    assert len(changed) == pytest.approx(RATE / factor, abs=2)
    heard = np.abs(np.fft.rfft(changed * np.hanning(len(changed)))).argmax() * RATE / len(changed)
    assert heard == pytest.approx(500 * factor, abs=3)
    assert changed.dtype == np.float32


def test_shift_adds_silence_and_cuts_nothing():
    clip = noise(0.5)
    lengths = set()
    for seed in range(20):
        changed = augment(shift={"prob": 1.0, "seconds": 0.1}).sound(clip, draw(seed))
        start = int(np.flatnonzero(changed)[0]) - int(np.flatnonzero(clip)[0])
        np.testing.assert_array_equal(changed[start : start + len(clip)], clip)
        assert not changed[:start].any() and not changed[start + len(clip) :].any()
        assert len(changed) <= len(clip) + 2 * 1600
        lengths.add(len(changed))
    assert len(lengths) > 5


@pytest.mark.parametrize("ratio", [0.0, 10.0, 30.0])
def test_noise_lies_the_asked_decibels_below_the_speech(ratio):
    clip = noise(1.0)
    changed = augment(noise={"prob": 1.0, "snr_low": ratio, "snr_high": ratio}).sound(clip, draw())
    assert 20 * np.log10(rms(clip) / rms(changed - clip)) == pytest.approx(ratio, abs=0.01)


def test_noise_from_a_folder_is_a_stretch_of_its_files(tmp_path):
    hum = np.sin(2 * np.pi * 50 * np.arange(3 * RATE) / RATE).astype(np.float32)
    soundfile.write(tmp_path / "hum.wav", hum, RATE)
    clip = noise(1.0)
    settings_ = {"prob": 1.0, "folder": tmp_path, "snr_low": 10, "snr_high": 10}
    added = augment(noise=settings_).sound(clip, draw()) - clip
    assert np.abs(np.fft.rfft(added)).argmax() == 50
    short = augment(noise=settings_).sound(noise(5.0), draw())
    assert len(short) == 5 * RATE


def test_a_room_that_is_one_click_changes_nothing_and_an_echo_comes_later(tmp_path):
    click = np.zeros(2000, np.float32)
    click[700] = 1.0
    for folder, echo in (("dry", 0.0), ("echo", 0.5)):
        click[700 + 800] = echo
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "room.wav", click, RATE, subtype="FLOAT")
    clip = noise(0.5)
    dry = augment(reverb={"prob": 1.0, "folder": tmp_path / "dry"}).sound(clip, draw())
    np.testing.assert_allclose(dry, clip, atol=1e-5)
    wet = augment(reverb={"prob": 1.0, "folder": tmp_path / "echo"}).sound(clip, draw())
    delayed = np.concatenate([np.zeros(800), clip[:-800]]) * 0.5 + clip
    assert np.corrcoef(wet, delayed)[0, 1] == pytest.approx(1.0, abs=1e-4)
    assert rms(wet) == pytest.approx(rms(clip), rel=1e-4)


def test_volume_is_a_gain_within_its_bounds():
    clip = noise(0.3)
    gains = [
        20 * np.log10(rms(augment(volume={"prob": 1.0}).sound(clip, draw(seed))) / rms(clip))
        for seed in range(40)
    ]
    assert -10 <= min(gains) < -5 and 2 < max(gains) <= 6


@given(st.integers(1, 60), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_spec_augment_masks_whole_bands_and_frames_within_its_widths(frames, seed):
    plain = np.ones((frames, 20), np.float32)
    changes = {"prob": 1.0, "freq_masks": 2, "freq_width": 0.2, "time_masks": 1, "time_width": 0.5}
    given_ = {"input_features": plain, "labels": 1}
    masked = augment(spec=changes).features(given_, draw(seed))
    hidden = masked["input_features"] == 0
    bands, times = hidden.all(axis=0), hidden.all(axis=1)
    np.testing.assert_array_equal(hidden, bands[None] | times[:, None])
    assert times.all() or bands.sum() <= 8
    assert bands.all() or times.sum() <= frames // 2
    assert masked["labels"] == 1 and plain.all()


def test_each_change_has_its_own_probability():
    clip = noise(0.2)
    maker = augment(volume={"prob": 0.3})
    changed = sum(not np.array_equal(maker.sound(clip, maker.generator(0, i)), clip) for i in range(1000))
    assert 250 < changed < 350
    none = Augmentation(enabled=False, volume={"prob": 1.0})
    assert make_augment(none, sample_rate=RATE, seed=0, spectrogram=True) is None
    assert make_augment(Augmentation(), sample_rate=RATE, seed=0, spectrogram=False) is None


def test_noise_is_of_every_colour():
    slopes = []
    for seed in range(10):
        power = np.abs(np.fft.rfft(coloured_noise(1 << 14, draw(seed)))) ** 2
        slopes.append(np.polyfit(np.log(np.arange(10, 8000)), np.log(power[10:8000]), 1)[0])
    assert min(slopes) < -1.3 and max(slopes) > -0.7 and min(slopes) > -2.3


# Draws


def project(folder: Path, texts: tuple[str, ...] = ("ha no", "ba", "xin", "la la")) -> SpeechDataset:
    rows = [
        {
            "id": f"u{i}",
            "audio_path": sound(folder / f"{i}.wav", 0.5 + 0.1 * i, rate=RATE, seed=i).name,
            "duration": 0.5 + 0.1 * i,
            "transcript": text,
        }
        for i, text in enumerate(texts)
    ]
    architecture = tiny(texts=texts)
    return SpeechDataset(
        load_manifest(manifest(folder / "m.tsv", rows)),
        architecture.encode,
        RATE,
        augment=augment(**EVERYTHING),
    )


def everything(dataset: SpeechDataset, workers: int, epochs: int = 2) -> list[list[tuple[str, np.ndarray]]]:
    """(id, features) of each epoch through one loader whose workers live on."""
    sampler = EpochBatches(DurationBatchSampler(dataset.durations, batch_size=2, seed=1))
    loader = DataLoader(
        Supervised(dataset),
        batch_sampler=sampler,
        collate_fn=list,
        num_workers=workers,
        persistent_workers=bool(workers),
        multiprocessing_context=multiprocessing.get_context("spawn") if workers else None,
    )
    found = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        seen = [(row["id"], row["input_features"]) for batch in loader for row in batch]
        found.append(sorted(seen, key=lambda one: one[0]))
    return found


def test_draws_are_those_of_seed_epoch_and_row_whatever_the_workers(tmp_path):
    data = project(tmp_path)
    alone, spread = everything(data, 0), everything(data, 1)
    for one, two in zip(alone, spread, strict=True):
        for (name, sound_), (other, same) in zip(one, two, strict=True):
            assert name == other
            np.testing.assert_array_equal(sound_, same)
    assert any(
        a[1].shape != b[1].shape or not np.array_equal(a[1], b[1])
        for a, b in zip(alone[0], alone[1], strict=True)
    ), "a new epoch draws anew"
    again = data.drawn(2, 1)["input_features"]
    np.testing.assert_array_equal(again, alone[1][2][1])


def test_another_seed_draws_otherwise():
    clip = noise(0.4)
    one, two = (augment(seed, volume={"prob": 1.0}) for seed in (1, 2))
    assert not np.array_equal(one.sound(clip, one.generator(0, 0)), two.sound(clip, two.generator(0, 0)))


def test_all_changes_may_wait_for_some_epochs_and_joined_clips_on_their_own(tmp_path):
    data = project(tmp_path)
    data.augment = augment(after_epochs=2, **EVERYTHING)
    for row in range(len(data)):
        for epoch in (0, 1):
            np.testing.assert_array_equal(
                data.drawn(row, epoch)["input_features"], data[row]["input_features"]
            )
    changed = [data.drawn(row, 2)["input_features"] for row in range(len(data))]
    data.augment = augment(**EVERYTHING)
    for row, one in enumerate(changed):
        np.testing.assert_array_equal(one, data.drawn(row, 2)["input_features"])
    assert any(one.shape != data[row]["input_features"].shape for row, one in enumerate(changed))
    data.augment = augment(after_epochs=2, join={"prob": 1.0, "pause": 0.0}, **EVERYTHING)
    together = np.concatenate([data.manifest.waveform(row, RATE) for row in (2, 0)])
    example = joined([data.manifest[row] for row in (2, 0)])
    plain = data.encode(example, together)["input_features"]
    np.testing.assert_array_equal(data.drawn((2, 0), 1)["input_features"], plain)
    assert any(not np.array_equal(data.drawn((2, 0), epoch)["input_features"], plain) for epoch in (2, 3, 4))
    any_length = SimpleNamespace(encode=SimpleNamespace(longest=None))
    waits = config_from({}, ["augmentation={after_epochs: 3, join: {prob: 1.0, after_epochs: 1}}"])
    assert joining(waits, any_length).after == 1 and waits.augmentation.starting_later == {
        "join.after_epochs": 1
    }
    waits = config_from({}, ["augmentation={after_epochs: 3, volume: {prob: 0.1}, join: {prob: 1.0}}"])
    assert joining(waits, any_length).after == 0 and waits.augmentation.starting_later == {"after_epochs": 3}
    assert (
        config_from(
            {}, ["augmentation={enabled: false, after_epochs: 3, volume: {prob: 1}}"]
        ).augmentation.starting_later
        == {}
    )


def test_evaluation_hears_the_clips_as_they_are(tmp_path):
    data = project(tmp_path)
    plain = SpeechDataset(data.manifest, data.encode, RATE)
    for row in range(len(data)):
        np.testing.assert_array_equal(data[row]["input_features"], plain[row]["input_features"])
        np.testing.assert_array_equal(plain.drawn(row, 0)["input_features"], plain[row]["input_features"])


# Trap 9.
def test_a_clip_sped_up_beyond_its_text_keeps_its_own_sound(tmp_path):
    data = project(tmp_path, ("abcdefghijklmnopqrstuvwx",))
    assert list(validate(data)[0]) == [0]
    hasty = augment(speed={"prob": 1.0, "low": 1.5, "high": 1.5})
    with pytest.raises(ValueError, match="cannot align"):
        data.encode(data.manifest[0], hasty.sound(data.manifest.waveform(0, RATE), draw()))
    fast = SpeechDataset(data.manifest, data.encode, RATE, augment=hasty)
    np.testing.assert_array_equal(fast.drawn(0, 0)["input_features"], data[0]["input_features"])


def test_fillers_of_uneven_ranks_are_drawn_without_labels(tmp_path):
    row = Supervised(project(tmp_path))[filler(1), 4]
    assert row["id"] == "u1" and row["labels"] == {"transcribe": []}


# Joined clips

JOINED = {"join": {"prob": 1.0, "most": 3, "pause": 0.1}}


def joined_epoch(sampler: DurationBatchSampler, joining: Joining | None) -> list[list[tuple[int, ...]]]:
    """The rows of an epoch's batches, of all ranks."""
    return [
        [rows if isinstance(rows, tuple) else (rows,) for rows, _ in batch]
        for batch in EpochBatches(sampler, joining)
    ]


@given(
    st.lists(st.floats(0.3, 5.0), min_size=4, max_size=60),
    st.integers(1, 3),
    st.integers(2, 5),
    st.floats(0.0, 1.0),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_joining_keeps_every_clip_once_within_the_limit_on_all_ranks(seconds, world, most, prob, epoch):
    joining = Joining(prob, most, longest=8.0, seed=3)
    found, plain = [], []
    for rank in range(world):
        sampler = DurationBatchSampler(seconds, max_seconds=12.0, seed=1, rank=rank, world=world)
        sampler.set_epoch(epoch)
        batches = EpochBatches(sampler, joining)
        found += joined_epoch(sampler, joining)
        plain += list(sampler)
        assert max(seconds) <= batches.longest(epoch + 1) <= max(8.0, max(seconds)) + 1e-6
    assert [[row for rows in batch for row in rows] for batch in found] == plain
    for batch in found:
        for rows in batch:
            assert len(rows) <= most
            assert len(rows) == 1 or sum(seconds[row] for row in rows) <= 8.0 + 1e-6
    assert prob > 0 or all(len(rows) == 1 for batch in found for rows in batch)


def test_joining_may_wait_for_some_epochs():
    sampler = DurationBatchSampler([1.0] * 8, batch_size=4, seed=0)
    joining = Joining(1.0, 2, longest=30.0, seed=0, after=2)
    found = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        found.append({len(rows) for batch in joined_epoch(sampler, joining) for rows in batch})
    assert found == [{1}, {1}, {2}, {2}]


def test_the_longest_utterance_of_a_joined_epoch_is_what_it_gives():
    sampler = DurationBatchSampler([1.0, 1.0, 1.0, 1.0], batch_size=4, seed=0)
    joining = Joining(1.0, 2, longest=30.0, seed=0)
    assert joined_epoch(sampler, joining) == [[tuple(b[i : i + 2]) for i in (0, 2)] for b in sampler]
    assert EpochBatches(sampler, joining).longest() == 2.0
    assert EpochBatches(sampler).longest() == sampler.longest() == 1.0


@pytest.mark.parametrize(("epochs", "longest"), [(2, 1.0), (3, 2.0), (9, 2.0)])
def test_what_was_joined_does_not_depend_on_the_epoch_that_stands_in_the_sampler(epochs, longest):
    sampler = DurationBatchSampler([1.0, 1.0, 1.0, 1.0], batch_size=4, seed=0)
    batches = EpochBatches(sampler, Joining(1.0, 2, longest=30.0, seed=0, after=2))
    for now in (0, 5):
        batches.set_epoch(now)
        assert batches.longest(epochs) == longest and sampler.epoch == now


def test_joined_clips_are_heard_in_order_with_silence_between_and_read_with_spaces(tmp_path):
    data = project(tmp_path)
    data.augment = augment(**JOINED)
    made = data.drawn((2, 0), 1)
    assert made["id"] == "u2+u0"
    assert made["labels"]["transcribe"] == data.encode.tokenizer.encode("xin ha no")
    clips = [data.manifest.waveform(row, RATE) for row in (2, 0)]
    heard = data.augment.together(clips, data.augment.generator(1, 2))
    assert made["seconds"] == len(heard) / RATE
    np.testing.assert_array_equal(heard[: len(clips[0])], clips[0])
    np.testing.assert_array_equal(heard[-len(clips[1]) :], clips[1])
    silence = heard[len(clips[0]) : -len(clips[1])]
    assert 0 <= len(silence) <= 0.1 * RATE and not silence.any()
    np.testing.assert_array_equal(
        data.drawn((2, 0), 1)["input_features"], made["input_features"], "the draw is the first row's"
    )


# Trap 9.
def test_joined_clips_too_fast_for_their_texts_keep_their_sounds_and_lie_apart(tmp_path):
    tight = "abcdefghijklmnopqrstuvwx"
    data = project(tmp_path, (tight, tight))
    assert list(validate(data)[0]) == [0, 1]
    data.augment = augment(speed={"prob": 1.0, "low": 1.5, "high": 1.5}, **JOINED)
    made = data.drawn((0, 1), 0)
    assert made["seconds"] == pytest.approx(0.5 + 1.0 + 0.6)
    assert made["labels"]["transcribe"] == data.encode.tokenizer.encode(f"{tight} {tight}")


def test_joined_batches_train_as_many_labels_as_the_clips_have(tmp_path):
    data = project(tmp_path)
    data.augment = augment(**JOINED)
    sampler = EpochBatches(
        DurationBatchSampler(data.durations, batch_size=4, seed=1), Joining(1.0, 2, 30.0, 0)
    )
    ((one, two),) = DataLoader(Supervised(data), batch_sampler=sampler, collate_fn=list)
    spoken = sorted((one["id"] + "+" + two["id"]).split("+"))
    assert spoken == ["u0", "u1", "u2", "u3"]


# The user's mistakes


@pytest.mark.parametrize("change", ["noise", "reverb"])
def test_a_noise_or_a_room_that_cannot_be_read_is_named_with_the_row(tmp_path, change):
    data = project(tmp_path)
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "bad.wav").write_bytes(b"garbage")
    data.augment = augment(**{change: {"prob": 1.0, "folder": tmp_path / "sounds"}})
    with pytest.raises(DataError, match=r"m\.tsv:2: utterance 'u0': .*bad\.wav"):
        data.drawn(0, 0)


def test_other_decoders_take_no_joined_clips():
    with pytest.raises(UserError, match=r"augmentation.join.prob: only CTC models"):
        make_augment(Augmentation(**JOINED), sample_rate=RATE, seed=0, spectrogram=True, joinable=False)


def test_a_folder_that_is_not_there_or_holds_no_sound_is_named(tmp_path):
    for key, change in (("noise", "noise"), ("reverb", "reverb")):
        for folder, reason in ((tmp_path / "absent", "is not a folder"), (tmp_path, "holds no sound")):
            with pytest.raises(UserError, match=rf"augmentation.{key}.folder: .*{reason}"):
                augment(**{change: {"prob": 0.5, "folder": folder}})


def test_masks_for_a_model_without_spectrogram_are_refused():
    with pytest.raises(UserError, match=r"augmentation.spec.prob: .*mask_time_prob"):
        make_augment(Augmentation(spec={"prob": 0.5}), sample_rate=RATE, seed=0, spectrogram=False)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augmentation.reverb.prob=0.5"], "reverberation needs impulse responses"),
        (["augmentation.speed={prob: 1, low: 1.2, high: 1.1}"], "augmentation.speed.low: is more than high"),
        (["augmentation.noise.snr_low=40"], "augmentation.noise.snr_low: is more than snr_high"),
        (["augmentation.pitch.prob=1"], "augmentation.pitch"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        config_from({}, overrides)
