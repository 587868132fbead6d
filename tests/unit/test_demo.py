"""The demo corpus: its sentences, its sound and its layout."""

from __future__ import annotations

import csv
import hashlib
import itertools
import os
import time
import unicodedata
from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from training.base.errors import UserError
from training.data.text import clean_transcript
from training.synthetic import codeswitched as demo_codeswitched
from training.synthetic import demo
from training.synthetic import files as demo_files
from training.synthetic import studio as demo_studio
from training.synthetic import text as demo_text
from training.synthetic import writer as demo_writer
from training.synthetic.plan import UNHEARD, Row, Video
from training.synthetic.terms import NAMES, lexicon
from training.synthetic.text import Sentence, corpus
from training.synthetic.writer import NearDuplicates, normalised_words

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    return corpus(600, seed=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo") / "export"
    demo.make_demo(output, minutes=2, seed=3)
    return output


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / demo_files.MANIFEST).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


# Sentences


# Trap 12.
def test_no_sentence_is_within_a_word_edit_of_another(sentences: list[Sentence]) -> None:
    """Over all pairs, so whatever split by video is drawn, test and training share no near copies."""
    for texts in (
        [normalised_words(sentence.transcript) for sentence in sentences],
        [normalised_words(sentence.translation) for sentence in sentences],
        [normalised_words(sentence.core) for sentence in sentences],
    ):
        pairs = itertools.combinations(texts, 2)
        near = [(a, b) for a, b in pairs if Levenshtein.distance(a, b, score_cutoff=1) <= 1]
        assert near == []


@given(
    words=st.lists(st.sampled_from("abcd"), min_size=1, max_size=6),
    place=st.integers(0, 6),
    new=st.sampled_from(["", "x", "a"]),
    replaces=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_every_single_word_edit_is_recognised(words: list[str], place: int, new: str, replaces: bool) -> None:
    seen = NearDuplicates()
    seen.add(" ".join(words).upper() + "!")
    edited = words[:place] + ([new] if new else []) + words[place + replaces :]
    assert seen.near(" ".join(edited))


def test_texts_two_replaced_words_apart_are_kept() -> None:
    seen = NearDuplicates()
    seen.add("mẹ đang nấu cơm trong bếp")
    assert not seen.near("bố đang nấu xôi trong bếp")


def test_shares_of_kinds_and_of_changed_translations(sentences: list[Sentence]) -> None:
    kinds = Counter(sentence.kind for sentence in sentences)
    assert kinds == {"vietnamese": 390, "mixed": 150, "english": 30, "named": 30}
    for sentence in sentences:
        assert sentence.changed == (sentence.kind in {"mixed", "english"})
    for first in range(0, len(sentences), 10):
        assert sum(sentence.changed for sentence in sentences[first : first + 10]) == 3


def test_translation_turns_every_english_term_and_nothing_else(sentences: list[Sentence]) -> None:
    known = lexicon()
    for sentence in sentences:
        for part in sentence.parts:
            if part.language == "vi" or part.text in NAMES:
                assert part.translation == part.text
            elif sentence.kind == "mixed":
                english = part.text.lower()
                assert part.translation.lower() == known[english]
        translated = set(normalised_words(sentence.translation))
        foreign = {w for term in known for w in term.split()} - {"to", "the", "by"}
        assert not translated & foreign, sentence.translation


def test_word_languages_line_up_with_the_cleaned_transcript(sentences: list[Sentence]) -> None:
    english = {word for term in lexicon() for word in term.split()} | {name.lower() for name in NAMES}
    for sentence in sentences:
        words = clean_transcript(sentence.marked(sentence.transcript)).split()
        assert len(words) == len(sentence.word_languages)
        for word, language in zip(words, sentence.word_languages, strict=True):
            spelled = "".join(normalised_words(word))
            if sentence.kind == "english":
                assert language == "en"
            else:
                assert (language == "en") == (spelled in english), (sentence.transcript, word)


def test_cleaner_removes_exactly_the_markup(sentences: list[Sentence]) -> None:
    marked = 0
    for sentence in sentences:
        for text in (sentence.transcript, sentence.translation):
            assert clean_transcript(sentence.marked(text)) == text
        marked += sentence.marked(sentence.transcript) != sentence.transcript
    assert 0.05 < marked / len(sentences) < 0.25
    joined = " ".join(sentence.marked(sentence.transcript) for sentence in sentences)
    assert "[cười]" in joined and "[nhạc]" in joined and "**" in joined


def test_casing_punctuation_and_normal_form(sentences: list[Sentence]) -> None:
    for sentence in sentences:
        for text in (sentence.transcript, sentence.translation):
            assert text[0].isupper() and text[-1] in ".?!" and "  " not in text
            assert unicodedata.is_normalized("NFC", text)
            assert not set(text) & set("{}@=\x02\x03\x04")


# Trap 15.
def test_english_keeps_the_letters_that_vietnamese_lacks(sentences: list[Sentence]) -> None:
    transcripts = {letter for sentence in sentences for letter in sentence.transcript.lower()}
    assert set("fjw") <= transcripts
    vietnamese = " ".join(s.transcript for s in sentences if s.kind == "vietnamese").lower()
    assert not set("fjwz") & set(vietnamese)


def test_sentences_are_those_of_the_seed() -> None:
    assert corpus(60, seed=5) == corpus(60, seed=5)
    assert corpus(60, seed=5) != corpus(60, seed=6)


def test_a_grammar_that_runs_out_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_text, "VIETNAMESE", ("mẹ nấu cơm.",))
    monkeypatch.setattr(demo_writer, "DRAWS", 50)
    with pytest.raises(UserError, match=r"no further vietnamese sentence.*fewer minutes"):
        corpus(20, seed=1)


