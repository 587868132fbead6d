"""Recordings of any length: cut in pauses, joined where they overlap, every word once."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from tone_recogniser import GAP, RATE, WORD, WORDS, hear, recogniser, speak, write

from training.base.errors import UserError
from training.cli import transcribe
from training.config.load import config_from
from training.data.example import SpokenWord
from training.decoding.ctc_setup import BEAM_WIDTH, SearchOptions
from training.decoding.loading import Trained
from training.models.safeguards import Safeguards
from training.transcription.speech_regions import EnergyDetector, Region, padded, regions_of
from training.transcription.stitching import join
from training.transcription.transcriber import Transcriber
from training.transcription.windows import Cutting, group, plan_windows

TEN_MINUTES = 600.0


def said(ids: list[int]) -> str:
    return " ".join(WORDS[k] for k in ids)


def parts_of_ten_minutes(pauses: bool, vocabulary: int, seed: int = 0) -> list[list[int]]:
    """Utterances of 1 to 9 seconds that last ten minutes together."""
    rng = random.Random(seed)
    parts: list[list[int]] = []
    seconds = 0.0
    while seconds < TEN_MINUTES:
        parts.append([rng.randrange(vocabulary) for _ in range(rng.randint(2, 26))])
        seconds += len(parts[-1]) * (WORD + GAP) + (0.8 if pauses else 0.0)
    return parts


def test_the_recogniser_is_exact() -> None:
    ids = random.Random(1).choices(range(24), k=40)
    assert [k for k, _, _ in hear(speak(ids))] == ids


def test_a_file_of_broken_samples_does_not_take_the_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its header is sound, so only hearing it tells."""
    good = write(tmp_path / "a.wav", speak([1, 2]))
    bad = tmp_path / "b.wav"
    soundfile.write(bad, np.full(RATE, np.nan, dtype=np.float32), RATE, subtype="FLOAT")
    ears = Transcriber(recogniser(ctc=True))
    first, second = ears.finish([ears.plan(good), ears.plan(bad)])
    assert first.text == said([1, 2])
    assert isinstance(second, UserError) and str(second).count("b.wav") == 1
    with pytest.raises(UserError, match=r"b\.wav"):
        ears.transcribe([good, bad])
    assert ears.transcribe(str(good))[0].text == said([1, 2])
    monkeypatch.setattr(transcribe, "_transcriber", lambda args: ears)
    arguments = [str(tmp_path), "--model", "unused", "--output_dir", str(tmp_path / "out")]
    assert transcribe.main(arguments) == 1
    assert "b.wav" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.txt").is_file() and not (tmp_path / "out" / "b.txt").exists()


@pytest.mark.parametrize("ctc", [True, False])
@pytest.mark.parametrize("pack", [0.0, 25.0])
def test_files_joined_to_ten_minutes_say_what_their_parts_say(tmp_path: Path, ctc: bool, pack: float) -> None:
    parts = parts_of_ten_minutes(pauses=True, vocabulary=24)
    sounds = [speak(ids) for ids in parts]
    files = [write(tmp_path / f"{n}.wav", sound) for n, sound in enumerate(sounds[:20])]
    whole = write(tmp_path / "whole.wav", np.concatenate(sounds))
    ears = Transcriber(recogniser(ctc=ctc), detector="energy", pack=pack)
    assert [one.text for one in ears.transcribe(files)] == [said(ids) for ids in parts[:20]]
    joined = ears.transcribe([whole])[0]
    assert joined.seconds > TEN_MINUTES
    assert joined.text == " ".join(map(said, parts))
    assert all(b.start >= a.end for a, b in pairwise(joined.segments))


@pytest.mark.parametrize(("ctc", "vocabulary"), [(True, 24), (True, 2), (True, 1), (False, 24)])
def test_no_word_is_lost_or_doubled_where_nobody_pauses(tmp_path: Path, ctc: bool, vocabulary: int) -> None:
    """Ten minutes without a pause: every window ends in the middle of speech. With one or two words in the
    vocabulary only the times tell which is which."""
    ids = [k for part in parts_of_ten_minutes(pauses=False, vocabulary=vocabulary) for k in part]
    whole = write(tmp_path / "whole.wav", speak(ids))
    ears = Transcriber(recogniser(ctc=ctc), detector="energy")
    recording = ears.plan(whole)
    assert sum(window.stitch_at is not None for window in recording.windows) >= 20
    assert ears.finish([recording])[0].text == said(ids)


