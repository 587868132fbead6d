"""The Korean demo corpora: two populations, and one sound in two conventions."""

from __future__ import annotations

import csv
import itertools
import random
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from training.cli import demo_data
from training.data.korean_numbers import sino
from training.data.prepare.split import split
from training.synthetic import conventions as demo_conventions
from training.synthetic import demo
from training.synthetic import korean as demo_korean
from training.synthetic import studio as demo_studio
from training.synthetic.deviations import PAUSE, PAUSED, REPEATED, SWAPPED, Habits, Spoken, deviate, fluently
from training.synthetic.files import MANIFEST
from training.synthetic.korean_grammar import PATTERNS, SLOTS
from training.synthetic.korean_text import final_consonant, is_syllable, sentences, with_particle
from training.synthetic.plan import UNHEARD
from training.synthetic.writer import normalised_words

pytest.importorskip("espeakng_loader")

SENTENCE = "저는 어제 친구와 학교에 갔어요."
PAIRS = ("은/는", "이/가", "을/를", "과/와", "이랑/랑", "이에요/예요", "으로/로")
SYLLABLES = st.characters(min_codepoint=ord("가"), max_codepoint=ord("힣"))
SEEDS = st.integers(0, 10_000)

Cells = dict[str, str]


def rows(folder: Path) -> list[Cells]:
    with (folder / MANIFEST).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def korean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sentences of each session."""
    output = tmp_path_factory.mktemp("korean") / "export"
    demo.make_demo(output, corpus="korean", minutes=0.1, seed=3)
    return output


@pytest.fixture(scope="module")
def planned() -> list[Cells]:
    """The cells of 40 minutes, as planned."""
    videos = demo_korean.plan(40, seed=42)
    return [{**take.cells[0], "speaker": take.speaker.name} for video in videos for take in video.takes]


# Sentences


@pytest.mark.parametrize(
    ("word", "pair", "agreeing"),
    [
        ("친구", "은/는", "친구는"),
        ("동생", "은/는", "동생은"),
        ("학교", "이/가", "학교가"),
        ("삼촌", "이/가", "삼촌이"),
        ("라면", "을/를", "라면을"),
        ("우유", "을/를", "우유를"),
        ("형", "과/와", "형과"),
        ("언니", "과/와", "언니와"),
        ("사촌", "이랑/랑", "사촌이랑"),
        ("의사", "이에요/예요", "의사예요"),
        ("경찰관", "이에요/예요", "경찰관이에요"),
        ("부산", "으로/로", "부산으로"),
        ("대구", "으로/로", "대구로"),
        ("서울", "으로/로", "서울로"),
        ("서울", "은/는", "서울은"),
        ("한 시", "을/를", "한 시를"),
    ],
)
def test_particles_agree(word: str, pair: str, agreeing: str) -> None:
    assert with_particle(word, pair) == agreeing


@given(SYLLABLES, st.sampled_from(PAIRS))
@settings(deadline=None)
def test_particles_agree_with_unicodes_own_decomposition(syllable: str, pair: str) -> None:
    """NFD gives a syllable two letters without a final consonant and three with one."""
    letters = unicodedata.normalize("NFD", syllable)
    closed = len(letters) == 3 and not (pair == "으로/로" and letters[2] == "\u11af")
    assert with_particle(syllable, pair) == syllable + pair.split("/")[0 if closed else 1]


@pytest.mark.parametrize("character", ["a", "ㄱ", "?", "\u1100"])
def test_only_hangul_syllables_have_a_final_consonant(character: str) -> None:
    with pytest.raises(ValueError, match="not a Hangul syllable"):
        final_consonant(character)


def test_the_grammar_is_whole() -> None:
    """Every slot is there and used, every pair of particles is one of ours, every word is NFC."""
    patterns = (*PATTERNS, *demo_conventions.PATTERNS)
    slots = [slot for pattern in patterns for slot in re.findall(r"\{(\w+)[|}]", pattern)]
    assert set(slots) == set(SLOTS)
    pairs = {pair for pattern in patterns for pair in re.findall(r"\|([^}]+)\}", pattern)}
    assert pairs == set(PAIRS)
    assert len(set(PATTERNS)) == len(PATTERNS)
    fillings = [filling for choices in SLOTS.values() for filling in choices]
    assert all(unicodedata.is_normalized("NFC", text) for text in (*fillings, *patterns))
    assert all(is_syllable(character) or character == " " for character in "".join(fillings))
    assert all(len(set(choices)) == len(choices) for choices in SLOTS.values())


# Trap 12.
def test_no_sentence_is_within_a_word_edit_of_another() -> None:
    texts = [normalised_words(sentence.transcript) for sentence in sentences(300, seed=1)]
    pairs = itertools.combinations(texts, 2)
    assert [(a, b) for a, b in pairs if Levenshtein.distance(a, b, score_cutoff=1) <= 1] == []


def test_sentences_are_short_whole_and_those_of_the_seed() -> None:
    some = sentences(200, seed=5)
    assert some == sentences(200, seed=5) != sentences(200, seed=6)
    for sentence in some:
        assert re.fullmatch(r"[가-힣]+( [가-힣]+){2,6}[.?]", sentence.transcript)
    assert len({word for sentence in some for word in normalised_words(sentence.transcript)}) >= 300


# Deviations


def alone(**habits: float) -> Habits:
    return Habits(**{"repeat": 0.0, "swap": 0.0, "block": 0.0, "pause": 0.0, **habits})


def sorted_words(text: str) -> list[list[str]]:
    return [sorted(word) for word in text.split()]


def test_without_habits_a_sentence_is_said_as_it_was_meant() -> None:
    assert deviate(SENTENCE, alone(), random.Random(1)) == fluently(SENTENCE)
    assert fluently(SENTENCE) == Spoken(SENTENCE, f"<speak>{SENTENCE}</speak>", ())


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_repeated_syllables_begin_the_word_that_follows(seed: int) -> None:
    said = deviate(SENTENCE, alone(repeat=1.0), random.Random(seed))
    assert said.kinds == (REPEATED,)
    words = said.text.split()
    for meant in SENTENCE.split():
        at = words.index(meant)
        fragments, words = words[:at], words[at + 1 :]
        assert len(fragments) in (1, 2) and len(set(fragments)) == 1
        assert meant.startswith(fragments[0]) and len(fragments[0]) in (1, 2)
    assert words == []


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_swapped_syllables_are_neighbours_in_a_word(seed: int) -> None:
    said = deviate(SENTENCE, alone(swap=1.0), random.Random(seed))
    assert said.kinds == (SWAPPED,)
    assert sorted_words(said.text) == sorted_words(SENTENCE)
    for meant, heard in zip(SENTENCE.split(), said.text.split(), strict=True):
        differing = [at for at, pair in enumerate(zip(meant, heard, strict=True)) if pair[0] != pair[1]]
        assert len(differing) == 2 and differing[1] == differing[0] + 1


@pytest.mark.parametrize("word", ["책.", "누누.", "이?"])
def test_what_cannot_be_swapped_stays(word: str) -> None:
    said = deviate(word, alone(swap=1.0), random.Random(1))
    assert (said.text, said.kinds) == (word, ())


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_pauses_stand_between_words_and_blocks_inside(seed: int) -> None:
    rng = random.Random(seed)
    assert deviate(SENTENCE, alone(pause=1.0), rng).text == SENTENCE.replace(" ", f" {PAUSE} ")
    blocked = deviate(SENTENCE, alone(block=1.0), rng)
    assert blocked.kinds == (PAUSED,)
    assert blocked.text.replace(PAUSE, "") == SENTENCE
    for word in blocked.text.split():
        before, after = word.split(PAUSE)
        assert before and is_syllable(after[0])


@given(
    words=st.lists(st.text(SYLLABLES, min_size=1, max_size=5), min_size=1, max_size=6),
    habits=st.builds(Habits, *[st.sampled_from([0.0, 0.3, 0.6])] * 4),
    seed=SEEDS,
)
@settings(max_examples=200, deadline=None)
def test_what_is_written_as_spoken_is_what_espeak_is_given(
    words: list[str], habits: Habits, seed: int
) -> None:
    meant = " ".join(words) + "."
    said = deviate(meant, habits, random.Random(seed))
    document = ElementTree.fromstring(said.ssml)
    assert "".join(document.itertext()) == said.text.replace(PAUSE, "")
    breaks = [int(element.attrib["time"].removesuffix("ms")) for element in document]
    assert len(breaks) == said.text.count(PAUSE) and all(250 <= time <= 1200 for time in breaks)
    assert (PAUSED in said.kinds) == bool(breaks)
    extra = len("".join(filter(is_syllable, said.text))) - len("".join(words))
    assert (REPEATED in said.kinds) == (extra > 0)
    assert extra >= 0
    assert bool(said.kinds) == (said.text != meant)
    assert said == deviate(meant, habits, random.Random(seed))


# The corpus of two populations


def test_populations_share_no_speaker_voice_or_sentence(planned: list[Cells]) -> None:
    domains = Counter(cells["domain"] for cells in planned)
    assert domains["normal"] == 2 * domains["dyslexic"] > 500
    speakers = [{c["speaker"] for c in planned if c["domain"] == name} for name in ("normal", "dyslexic")]
    assert [len(names) for names in speakers] == [7, 6] and not speakers[0] & speakers[1]
    voices = [speaker.voice for speaker in (*demo_korean.TYPICAL, demo_korean.UNHEARD_TYPICAL)]
    voices += [one.speaker.voice for one in (*demo_korean.ATYPICAL, demo_korean.UNHEARD_ATYPICAL)]
    assert len(set(voices)) == len(voices)
    assert len({cells["transcript"] for cells in planned}) == len(planned)


def test_only_the_atypical_deviate_and_each_kind_is_frequent(planned: list[Cells]) -> None:
    atypical = [cells for cells in planned if cells["domain"] == "dyslexic"]
    for cells in planned:
        if cells["domain"] == "normal":
            assert (cells["spoken"], cells["kind"]) == (cells["transcript"], "fluent")
        else:
            assert (cells["kind"] == "slow") == (cells["spoken"] == cells["transcript"])
    kinds = Counter(kind for cells in atypical for kind in cells["kind"].split("+"))
    assert all(0.3 < kinds[kind] / len(atypical) < 0.9 for kind in (REPEATED, SWAPPED, PAUSED)), kinds
    edits, syllables = (
        sum(column) for column in zip(*map(demo_korean.syllable_edits, atypical), strict=True)
    )
    assert 0.12 < edits / syllables < 0.22


def test_syllable_edits_of_a_repetition_and_a_swap() -> None:
    assert demo_korean.syllable_edits(
        {"transcript": "저는 학교에 갔어요.", "spoken": "저는 … 학 학교에 갔요어."}
    ) == (3, 8)


def test_the_plan_is_that_of_the_seed() -> None:
    assert demo_korean.plan(2, seed=7) == demo_korean.plan(2, seed=7) != demo_korean.plan(2, seed=8)


def test_every_pair_of_populations_meets_once() -> None:
    videos = [video for video in demo_korean.plan(1, seed=1) if not video.split_hint]
    pairs = {(video.takes[0].speaker.name, video.takes[2].speaker.name) for video in videos}
    assert len(pairs) == len(videos) == 30


def test_every_session_has_both_populations_two_to_one(korean: Path) -> None:
    sessions: dict[str, list[Cells]] = {}
    for row in rows(korean):
        sessions.setdefault(row["group"], []).append(row)
    assert len(sessions) == 32
    for group in sessions.values():
        assert Counter(row["domain"] for row in group) == {"normal": 2, "dyslexic": 1}
        assert len({row["speaker"] for row in group}) == 2
        assert len({(row["snr_db"], row["split_hint"]) for row in group}) == 1


def test_manifest_lines_are_complete(korean: Path) -> None:
    listed = rows(korean)
    assert tuple(listed[0]) == demo_korean.KOREAN.columns
    assert {row["language"] for row in listed} == {"ko"}
    files = {path.relative_to(korean).as_posix() for path in korean.glob("video_*/segment_*.wav")}
    assert files == {row["audio_path"] for row in listed} and len(files) == len(listed)
    for row in listed:
        info = soundfile.info(korean / row["audio_path"])
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert float(row["duration"]) == pytest.approx(info.duration, abs=0.001)


def seconds_a_syllable(row: Cells) -> float:
    return float(row["duration"]) / sum(map(is_syllable, row["spoken"]))


def longest_silence(path: Path) -> float:
    """Seconds between two loud samples of a clip without noise."""
    samples, rate = soundfile.read(path)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return float(np.diff(loud).max() / rate)


def test_atypical_speech_is_slower_and_as_loud(korean: Path) -> None:
    pace, level = {}, {}
    for domain in ("normal", "dyslexic"):
        of_domain = [row for row in rows(korean) if row["domain"] == domain]
        pace[domain] = np.mean([seconds_a_syllable(row) for row in of_domain])
        sounds = [soundfile.read(korean / row["audio_path"])[0] for row in of_domain]
        level[domain] = np.mean([10 * np.log10(np.mean(sound**2)) for sound in sounds])
    assert pace["dyslexic"] > 1.4 * pace["normal"]
    assert abs(level["dyslexic"] - level["normal"]) < 1.5


def test_pauses_are_heard_where_they_are_written(korean: Path) -> None:
    clean = [row for row in rows(korean) if not row["snr_db"]]
    assert {PAUSED in row["kind"] for row in clean} == {True, False}
    for row in clean:
        silence = longest_silence(korean / row["audio_path"])
        assert silence > 0.15 if PAUSE in row["spoken"] else silence < 0.1, row["spoken"]


def test_any_split_has_both_domains_in_every_part_and_unseen_sentences(korean: Path, tmp_path: Path) -> None:
    for seed in range(5):
        output = tmp_path / str(seed)
        report = split(korean / MANIFEST, output, seed=seed)
        for part in ("train", "dev", "test", UNHEARD):
            with (output / f"{part}.csv").open(encoding="utf-8", newline="") as file:
                assert {row["domain"] for row in csv.DictReader(file)} == {"normal", "dyslexic"}
        for parts, shared in report["overlap"].items():
            assert shared["sentences"]["shared"] == 0
            assert shared["speakers"]["shared"] == 0 or UNHEARD not in parts


def test_sessions_of_two_voices_have_equal_bytes_in_fresh_processes(tmp_path: Path) -> None:
    """espeak's state outlives a change of the voice."""
    video = replace(demo_korean.plan(0.1, seed=2)[0], seconds=10.0)
    sounds = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made = demo_studio._in_fresh_process([video], tmp_path / name)
        sounds.append([(tmp_path / name / row["audio_path"]).read_bytes() for row in made])
    assert len(sounds[0]) == 3 and sounds[0] == sounds[1]