def test_vocabulary_is_wide_and_every_term_is_frequent() -> None:
    """Over the first 180 sentences of each video: about as many as there is time for."""
    videos = demo_codeswitched.plan(demo_codeswitched.CODESWITCHED.minutes, seed=42)
    heard = [take.cells[0] for video in videos if not video.split_hint for take in video.takes[:180]]
    words = [normalised_words(clean_transcript(cells["transcript"])) for cells in heard]
    assert len({word for sentence in words for word in sentence}) >= 300
    said = zip(words, heard, strict=True)
    padded = [f" {' '.join(sentence)} " for sentence, cells in said if cells["kind"] != "vietnamese"]
    counts = {term: sum(f" {term} " in text for text in padded) for term in lexicon()}
    assert len(counts) >= 60
    assert min(counts.values()) >= 25, sorted(counts.items(), key=lambda item: item[1])[:5]


# Recordings


# Trap 29.
def test_english_is_spoken_in_english_inside_the_vietnamese_sentence(
    sentences: list[Sentence],
) -> None:
    for sentence in sentences:
        document = ElementTree.fromstring(demo_codeswitched.spoken(sentence))
        assert "".join(document.itertext()) == sentence.transcript
        switched = " ".join("".join(element.itertext()) for element in document)
        tagged = zip(normalised_words(sentence.transcript), sentence.word_languages, strict=True)
        assert normalised_words(switched) == tuple(word for word, language in tagged if language == "en")


def test_videos_have_one_voice_each_and_the_unheard_one_its_own(small: Path) -> None:
    by_video: dict[str, set[tuple[str, ...]]] = {}
    for row in rows(small):
        key = (row["speaker"], row["voice"], row["snr_db"], row["split_hint"])
        by_video.setdefault(row["video_id"], set()).add(key)
    assert len(by_video) >= 20
    assert all(len(kinds) == 1 for kinds in by_video.values())
    hints = [next(iter(kinds)) for kinds in by_video.values()]
    heard = {voice for _, voice, _, hint in hints if not hint}
    unheard = {voice for _, voice, _, hint in hints if hint == UNHEARD}
    assert len(heard) >= 6 and len(unheard) == 1 and not heard & unheard
    assert {snr for _, _, snr, _ in hints} == {"", "30", "20", "15"}


