"""Splitting: whole groups, balanced seconds, leaks told, foreign files left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_files import manifest, sound

from training.base.errors import UserError
from training.cli.split import main
from training.data.manifest import load_manifest
from training.data.prepare.partition import partition
from training.data.prepare.split import PARTS, parse_ratios, split
from training.data.prepare.split_report import overlap_lines

SCRIPT = Path(__file__).parents[2] / "training" / "data" / "split_data.py"


def corpus(folder: Path, videos: int = 20, each: int = 5, **cells: Any) -> Path:
    """``videos`` videos of different lengths; speakers two per video, sentences all different."""
    rng = np.random.default_rng(1)
    rows = [
        {
            "id": f"v{v}_{i}",
            "video_id": f"v{v}",
            "audio_path": f"video_v{v}/segment_{i}.wav",
            "duration": round(float(rng.uniform(1, 10)), 3),
            "transcript": f"câu số {v} {i}",
            "translation": f"câu {v} {i}",
            "speaker": f"s{(v + i % 2) % videos}",
            **{name: value(v, i) if callable(value) else value for name, value in cells.items()},
        }
        for v in range(videos)
        for i in range(each)
    ]
    return manifest(folder / "export" / "manifest.tsv", rows)


def parts_of(folder: Path, key: str) -> dict[str, set[str]]:
    return {path.stem: set(load_manifest(path).column(key)) for path in folder.glob("*.csv")}


def disjoint(parts: dict[str, set[str]]) -> bool:
    return sum(map(len, parts.values())) == len(set().union(*parts.values()))


def test_the_guides_command_makes_three_files(tmp_path: Path) -> None:
    source, output = corpus(tmp_path), tmp_path / "splits"
    command = [sys.executable, str(SCRIPT), "--manifest", str(source), "--output_dir", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in output.iterdir()) == [
        "dev.csv",
        "splits.json",
        "test.csv",
        "train.csv",
    ]
    ids = parts_of(output, "id")
    assert disjoint(ids)
    assert set().union(*ids.values()) == set(load_manifest(source).ids)
    assert "train and test share" in done.stdout  # the corpus' speakers appear in two videos each


@pytest.mark.parametrize(
    ("by", "key"), [("video", "video_id"), ("speaker", "speaker"), ("sentence", "transcript")]
)
# Trap 12.
@pytest.mark.parametrize("seed", [1, 2])
def test_no_group_is_torn_apart(tmp_path: Path, by: str, key: str, seed: int) -> None:
    source = corpus(tmp_path, transcript=lambda v, i: f"Câu lặp lại {(v + i) % 17}" + "!" * (i % 2))
    report = split(source, tmp_path / "s", by=by, seed=seed)
    parts = parts_of(tmp_path / "s", key)
    if by == "sentence":
        parts = {name: {text.rstrip("!").lower() for text in texts} for name, texts in parts.items()}
    assert disjoint(parts)
    plural = f"{by}s"
    assert all(pair[plural]["shared"] == 0 for pair in report["overlap"].values())


# Trap 12.
def test_what_overlaps_is_counted_printed_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = corpus(
        tmp_path, transcript=lambda v, i: "**Xin chào!**" if i == 0 else f"câu {v} {i}", speaker="s1"
    )
    assert main(["--manifest", str(source), "--output_dir", str(tmp_path / "s")]) == 0
    report = json.loads((tmp_path / "s" / "splits.json").read_text(encoding="utf-8"))
    test_videos = report["parts"]["test"]["videos"]
    shared = report["overlap"]["train/test"]
    assert shared["sentences"] == {"shared": 1, "utterances": test_videos, "examples": ["xin chào"]}
    assert shared["speakers"] == {"shared": 1, "utterances": 5 * test_videos, "examples": ["s1"]}
    assert shared["videos"]["shared"] == 0
    printed = capsys.readouterr().out
    assert (
        f"train and test share 1 sentences ({test_videos} utterances of test), such as 'xin chào'" in printed
    )
    assert "train and dev share 1 speakers" in printed


def test_what_was_compared_is_named_where_nothing_is_shared() -> None:
    nothing = {"shared": 0, "utterances": 0, "examples": []}
    assert overlap_lines({"train/dev": {"speakers": nothing, "sentences": nothing}}) == [
        "no two parts share speakers or sentences"
    ]
    assert overlap_lines({"train/dev": {}}) == []


def test_parts_have_their_share_of_the_duration(tmp_path: Path) -> None:
    report = split(corpus(tmp_path, videos=30), tmp_path / "s")
    shares = [report["parts"][name]["share"] for name in PARTS]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.005)
    hours = sum(load_manifest(tmp_path / "s" / f"{name}.csv").durations.sum() for name in PARTS) / 3600
    assert sum(part["hours"] for part in report["parts"].values()) == pytest.approx(hours, abs=1e-4)


def test_a_seed_gives_one_split_and_another_seed_another(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    made = []
    for name, seed in [("a", 42), ("b", 42), ("c", 7)]:
        split(source, tmp_path / name, seed=seed)
        made.append((tmp_path / name / "test.csv").read_text(encoding="utf-8"))
    assert made[0] == made[1] != made[2]


def test_audio_paths_in_the_parts_point_to_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = corpus(tmp_path, videos=3, each=1)
    for example in load_manifest(source):
        sound(Path(example.audio.path), 0.1)
    monkeypatch.chdir(tmp_path)
    split(Path("export/manifest.tsv"), Path("data/splits"))
    monkeypatch.chdir("/")
    part = load_manifest(tmp_path / "data" / "splits" / "dev.csv", check_files=True)
    assert part.column("audio_path")[0].startswith("../../export/video_v")
    assert load_manifest(part.path, audio_root=Path("/"), check_files=True).ids == part.ids


def test_absolute_paths_stay_and_audio_root_is_followed(tmp_path: Path) -> None:
    paths = [sound(tmp_path / "sounds" / f"{i}.wav", 0.1) for i in range(4)]
    cells = [str(paths[0]), "1.wav", "2.wav", "3.wav"]
    rows = [
        {"video_id": i, "audio_path": cell, "duration": 1, "transcript": i} for i, cell in enumerate(cells)
    ]
    split(manifest(tmp_path / "lists" / "m.tsv", rows), tmp_path / "s", audio_root=tmp_path / "sounds")
    found = {}
    for name in PARTS:
        part = load_manifest(tmp_path / "s" / f"{name}.csv", check_files=True)
        found.update(zip(part.column("transcript"), part.column("audio_path"), strict=True))
    assert found == {"0": str(paths[0]), **{str(i): f"../sounds/{i}.wav" for i in (1, 2, 3)}}


def test_too_few_videos_are_refused_and_the_other_options_named(tmp_path: Path) -> None:
    source = corpus(tmp_path, videos=2, speaker=lambda v, i: f"s{v}{i}")
    with pytest.raises(
        UserError,
        match=r"2 videos for 3 parts.*--by speaker \(10 speakers\) or --by sentence \(10 sentences\)",
    ):
        split(source, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    assert split(source, tmp_path / "s", by="speaker")["parts"].keys() == set(PARTS)
    assert split(source, tmp_path / "t", ratios=parse_ratios("50/50/0"))["parts"].keys() == {"train", "dev"}


def test_parts_far_from_their_share_are_told(tmp_path: Path) -> None:
    report = split(corpus(tmp_path, videos=3), tmp_path / "s")
    assert any("instead of 10%: too few videos" in line for line in report["warnings"])
    assert not split(corpus(tmp_path, videos=30), tmp_path / "t")["warnings"]


def test_a_missing_column_or_group_is_named(tmp_path: Path) -> None:
    rows = [
        {"audio_path": f"{i}.wav", "duration": 1, "transcript": f"câu {i}", "speaker": "s" if i else ""}
        for i in range(4)
    ]
    source = manifest(tmp_path / "m.tsv", rows)
    with pytest.raises(
        UserError, match=r"--by video needs the column 'video_id'.*--by sentence \(4 sentences\)"
    ):
        split(source, tmp_path / "s", by="video")
    with pytest.raises(UserError, match=r"m\.tsv:2: no speaker in this row"):
        split(source, tmp_path / "s", by="speaker")


def test_without_videos_speakers_are_kept_together_else_sentences_and_it_is_said(tmp_path: Path) -> None:
    rows = [
        {"audio_path": f"{i}.wav", "duration": 1, "transcript": f"câu {i % 6}", "speaker": f"s{i % 4}"}
        for i in range(12)
    ]
    report = split(manifest(tmp_path / "m.tsv", rows), tmp_path / "s")
    assert report["by"] == "speaker"
    assert {pair["speakers"]["shared"] for pair in report["overlap"].values()} == {0}
    assert report["warnings"][0].startswith("split by speaker, because no column names videos")
    for row in rows:
        del row["speaker"]
    report = split(manifest(tmp_path / "n.tsv", rows), tmp_path / "t")
    assert report["by"] == "sentence"
    assert {pair["sentences"]["shared"] for pair in report["overlap"].values()} == {0}
    assert "one speaker can be in train and in test" in report["warnings"][0]


def test_hinted_rows_go_to_their_file_and_nowhere_else(tmp_path: Path) -> None:
    source = corpus(tmp_path, split_hint=lambda v, i: "unheard_voice" if v == 3 else "")
    report = split(source, tmp_path / "s")
    ids = parts_of(tmp_path / "s", "id")
    assert ids["unheard_voice"] == {f"v3_{i}" for i in range(5)}
    assert disjoint(ids)
    assert sum(map(len, ids.values())) == 100
    assert "train/unheard_voice" in report["overlap"]


def test_a_hint_may_name_a_part_and_counts_for_its_share(tmp_path: Path) -> None:
    source = corpus(tmp_path, videos=30, split_hint=lambda v, i: "test" if v < 3 else "")
    report = split(source, tmp_path / "s")
    assert {f"v{v}" for v in range(3)} <= parts_of(tmp_path / "s", "video_id")["test"]
    assert report["parts"]["test"]["share"] == pytest.approx(0.1, abs=0.03)
    assert disjoint(parts_of(tmp_path / "s", "video_id"))


def test_a_hint_that_is_no_file_name_is_refused(tmp_path: Path) -> None:
    source = corpus(tmp_path, split_hint=lambda v, i: "../x" if v + i == 0 else "")
    with pytest.raises(
        UserError, match=r"manifest\.tsv:2: split_hint: '\.\./x' cannot be the name of a file"
    ):
        split(source, tmp_path / "s")


def test_the_manifests_own_split_can_be_taken(tmp_path: Path) -> None:
    source = corpus(tmp_path, split=lambda v, i: ["train", "train", "validation", "Test"][v % 4])
    report = split(source, tmp_path / "s", by="column")
    assert parts_of(tmp_path / "s", "video_id")["dev"] == {f"v{v}" for v in range(2, 20, 4)}
    assert set(load_manifest(tmp_path / "s" / "dev.csv").column("split")) == {"dev"}
    assert report["parts"]["train"]["utterances"] == 50
    bad = corpus(tmp_path, split="eval2")
    with pytest.raises(UserError, match=r":2: split: 'eval2' is none of train, dev, test[\s\S]*and 80 more"):
        split(bad, tmp_path / "s2", by="column")


# Trap 13.
def test_texts_pass_through_unchanged(tmp_path: Path) -> None:
    source = corpus(tmp_path, transcript="nan", translation=lambda v, i: "NA" if i else "")
    split(source, tmp_path / "s")
    part = load_manifest(tmp_path / "s" / "test.csv")
    assert set(part.column("transcript")) == {"nan"}
    assert {e.texts.get("translate") for e in part} == {"NA", None}


def test_a_second_call_replaces_its_own_files_and_removes_what_is_stale(tmp_path: Path) -> None:
    source = corpus(tmp_path, split_hint=lambda v, i: "extra" if v == 0 else "")
    split(source, tmp_path / "s")
    source = corpus(tmp_path)
    split(source, tmp_path / "s", seed=3)
    assert sorted(path.name for path in (tmp_path / "s").glob("*.csv")) == [
        "dev.csv",
        "test.csv",
        "train.csv",
    ]
    assert json.loads((tmp_path / "s" / "splits.json").read_text())["seed"] == 3


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "test.csv").write_text("by hand")
    with pytest.raises(UserError, match=r"test\.csv: already there.*--force"):
        split(source, tmp_path / "s")
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["test.csv"]
    split(source, tmp_path / "s", force=True)
    (tmp_path / "s" / "dev.csv").write_text("edited")
    with pytest.raises(UserError, match=r"dev\.csv: already there"):
        split(source, tmp_path / "s")


@pytest.mark.parametrize("text", ["80", "80/20", "a/b/c", "80/-10/30", "0/50/50", "nan/1/1"])
def test_bad_ratios_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected three numbers"):
        parse_ratios(text)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(1, 100), min_size=3, max_size=25),
    st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.1, 0.0), (1.0, 0.0, 0.0)]),
    st.integers(0, 5),
)
def test_partitions_fill_every_part_and_only_those_with_a_share(
    seconds: list[float], shares: tuple, seed: int
) -> None:
    parts = partition(np.array(seconds), shares, seed)
    assert set(parts.tolist()) == {j for j, share in enumerate(shares) if share > 0}
    assert len(parts) == len(seconds)


def test_partitions_of_few_groups_are_as_good_as_any(tmp_path: Path) -> None:
    """Against every possible assignment of nine groups to three parts."""
    import itertools

    rng = np.random.default_rng(0)
    shares = np.array([0.8, 0.1, 0.1])
    for seed in range(3):
        seconds = rng.uniform(10, 60, 9)
        loads = lambda parts: np.bincount(parts, weights=seconds, minlength=3) / seconds.sum()  # noqa: B023, E731
        error = lambda parts: np.abs(loads(np.array(parts)) / shares - 1).max()  # noqa: B023, E731
        best = min(error(parts) for parts in itertools.product(range(3), repeat=9) if len(set(parts)) == 3)
        assert error(partition(seconds, shares, seed)) <= max(best + 0.05, 0.02)


def test_a_hundred_thousand_groups_take_seconds() -> None:
    seconds = np.random.default_rng(0).uniform(1, 10, 100_000)
    parts = partition(seconds, (0.8, 0.1, 0.1), 0)
    np.testing.assert_allclose(
        np.bincount(parts, weights=seconds) / seconds.sum(), [0.8, 0.1, 0.1], atol=0.001
    )


def test_small_groups_of_every_length_are_in_every_part() -> None:
    """Placed largest first, the dev and test parts got the shortest utterances."""
    seconds = np.random.default_rng(0).lognormal(0.5, 0.6, 3000)
    parts = partition(seconds, (0.8, 0.1, 0.1), seed=0)
    means = [seconds[parts == part].mean() for part in range(3)]
    assert means == pytest.approx([seconds.mean()] * 3, rel=0.1)
    shares = [seconds[parts == part].sum() / seconds.sum() for part in range(3)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], rel=0.02)
