"""The fields of a request: checked against what the model can do, before anything is decoded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.data.example import TRANSCRIBE, TRANSLATE
from training.models.architecture import AUTO, NONE
from training.serving.dispatcher import DecodingRequest
from training.serving.errors import ApiError
from training.serving.options import Abilities, Options

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("segment", "word")
STREAMED = ("json", "text")
KNOWN = frozenset(
    {
        *("model", "language", "prompt", "temperature", "response_format", "timestamp_granularities[]"),
        *("stream", "domain", "hot_words", "beam_width"),
    }
)
LONGEST_PROMPT = 2_000
MOST_HOT_WORDS, LONGEST_HOT_WORD = 200, 100
WIDEST_BEAM, WIDEST_DECODER_BEAM = 10, 5
"""Of models with a CTC output, and of those that write token by token, whose time grows with it: a request of one client keeps
the others waiting. They are the widths that hot words get by themselves, and that OpenAI's own Whisper takes."""
OPENAI_MODELS = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
"""Names of OpenAI's models, which programs send that cannot be told another one: the server's first model for the task answers."""


@dataclass(frozen=True)
class ParsedRequest:
    """A request that has been understood. ignored: parameters that have no effect on this model."""

    asked: DecodingRequest
    response_format: str
    granularities: tuple[str, ...]
    stream: bool
    ignored: tuple[str, ...]


class _Fields:
    """The fields of a form, each read once."""

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        self.fields = fields

    def one(self, name: str) -> str | None:
        """The value of a field that may stand once; None where it is not there or empty."""
        values = self.fields.get(name, ())
        if len(values) > 1:
            raise ApiError(422, f"{name}: is there {len(values)} times", param=name, code="invalid_field")
        return values[0].strip() or None if values else None

    def several(self, name: str) -> list[str]:
        """The values of a field that may stand more than once, as ``name`` or ``name[]``."""
        return [one for key in (name, f"{name}[]") for one in self.fields.get(key, ()) if one.strip()]

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        value = self.one(name) or default
        if value not in choices:
            raise _invalid(name, f"must be one of {', '.join(choices)}", value)
        return value

    def flag(self, name: str) -> bool:
        return self.choice(name, ("true", "false", "True", "False", "1", "0"), "false").lower() in (
            "true",
            "1",
        )

    def number(self, name: str, least: float, most: float) -> float | None:
        value = self.one(name)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise _invalid(name, f"must be a number from {least:g} to {most:g}", value)
        return number


def _invalid(name: str, what: str, value: str) -> ApiError:
    return ApiError(422, f"{name}: {what} (got {value[:80]!r})", param=name, code="invalid_field")


def understand(
    form: Mapping[str, Sequence[str]], task: str, models: Mapping[str, Abilities], *, strict: bool
) -> ParsedRequest:
    """What a form asks for.

    Args:
        form: its fields, without the file.
        task: of the endpoint.
        models: what each loaded model can do; the first is taken where none is named.
        strict: refuse parameters without effect.

    Raises:
        ApiError: a field is wrong, or the model cannot do what is asked.
    """
    fields = _Fields(form)
    name, abilities = named_model(fields.one("model"), models, task)
    _require_task(name, abilities, task)
    format_ = fields.choice("response_format", FORMATS, "json")
    granularities = _granularities(fields, format_, name, abilities, task)
    stream = fields.flag("stream")
    if stream and format_ not in STREAMED:
        raise ApiError(
            400,
            f"stream: with response_format json or text, not {format_}",
            param="stream",
            code="invalid_field",
        )
    ignored = [key for key in form if key.removesuffix("[]") not in {one.removesuffix("[]") for one in KNOWN}]
    options = _options(fields, task, name, abilities, ignored)
    language = _language(fields.one("language"), name, abilities, ignored)
    if strict and ignored:
        raise ApiError(
            400,
            f"{ignored[0]}: has no effect on {name}, and this server refuses such parameters (--strict)",
            param=ignored[0],
            code="no_effect",
        )
    return ParsedRequest(
        DecodingRequest(name, options, language), format_, granularities, stream, tuple(ignored)
    )


def named_model(
    name: str | None, models: Mapping[str, Abilities], task: str = TRANSCRIBE
) -> tuple[str, Abilities]:
    """The model of a name; the first one that does the task where the name is none, or one of `OPENAI_MODELS`.

    Raises `ApiError` (404).
    """
    if name is None or (name in OPENAI_MODELS and name not in models):
        able = (one for one, abilities in models.items() if task in abilities.tasks)
        name = next(able, next(iter(models), ""))
    if name not in models:
        raise ApiError(
            404,
            f"model {name[:80]!r}: there is none of this name; there are {', '.join(models) or 'none yet'}",
            param="model",
            code="model_not_found",
        )
    return name, models[name]


