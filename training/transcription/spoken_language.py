"""The language of a recording: given, the model's own, or detected from the first speech."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from training.base.errors import UserError
from training.base.language_names import language_code, short_code
from training.data.example import AudioRef, Example
from training.decoding.loading import Trained
from training.models.architecture import AUTO
from training.transcription.windows import Window

FIRST_SECONDS = 10.0
"""The language is detected from the first windows of a recording that hold so many seconds together."""
_UNKNOWN = "und"


@dataclass(frozen=True)
class SpokenLanguage:
    """code: ISO 639. probability: 0 to 1 among the model's languages; None where the language was not detected."""

    code: str
    probability: float | None = None


def wanted_language(trained: Trained, asked: str | None) -> str | None:
    """The language of the prompts: the code of ``asked``, `AUTO`, or None, which is the model's own.

    Args:
        trained: the model.
        asked: a code (``de``), with a region too (``de-AT``), a name (``German``), or `AUTO`.

    Raises:
        UserError: the model cannot detect the language, or knows no such language.
    """
    architecture = trained.architecture
    if asked is None:
        return AUTO if architecture.languages[0] == AUTO else None
    if asked == AUTO:
        if architecture.language_detection is None:
            raise UserError(f"--language auto: {_cannot_detect(trained)}")
        return AUTO
    code = language_code(asked)
    refused = _refused(trained, code)
    short = short_code(code)
    if refused and short not in (None, code) and not _refused(trained, str(short)):
        return short
    if refused:
        raise UserError(f"--language {asked}: {trained.folder}: {refused}") from refused
    return code


def _refused(trained: Trained, code: str) -> ValueError | None:
    """Why the model takes no speech of a language; None where it does."""
    example = Example(id="", audio=AudioRef(path=""), duration=1.0, texts={}, language=code)
    try:
        trained.architecture.encode.check(example, 1.0)
    except ValueError as error:
        return error
    return None


def _cannot_detect(trained: Trained) -> str:
    own = trained.architecture.languages[0]
    use = f"leave the option out, and its own ({own}) is used" if own != _UNKNOWN else "leave the option out"
    return (
        f"{trained.folder} holds a {trained.model_type} that has not learnt to detect the language (a pretrained "
        f"multilingual Whisper has); {use}"
    )


def known_language(trained: Trained, wanted: str | None) -> SpokenLanguage | None:
    """The language where it is given or the model's own; None where it is detected or nobody knows it."""
    code = wanted or trained.architecture.languages[0]
    return None if code in (AUTO, _UNKNOWN) else SpokenLanguage(code)


def first_windows(windows: Sequence[Window]) -> int:
    """How many of a recording's windows, from the first on, the language is detected from."""
    seconds = 0.0
    for number, window in enumerate(windows, start=1):
        seconds += window.seconds
        if seconds >= FIRST_SECONDS:
            return number
    return len(windows)


def detected(found: Iterable[tuple[float, Mapping[str, float]]]) -> SpokenLanguage | None:
    """The likeliest language of windows, each with its seconds and the probability of each language; None without any."""
    sums: dict[str, float] = defaultdict(float)
    total = 0.0
    for seconds, probabilities in found:
        total += seconds if probabilities else 0.0
        for code, probability in probabilities.items():
            sums[code] += seconds * probability
    if not sums:
        return None
    code = max(sums, key=lambda one: sums[one])
    return SpokenLanguage(code, sums[code] / total)


def likeliest(probabilities: Mapping[str, float]) -> str | None:
    """The language of one window."""
    return max(probabilities, key=lambda code: probabilities[code]) if probabilities else None
