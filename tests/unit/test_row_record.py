"""Which utterances a run was trained on: what is added, removed, changed, for every source."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import shard_assets
from hypothesis import given, settings
from hypothesis import strategies as st
from librispeech_files import tree
from pyarrow import parquet
from registry_files import corpus, imported
from speech_files import manifest, sound

from training.data import row_record
from training.data.manifest import load_manifest
from training.data.row_record import SOUND, TEXT, Changes
from training.data.sources.dataset import load_source
from training.data.sources.librispeech import load_librispeech
from training.data.sources.shards.source import load_shards
from training.registry.source import load_version


def rows(count: int = 6) -> list[dict[str, Any]]:
    return [
        {
            "id": f"u{n}",
            "audio_path": f"{n}.wav",
            "duration": 0.5,
            "transcript": f"text {n}",
            "sentence": f"another {n}",
        }
        for n in range(count)
    ]


def made(path: Path, found: list[dict[str, Any]], **options: Any) -> pa.Table:
    return row_record.record(load_manifest(manifest(path, found), **options))


@pytest.fixture
def before(tmp_path: Path) -> pa.Table:
    for n in range(8):
        sound(tmp_path / f"{n}.wav", 0.5, seed=n)
    return made(tmp_path / "train.csv", rows())


def test_the_same_rows_are_no_change_in_whatever_file_they_stand(tmp_path: Path, before: pa.Table) -> None:
    assert not row_record.compare(before, made(tmp_path / "b.jsonl", rows()))
    noted = [{**row, "notes": "checked"} for row in rows()]
    assert not row_record.compare(before, made(tmp_path / "c.tsv", noted))
    (tmp_path / "moved").mkdir()
    assert not row_record.compare(before, made(tmp_path / "moved" / "d.csv", rows(), audio_root=tmp_path))
    renamed = [{**row, "id": f"new_{row['id']}"} for row in rows()]
    assert not row_record.compare(before, made(tmp_path / "e.csv", renamed))


def test_rows_added_removed_and_changed_are_told_by_their_ids(tmp_path: Path, before: pa.Table) -> None:
    found = [*rows()[1:], {**rows()[0], "id": "u6", "audio_path": "6.wav", "transcript": "text 6"}]
    found[0]["transcript"] = "corrected"
    found[1]["duration"] = 0.51
    changes = row_record.compare(before, made(tmp_path / "b.csv", found))
    assert changes == Changes(6, 6, ["u6"], ["u0"], [("u1", (TEXT,)), ("u2", (SOUND,))])
    assert str(changes) == (
        "6 utterances then, 6 now: 1 added (u6); 1 removed (u0); 2 changed (u1: text, u2: sound)"
    )
    assert changes.counts() == {"added": 1, "removed": 1, "changed": 2, "reordered": False}


def test_many_changes_are_counted_and_some_are_named(tmp_path: Path, before: pa.Table) -> None:
    told = str(row_record.compare(before, made(tmp_path / "b.csv", rows(8)[6:])))
    assert "2 added (u6, u7)" in told and "6 removed (u0, u1, u2, u3, u4, …)" in told


def test_another_order_is_a_change(tmp_path: Path, before: pa.Table) -> None:
    changes = row_record.compare(before, made(tmp_path / "b.csv", rows()[::-1]))
    assert changes and changes.reordered and not changes.added
    assert "the same ones in another order" in str(changes)


def test_another_column_of_texts_changes_every_row(tmp_path: Path, before: pa.Table) -> None:
    changes = row_record.compare(
        before, made(tmp_path / "train.csv", rows(), columns={"transcript": "sentence"})
    )
    assert [parts for _, parts in changes.changed] == [(TEXT,)] * 6


def test_another_file_of_the_same_name_is_known_by_its_size(tmp_path: Path, before: pa.Table) -> None:
    sound(tmp_path / "3.wav", 0.504, seed=9)
    changes = row_record.compare(before, made(tmp_path / "train.csv", rows()))
    assert changes.changed == [("u3", (SOUND,))]


def test_a_copied_file_is_the_same_whatever_its_time(tmp_path: Path, before: pa.Table) -> None:
    shutil.copyfile(tmp_path / "3.wav", tmp_path / "copy.wav")
    (tmp_path / "copy.wav").replace(tmp_path / "3.wav")
    assert not row_record.compare(before, made(tmp_path / "train.csv", rows()))


def test_a_record_is_read_as_it_was_written(tmp_path: Path, before: pa.Table) -> None:
    path = tmp_path / "rows_train.arrow"
    path.write_bytes(row_record.write(before))
    found = row_record.read(path)
    assert found is not None and found.equals(before)
    path.write_bytes(b"no Arrow file")
    assert row_record.read(path) is None and row_record.read(tmp_path / "none.arrow") is None


# Other sources


def test_shards_may_move_and_be_packed_anew(tmp_path: Path) -> None:
    shards = shard_assets.folder(tmp_path / "train", {"a": 3}, domain="d")
    before = row_record.record(load_shards(shards))
    shutil.copytree(shards, tmp_path / "elsewhere")
    assert not row_record.compare(before, row_record.record(load_shards(tmp_path / "elsewhere")))
    shard_assets.folder(tmp_path / "train", {"a": 4}, domain="d")
    changes = row_record.compare(before, row_record.record(load_shards(shards)))
    assert (list(changes.added), changes.removed, changes.changed) == (["a_003"], [], [])
    one = [m for n in range(3) for m in shard_assets.sample(f"a_{n:03}", 0.2 + 0.01 * n + 0.1 * (n == 1))]
    shard_assets.archive(tmp_path / "other" / "a.tar", one)
    other = row_record.record(load_shards(tmp_path / "other", default_domain="d"))
    assert row_record.compare(before, other).changed == [("a_001", (SOUND,))]


def in_parquet(folder: Path, numbers: list[int]) -> Path:
    cells = [
        {"bytes": sound(folder / "raw" / f"{n}.wav", 0.5 + n, seed=n).read_bytes(), "path": "x.wav"}
        for n in numbers
    ]
    texts = [f"text {n}" for n in numbers]
    features = datasets.Features({"audio": datasets.Audio(), "transcript": datasets.Value("string")})
    table = pa.table({"audio": cells, "transcript": texts}).replace_schema_metadata(
        features.arrow_schema.metadata
    )
    parquet.write_table(table, folder / "data.parquet")
    return folder / "data.parquet"


def test_a_row_less_in_a_dataset_with_its_sound_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows have no names but their numbers, which all move; only one utterance is gone."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    before = row_record.record(load_source(str(in_parquet(tmp_path, [0, 1, 2, 3]))))
    (tmp_path / "less").mkdir()
    now = load_source(str(in_parquet(tmp_path / "less", [0, 2, 3])))
    changes = row_record.compare(before, row_record.record(now))
    assert changes.counts() == {"added": 0, "removed": 1, "changed": 0, "reordered": False}
    picked = row_record.compare(before, row_record.record(now.select([1, 0])))
    assert picked.counts() == {"added": 0, "removed": 2, "changed": 0, "reordered": True}


def test_librispeech(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    before = row_record.record(load_librispeech(tmp_path, ["dev-clean"]))
    first = sorted(folder.rglob("*.trans.txt"))[0]
    lines = first.read_text(encoding="utf8").splitlines()
    lines[0] = f"{lines[0]} MORE"
    first.write_text("\n".join(lines) + "\n", encoding="utf8")
    changes = row_record.compare(before, row_record.record(load_librispeech(tmp_path, ["dev-clean"])))
    assert changes.changed == [(lines[0].split()[0], (TEXT,))]


def test_a_registry_that_moved_has_the_same_sound(tmp_path: Path) -> None:
    for place in ("a", "b"):
        imported(corpus(tmp_path / place))
    found = [load_version(str(tmp_path / place / "registry.db"), "v1", "train") for place in ("a", "b")]
    assert "__content__" not in found[0].column_names
    assert not row_record.compare(*map(row_record.record, found))
    assert len(
        row_record.compare(row_record.record(found[0]), row_record.record(found[0].select([0]))).removed
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12))
def test_counts_add_up_for_rows_that_come_several_times(old: list[int], new: list[int]) -> None:
    def table(numbers: list[int], prefix: str) -> pa.Table:
        marks = np.array(numbers, dtype=np.uint32)
        ids = [f"{prefix}{place}" for place in range(len(numbers))]
        return pa.table({"id": pa.array(ids, pa.string()), **dict.fromkeys(row_record.PARTS, marks)})

    changes = row_record.compare(table(old, "a"), table(new, "b"))
    common = sum(min(old.count(n), new.count(n)) for n in range(6))
    assert (len(changes.removed), len(changes.added)) == (len(old) - common, len(new) - common)
    assert bool(changes) == (old != new)


def test_csv_cells_with_separators_do_not_run_into_each_other(tmp_path: Path, before: pa.Table) -> None:
    """ "a", "b" and "a b", "" are different rows."""
    one = [{**row, "transcript": "a", "translation": "b"} for row in rows(1)]
    other = [{**row, "transcript": "a b", "translation": ""} for row in rows(1)]
    assert row_record.compare(made(tmp_path / "x.csv", one), made(tmp_path / "y.csv", other)).changed