def _require_task(name: str, abilities: Abilities, task: str) -> None:
    if task not in abilities.tasks:
        verb = {TRANSCRIBE: "transcribe", TRANSLATE: "translate"}[task]
        raise ApiError(400, f"model {name} was not trained to {verb}", param="model", code="unsupported_task")


def _granularities(
    fields: _Fields, format_: str, name: str, abilities: Abilities, task: str
) -> tuple[str, ...]:
    param = "timestamp_granularities[]"
    found = fields.several("timestamp_granularities")
    for one in found:
        if one not in GRANULARITIES:
            raise _invalid(param, f"must be one of {', '.join(GRANULARITIES)}", one)
    if found and format_ != "verbose_json":
        raise ApiError(
            400,
            f"{param}: with response_format verbose_json, not {format_}",
            param=param,
            code="invalid_field",
        )
    if "word" in found and (not abilities.timed or task != TRANSCRIBE):
        what = "translations have none" if abilities.timed else "this model tells none"
        raise ApiError(
            400, f"{param}: no times of words from {name}: {what}", param=param, code="no_word_times"
        )
    return tuple(found) or ("segment",)


def _options(fields: _Fields, task: str, name: str, abilities: Abilities, ignored: list[str]) -> Options:
    prompt = fields.one("prompt") or ""
    if len(prompt) > LONGEST_PROMPT:
        raise _invalid("prompt", f"at most {LONGEST_PROMPT} characters", prompt)
    temperature = fields.number("temperature", 0, 1)
    if not abilities.scored:
        ignored += ["prompt"] if prompt else []
        ignored += (
            ["temperature"] if temperature else []
        )  # 0, which programs send by default, is what is done
        prompt, temperature = "", None
    width = fields.number("beam_width", 1, WIDEST_BEAM if abilities.frames else WIDEST_DECODER_BEAM)
    if width is not None and width != int(width):
        raise _invalid("beam_width", "must be a whole number", str(width))
    return Options(
        task=task,
        domain=_domain(fields.one("domain"), name, abilities, ignored),
        beam_width=None if width is None else int(width),
        hot_words=_hot_words(fields, abilities, ignored),
        prompt=prompt,
        # OpenAI's 0 is "as it is best": the usual temperatures, of which 0 is the first.
        temperature=temperature or None,
    )


def _hot_words(fields: _Fields, abilities: Abilities, ignored: list[str]) -> tuple[str, ...]:
    """Words, parted by commas or in fields of their own."""
    found = tuple(
        word.strip() for one in fields.several("hot_words") for word in one.split(",") if word.strip()
    )
    if found and not abilities.frames:
        ignored.append("hot_words")
        return ()
    for word in found:
        if word.startswith("@") or len(word) > LONGEST_HOT_WORD:
            raise _invalid("hot_words", f"words or phrases of at most {LONGEST_HOT_WORD} letters", word)
    if len(found) > MOST_HOT_WORDS:
        raise _invalid("hot_words", f"at most {MOST_HOT_WORDS}", f"{len(found)} words")
    return found


def _domain(domain: str | None, name: str, abilities: Abilities, ignored: list[str]) -> str | None:
    if not abilities.domains:
        ignored += ["domain"] if domain not in (None, NONE) else []
        return None
    if domain is None:
        if abilities.domain is not None:
            return None
        if abilities.predicts_domain:
            return AUTO
        raise ApiError(
            400,
            f"domain: {name} is told which population speaks: {', '.join(abilities.domains)}",
            param="domain",
            code="missing_domain",
        )
    there = (*abilities.domains, NONE, *([AUTO] if abilities.predicts_domain else []))
    if domain not in there:
        raise ApiError(
            400,
            f"domain: {name} knows {', '.join(there)} (got {domain[:80]!r})",
            param="domain",
            code="unknown_domain",
        )
    return domain


def _language(code: str | None, name: str, abilities: Abilities, ignored: list[str]) -> str | None:
    """The language of the prompts; None: the model's own."""
    if code is None:
        return None
    if code == AUTO:
        if not abilities.detects:
            raise ApiError(
                400,
                f"language: {name} has not learnt to detect it",
                param="language",
                code="unknown_language",
            )
        return AUTO
    if code not in abilities.language_names:
        raise ApiError(
            400,
            f"language: {name} knows no {code[:80]!r}, but these codes of ISO 639: {', '.join(abilities.language_names)}",
            param="language",
            code="unknown_language",
        )
    if abilities.told_language:
        return code
    if code != abilities.languages[0]:
        ignored.append("language")
    return None
