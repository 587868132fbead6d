"""The drop ledger: nothing is lost, and too much is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from training.base.errors import UserError
from training.data.ledger import DropLedger


def ledger(*reasons: str) -> DropLedger:
    result = DropLedger()
    for i, reason in enumerate(reasons):
        result.add(f"u{i}", reason, f"why {i}")
    return result


def test_counts_come_with_the_most_frequent_first() -> None:
    assert list(ledger("a", "b", "b").counts().items()) == [("b", 2), ("a", 1)]


def test_the_file_has_a_row_per_drop_whatever_a_detail_holds(tmp_path: Path) -> None:
    drops = ledger("a")
    drops.add("u\t1", "b", "tab\tand\nline")
    drops.write(tmp_path / "new" / "x_dropped.tsv")
    lines = (tmp_path / "new" / "x_dropped.tsv").read_text(encoding="utf-8").splitlines()
    assert lines == ["id\treason\tdetail", "u0\ta\twhy 0", "u 1\tb\ttab and line"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x_dropped.tsv"]


def test_the_summary_shows_counts_and_an_example() -> None:
    text = ledger("too_long", "missing_audio", "too_long").summary()
    assert text.splitlines()[1].split() == ["too_long", "2", "u0:", "why", "0"]
    assert text.splitlines()[-1].split() == ["total", "3"]
    assert DropLedger().summary() == "nothing dropped"


# Trap 10.
def test_a_share_that_is_too_large_is_refused_by_name() -> None:
    ledger("a", "b").check_share(total=100, max_share=0.02)
    with pytest.raises(
        UserError, match=r"data\.max_dropped_share: 3 of 100 utterances \(3\.0%\)[\s\S]*reason"
    ):
        ledger("a", "b", "b").check_share(total=100, max_share=0.02)
    with pytest.raises(UserError):
        ledger("a").check_share(total=1, max_share=0.0)
    DropLedger().check_share(total=0, max_share=0.0)


def test_all_numbers_are_of_utterances() -> None:
    """A stretch of an archive stands for many, a file that is no utterance for none."""
    drops = ledger("a", "b")
    drops.add("s.tar", "truncated", "20 are lost", utterances=20)
    drops.add("s.tar/README", "bad_name", "no key", utterances=0)
    assert len(drops) == 22 and len(drops.drops) == 4
    assert drops.counts() == {"truncated": 20, "a": 1, "b": 1, "bad_name": 0}
    assert drops.summary().splitlines()[1].split()[:2] == ["truncated", "20"]
    assert drops.summary().splitlines()[-1].split() == ["total", "22"]
    drops.check_share(total=110, max_share=0.2)
    with pytest.raises(UserError, match=r"22 of 100 utterances \(22\.0%\)"):
        drops.check_share(total=100, max_share=0.2)


def test_ledgers_travel_and_add_up() -> None:
    one = pickle.loads(pickle.dumps(ledger("a")))
    one.extend(ledger("b", "c"))
    assert [drop.reason for drop in one] == ["a", "b", "c"]
    assert len(one) == 3
