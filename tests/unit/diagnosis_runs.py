"""Runs for the tests of the diagnosis: eight that are broken on purpose, one for each rule, and eight good ones.

Each is an evaluation that the library's own code scored, and the records that a training logs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from eval_assets import VIETNAMESE, example, said

from training.data.example import Example, Hypothesis
from training.evaluation.evaluate import evaluate

ENGLISH = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "near",
    "my",
    "old",
    "house",
    "and",
    "we",
    "went",
    "home",
    "late",
    "after",
    "work",
]
FALLING = tuple(5.0 * 0.8**n for n in range(20))
"""Training losses of a run that learns."""


@dataclass(frozen=True)
class MadeRun:
    """``dev``: loss and WER of each evaluation during training."""

    examples: list[Example]
    hypotheses: list[Hypothesis]
    losses: Sequence[float] = FALLING
    dev: Sequence[tuple[float, float]] = ((3.0, 80.0), (1.0, 30.0), (0.5, 12.0))
    model: dict[str, Any] = field(default_factory=lambda: {"type": "ctc"})
    train_texts: Sequence[str] | None = None

    def write(self, folder: Path, name: str) -> Path:
        """The run's folder, and its results beside it, as a training and an evaluation leave them."""
        run = folder / name
        (run / "metrics").mkdir(parents=True)
        config = {
            "model": self.model,
            "training": {"learning_rate": 1e-3},
            "output": {"experiment_name": name},
        }
        (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf8")
        records = [{"step": 10 * (n + 1), "loss": loss} for n, loss in enumerate(self.losses)]
        records += [
            {"step": 50 * (n + 1), "eval_loss": loss, "eval_wer": wer, "eval_cer": wer}
            for n, (loss, wer) in enumerate(self.dev)
        ]
        text = yaml.safe_dump({"experiment": name, "history": records}, default_flow_style=True, width=10**6)
        (run / "metrics" / f"{name}_metrics.json").write_text(_json(text), encoding="utf8")
        meta = {"model_dir": str(run), "model_type": self.model["type"], "split": "test"}
        scored = evaluate(
            self.examples, self.hypotheses, meta=meta, train_texts=self.train_texts, resamples=200
        )
        scored.write(folder / "results", name)
        return run


def _json(text: str) -> str:
    import json

    return json.dumps(yaml.safe_load(text))


def _corpus(
    hear: Callable[[int, list[str], random.Random], Sequence[str]],
    *,
    words: Sequence[str] = ENGLISH,
    language: str = "en",
    rows: int = 60,
    speakers: int = 4,
) -> dict[str, Any]:
    """Sentences, and what a model makes of each: ``hear(number, words, random)``."""
    rng = random.Random(3)
    examples, hypotheses = [], []
    for number in range(rows):
        sentence = rng.choices(words, k=rng.randrange(5, 12))
        name = f"u{number}"
        examples.append(
            example(
                name,
                " ".join(sentence),
                language=language,
                speaker=f"s{number % speakers}",
                duration=1.0 + len(sentence) / 2.7,
            )
        )
        hypotheses.append(said(name, " ".join(hear(number, sentence, rng)), seconds=0.1))
    return {"examples": examples, "hypotheses": hypotheses}


def _hear(share: float) -> Callable[[int, list[str], random.Random], list[str]]:
    """Words are missed with this probability, half of them replaced by others."""

    def hear(number: int, words: list[str], rng: random.Random) -> list[str]:
        heard = []
        for word in words:
            if rng.random() >= share:
                heard.append(word)
            elif rng.random() < 0.5:
                heard.append(rng.choice(ENGLISH))
        return heard

    return hear


def _empty(number: int, words: list[str], rng: random.Random) -> list[str]:
    return []


def _looping(number: int, words: list[str], rng: random.Random) -> list[str]:
    return [*words[:2], *(["thank you"] * 12)] if number % 3 == 0 else words


def _korean(number: int, words: list[str], rng: random.Random) -> list[str]:
    return rng.choices(["안녕하세요", "오늘", "날씨가", "좋네요"], k=len(words))


def _by_rote(number: int, words: list[str], rng: random.Random) -> list[str]:
    return rng.choices([word for word in ENGLISH if word not in words] or ["oh"], k=len(words))


def _one_speaker(number: int, words: list[str], rng: random.Random) -> list[str]:
    return _hear(0.8 if number % 6 == 0 else 0.08)(number, words, rng)


def _one_length(number: int, words: list[str], rng: random.Random) -> list[str]:
    return _hear(0.7 if len(words) >= 11 else 0.05)(number, words, rng)


def _swapped(number: int, words: list[str], rng: random.Random) -> list[str]:
    if number % 12 == 0:
        return rng.choices([word for word in ENGLISH if word not in words], k=max(4, len(words)))
    return _hear(0.05)(number, words, rng)


def _new_words(number: int, words: list[str], rng: random.Random) -> list[str]:
    return ["cat" if word in ("late", "after", "work") else word for word in words]


def broken() -> dict[str, MadeRun]:
    """Rule → a run that has this fault."""
    whisper = {"type": "whisper", "sizes": {"d_model": 32}, "language": "ko"}
    return {
        "all_empty": MadeRun(**_corpus(_empty), losses=(4.0,) * 20, dev=((3.0, 100.0),) * 3),
        "loops": MadeRun(**_corpus(_looping), model={"type": "whisper", "name": "openai/whisper-tiny"}),
        "wrong_language": MadeRun(**_corpus(_korean), model=whisper),
        "nothing_recognised": MadeRun(
            **_corpus(_by_rote),
            model={"type": "whisper", "sizes": {"d_model": 32}},
            dev=((3.0, 104.0), (2.0, 103.0), (1.9, 101.0)),
        ),
        "learns_by_heart": MadeRun(
            **_corpus(_hear(0.4)), dev=((2.0, 60.0), (1.2, 45.0), (1.6, 44.0), (2.4, 44.0))
        ),
        "wrong_labels": MadeRun(**_corpus(_swapped)),
        "one_speaker": MadeRun(**_corpus(_one_speaker, rows=90, speakers=6)),
        "unseen_words": MadeRun(
            **_corpus(_new_words),
            train_texts=["the cat sat on a mat near my old house and we went home"] * 12,
        ),
    }


def good() -> dict[str, MadeRun]:
    """Runs without a fault: good, middling and young ones, of several kinds."""
    return {
        "perfect": MadeRun(**_corpus(_hear(0.0))),
        "good": MadeRun(**_corpus(_hear(0.06)), train_texts=[" ".join(ENGLISH)] * 20),
        "middling": MadeRun(**_corpus(_hear(0.3)), dev=((3.0, 80.0), (1.5, 50.0), (1.2, 34.0))),
        "still learning": MadeRun(
            **_corpus(_hear(0.6)), losses=FALLING[:8], dev=((4.0, 99.0), (3.0, 80.0), (2.2, 66.0))
        ),
        "vietnamese": MadeRun(**_corpus(_hear(0.05), words=VIETNAMESE, language="vi")),
        "whisper": MadeRun(**_corpus(_hear(0.1)), model={"type": "whisper", "name": "openai/whisper-base"}),
        "few rows": MadeRun(**_corpus(_hear(0.2), rows=4)),
        "overfitted loss, good scores": MadeRun(
            **_corpus(_hear(0.04)), dev=((2.0, 20.0), (0.4, 6.0), (0.9, 5.0))
        ),
    }
