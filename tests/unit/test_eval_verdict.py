"""By domain: who is better where, and the verdict on an adapted model, through the command as a user calls it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eval_assets import example, said

from training.base.errors import UserError
from training.cli.compare import main
from training.evaluation.compare import compare, table
from training.evaluation.evaluate import evaluate
from training.evaluation.report import build_report
from training.evaluation.stored import load_results
from training.evaluation.verdict import judge

WORDS = "가나 다라 마바 사아 자차"
"""Ten syllables an utterance, 20 utterances a domain: one wrong syllable in each is a CER of 10 %."""


def write(folder: Path, name: str, wrong: dict[str, int], domain: bool = True) -> Path:
    """A run whose hypotheses have so many wrong syllables in every utterance of a domain (``-n``: in every second)."""
    examples, hypotheses = [], []
    for place, (one, errors) in enumerate(wrong.items()):
        for number in range(20):
            key = f"u{place}-{number}"
            examples.append(example(key, WORDS, language="ko", domain=one if domain else None))
            count = errors if errors >= 0 else -errors * (number % 2)
            hypotheses.append(said(key, "x" * count + WORDS.replace(" ", "")[count:]))
    return evaluate(examples, hypotheses, meta={}, resamples=20).write(folder, name)[1]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Normal speech at 10 % twice; dyslexic speech at 40 % and then 20 %."""
    base = {"dyslexic": 4, "normal": 1}
    return write(tmp_path, "base", base), write(tmp_path, "adapted", {**base, "dyslexic": 2})


def test_every_domain_is_compared_by_itself(runs: tuple[Path, Path]) -> None:
    found = compare(*runs, resamples=200)
    assert list(found["by_domain"]) == ["dyslexic", "normal"]
    verdicts = {name: part["metrics"]["cer"]["verdict"] for name, part in found["by_domain"].items()}
    assert verdicts == {"dyslexic": "B better", "normal": "no difference shown"}
    dyslexic = found["by_domain"]["dyslexic"]
    assert dyslexic["rows"] == {"transcribe": 20}
    assert [dyslexic["metrics"]["cer"][key] for key in ("a", "b", "difference")] == [40.0, 20.0, -20.0]
    assert found["metrics"]["cer"]["difference"] == pytest.approx(-10.0)
    lines = table(found).splitlines()
    assert "domain dyslexic, 20 rows, 20 units drawn (utterance)" in lines
    assert sum(line.startswith("CER with spaces ") for line in lines) == 3