def test_clips_are_audible_16_khz_mono_and_as_long_as_stated(small: Path) -> None:
    for row in rows(small):
        samples, rate = soundfile.read(small / row["audio_path"], dtype="int16", always_2d=True)
        assert (rate, samples.shape[1]) == (16000, 1)
        assert soundfile.info(small / row["audio_path"]).subtype == "PCM_16"
        assert abs(len(samples) / rate - float(row["duration"])) < 0.001
        assert 0.5 < len(samples) / rate < 6
        level = 20 * np.log10(np.sqrt(np.mean((samples / 32768.0) ** 2)))
        assert -32 < level < -16
        assert np.abs(samples.astype(int)).max() < 32000


def test_manifest_lines_are_complete(small: Path) -> None:
    listed = rows(small)
    assert list(listed[0])[:6] == ["id", "video_id", "audio_path", "duration", "transcript", "translation"]
    assert len({row["id"] for row in listed}) == len(listed)
    files = {path.relative_to(small).as_posix() for path in small.glob("video_*/segment_*.wav")}
    assert files == {row["audio_path"] for row in listed}
    for row in listed:
        assert row["audio_path"].startswith(f"video_{row['video_id']}/")
        assert len(row["word_languages"].split()) == len(clean_transcript(row["transcript"]).split())


