"""How often the right domain is predicted, and what other prompts cost: by hand."""

from __future__ import annotations

import pytest

from training.data.example import TRANSCRIBE, AudioRef, Example, Hypothesis
from training.evaluation.domains import OWN, predicted_domains, swap_test, table
from training.evaluation.evaluate import evaluate


def example(name: str, domain: str | None, text: str = "ab cd") -> Example:
    audio = AudioRef(path=f"{name}.wav")
    return Example(id=name, audio=audio, duration=1.0, texts={TRANSCRIBE: text}, language="en", domain=domain)


def said(name: str, text: str = "ab cd", domain: str | None = None) -> Hypothesis:
    return Hypothesis(id=name, task=TRANSCRIBE, text=text, domain=domain)


EXAMPLES = [example("a", "normal"), example("b", "normal"), example("c", "dyslexic"), example("d", None)]


def test_the_predicted_domain_is_compared_with_the_reference():
    hypotheses = [
        said("a", domain="normal"),
        said("b", domain="dyslexic"),
        said("c", domain="dyslexic"),
        said("d", domain="normal"),
    ]
    found = predicted_domains(EXAMPLES, hypotheses, resamples=50, seed=0)
    assert found["accuracy"]["value"] == pytest.approx(200 / 3) and found["accuracy"]["rows"] == 3
    assert {name: score["value"] for name, score in found["by_domain"].items()} == {
        "normal": 50,
        "dyslexic": 100,
    }
    assert found["taken_for"] == {"dyslexic": {"dyslexic": 1}, "normal": {"normal": 1, "dyslexic": 1}}
    report = evaluate(EXAMPLES, hypotheses, meta={}, resamples=50)
    assert report.report["heard_domains"]["accuracy"] == found["accuracy"]
    assert "domain predicted correctly: 66.7 % [" in report.summary()


def test_nothing_is_counted_where_the_model_was_not_asked():
    hypotheses = [said(one.id) for one in EXAMPLES]
    assert predicted_domains(EXAMPLES, hypotheses, resamples=10, seed=0) is None
    assert "predicted correctly" not in evaluate(EXAMPLES, hypotheses, meta={}, resamples=10).summary()


def test_other_prompts_are_scored_against_the_own_one_on_the_same_utterances():
    own = [said(one.id) for one in EXAMPLES]
    worse = [said("a", "ab"), said("b"), said("c", "xx xx"), said("d", "zz")]
    found = swap_test({OWN: (EXAMPLES, own), "swap": (EXAMPLES, worse)}, resamples=50, seed=0)
    assert set(found["by_domain"]) == {"normal", "dyslexic"}
    normal = found["by_domain"]["normal"]
    assert normal["rows"] == 2
    assert normal["prompts"][OWN]["wer"]["difference"]["value"] == 0
    assert normal["prompts"]["swap"]["wer"]["score"]["value"] == 25
    assert normal["prompts"]["swap"]["wer"]["difference"]["value"] == 25
    assert found["by_domain"]["dyslexic"]["prompts"]["swap"]["wer"]["difference"]["value"] == 100
    lines = table(found, "wer").splitlines()
    assert lines[0].startswith("swap test, WER: the same utterances")
    swapped = next(line for line in lines if line.startswith("normal, prompt swap"))
    assert " ".join(swapped.split()) == "normal, prompt swap 25.0 [0.0, 50.0] difference +25.0 [+0.0, +50.0]"
    assert all("difference" not in line for line in lines[1:] if f"prompt {OWN}" in line)
