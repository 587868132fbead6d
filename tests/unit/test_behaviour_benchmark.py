"""Recordings of the commands' behaviour: what counts as equal, as moved and as a difference; what is masked."""

from __future__ import annotations

import copy
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORD = {
    "first_weights": {"all": "ab", "model a.weight": "cd"},
    "losses": {"step 1": {"loss": 5.131310462951660}, "step 2": {"loss": 4.996727466583252}},
    "scores": {"last": {"last_metrics": {"scores": {"wer": {"value": 100.0}}, "no_speech": None}}},
    "hypotheses": {"last": {"u1 transcribe": "xin chào", "u2 transcribe": ""}},
    "dry_run": ["run tiny", "  trainable   all", "  result      valid"],
    "config": {"data": {"train": "train.csv", "shards": None}, "training": {"seed": 42, "freeze": []}},
}


@pytest.fixture
def behaviour(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("behaviour")


@pytest.fixture
def comparing(behaviour: Any) -> Any:
    return importlib.import_module("behaviour_compare")


@pytest.fixture
def record() -> dict[str, Any]:
    return copy.deepcopy(RECORD)


def folder(path: Path, **records: Any) -> Path:
    path.mkdir()
    for name, value in records.items():
        (path / f"{name}.json").write_text(json.dumps(value), encoding="utf8")
    return path


def compared(behaviour: Any, capsys: Any, path: Path, before: Any, after: Any) -> tuple[int, dict[str, str]]:
    """Exit status, and the verdicts by quantity."""
    places = [folder(path / name, tiny=value) for name, value in (("before", before), ("after", after))]
    status = behaviour.main(["compare", *map(str, places)])
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    return status, {words[1]: words[2] for words in lines if words[0] == "tiny"}


def test_equal_records_give_a_line_for_each_quantity_and_status_0(
    behaviour: Any, record: Any, tmp_path: Path, capsys: Any
) -> None:
    status, verdicts = compared(behaviour, capsys, tmp_path, RECORD, record)
    assert status == 0
    assert verdicts == dict.fromkeys(RECORD, "equal")


def test_the_last_bit_of_a_loss_is_a_difference(
    behaviour: Any, record: Any, tmp_path: Path, capsys: Any
) -> None:
    record["losses"]["step 2"]["loss"] = 4.996727466583253
    status, verdicts = compared(behaviour, capsys, tmp_path, RECORD, record)
    assert status == 1
    assert verdicts["losses"].startswith(
        "differs (1 of 2: step 2.loss: 4.996727466583252 -> 4.996727466583253"
    )
    assert "largest difference 8.88e-16" in verdicts["losses"]
    assert {name for name, verdict in verdicts.items() if verdict != "equal"} == {"losses"}


@pytest.mark.parametrize(("old", "new"), [(0.0, -0.0), (1, 1.0), (1, True), (0, None), (None, "absent")])
def test_values_that_python_takes_for_equal_are_told_apart(comparing: Any, old: Any, new: Any) -> None:
    assert comparing.of_values({"a": old}, {"a": new}).startswith("differs (1 of 1: a: ")


def test_a_number_that_is_not_one_is_equal_to_itself(comparing: Any) -> None:
    assert comparing.of_values({"loss": float("nan")}, {"loss": float("nan")}) == "equal"


def test_an_empty_list_and_no_key_are_told_apart(comparing: Any) -> None:
    assert comparing.of_values({"a": 1, "b": []}, {"a": 1}) == "differs (1 of 2: b: [] -> absent)"


def test_changed_texts_and_added_tensors_are_quoted_and_counted(
    behaviour: Any, record: Any, tmp_path: Path, capsys: Any
) -> None:
    record["hypotheses"]["last"]["u2 transcribe"] = "chào"
    record["first_weights"] |= {f"model b{n}.weight": "ef" for n in range(9)}
    status, verdicts = compared(behaviour, capsys, tmp_path, RECORD, record)
    assert status == 1
    assert verdicts["hypotheses"] == 'differs (1 of 2: last.u2 transcribe: "" -> "chào")'
    assert verdicts["first_weights"].startswith("differs (9 of 11: model b0.weight: absent -> ")
    assert "b2" in verdicts["first_weights"] and "b3" not in verdicts["first_weights"]


def test_lines_of_the_table_that_differ_are_quoted(comparing: Any) -> None:
    after = ["run tiny", "  model       ctc", *RECORD["dry_run"][1:]]
    assert comparing.of_lines(RECORD["dry_run"], after) == "differs (1 lines: +  model       ctc)"


def test_keys_that_moved_are_listed_and_do_not_count(
    behaviour: Any, record: Any, tmp_path: Path, capsys: Any
) -> None:
    record["config"] = {
        "data": {"source": {"table": {"train": "train.csv", "shards": None}}},
        "training": {"seed": 42, "frozen": []},
    }
    status, verdicts = compared(behaviour, capsys, tmp_path, RECORD, record)
    assert status == 0
    assert verdicts["config"] == (
        "equal (3 keys moved: data.train -> data.source.table.train, data.shards -> data.source.table.shards, "
        "training.freeze -> training.frozen)"
    )


def test_a_key_that_moved_and_changed_its_value_is_a_difference(comparing: Any) -> None:
    old, new = {"a": {"seed": 1, "x": 2}}, {"b": {"seed": 2, "x": 2}}
    assert comparing.of_configs(old, new) == (
        "differs (2 of 2: a.seed: 1 -> absent; b.seed: absent -> 2; 1 keys moved: a.x -> b.x)"
    )


def test_a_move_that_could_be_another_is_not_guessed(comparing: Any) -> None:
    old, new = {"a": {"prob": 0.0}}, {"b": {"prob": 0.0}, "c": {"prob": 0.0}}
    assert comparing.of_configs(old, new).startswith("differs (3 of 3: a.prob: 0.0 -> absent")


def test_a_record_or_quantity_of_one_side_alone_is_a_difference(
    behaviour: Any, record: Any, tmp_path: Path, capsys: Any
) -> None:
    del record["scores"]
    before = folder(tmp_path / "before", tiny=RECORD, other=RECORD)
    after = folder(tmp_path / "after", tiny=record)
    assert behaviour.main(["compare", str(before), str(after)]) == 1
    said = capsys.readouterr().out
    assert "differs (only in BEFORE)" in said and "(whole record)" in said and "2 differ" in said


def test_another_processor_is_noted_and_the_commit_is_not_compared(
    behaviour: Any, tmp_path: Path, capsys: Any
) -> None:
    for name, processor in (("before", "A"), ("after", "B")):
        about = {"processor": processor, "commit": name, "versions": {}}
        folder(tmp_path / name, tiny=RECORD, about=about)
    assert behaviour.main(["compare", str(tmp_path / "before"), str(tmp_path / "after")]) == 0
    said = capsys.readouterr().out
    assert "note: another processor: A -> B" in said and "all equal" in said


def test_a_folder_without_records_is_the_users_mistake(behaviour: Any, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        behaviour.main(["compare", str(tmp_path), str(tmp_path)])
    assert stop.value.code == 2 and "no records (*.json) there" in capsys.readouterr().err


def test_a_record_is_not_written_over(behaviour: Any, tmp_path: Path, capsys: Any) -> None:
    before = folder(tmp_path / "before", demo_ctc=RECORD)
    with pytest.raises(SystemExit) as stop:
        behaviour.main(["record", "--output", str(before), "--only", "demo_ctc"])
    assert stop.value.code == 2 and "is there already" in capsys.readouterr().err


def test_every_demo_and_digits_configuration_has_a_case(behaviour: Any) -> None:
    assert behaviour.unlisted() == []
    assert [case.name for case in behaviour.chosen(["demo_voxlm_phase2"])] == [
        "demo_voxlm_encoder",
        "demo_voxlm",
        "demo_voxlm_phase2",
    ]


def test_a_tensors_digest_depends_on_its_name_type_shape_and_bytes(behaviour: Any, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    def digests(**tensors: Any) -> dict[str, str]:
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        found: dict[str, str] = behaviour.weights(tmp_path)
        return found

    values = np.arange(6, dtype=np.float32)
    found = digests(a=values, b=values.reshape(2, 3))
    assert found == digests(b=values.reshape(2, 3), a=values.copy())
    assert list(found) == ["all", "model a", "model b"] and found["model a"] != found["model b"]
    assert found["model a"] != digests(a=values.view(np.int32))["model a"]
    assert found["model a"] != digests(a=np.nextafter(values, 9, dtype=np.float32))["model a"]
    assert digests(a=values)["all"] != digests(c=values)["all"]


def test_times_and_the_memory_of_python_are_masked_and_no_other_number(behaviour: Any) -> None:
    table = [
        "  6 long clips   loss 5.6866, gradient norm 10.611; one optimiser step in 0.1 s",
        "  transcribe     'a 3.5 s' (0.0 s for all tasks)",
        "  one step       about 7.0 clips, 12 s of audio",
        "  activations                             0.032 GiB",
        "  Python, libraries, data workers         0.691 GiB",
        "  at the worst moment (training step)     0.751 GiB",
        "  moments        training step 0.75, optimiser step 0.71, evaluation 0.74 GiB",
        "  verdict        fits: 0.75 of 8.00 GiB",
    ]
    assert behaviour.masked("\n".join(table)) == [
        "  6 long clips   loss 5.6866, gradient norm 10.611; one optimiser step in # s",
        "  transcribe     'a 3.5 s' (# s for all tasks)",
        *table[2:4],
        "  Python, libraries, data workers         # GiB",
        "  at the worst moment (training step)     # GiB",
        "  moments        training step #, optimiser step #, evaluation # GiB",
        "  verdict        fits: # of # GiB",
    ]


def test_times_are_left_out_of_scores_and_of_the_log(behaviour: Any) -> None:
    assert behaviour.steady({"wer": 1.0, "speed": {"rtf": 0.1, "audio_seconds": 2.0}, "commit": "x"}) == {
        "wer": 1.0,
        "speed": {"audio_seconds": 2.0},
    }
    rows = [
        {"step": 1, "loss": 2.5, "audio_hours_per_second": 1},
        {"step": 1, "eval_wer": 3.0, "eval_runtime": 9},
    ]
    assert behaviour.by_step(rows, ("loss",)) == {"step 1": {"loss": 2.5}}
    assert behaviour.by_step(rows, ("eval_",)) == {"step 1": {"eval_wer": 3.0}}
