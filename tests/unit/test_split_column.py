"""One manifest with a column split: parts by name, dev rows drawn from training alone."""

from __future__ import annotations

import numpy as np
import pytest
from speech_files import manifest

from training.base.errors import UserError
from training.data.prepare.split_column import open_part


def rows(splits, speakers=None):
    return [
        {
            "id": f"u{i}",
            "audio_path": f"{i}.wav",
            "duration": 1.0 + i % 3,
            "transcript": f"câu {i}",
            "split": split,
            **({} if speakers is None else {"speaker": speakers[i]}),
        }
        for i, split in enumerate(splits)
    ]


def parts(path, **changes):
    settings = {"dev_share": 0.2, "seed": 1, **changes}
    found = {part: open_part(path, part, **settings) for part in ("train", "dev", "test")}
    return {part: [] if one is None else one.ids for part, one in found.items()}


def test_parts_are_those_that_the_column_names(tmp_path):
    path = manifest(tmp_path / "m.tsv", rows(["train", "val", "test", "train"]))
    assert parts(path) == {"train": ["u0", "u3"], "dev": ["u1"], "test": ["u2"]}


def test_dev_comes_from_training_and_the_test_rows_are_left_alone(tmp_path):
    path = manifest(tmp_path / "m.tsv", rows(["train"] * 50 + ["test"] * 20))
    found = parts(path)
    assert found["test"] == [f"u{i}" for i in range(50, 70)]
    assert sorted(found["train"] + found["dev"], key=lambda name: int(name[1:])) == [
        f"u{i}" for i in range(50)
    ]
    seconds = open_part(path, "dev", dev_share=0.2, seed=1).durations.sum()
    assert seconds == pytest.approx(0.2 * sum(1.0 + i % 3 for i in range(50)), rel=0.05)
    assert parts(path) == found
    assert parts(path, seed=2) != found


# Trap 12.
def test_speakers_of_dev_are_unseen_where_those_of_test_are(tmp_path):
    speakers = [f"s{i % 8}" for i in range(60)] + [f"t{i % 2}" for i in range(10)]
    path = manifest(tmp_path / "m.tsv", rows(["train"] * 60 + ["test"] * 10, speakers))
    by = {part: {speakers[int(name[1:])] for name in names} for part, names in parts(path).items()}
    assert by["dev"] and not by["dev"] & by["train"]
    shared = [f"s{i % 8}" for i in range(70)]
    path = manifest(tmp_path / "n.tsv", rows(["train"] * 60 + ["test"] * 10, shared))
    by = {part: {shared[int(name[1:])] for name in names} for part, names in parts(path).items()}
    assert len(by["dev"] & by["train"]) > 1


def test_mistakes_name_the_line(tmp_path):
    with pytest.raises(UserError, match=r"m.tsv:3: split: 'tets' is none of"):
        parts(manifest(tmp_path / "m.tsv", rows(["train", "tets"])))
    bare = [{"audio_path": "a.wav", "duration": 1, "transcript": "a"}]
    with pytest.raises(UserError, match="no column 'split'"):
        parts(manifest(tmp_path / "n.tsv", bare))
    with pytest.raises(UserError, match=r"data.manifest: .* is not there"):
        parts(tmp_path / "absent.tsv")


def test_no_test_rows_is_no_part(tmp_path):
    path = manifest(tmp_path / "m.tsv", rows(["train"] * 5))
    assert open_part(path, "test", dev_share=0.2, seed=1) is None
    assert np.isfinite(open_part(path, "train", dev_share=0.2, seed=1).durations).all()