def polyvox(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")


def test_the_command_prints_a_verdict_and_writes_it(tmp_path: Path, runs: tuple[Path, Path]) -> None:
    target = tmp_path / "verdict.json"
    done = polyvox(
        *("compare", *runs, "--target", "dyslexic", "--others", "normal", "--margin", "1.0"),
        *("--resamples", "200", "--output", target),
    )
    assert done.returncode == 0, done.stderr
    line = (
        "better where it should be, and no worse elsewhere (CER, B − A: dyslexic -20.00 [-20.00, -20.00]; "
        "normal +0.00 [+0.00, +0.00]; margin 1)"
    )
    assert f"verdict: {line}" in done.stdout.splitlines()
    found = json.loads(target.read_text(encoding="utf-8"))["verdict"]
    assert found.pop("rule")
    assert found == {
        "metric": "cer",
        "target": "dyslexic",
        "others": ["normal"],
        "margin": 1.0,
        "better_on_target": True,
        "no_worse_elsewhere": True,
        "failed_on": [],
        "holds": True,
        "line": line,
    }


@pytest.mark.parametrize(
    ("adapted", "failed", "line"),
    [
        (
            {"dyslexic": 2, "normal": 2},
            ["normal"],
            "better where it should be, but not shown to be no worse on normal",
        ),
        (
            {"dyslexic": 4, "normal": 1},
            ["dyslexic"],
            "not shown to be better on dyslexic, but no worse elsewhere",
        ),
        (
            {"dyslexic": 5, "normal": -4},
            ["dyslexic", "normal"],
            "not shown to be better on dyslexic, and not shown to be no worse on normal",
        ),
    ],
)
def test_the_verdict_names_what_failed(
    tmp_path: Path, adapted: dict[str, int], failed: list[str], line: str
) -> None:
    base = write(tmp_path, "base", {"dyslexic": 4, "normal": 1})
    found = compare(base, write(tmp_path, "adapted", adapted), resamples=200)
    verdict = judge(found, "dyslexic", None, 1.0)
    assert verdict["failed_on"] == failed and not verdict["holds"]
    assert verdict["line"].startswith(f"{line} (CER, B − A: dyslexic ")


def test_an_interval_that_reaches_over_the_margin_is_not_no_worse(tmp_path: Path) -> None:
    base = write(tmp_path, "base", {"dyslexic": 4, "normal": 1})
    found = compare(base, write(tmp_path, "adapted", {"dyslexic": 2, "normal": -2}), resamples=200)
    normal = found["by_domain"]["normal"]["metrics"]["cer"]
    assert normal["difference"] == pytest.approx(0.0) and normal["high"] > 1.0
    assert judge(found, "dyslexic", ["normal"], 1.0)["failed_on"] == ["normal"]
    assert judge(found, "dyslexic", ["normal"], normal["high"])["holds"]


def test_all_other_domains_count_unless_some_are_named(tmp_path: Path) -> None:
    base = {"dyslexic": 4, "normal": 1, "elderly": 1}
    found = compare(
        write(tmp_path, "a", base), write(tmp_path, "b", {**base, "dyslexic": 2, "elderly": 3}), resamples=200
    )
    assert judge(found, "dyslexic", None, 1.0)["failed_on"] == ["elderly"]
    assert judge(found, "dyslexic", ["normal", "normal"], 1.0)["others"] == ["normal"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "child"), "--target child: .*has the domains dyslexic, normal"),
        (("--target", "dyslexic", "--others", "child"), "--others child: .*has the domains dyslexic, normal"),
        (("--target", "dyslexic", "--others", "dyslexic"), "--others dyslexic: is the --target"),
        (("--target", "dyslexic", "--margin", "-1"), "--margin -1: give points of CER from 0 on"),
        (("--target", "dyslexic", "--margin", "nan"), "--margin nan"),
        (("--others", "normal"), "name its domain with --target"),
        (("--margin", "2"), "name its domain with --target"),
    ],
)
def test_a_verdict_on_nothing_is_refused(
    runs: tuple[Path, Path], options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        main([*map(str, runs), "--resamples", "100", *options])


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(UserError, match=r"^--seed -1: "):
        main(["a", "b", "--seed", "-1"])


def test_a_verdict_needs_domains_and_something_elsewhere(tmp_path: Path) -> None:
    plain = write(tmp_path, "plain", {"normal": 1}, domain=False)
    alone = write(tmp_path, "alone", {"dyslexic": 1})
    for path, message in ((plain, "names no domain of any transcript"), (alone, "is the only domain")):
        with pytest.raises(UserError, match=message):
            judge(compare(path, path, resamples=100), "dyslexic", None, 1.0)


def test_a_domain_without_reference_words_fails(tmp_path: Path) -> None:
    examples = [example("a", "가", domain="child"), example("b", "...", domain="adult")]
    path = evaluate(examples, [said("a", "가"), said("b", "")], meta={}, resamples=20).write(tmp_path, "run")[
        1
    ]
    verdict = judge(compare(path, path, resamples=100), "child", None, 1.0)
    assert verdict["failed_on"] == ["child", "adult"] and "adult undefined" in verdict["line"]


def edit(path: Path, change: Any) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [change(row) for row in csv.DictReader(file)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_table_without_the_column_takes_the_domains_of_the_other(runs: tuple[Path, Path]) -> None:
    wanted = compare(*runs, resamples=100)["by_domain"]
    edit(runs[0], lambda row: {key: value for key, value in row.items() if key != "domain"})
    assert compare(*runs, resamples=100)["by_domain"] == wanted
    assert list(compare(*reversed(runs), resamples=100)["by_domain"]) == list(wanted)


def test_rows_in_two_domains_are_refused(runs: tuple[Path, Path]) -> None:
    edit(runs[1], lambda row: row | ({"domain": "normal"} if row["id"] == "u0-3" else {}))
    with pytest.raises(
        UserError, match=r"1 utterances \(transcribe\) have different domains .* first u0-3: 'dyslexic'"
    ):
        compare(*runs)


def test_the_report_compares_by_domain(runs: tuple[Path, Path]) -> None:
    page = build_report(load_results(runs[0].parent))
    assert "dyslexic, CER with spaces" in page and "normal, WER" in page