def test_word_times_are_those_of_the_recording(tmp_path: Path) -> None:
    ids = [3] * 40 + [5] * 80
    whole = write(tmp_path / "whole.wav", speak(ids, {39: 2.0}))
    result = Transcriber(recogniser(ctc=True), detector="energy").transcribe([whole])[0]
    starts = [0.4 + n * (WORD + GAP) + (2.0 - GAP if n > 39 else 0.0) for n in range(120)]
    assert [word.start for word in result.words] == pytest.approx(starts, abs=0.05)
    assert result.confidence == pytest.approx(0.99, abs=0.01)


@pytest.mark.parametrize("beam_width", [1, 6])
def test_beam_search_reads_the_same_frames(tmp_path: Path, beam_width: int) -> None:
    ids = random.Random(2).choices(range(24), k=20)
    path = write(tmp_path / "a.wav", speak(ids))
    ears = Transcriber(recogniser(ctc=True), options=SearchOptions(beam_width=beam_width))
    assert ears.transcribe([path])[0].text == said(ids)


def test_language_models_need_frames() -> None:
    with pytest.raises(UserError, match="CTC output"):
        Transcriber(recogniser(ctc=False), options=SearchOptions(hot_words=("w1",)))
    with pytest.raises(UserError, match="beam_width 1"):
        Transcriber(recogniser(ctc=True), options=SearchOptions(beam_width=1, hot_words=("w1",)))


def test_silence_says_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "silent.wav", np.zeros(40 * RATE, dtype=np.float32))
    result = Transcriber(recogniser(ctc=True), detector="energy").transcribe([path])[0]
    assert (result.text, result.segments, result.confidence) == ("", (), None)


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
def test_other_rates_and_channels(tmp_path: Path, rate: int) -> None:
    import soxr

    ids = random.Random(3).choices(range(20), k=100)
    sound = soxr.resample(speak(ids), RATE, rate)
    path = write(tmp_path / "a.flac", np.stack([sound, sound], axis=1), rate)
    assert Transcriber(recogniser(ctc=True), detector="energy").transcribe([path])[0].text == said(ids)


def test_noise_between_words_is_no_speech_and_quiet_words_are() -> None:
    rng = np.random.default_rng(0)
    loud, quiet = speak([1, 2, 3]), 0.1 * speak([4, 5])
    sound = np.concatenate([loud, np.zeros(2 * RATE), quiet, np.zeros(RATE), loud]).astype(np.float32)
    sound += 0.002 * rng.standard_normal(len(sound)).astype(np.float32)
    detector = EnergyDetector()
    track = detector.track(sound)
    found = padded(regions_of(detector.speech(track), detector.hop, least_pause=0.5), len(sound) / RATE, 0.2)
    assert len(found) == 3
    begin = len(loud) / RATE + 2 + 0.4
    assert found[1].start < begin and found[1].end > begin + 2 * (WORD + GAP) - GAP
    assert found[1].seconds < 1.4


def test_steady_noise_is_taken_for_speech_rather_than_lost() -> None:
    sound = 0.1 * np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32)
    detector = EnergyDetector()
    assert detector.speech(detector.track(sound)).mean() > 0.99


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.05, 90.0), st.floats(0.5, 5.0)), min_size=1, max_size=8),
    st.sampled_from([0.0, 12.0]),
    st.integers(0, 1000),
)
def test_windows_cover_all_speech_and_are_short_enough(
    lengths: list[tuple[float, float]], pack: float, seed: int
) -> None:
    regions, now = [], 0.0
    for length, pause in lengths:
        regions.append(Region(now, now + length))
        now += length + pause
    level = np.random.default_rng(seed).random(int(now / 0.01) + 1).astype(np.float32)
    windows = plan_windows(regions, level, 0.01, now, Cutting(15.0, pack=pack))
    assert all(0 < window.seconds <= 15.0 + 1e-6 for window in windows)
    for region in regions:
        for point in np.linspace(region.start, region.end, 50):
            assert any(w.start - 1e-9 <= point <= w.end + 1e-9 for w in windows)
    for before, window in pairwise(windows):
        if window.stitch_at is None:
            assert window.start >= before.end
        else:
            assert window.start < window.stitch_at < before.end


