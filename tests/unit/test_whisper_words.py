"""Words with times from a Whisper: in transcripts, in evaluations, and by real weights where there are some."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from whisper_assets import TRANSCRIPT, example, features, noise, tiny

from training.api.scoring import _timed, evaluate
from training.cli import transcribe
from training.data.example import AudioRef, Example, Word
from training.decoding import attention_times
from training.decoding.attention_alignment import AttentionAligner
from training.decoding.ctc_alignment import CtcAligner
from training.decoding.loading import load_trained, with_word_times
from training.models.whisper import abilities

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODELS = os.environ.get("POLYVOX_MODELS")
RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Whisper as a run leaves it, without its configuration."""
    path = tmp_path_factory.mktemp("words") / "whisper"
    architecture = tiny()
    architecture.save(path, architecture.model)
    return path


def test_loading_leaves_times_to_those_who_ask(folder: Path, tmp_path: Path) -> None:
    trained = load_trained(folder)
    assert trained.architecture.aligner is None
    assert isinstance(with_word_times(trained).architecture.aligner, AttentionAligner)
    headed = tiny(ctc_weight=1.0)
    headed.save(tmp_path / "headed", headed.model)
    found = with_word_times(load_trained(tmp_path / "headed"))
    assert isinstance(found.architecture.aligner, CtcAligner)
    assert with_word_times(found) is found


