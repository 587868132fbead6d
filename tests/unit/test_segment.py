"""Long recordings with labels become clips and a manifest; what is left out is named."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from training.base.errors import UserError
from training.cli import segment as command
from training.data.labels.readers import Label, read_labels
from training.data.labels.segments import Rules, segmented, without_repeats

RATE = 16_000
SRT = """1
00:00:00,500 --> 00:00:01,500
<i>Xin</i> chào

2
00:00:02,000 --> 00:00:03,000
các bạn

3
00:00:03,200 --> 00:00:04,000
♪
"""


def steps(path: Path, seconds: int) -> Path:
    """A recording whose samples are a hundredth of the number of their half second, so that a clip says where it is from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = np.repeat(np.arange(2 * seconds, dtype=np.float32) / 100, RATE // 2)
    soundfile.write(path, halves, RATE, subtype="FLOAT")
    return path


def rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))


def run(folder: Path, *options: str) -> list[dict[str, str]]:
    manifest = folder / "out/manifest.tsv"
    command.main(
        [str(folder / "talks"), "--output", str(manifest), "--clips", str(folder / "clips"), *options]
    )
    return rows(manifest)


def test_clips_hold_the_sound_of_their_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps(tmp_path / "talks/a/talk.wav", 5)
    (tmp_path / "talks/a/talk.srt").write_text(SRT, encoding="utf8")
    steps(tmp_path / "talks/lonely.wav", 1)
    found = run(tmp_path, "--pad", "0.1", "--language", "vi")
    assert [row["transcript"] for row in found] == ["Xin chào", "các bạn"]
    assert [row["id"] for row in found] == ["a_talk_0001", "a_talk_0002"]
    assert [(row["video_id"], row["language"]) for row in found] == [("a_talk", "vi")] * 2
    assert [float(row["position"]) for row in found] == pytest.approx([0.4, 1.9])
    samples, rate = soundfile.read(tmp_path / "out" / found[0]["audio_path"])
    assert (rate, len(samples)) == (RATE, round(1.2 * RATE))
    assert samples[:100] == pytest.approx(0.0, abs=1e-4)
    assert samples[round(0.3 * RATE)] == pytest.approx(0.01, abs=1e-4)
    assert samples[-100:] == pytest.approx(0.03, abs=1e-4)
    said = capsys.readouterr()
    assert "1 recordings without labels" in said.err and "lonely.wav" in said.err
    assert "no_words" in said.out and "2 utterances" in said.out
    ledger = (tmp_path / "out/manifest_dropped.tsv").read_text(encoding="utf8")
    assert "talk.srt@3.20\tno_words\t♪" in ledger


def test_without_cutting_the_manifest_names_stretches(tmp_path: Path) -> None:
    sound = steps(tmp_path / "talks/talk.wav", 5)
    (tmp_path / "talks/talk.vi.srt").write_text(SRT, encoding="utf8")
    found = run(tmp_path, "--no_cut", "--pad", "0")
    assert not (tmp_path / "clips").exists()
    assert [(float(row["start"]), float(row["end"])) for row in found] == [(0.5, 1.5), (2.0, 3.0)]
    assert {(tmp_path / "out" / row["audio_path"]).resolve() for row in found} == {sound.resolve()}


def test_a_second_call_replaces_its_own_files_and_no_others(tmp_path: Path) -> None:
    steps(tmp_path / "talks/talk.wav", 5)
    (tmp_path / "talks/talk.srt").write_text(SRT, encoding="utf8")
    first = run(tmp_path)
    assert run(tmp_path) == first
    (tmp_path / "clips/segments.json").unlink()
    with pytest.raises(UserError, match="holds files that this command did not write"):
        run(tmp_path)
    (tmp_path / "out/manifest.tsv").write_text("mine")
    with pytest.raises(UserError, match="already there"):
        run(tmp_path)