def test_the_longest_pauses_part_first() -> None:
    regions = [Region(0.0, 1.0), Region(1.2, 2.0), Region(2.5, 3.0), Region(3.3, 4.0), Region(6.0, 6.5)]
    assert group(regions, 10.0, 0.7) == [Region(0.0, 4.0), Region(6.0, 6.5)]
    assert group(regions, 2.5, 0.7) == [Region(0.0, 2.0), Region(2.5, 4.0), Region(6.0, 6.5)]
    assert group(regions, 0.9, 0.7) == regions
    assert group([], 1.0, 0.7) == []


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 3.0), st.floats(0.15, 2.0)), min_size=1, max_size=12),
    st.floats(0.5, 9.0),
)
def test_cuts_do_not_depend_on_what_is_far_away(pieces: list[tuple[float, float]], longest: float) -> None:
    """What stands between two long pauses is cut the same alone and in company, and wherever it stands."""

    def placed(pieces: list[tuple[float, float]], now: float) -> list[Region]:
        regions = []
        for length, gap in pieces:
            regions.append(Region(now, now + length))
            now += length + gap
        return regions

    alone = group(placed(pieces, 0.0), longest, 0.7)
    before = placed([(1.0, 0.3), (2.0, 0.2)], -100.0)
    company = group([*before, *placed(pieces, 0.0)], longest, 0.7)
    assert [r for r in company if r.start >= 0] == alone


def word(text: str, start: float) -> SpokenWord:
    return SpokenWord(text=text, start=start, end=start + 0.2, confidence=0.9)


def test_a_half_heard_word_at_the_edge_goes() -> None:
    left = [word("one", 8.0), word("two", 8.5), word("three", 9.0), word("fo", 9.5)]
    right = [word("ree", 9.0), word("four", 9.5), word("five", 10.0)]
    # No word is the same in both: they are divided at the cut.
    assert [w.text for w in join(left, right, 9.3, 0.3)] == ["one", "two", "three", "four", "five"]
    right = [word("o", 8.5), word("Three,", 9.05), word("four", 9.5), word("five", 10.0)]
    assert [w.text for w in join(left, right, 9.6, 0.3)] == ["one", "two", "three", "four", "five"]


def test_the_same_word_said_twice_stays_twice() -> None:
    left = [word("no", 8.0), word("no", 8.4)]
    right = [word("no", 8.4), word("no", 8.8), word("yes", 9.2)]
    assert [w.start for w in join(left, right, 8.5, 0.3)] == [8.0, 8.4, 8.8, 9.2]


def arguments(tmp_path: Path, *extra: str) -> list[str]:
    return [*map(str, extra), "--model", str(tmp_path)]


@pytest.fixture
def tones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "training.transcription.transcriber.load_trained", lambda folder: recogniser(ctc=True)
    )


@pytest.mark.usefixtures("tones")
def test_command_prints_what_can_be_read_and_names_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, empty = write(tmp_path / "good.wav", speak([1, 2])), tmp_path / "empty.wav"
    empty.touch()
    assert transcribe.main(arguments(tmp_path, str(empty), str(good))) == 1
    output = capsys.readouterr()
    assert output.out == f"{good}\ttranscribe\tw1 w2\n"
    assert "empty.wav" in output.err and "0 bytes" in output.err
    assert "1 of 2 files could not be transcribed" in output.err


