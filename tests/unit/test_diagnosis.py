"""Each broken run gets its diagnosis and no other, good runs get none; what a terminal and a report show of it."""

from __future__ import annotations

import json
import random
import shlex
from pathlib import Path

import pytest
from diagnosis_runs import MadeRun, broken, good
from speech_files import sound

from training import cli
from training.base.errors import UserError
from training.config.load import load_config
from training.diagnosis.evidence import Evidence
from training.diagnosis.rules import HIDES, RULES, diagnose
from training.diagnosis.told import evidence_of
from training.evaluation.report import build_report
from training.evaluation.run_overview import results_of
from training.evaluation.stored import load_results

ROOT = Path(__file__).parents[2]


def look(run: MadeRun, folder: Path) -> Evidence:
    made = run.write(folder, "made")
    (result,) = results_of(made, load_results(folder / "results"))
    return evidence_of(made, result)


@pytest.mark.parametrize("rule", broken())
def test_a_broken_run_gets_its_diagnosis(rule: str, tmp_path: Path) -> None:
    (found,) = diagnose(look(broken()[rule], tmp_path))
    assert found.rule == rule
    assert found.seen and found.advice and found.commands


@pytest.mark.parametrize("name", good())
def test_a_good_run_gets_none(name: str, tmp_path: Path) -> None:
    assert diagnose(look(good()[name], tmp_path)) == []


def test_every_rule_has_its_broken_run() -> None:
    assert len(broken()) == len(good()) == len(RULES) == 8
    assert {rule.replace("one_speaker", "one_group") for rule in broken()} == set(RULES)
    assert {name for names in HIDES.values() for name in names} <= set(RULES)


def test_the_length_that_is_far_worse_is_named(tmp_path: Path) -> None:
    from diagnosis_runs import _corpus, _one_length

    (found,) = diagnose(look(MadeRun(**_corpus(_one_length, rows=120)), tmp_path))
    assert found.rule == "one_length" and "5-10 s" in found.title


def test_vietnamese_without_its_letters_is_another_language(tmp_path: Path) -> None:
    from diagnosis_runs import ENGLISH, VIETNAMESE, _corpus

    def plain(number: int, words: list[str], rng: random.Random) -> list[str]:
        return rng.choices(ENGLISH, k=len(words))

    (found,) = diagnose(look(MadeRun(**_corpus(plain, words=VIETNAMESE, language="vi")), tmp_path))
    assert found.rule == "wrong_language" and any("--language vi" in one for one in found.commands)


def test_the_rows_of_wrong_labels_are_those_that_were_swapped(tmp_path: Path) -> None:
    (found,) = diagnose(look(broken()["wrong_labels"], tmp_path))
    assert set(found.ids) == {f"u{number}" for number in range(0, 60, 12)}


@pytest.mark.parametrize("rule", broken())
def test_the_commands_are_parsed_by_the_commands_that_they_name(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import import_module

    for one in diagnose(look(broken()[rule], tmp_path)):
        for command in one.commands:
            program, name, *words = shlex.split(command)
            assert program == "polyvox"
            module, _ = cli.COMMANDS[name]
            parser = import_module(module).parser()
            args = parser.parse_args(words) if name == "lm" else parser.parse_intermixed_args(words)
            if name == "train" and "configs/" not in command:
                load_config(args.config, args.overrides)  # every key exists and takes its value


def test_a_run_that_was_not_evaluated_is_judged_by_its_records() -> None:
    records = [{"step": n, "loss": 4.0} for n in range(8)] + [
        {"step": 8, "eval_wer": 100.0, "eval_cer": 100.0}
    ]
    config = {"model": {"type": "ctc"}}
    (found,) = diagnose(Evidence(Path("outputs/a"), config, records))
    assert found.rule == "all_empty" and "exactly 100" in found.seen
    assert diagnose(Evidence(Path("outputs/a"), config, records[:8])) == []


def test_the_command_finds_a_run_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken()["all_empty"].write(tmp_path / "outputs", "empty")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["diagnose", "empty"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("diagnosis of outputs/empty on test:\n  CTC has not begun")
    assert "    $ polyvox train --config outputs/empty/config.yaml" in told
    assert cli.main(["diagnose", "empty", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test"][0]["rule"] == "all_empty"
    assert cli.main(["diagnose", "emtpy"]) == 2
    assert capsys.readouterr().err == "error: emtpy: no such run; did you mean outputs/empty?\n"


def test_a_run_without_a_fault_says_how_many_rules_looked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = good()["good"].write(tmp_path, "fine")
    assert cli.main(["diagnose", str(run)]) == 0
    assert capsys.readouterr().out == f"diagnosis of {run} on test: no fault found (8 rules were checked)\n"


def test_the_report_opens_with_it_and_plays_the_rows(tmp_path: Path) -> None:
    run = broken()["wrong_labels"].write(tmp_path, "swapped")
    results = load_results(tmp_path / "results")
    found = diagnose(evidence_of(run, results[0]))
    page = build_report(
        results,
        load=lambda name: (sound(tmp_path / f"{name}.wav", 1.0).read_bytes(), "audio/wav"),
        diagnoses={"swapped": [one.as_dict() for one in found]},
    )
    assert page.index("Some labels do not belong to their sound.") < page.index('id="scores"')
    part = page[page.index('id="diagnosis"') : page.index('id="scores"')]
    assert part.count("<audio") == len(found[0].ids) and "polyvox charts" in part
    assert 'id="diagnosis"' not in build_report(results)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    from training.evaluation.run_overview import find_run

    with pytest.raises(UserError, match="holds no run"):
        find_run(tmp_path)