def test_equal_seeds_give_equal_bytes(small: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    demo.make_demo(again, minutes=2, seed=3)
    names = sorted(path.relative_to(small) for path in small.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert [n for n in names if (small / n).read_bytes() != (again / n).read_bytes()] == []


@pytest.mark.skipif(version("espeakng-loader") != "0.2.4", reason="the durations are those of one espeak-ng")
def test_the_corpus_is_the_same_as_ever(small: Path) -> None:
    """Texts, voices, rooms and lengths to the sample; scores in the log are of these."""
    manifest = (small / demo_files.MANIFEST).read_bytes()
    assert (
        hashlib.sha256(manifest).hexdigest()
        == "d4d1f25553cd77fd8db1fe175b574b8e2e755fef79d4592a11a524359df53124"
    )


class Deadly:
    """Ends the process that unpickles it."""

    id = "demo01"

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return os._exit, (9,)


def test_a_killed_synthesiser_is_a_message_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = replace(demo_codeswitched.CODESWITCHED, plan=lambda minutes, seed: [Deadly()])  # type: ignore[list-item]
    monkeypatch.setitem(demo.CORPORA, "codeswitched", deadly)
    with pytest.raises(UserError, match="demo01 and others was killed"):
        demo.make_demo(tmp_path / "export", minutes=1, seed=1)
    assert list(tmp_path.iterdir()) == []


def test_noise_has_the_stated_level_and_slope() -> None:
    rng = np.random.default_rng(0)
    for slope in (0.0, 1.0, 2.0):
        noise = demo_studio._noise(160_000, slope, rng)
        assert np.sqrt(np.mean(noise**2)) == pytest.approx(1, rel=1e-6)
        power = np.abs(np.fft.rfft(noise)) ** 2
        frequency = np.fft.rfftfreq(160_000, 1 / demo_studio.SAMPLE_RATE)
        octaves = [power[(frequency >= low) & (frequency < 2 * low)].mean() for low in (200, 1600)]
        assert np.log2(octaves[0] / octaves[1]) / 3 == pytest.approx(slope, abs=0.1)


# Files that are there already


def test_an_existing_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / demo_files.MANIFEST).write_text("mine")
    with pytest.raises(UserError, match=r"manifest\.tsv exists.*--force"):
        demo.make_demo(tmp_path, minutes=1)
    assert (tmp_path / demo_files.MANIFEST).read_text() == "mine"


def test_a_run_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(videos: object, folder: Path, progress: object) -> list[Row]:
        (folder / "video_demo01").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "synthesise_all", fail)
    with pytest.raises(KeyboardInterrupt):
        demo.make_demo(tmp_path / "export", minutes=1)
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_the_corpus_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "export"
    for name in ("manifest.tsv", "video_demo77/segment_0001.wav", "video_9/segment_1.wav", "notes.txt"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("old")

    def quick(videos: list[Video], folder: Path, progress: object) -> list[Row]:
        (folder / "video_demo01").mkdir()
        (folder / "video_demo01" / "segment_0001.wav").write_text("new")
        video = videos[0]
        return demo_studio._rows(video, video.takes[0], 1, Path("video_demo01/segment_0001.wav"), 1.0)

    monkeypatch.setattr(demo, "synthesise_all", quick)
    demo.make_demo(output, minutes=1, force=True)
    left = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert left == {"manifest.tsv", "video_demo01/segment_0001.wav", "video_9/segment_1.wav", "notes.txt"}
    assert len(rows(output)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_lengths_are_refused(tmp_path: Path, minutes: float) -> None:
    with pytest.raises(UserError, match="--minutes"):
        demo.make_demo(tmp_path / "export", minutes=minutes)


def test_any_three_videos_of_the_default_corpus_make_a_test_split(tmp_path: Path) -> None:
    """A tenth of the thirty videos, whichever, holds 200 utterances, 60 of them changed. A tenth of each is spoken here."""
    minutes = demo_codeswitched.CODESWITCHED.minutes
    demo.make_demo(tmp_path / "export", minutes=minutes / 10)
    heard = [row for row in rows(tmp_path / "export") if not row["split_hint"]]
    counts = Counter(row["video_id"] for row in heard)
    changed = Counter(row["video_id"] for row in heard if row["transcript"] != row["translation"])
    assert len(counts) == 30
    assert sum(sorted(counts.values())[:3]) >= 20
    assert sum(sorted(changed.values())[:3]) >= 6
    videos = demo_codeswitched.plan(minutes, seed=42)
    assert sum(len(video.takes) for video in videos if video.split_hint) == 60


def test_a_kill_while_the_corpus_is_replaced_loses_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, partial = tmp_path / "export", tmp_path / "partial"
    for folder, text in ((output, "old"), (partial, "new")):
        (folder / "video_demo01").mkdir(parents=True)
        (folder / "video_demo01/segment_0001.wav").write_text(text)
        (folder / demo_files.MANIFEST).write_text(text)
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        if path.parent == partial:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        demo_files.publish(partial, output)
    assert [path.read_text() for path in demo_files.ours(output) if path.is_file()] == ["old"]
    assert (output / "video_demo01/segment_0001.wav").read_text() == "old"
    monkeypatch.undo()
    demo_files.publish(partial, output)
    assert (output / demo_files.MANIFEST).read_text() == "new"
    assert sorted(path.name for path in output.iterdir()) == [demo_files.MANIFEST, "video_demo01"]


# What is said meanwhile


def test_the_synthesis_says_what_it_does_and_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.cli import demo_data

    monkeypatch.setattr(demo_data, "FIRST_LINE", 0.0)
    monkeypatch.setattr(demo_studio, "_LOOK", 0.05)
    assert demo_data.main(["--output", str(tmp_path / "export"), "--minutes", "1"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == (
        f"{tmp_path / 'export'}: espeak-ng makes about 1 minutes of speech, and some of unheard voices"
    )
    # On a fast machine it may be over before the first look.
    assert all(line.startswith("speaking: ") and " videos, " in line for line in said.err.splitlines())
    assert said.out.splitlines()[-1].startswith(str(tmp_path / "export/manifest.tsv"))


def test_finished_videos_are_counted_by_their_folders(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"video_demo{number}").mkdir()
    (tmp_path / "manifest.tsv").write_text("")
    assert demo_studio._finished(tmp_path, 30, 2) == 3
    assert demo_studio._finished(tmp_path, 30, 8) == 0


def test_an_error_in_one_process_ends_the_synthesis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def speak(videos: list[Video], folder: Path) -> list[Row]:
        asked.append(videos[0].id)
        time.sleep(0.3)  # so that the error is seen before the next ones begin
        raise UserError("espeak-ng is gone")

    monkeypatch.setattr(demo_studio, "_in_fresh_process", speak)
    monkeypatch.setattr(demo_studio, "_cores", lambda: 1)
    with pytest.raises(UserError, match="is gone"):
        demo.make_demo(tmp_path / "export", minutes=4)
    assert 1 <= len(asked) < 8, "what had not begun is not begun"