@pytest.mark.usefixtures("tones")
def test_guide_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "test_audio.wav", speak([7, 8]))
    guide = [
        "--model_path",
        str(tmp_path),
        "--audio_file",
        str(path),
        "--use_beam_search",
        "--beam_width",
        "10",
    ]
    assert transcribe.main([*guide, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"] == "w7 w8"
    assert found["confidence"] == pytest.approx(0.99, abs=0.01)
    assert [one["word"] for one in found["segments"][0]["words"]] == ["w7", "w8"]


@pytest.mark.usefixtures("tones")
def test_files_are_written_and_not_overwritten_unasked(tmp_path: Path) -> None:
    clips = [write(tmp_path / f"{n}.wav", speak([n, n])) for n in range(2)]
    out = tmp_path / "out"
    command = arguments(tmp_path, *map(str, clips), "--format", "srt")
    with pytest.raises(UserError, match="need --output_dir"):
        transcribe.main(command)
    command += ["--output_dir", str(out)]
    assert transcribe.main(command) == 0
    assert (out / "1.srt").read_text() == "1\n00:00:00,420 --> 00:00:01,020\nw1 w1\n\n"
    with pytest.raises(UserError, match="exists"):
        transcribe.main(command)
    assert transcribe.main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("extra", "message"),
    [((), "nothing to transcribe"), (("nowhere.wav",), "no such file")],
)
def test_mistakes_are_named(tmp_path: Path, extra: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        transcribe.main(arguments(tmp_path, *extra))


@pytest.mark.usefixtures("tones")
def test_guide_evaluate_command_transcribes_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.cli import evaluate as run_evaluation

    path = write(tmp_path / "test_audio.wav", speak([7, 8]))
    guide = [
        "--model_path",
        str(tmp_path),
        "--audio_file",
        str(path),
        "--use_beam_search",
        "--beam_width",
        "10",
    ]
    assert run_evaluation.main([*guide, "--hot_words", "w7", "w8:3"]) == 0
    assert capsys.readouterr().out == f"{path}\ttranscribe\tw7 w8\n"


def test_options_survive_the_way_through_a_command_line() -> None:
    import argparse

    from training.cli.options import add_options, from_arguments, to_arguments

    parser = argparse.ArgumentParser()
    add_options(parser)
    for line in (
        [],
        ["--use_beam_search"],
        ["--lm", "a.arpa", "--lm_weight", "0.3", "--hot_words", "x y", "z:2"],
    ):
        args = parser.parse_args(line)
        assert from_arguments(parser.parse_args(to_arguments(args))) == from_arguments(args)
    assert from_arguments(parser.parse_args(["--use_beam_search"])).width == 10
    assert from_arguments(parser.parse_args([])).width == 1


@pytest.mark.parametrize("architecture", ["whisper", "e2e"])
def test_models_without_frames_take_long_recordings(tmp_path: Path, architecture: str) -> None:
    import e2e_tiny
    import whisper_assets

    # Random weights pass no threshold: a fallback would decode six times.
    once = {"safeguards": Safeguards(temperatures=(0.0,))} if architecture == "whisper" else {}
    architecture = whisper_assets.tiny() if architecture == "whisper" else e2e_tiny.tiny()
    sound = np.concatenate([whisper_assets.noise(33.0, 1), np.zeros(RATE), whisper_assets.noise(2.0, 2)])
    path = write(tmp_path / "long.wav", sound.astype(np.float32))
    trained = Trained(architecture, tmp_path, architecture, None)
    ears = Transcriber(trained, detector="energy", pack=0.0, **once)
    recording = ears.plan(path)
    assert [window.stitch_at is not None for window in recording.windows] == [False, True, False]
    assert ears.timed == (ears.trained.architecture.attention is not None)
    result = ears.finish([recording])[0]
    assert list(result.texts) == ["transcribe", "translate"]
    if ears.timed:  # a Whisper places its words, where its attention follows the sound
        assert all(0 <= word.start < word.end <= result.seconds for word in result.words)
    else:
        assert result.words == () and result.confidence is None
    only = Transcriber(ears.trained, tasks=("translate",), detector="energy", **once).transcribe([path])[0]
    assert list(only.texts) == ["translate"]


def test_a_batch_is_dictionaries_and_an_unknown_confidence_is_not_a_number(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{k}.wav", speak([k])) for k in range(2)]
    for ctc in (True, False):
        found = Transcriber(recogniser(ctc=ctc)).transcribe_batch(files)
        assert [row["text"] for row in found] == ["w0", "w1"]
        shown = [f"{row['confidence']:.2f}" for row in found]  # as the guide prints it
        assert all(float(one) > 0.5 for one in shown) if ctc else shown == ["nan", "nan"]


def test_the_beam_width_is_that_of_the_runs_scores_unless_another_is_asked_for() -> None:
    config = config_from({"evaluation": {"num_beams": 4}})
    for ctc in (True, False):
        run = replace(recogniser(ctc=ctc), config=config)
        assert Transcriber(run).asked.beam_width == 4
        assert Transcriber(run, options=SearchOptions(beam_width=2)).asked.beam_width == 2
        assert Transcriber(recogniser(ctc=ctc)).asked.beam_width == 1
    hot = SearchOptions(hot_words=("w1",)).of_run(config.evaluation.num_beams)
    assert (hot.beam_width, hot.width) == (None, BEAM_WIDTH)