def test_several_tiers_are_asked_for_and_name_their_speakers(tmp_path: Path) -> None:
    textgrid = pytest.importorskip("praatio.textgrid")
    grid = textgrid.Textgrid()
    grid.addTier(textgrid.IntervalTier("anna", [(0.5, 1.5, "hello"), (3, 4, "bye")], 0, 5))
    grid.addTier(textgrid.IntervalTier("ben", [(1.7, 2.5, "good morning")], 0, 5))
    grid.addTier(textgrid.PointTier("clicks", [(1, "x")], 0, 5))
    steps(tmp_path / "talks/talk.wav", 5)
    grid.save(str(tmp_path / "talks/talk.TextGrid"), "long_textgrid", includeBlankSpaces=True)
    with pytest.raises(UserError, match=r"anna \(2 labels\), ben \(1 labels\).*--tier NAME"):
        run(tmp_path)
    found = run(tmp_path, "--all_tiers")
    assert [(row["speaker"], row["transcript"]) for row in found] == [
        ("anna", "hello"),
        ("ben", "good morning"),
        ("anna", "bye"),
    ]
    assert [row["transcript"] for row in run(tmp_path, "--tier", "ben")] == ["good morning"]
    with pytest.raises(UserError, match=r"--tier carl: .* there are anna, ben"):
        run(tmp_path, "--tier", "carl")


def test_elan_names_its_participants(tmp_path: Path) -> None:
    elan = pytest.importorskip("pympi.Elan")
    file = elan.Eaf(author="test")
    file.add_tier("A", part="Anna")
    file.remove_tier("default")
    file.add_annotation("A", 500, 2000, "hello")
    file.to_file(str(tmp_path / "a.eaf"))
    assert read_labels(tmp_path / "a.eaf") == [Label(0.5, 2.0, "hello", tier="A", speaker="Anna")]


