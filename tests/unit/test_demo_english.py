"""The English demo corpus: sentences, gold times of words, an unheard voice."""

from __future__ import annotations

import csv
import itertools
import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from speech_files import onset

from training.data.manifest import load_manifest
from training.data.prepare.split import split
from training.synthetic import demo
from training.synthetic import english as demo_english
from training.synthetic import studio as demo_studio
from training.synthetic.english_grammar import PATTERNS, SLOTS
from training.synthetic.english_text import EnglishSentence, sentences, with_article, with_pause
from training.synthetic.espeak_words import place
from training.synthetic.files import MANIFEST
from training.synthetic.plan import UNHEARD, UNHEARD_VIDEOS, Size

pytest.importorskip("espeakng_loader")

SLOT = re.compile(r"\{(?:a )?(\w+)\}")
ALREADY_WRITTEN = EnglishSentence("we need rice, coffee and an egg.", "")

Cells = dict[str, str]
Times = list[tuple[str, float, float]]


def rows(folder: Path) -> list[Cells]:
    with (folder / MANIFEST).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def times(row: Cells) -> Times:
    return [(word, start, end) for word, start, end in json.loads(row["words"])]


def rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(sound**2)))


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One or two sentences of each session, by the literal command."""
    output = tmp_path_factory.mktemp("english") / "export"
    command = [sys.executable, "-m", "training.cli", "demo-data", "--corpus", "english"]
    command += ["--minutes", "3", "--seed", "3", "--output", str(output)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "words with times" in shown and "of an unheard voice" in shown
    return output


# Sentences


def test_the_grammar_is_whole() -> None:
    """Every slot is there and used; nothing but letters, apostrophes and the punctuation of the voice."""
    fillings = [filling for choices in SLOTS.values() for filling in choices]
    assert {slot for text in (*PATTERNS, *fillings) for slot in SLOT.findall(text)} == set(SLOTS)
    assert len(set(PATTERNS)) == len(PATTERNS)
    assert all(re.fullmatch(r"([a-z]+'?[a-z]*,? ?)+[.?]", SLOT.sub("x", pattern)) for pattern in PATTERNS)
    assert all(re.fullmatch(r"[a-z ]+", SLOT.sub("x", filling)) for filling in fillings)


def choices(text: str) -> int:
    """How many texts a pattern makes."""
    slots = SLOT.findall(text)
    return int(np.prod([sum(choices(filling) for filling in SLOTS[slot]) for slot in slots], dtype=object))


def test_there_are_hundreds_of_thousands_of_sentences() -> None:
    assert sum(map(choices, PATTERNS)) > 500_000


# Trap 12.
def test_no_sentence_is_within_a_word_edit_of_another() -> None:
    texts = [sentence.transcript.split() for sentence in sentences(300, seed=1)]
    pairs = itertools.combinations(texts, 2)
    assert [(a, b) for a, b in pairs if Levenshtein.distance(a, b, score_cutoff=1) <= 1] == []


def test_sentences_are_short_whole_and_those_of_the_seed() -> None:
    some = sentences(200, seed=5)
    assert some == sentences(200, seed=5) != sentences(200, seed=6)
    for sentence in some:
        assert re.fullmatch(r"[a-z']+( [a-z']+){4,13}", sentence.transcript)
        assert re.fullmatch(r"[a-z', ]+[.?]", sentence.spoken)
        assert not re.search(r"\ba [aeiou]|\ban (?!hour)[^aeiou]", sentence.transcript)
    assert 300 < len({word for sentence in some for word in sentence.transcript.split()}) < 500


@pytest.mark.parametrize(
    ("noun", "with_it"),
    [
        ("key", "a key"),
        ("umbrella", "an umbrella"),
        ("old watch", "an old watch"),
        ("yellow hat", "a yellow hat"),
    ],
)
def test_articles_agree(noun: str, with_it: str) -> None:
    assert with_article(noun) == with_it


@given(st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_a_pause_stands_between_two_words(seed: int) -> None:
    parts = with_pause(ALREADY_WRITTEN, random.Random(seed))
    assert [part for part in parts if isinstance(part, str)] == ALREADY_WRITTEN.spoken.split()
    pauses = [at for at, part in enumerate(parts) if isinstance(part, float)]
    assert len(pauses) <= 1 and not {0, len(parts) - 1} & set(pauses)
    assert all(0.15 <= part <= 0.6 for part in parts if isinstance(part, float))


def test_the_transcript_is_what_is_said_without_punctuation() -> None:
    assert ALREADY_WRITTEN.transcript == "we need rice coffee and an egg"


def test_the_plan_is_that_of_the_seed() -> None:
    assert demo_english.plan(2, seed=7) == demo_english.plan(2, seed=7) != demo_english.plan(2, seed=8)


def test_no_two_speakers_share_a_voice() -> None:
    voices = [speaker.voice for speaker in (*demo_english.SPEAKERS, demo_english.UNHEARD_SPEAKER)]
    assert len(set(voices)) == len(voices) == 9


# The corpus


def test_manifest_lines_are_complete(english: Path) -> None:
    listed = rows(english)
    assert tuple(listed[0]) == demo_english.ENGLISH.columns
    assert {row["language"] for row in listed} == {"en"}
    files = {path.relative_to(english).as_posix() for path in english.glob("video_*/segment_*.wav")}
    assert files == {row["audio_path"] for row in listed} and len(files) == len(listed)
    for row in listed:
        info = soundfile.info(english / row["audio_path"])
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert float(row["duration"]) == pytest.approx(info.duration, abs=0.001)
        assert 1.5 < info.duration < 6


def test_every_word_of_the_transcript_has_a_time_in_its_clip(english: Path) -> None:
    lengths = []
    for row in rows(english):
        said = times(row)
        assert [word for word, _, _ in said] == row["transcript"].split()
        edges = [edge for _, start, end in said for edge in (start, end)]
        assert edges == sorted(edges) and edges[0] >= 0.1 and edges[-1] <= float(row["duration"]) - 0.099
        lengths += [end - start for _, start, end in said]
    assert len(lengths) > 500
    assert 0.2 < np.mean(lengths) < 0.35
    assert min(lengths) > 0.02 and max(lengths) < 1.2


def test_the_library_reads_the_times_of_the_manifest(english: Path) -> None:
    manifest = load_manifest(english / MANIFEST)
    example, row = manifest[0], rows(english)[0]
    assert [(word.text, word.start, word.end) for word in example.words] == times(row)
    assert example.group == row["group"]


def test_clips_sound_inside_words_and_are_silent_around_them(english: Path) -> None:
    """In sessions without noise: after resampling, trimming and padding the times still are those of the sound."""
    clean = [row for row in rows(english) if not row["snr_db"]]
    assert len(clean) > 10
    for row in clean:
        sound, rate = soundfile.read(english / row["audio_path"])
        said = times(row)
        level = rms(sound)
        assert abs(onset(sound, rate, 0.0) - said[0][1]) <= 0.03, row["transcript"]
        assert rms(sound[round((said[-1][2] + 0.05) * rate) :]) < 0.05 * level
        for _, start, end in said:
            assert rms(sound[round(start * rate) : round(end * rate)]) > 0.1 * level
        for (_, _, before), (word, after, _) in itertools.pairwise(said):
            if after - before > 0.14:
                assert abs(onset(sound, rate, before + 0.06) - after) <= 0.03, (row["transcript"], word)


def test_words_do_not_lie_evenly(english: Path) -> None:
    """Spreading the words evenly over the clip is far from the truth, so that it is no rival to an aligner."""
    errors = []
    for row in rows(english):
        said = times(row)
        even = np.arange(len(said)) * float(row["duration"]) / len(said)
        errors += np.abs(even - [start for _, start, _ in said]).tolist()
    assert np.mean(errors) > 0.2


def test_the_unheard_voice_is_in_no_other_part_and_test_sentences_are_unseen(
    english: Path, tmp_path: Path
) -> None:
    for seed in range(3):
        output = tmp_path / str(seed)
        report = split(english / MANIFEST, output, seed=seed)
        speakers = {}
        for part in ("train", "dev", "test", UNHEARD):
            with (output / f"{part}.csv").open(encoding="utf-8", newline="") as file:
                listed = list(csv.DictReader(file))
            speakers[part] = {row["speaker"] for row in listed}
            assert all(len(times(row)) == len(row["transcript"].split()) for row in listed)
        assert speakers[UNHEARD] == {demo_english.UNHEARD_SPEAKER.name}
        assert all(speakers[UNHEARD].isdisjoint(names) for part, names in speakers.items() if part != UNHEARD)
        assert all(shared["sentences"]["shared"] == 0 for shared in report["overlap"].values())


def test_sessions_have_equal_bytes_and_times_in_fresh_processes(tmp_path: Path) -> None:
    video = replace(demo_english.plan(0.1, seed=2)[0], seconds=10.0)
    assert len(video.takes) >= 1
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        listed = demo_studio._in_fresh_process([video, replace(video, id="again")], tmp_path / name)
        made.append([(row["words"], (tmp_path / name / row["audio_path"]).read_bytes()) for row in listed])
    assert made[0] == made[1]


def test_words_are_placed_in_all_that_is_planned() -> None:
    for video in demo_english.plan(1, seed=4):
        for take in video.takes:
            words = take.cells[0]["transcript"].split()
            assert len(take.positions) == len(words)
            for word, position in zip(words, take.positions, strict=True):
                assert take.ssml[position - 1 :].startswith(word)
    assert place(["a"])[1] == (8,)


def test_the_default_corpus_trains_for_more_than_two_hours(tmp_path: Path) -> None:
    """A tenth of it is planned and spoken here, a tenth of each session."""
    minutes = demo_english.ENGLISH.minutes
    whole = Size.of(minutes, training_videos=40, block=1, shortest_mean=2.1)
    assert whole.unheard * UNHEARD_VIDEOS == 60
    demo.make_demo(tmp_path / "export", corpus="english", minutes=minutes / 10)
    report = split(tmp_path / "export" / MANIFEST, tmp_path / "splits")
    assert 13 < report["parts"]["train"]["hours"] * 60 < 15
    assert report["parts"]["test"]["utterances"] > 15