@pytest.fixture
def any_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that has learnt nothing places words too."""
    monkeypatch.setattr(attention_times, "LEAST_SHARE", 0.0)


def test_attention_that_does_not_follow_the_sound_gives_no_times(folder: Path) -> None:
    architecture = with_word_times(load_trained(folder)).architecture
    batch = architecture.collate(features(architecture))
    found = architecture.align(batch, [TRANSCRIPT, TRANSCRIPT])
    assert [(one.text, one.words, one.confidence) for one in found] == [(TRANSCRIPT, (), None)] * 2


def test_a_transcript_of_a_whisper_has_words_with_times(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    any_attention: None,
) -> None:
    monkeypatch.setattr(abilities, "decode_text", lambda tokenizer, ids: "xin chào các bạn")
    audio = tmp_path / "a.wav"
    soundfile.write(audio, noise(2.5), RATE)
    unguarded = ["--no_fallback", "--no_speech_threshold", "none", "--logprob_threshold", "none"]
    given = [str(audio), "--model", str(folder), *unguarded, "--format"]
    assert transcribe.main([*given, "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    words = [word for segment in found["segments"] for word in segment["words"]]
    assert [word["word"] for word in words] == ["xin", "chào", "các", "bạn"]
    assert all(0 <= word["start"] < word["end"] <= 2.5 and 0 < word["confidence"] < 1 for word in words)
    assert transcribe.main([*given, "ctm"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(words)


def test_an_evaluation_scores_the_times_where_there_are_reference_times(
    folder: Path, tmp_path: Path, any_attention: None
) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1.0), RATE)
    words = json.dumps([["xin", 0.2, 0.4], ["chào", 0.5, 0.8]], ensure_ascii=False)
    with (tmp_path / "timed.tsv").open("w", encoding="utf8", newline="") as handle:
        rows = csv.writer(handle, delimiter="\t")
        rows.writerow(["audio_path", "duration", "transcript", "language", "words"])
        rows.writerow(["a.wav", "1.0", "xin chào", "vi", words])
    found = evaluate(folder, manifest=tmp_path / "timed.tsv").report["word_times"]["given"]["model"]
    assert found["matched_words"] == found["reference_words"] == 2
    assert found["not_monotone"]["count"] == 0
    plain = load_trained(folder)
    assert _timed(plain, [example("u", 1.0, transcribe="xin")]) is plain


def test_pauses_of_the_benchmark_move_words_with_their_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from paused_speech import chained, trimmed, with_noise, with_pauses

    wave = np.zeros(RATE)
    wave[1600:4800], wave[4800:9600] = 0.25, 0.5
    words = (Word(text="a", start=0.1, end=0.3), Word(text="b", start=0.3, end=0.6))
    clip = with_pauses(wave, words, 1.0, np.random.default_rng(0))
    for word, level in zip(clip.words, (0.25, 0.5), strict=True):
        inside = clip.wave[round(word.start * RATE) : round(word.end * RATE)]
        assert (inside == level).all()
    assert clip.words[1].start - clip.words[0].end >= 0.2 and clip.words[0].start >= 0.3
    chain = chained([("a", wave[1600:4800]), ("b", wave[4800:9600])], 0.0, np.random.default_rng(0))
    assert chain.words[0].end == chain.words[1].start
    assert len(trimmed(wave)) == 8000
    noisy = with_noise(clip, 20.0, np.random.default_rng(0))
    spoken = round(clip.words[1].start * RATE)
    added = (noisy.wave - clip.wave)[spoken : spoken + 3200]
    assert 20 * np.log10(np.sqrt(np.mean(added**2)) / 0.43) == pytest.approx(-20, abs=1)


def test_the_benchmark_compares_every_arm(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    any_attention: None,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "word_times", raising=False)
    import word_times

    lines = ["audio_path\ttranscript\tspeaker\tduration"]
    for n in range(4):
        soundfile.write(tmp_path / f"{n}.wav", noise(0.5, n), RATE)
        lines.append(f"{n}.wav\t{('hôm', 'nay')[n % 2]}\ts{n % 2}\t0.5")
    (tmp_path / "manifest.tsv").write_text("\n".join(lines) + "\n", encoding="utf8")
    monkeypatch.setattr(word_times, "DIGITS", (2, 3))
    given = [str(folder), "--digits", str(tmp_path), "--utterances", "2", "--conditions", "paused"]
    assert word_times.main(given) == 0
    said = capsys.readouterr().out
    assert all(f"{arm} " in said for arm in [*word_times.ARMS, "words spread evenly"])
    assert "digits, paused: 2 clips, half report" in said
    with pytest.raises(SystemExit):
        word_times.main([str(folder)])


@pytest.mark.skipif(MODELS is None, reason="POLYVOX_MODELS names no folder of real weights")
def test_real_weights_find_words_between_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whisper base on one synthesised sentence; the bounds of a corpus stand in `docs/internal/log.md`."""
    pytest.importorskip("espeakng_loader")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from paused_speech import with_pauses

    from training.alignment.teacher import Clip, Timed
    from training.alignment.teachers import load_teacher
    from training.synthetic.espeak import Espeak
    from training.synthetic.espeak_words import place, word_spans
    from training.synthetic.studio import _at_our_rate

    espeak = Espeak(0)
    espeak.set_voice("en-us")
    spoken = ["anna", "sent", "the", "report", "last", "june"]
    document, positions = place(spoken)
    sound, events = espeak.speak_with_events(document)
    spans = np.array(word_spans(sound, events, positions)) / espeak.sample_rate
    words = [
        Word(text=text, start=float(a), end=float(b)) for text, (a, b) in zip(spoken, spans, strict=True)
    ]
    wave = _at_our_rate(sound, espeak.sample_rate).astype(np.float64)
    clip = with_pauses(wave, words, 0.6, np.random.default_rng(1))
    text = {"transcribe": " ".join(word.text for word in clip.words)}
    one = Example(id="u", audio=AudioRef(path="u"), duration=len(clip.wave) / RATE, texts=text, language="en")
    teacher = load_teacher(str(Path(MODELS or "") / "whisper-base"), device="cpu")
    (found,) = teacher([Clip(one, clip.wave.astype(np.float32))])
    assert isinstance(found, Timed)
    errors = np.array(
        [(a.start - b.start, a.end - b.end) for a, b in zip(found.words, clip.words, strict=True)]
    )
    assert np.abs(errors).mean(axis=0).max() <= 0.06
    after_pauses = [
        word.start - before > 0.15
        for before, word in zip([0.0, *(word.end for word in clip.words)], clip.words, strict=False)
    ]
    assert sum(after_pauses) >= 2 and np.abs(errors[after_pauses, 0]).max() <= 0.03
