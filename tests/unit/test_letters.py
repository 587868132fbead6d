"""The language that letters show, and what a run takes where no row names one."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from training.config.load import config_from
from training.data.letters import contradicts, language_of
from training.data.manifest import load_manifest
from training.engine.folder import check_model
from training.engine.spoken_language import with_language

SENTENCES = {
    "vi": "Hôm nay trời đẹp quá, chúng ta có meeting lúc ba giờ",
    "ko": "오늘 날씨가 좋네요, meeting은 세 시예요",
    "ja": "今日は天気がいいですね",
    "zh": "今天天气很好",
    "en": "The weather is fine today",
    "de": "Das Wetter ist heute schön, die Straße ist naß und kälter für uns",
    "fr": "Où est-ce que tu as été, ça va très bien",
    "es": "El niño comió una piña mañana",
    "pl": "Dziś jest piękna pogoda, źle że łączność śpi",
    "tr": "Bugün hava çok güzel, ığdır ağaçları",
    "ru": "Сегодня хорошая погода",
    "uk": "Сьогодні гарна погода, її їжа",
    "ar": "الطقس جميل اليوم",
    "fa": "هوا امروز خیلی خوب است چه گفت پدر",
    "th": "วันนี้อากาศดี",
    "hi": "आज मौसम अच्छा है",
    "he": "מזג האוויר יפה היום",
    "el": "Ο καιρός είναι καλός σήμερα",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_the_language_of_a_sentence(language: str) -> None:
    found = language_of([SENTENCES[language]])
    assert found is not None and found.language == language


def test_texts_without_letters_show_nothing_and_decomposed_ones_the_same() -> None:
    import unicodedata

    assert language_of([]) is None and language_of(["1 2 3 …"]) is None
    found = language_of([unicodedata.normalize("NFD", SENTENCES["vi"])])
    assert found is not None and found.language == "vi"


@pytest.mark.parametrize(
    ("said", "spoken", "wrong"),
    [
        ("vi", "ko", True),
        ("ko", "en", True),
        ("en", "vi", True),
        ("vi", "en", False),
        ("ja", "zh", False),
        ("xx", "ko", False),
        ("id", "en", False),
    ],
)
def test_only_what_is_certain_contradicts(said: str, spoken: str, wrong: bool) -> None:
    letters = language_of([SENTENCES[spoken]])
    assert letters is not None and contradicts(said, letters) is wrong


def rows(folder: Path, text: str, language: str | None = None) -> Any:
    head = "id,audio_path,duration,transcript" + (",language" if language is not None else "")
    line = f"a,a.wav,1.0,{text.replace(',', '')}" + (f",{language}" if language is not None else "")
    path = folder / "t.csv"
    path.write_text(f"{head}\n{line}\n", encoding="utf8")
    return load_manifest(path)


def config(**model: Any) -> Any:
    return config_from({"model": {"type": "whisper", "sizes": {"d_model": 32}, **model}})


def test_the_letters_decide_where_nothing_else_does_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = with_language(config(), rows(tmp_path, SENTENCES["ko"]))
    assert found.model.language == "ko"
    (line,) = caplog.messages
    assert (
        line.startswith("model.language: ko, because no row names a language and")
        and "--language CODE" in line
    )
    assert found.as_dict()["model"]["language"] == "ko"  # the run's config.yaml keeps it


def test_the_column_decides_before_the_letters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = with_language(config(), rows(tmp_path, SENTENCES["en"], "nl"))
    assert found.model.language == "nl" and "the column language says so in 1 of 1 rows" in caplog.text


def test_a_given_language_stands_with_a_warning_where_the_letters_contradict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = config(language="vi")
    assert with_language(given, rows(tmp_path, SENTENCES["vi"])) is given and not caplog.messages
    assert with_language(given, rows(tmp_path, SENTENCES["ko"])) is given
    (line,) = caplog.messages
    assert line.startswith("warning: model.language: vi, but") and "--language ko" in line
    caplog.clear()
    with_language(given, rows(tmp_path, SENTENCES["ko"], "ko"))
    assert not caplog.messages  # the row says it itself


@pytest.mark.parametrize(("spoken", "letters"), [("vi", ("vi", "en")), ("en", ("en",)), ("ko", ())])
def test_a_ctc_vocabulary_gets_the_letters_of_the_language(
    spoken: str, letters: tuple[str, ...], tmp_path: Path
) -> None:
    found = with_language(config_from({"model": {"type": "ctc"}}), rows(tmp_path, SENTENCES[spoken]))
    assert found.model is not None and found.model.languages == letters  # type: ignore[attr-defined]


def test_a_run_that_goes_on_keeps_its_language(tmp_path: Path) -> None:
    begun = with_language(config(), rows(tmp_path, SENTENCES["ko"]))
    (tmp_path / "config.yaml").write_text(begun.to_yaml(), encoding="utf8")
    asked = config().model_copy(update={"output": begun.output.model_copy(update={"dir": tmp_path})})
    check_model(asked, tmp_path)  # nothing was asked for, so nothing differs
    assert with_language(asked, rows(tmp_path, SENTENCES["en"]), resume=True).model.language == "ko"


def test_models_without_a_language_are_left_alone(tmp_path: Path) -> None:
    bare = SimpleNamespace(model=None)
    assert with_language(bare, rows(tmp_path, "a")) is bare  # type: ignore[arg-type]


def test_the_option_is_the_key_of_the_model(tmp_path: Path) -> None:
    from training.cli import train

    assert train._language(config(), "ko") == "model.language=ko"
    assert train._language(config_from({"model": {"type": "ctc"}}), "en") == "model.languages=[en]"


def test_a_recipe_goes_on_with_a_run_whose_language_was_found_in_its_data(tmp_path: Path) -> None:
    from training.base.errors import UserError
    from training.recipes.attempt import RESUME, decide
    from training.recipes.resolve import Resolved

    asked = config_from({"model": {"type": "ctc"}, "output": {"dir": str(tmp_path / "run")}})
    found = with_language(asked, rows(tmp_path, SENTENCES["ko"]))
    checkpoint = tmp_path / "run" / "checkpoint-7"
    checkpoint.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(found.to_yaml(), encoding="utf8")
    assert found.to_yaml() != asked.to_yaml()
    run = Resolved(values=asked.as_dict(), text=asked.to_yaml(), checkpoint=checkpoint)
    assert decide(run, None, "", fresh=False, say=print) is RESUME
    other = config_from({"model": {"type": "ctc", "d_model": 32}, "output": {"dir": str(tmp_path / "run")}})
    run = Resolved(values=other.as_dict(), text=other.to_yaml(), checkpoint=checkpoint)
    with pytest.raises(UserError, match="has not made"):
        decide(run, None, "", fresh=False, say=print)


def test_an_evaluation_warns_where_the_rows_are_of_another_language(tmp_path: Path) -> None:
    from training.api.scoring_told import opening

    trained: Any = SimpleNamespace(
        architecture=SimpleNamespace(languages=("vi", "vi"), parameters=7, model=object()),
        model_type="ctc",
        folder=Path("run"),
    )
    how: Any = SimpleNamespace(batch_seconds=60.0)
    korean = rows(tmp_path, SENTENCES["ko"])
    told = list(opening(trained, SimpleNamespace(manifest=korean), how, "t.csv"))
    assert told[:2] == ["device      cpu, batches of 60 s", "data        t.csv: 1 utterances, 0.00 h"]
    assert told[2].startswith("warning     the rows are scored as vi, but 65 % of the letters are Hangul")
    assert "--language" not in told[2] and told[2].endswith("a column language in the table")
    assert (
        len(list(opening(trained, SimpleNamespace(manifest=rows(tmp_path, SENTENCES["vi"])), how, "t"))) == 3
    )