# The corpus of two conventions


@pytest.mark.parametrize(
    ("number", "words"), [(1, "일"), (10, "십"), (11, "십일"), (20, "이십"), (23, "이십삼"), (99, "구십구")]
)
def test_numbers_are_spelled(number: int, words: str) -> None:
    assert sino(number) == words


def test_no_two_numbers_sound_alike() -> None:
    assert len({sino(number) for number in range(1, 100)}) == 99


def test_the_domain_alone_tells_the_two_texts_of_a_clip_apart(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.cli", "demo-data", "--corpus", "conventions"]
    command += ["--minutes", "0.2", "--seed", "4", "--output", str(tmp_path / "export")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "clips, each written in two conventions" in shown
    clips: dict[str, dict[str, Cells]] = {}
    for row in rows(tmp_path / "export"):
        clips.setdefault(row["audio_path"], {})[row["domain"]] = row
    assert len(clips) == len(list(tmp_path.rglob("*.wav"))) >= 12
    for pair in clips.values():
        spelled, digits = pair["spelled"], pair["digits"]
        own = {"id", "domain", "transcript"}
        assert {name for name in spelled if spelled[name] != digits[name]} == own
        assert spelled["spoken"] == spelled["transcript"]
        in_words = re.sub(r"\d+", lambda match: f"{sino(int(match.group()))} ", digits["transcript"])
        assert in_words == spelled["transcript"] != digits["transcript"]


def test_an_unknown_corpus_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        demo_data.main(["--corpus", "klingon"])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert all(name in message for name in demo.CORPORA)