def test_audacity_and_webvtt(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0.5\t2.0\thello\n\\\t100\t200\n3,5\t4\tbye\n")
    assert read_labels(tmp_path / "a.txt") == [Label(0.5, 2.0, "hello"), Label(3.5, 4.0, "bye")]
    (tmp_path / "a.vtt").write_text(
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.000 align:start\n<v Anna>Hello<00:00:01.000><c> there</c>\n\n"
        "00:03.000 --> 00:04.000\nR&amp;B\n"
    )
    assert read_labels(tmp_path / "a.vtt") == [
        Label(0.5, 2.0, "Hello there", speaker="Anna"),
        Label(3.0, 4.0, "R&B"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.srt", b"nothing", "cannot be read as .srt"),
        ("a.eaf", b"<a>", "cannot be read as .eaf"),
        ("a.TextGrid", b"x", "cannot be read as .TextGrid"),
        ("a.txt", b"a plain transcript\n", r"a.txt:1: expected start, end and text"),
        ("a.srt", "1\n00:00:00,000 --> 00:00:01,000\nGrüße\n".encode("latin-1"), "not UTF-8 .*iconv"),
        ("a.doc", b"", "labels are one of .srt"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / name)


def test_rolling_captions_lose_what_they_repeat() -> None:
    shown = [
        Label(0.0, 2.0, "so today we"),
        Label(2.0, 2.01, "so today we"),
        Label(2.01, 4.0, "so today we\nlook at speech"),
        Label(4.0, 4.01, "look at speech"),
        Label(4.01, 6.0, "look at speech\nand at text"),
    ]
    assert without_repeats(shown) == [
        Label(0.0, 2.01, "so today we"),
        Label(2.01, 4.01, "look at speech"),
        Label(4.01, 6.0, "and at text"),
    ]
    said_twice = [Label(0, 1, "yes"), Label(1, 2, "yes"), Label(3, 4, "no"), Label(5, 6, "maybe")]
    assert without_repeats(said_twice) == said_twice


def test_neighbours_are_joined_up_to_the_longest(tmp_path: Path) -> None:
    labels = [Label(n, n + 0.9, f"w{n}") for n in range(6)] + [Label(9.0, 9.5, "late")]
    found = segmented(labels, 10.0, Rules(pad=0.0, join_gap=0.2, longest=3.0), "talk")
    assert [(one.start, one.end, one.text) for one in found.kept] == [
        (0, 2.9, "w0 w1 w2"),
        (3, 5.9, "w3 w4 w5"),
        (9.0, 9.5, "late"),
    ]


def test_labels_that_cannot_be_right_are_named() -> None:
    labels = [
        Label(0.0, 2.0, "one"),
        Label(1.0, 2.5, "over it"),
        Label(3.0, 3.1, "ha"),
        Label(4.0, 40.0, "long"),
        Label(9.0, 12.0, "end"),
        Label(11.0, 12.0, "behind"),
    ]
    found = segmented(labels, 10.0, Rules(pad=0.0, longest=5.0), "talk")
    assert [one.text for one in found.kept] == ["one", "over it", "end"]
    assert {drop.reason: drop.id for drop in found.drops} == {
        "too_short": "talk@3.00",
        "too_long": "talk@4.00",
        "outside": "talk@11.00",
    }
    assert [(note.reason, note.id) for note in found.notes if note.reason == "overlap"] == [
        ("overlap", "talk@1.00"),
        ("overlap", "talk@9.00"),
    ]


@given(
    st.lists(st.tuples(st.floats(0, 70), st.floats(0, 40), st.booleans()), max_size=12),
    st.floats(0, 1),
    st.one_of(st.none(), st.floats(0, 2)),
)
def test_every_label_is_kept_once_or_in_the_ledger(
    cells: list[tuple[float, float, bool]], pad: float, join_gap: float | None
) -> None:
    """Property: no word is lost or doubled; segments lie in the recording, and their lengths within the bounds."""
    labels = [Label(a, a + b, f"w{n}" if speech else "♪") for n, (a, b, speech) in enumerate(cells)]
    labels.sort(key=lambda one: (one.start, one.end))
    rules = Rules(pad=pad, join_gap=join_gap)
    found = segmented(labels, 60.0, rules, "talk")
    words = [word for one in found.kept for word in one.text.split()]
    assert len(words) == len(set(words)) and set(words) <= {one.text for one in labels}
    if join_gap is None:
        assert len(found.kept) + len(found.drops) == len(labels)
    starts = {one.text: one.start for one in labels}
    for one in found.kept:
        assert 0 <= one.start < one.end <= 60.0
        assert rules.shortest <= one.end - one.start <= rules.longest
        assert all(one.start <= starts[word] <= one.end for word in one.text.split())


def test_a_recording_that_cannot_be_read_is_named_also_without_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(tmp_path / "talks/good.wav", 5)
    (tmp_path / "talks/good.srt").write_text(SRT, encoding="utf8")
    for name, labels in (("broken", SRT), ("empty", "")):
        (tmp_path / f"talks/{name}.wav").write_bytes(b"no sound")
        (tmp_path / f"talks/{name}.srt").write_text(labels, encoding="utf8")
    assert [row["video_id"] for row in run(tmp_path)] == ["good", "good"]
    said = capsys.readouterr()
    told = said.err.splitlines()
    assert told[0] == "2 of 3 recordings cannot be read:"
    assert told[1].startswith("  broken: ") and told[1].endswith("; 3 labels are left out with it")
    assert told[2].startswith("  empty: ") and told[2].endswith("empty.srt holds no labels")
    assert "2 utterances, 0.00 hours, of 1 recordings" in said.out
    ledger = (tmp_path / "out/manifest_dropped.tsv").read_text(encoding="utf8")
    assert "\nbroken\tunreadable_recording\t" in ledger and "\nempty\tunreadable_recording\t" in ledger


def test_one_unreadable_recording_without_labels_is_not_nothing_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(tmp_path / "talks/good.wav", 5)
    (tmp_path / "talks/good.srt").write_text(SRT.partition("3\n")[0], encoding="utf8")
    (tmp_path / "talks/empty.wav").write_bytes(b"no sound")
    (tmp_path / "talks/empty.srt").write_text("", encoding="utf8")
    run(tmp_path)
    said = capsys.readouterr()
    assert said.err.startswith("1 of 2 recordings cannot be read:\n  empty: ")
    assert "each of them with its reason: " in said.out
