"""What an architecture offers for export, and the description of an exported folder. Does not import torch.

`Architecture.export_parts` returns an `ExportParts`; `training.export` writes and checks the folder; `training.runtime`
reads its description, ``polyvox.json``, and runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

ONNX, CTRANSLATE2, GGML, NEMO = "onnx", "ctranslate2", "ggml", "nemo"
FORMATS = (ONNX, CTRANSLATE2, GGML, NEMO)
PRECISIONS = ("fp32", "fp16", "int8")
VERSION = 1
"""Of the description; folders of another version are refused."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LogMelSettings(_Part):
    """Whisper's log-mels, in samples of ``sampling_rate``. ``n_samples``: of the longest clip."""

    sampling_rate: int
    n_fft: int
    hop_length: int
    n_samples: int
    mels: int


class ContextRule(_Part):
    """How batches of log-mels are padded, see `training.models.common.log_mels.Context`."""

    context: Literal["full", "trimmed"]
    margin: float


class Detection(_Part):
    """Detection of the spoken language by the model. languages: those that it tells apart. prompt: ids that follow the
    language in a prompt for transcripts."""

    languages: tuple[str, ...]
    prompt: tuple[int, ...]


class Prompts(_Part):
    """Token ids of the tokenizer that make a prompt: start, language, task, domain where there are any, no timestamps.

    end: ends a text, and fills up rows. suppress: ids that are never written; suppress_first: not as the first one.
    previous: stands before a text that comes before the utterance. no_speech: say that nobody speaks. detection: None where
    the model does not detect the language.
    """

    start: int
    end: int
    no_timestamps: int
    suppress: tuple[int, ...] = ()
    suppress_first: tuple[int, ...] = ()
    tasks: Mapping[str, int]
    languages: Mapping[str, int]
    domains: Mapping[str, int] = {}
    domain: str | None = None
    domain_predictable: bool = False
    previous: int | None = None
    no_speech: tuple[int, ...] = ()
    detection: Detection | None = None


class CtcHead(_Part):
    """A CTC head on the encoder, which gives the times of words. characters: of its vocabulary, from 1 on; 0 is the blank."""

    characters: str


class TaskPrompts(_Part):
    """Token ids of the tokenizer that make a prompt of language and task: start, language, task.

    end: ends a text, and fills up rows. languages: of the text, by code and by the name of the token.
    """

    start: int
    end: int
    tasks: Mapping[str, int]
    languages: Mapping[str, int]


class SpokenPrompt(_Part):
    """Token ids around the sound in the prompt of a language model.

    before, after: the sound, of which each group of ``stack`` encoder frames has one ``placeholder``. end: ends a text, and
    fills up rows. suppress: ids that are never written. aligner: whether there are pointers to the times of words.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    placeholder: int
    stack: int
    end: int
    padding: int
    suppress: tuple[int, ...] = ()
    aligner: bool = False


class WaveformInput(_Part):
    """Clips for an encoder of waveforms. fewest_samples: of a clip. shortest: samples to which a batch is filled up with zeros."""

    fewest_samples: int
    shortest: int = 1


class MovedIds(_Part):
    """Tokens whose rows stand elsewhere in the exported model: the rows ``ids`` come right before the row ``before``.

    They come once more right behind it, where CTranslate2 expects timestamps: there one of them can be predicted.
    """

    ids: tuple[int, ...] = ()
    before: int = 0


class CtcOutput(_Part):
    """The frames of a CTC model, see `training.models.abilities.CtcFrames`.

    fewest_samples: of a clip. shortest: time to which the features of a batch are filled up with zeros.
    """

    tokens: tuple[str, ...]
    blank: int
    seconds_per_frame: float
    edge_seconds: float = 0.0
    fewest_samples: int
    shortest: int = 1


class Description(_Part):
    """What the runtime needs to know of a model.

    decoder: how a text comes about. positions: of the decoder. vocabulary: number of ids. parameters: number of weights.
    longest_seconds: longest utterance of its training, where known. single_utterances: whether it was trained on
    utterances one by one (see ``pack`` of `training.transcription.transcriber.Transcriber`). beams: of the run's scores; None without a run.
    alignment_heads: layer and head of the cross-attentions that give the times of words. head: None without one.
    """

    decoder: Literal["whisper", "ctc", "encoder_decoder", "language_model"]
    tasks: tuple[str, ...]
    languages: tuple[str, str]
    sample_rate: int
    vocabulary: int
    parameters: int
    positions: int | None = None
    log_mels: LogMelSettings | None = None
    context: ContextRule | None = None
    prompts: Prompts | None = None
    task_prompts: TaskPrompts | None = None
    spoken_prompt: SpokenPrompt | None = None
    waveform: WaveformInput | None = None
    moved_ids: MovedIds = MovedIds()
    ctc: CtcOutput | None = None
    alignment_heads: tuple[tuple[int, int], ...] = ()
    head: CtcHead | None = None
    longest_seconds: float | None = None
    single_utterances: bool = False
    beams: int | None = None

    @property
    def end(self) -> int | None:
        """The id that ends a text; None where the model is not autoregressive."""
        found = self.prompts or self.task_prompts or self.spoken_prompt
        return found.end if found is not None else None


@dataclass(frozen=True)
class Refused:
    """A format that an architecture does not offer, and why."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class OnnxPart:
    """One graph: a torch module and the inputs that it is exported with.

    inputs: name → tensor, in the order of the module's arguments. outputs: names. dynamic: name of an input → axis →
    name of the dimension.
    """

    name: str
    module: Any
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class OnnxModel:
    """The graphs of a model. parts: makes them; it copies the weights, so it is called only where they are written."""

    parts: Callable[[], tuple[OnnxPart, ...]]


@dataclass(frozen=True, kw_only=True)
class NemoModel:
    """A CTC model in the layout of NeMo's exported models.

    parts: makes the log-mels, which this library's runtime uses, and ``model``. tokens: text of each id. mels: bands of the
    log-mels. subsampling: of the encoder. third_parties: program → whether it may use the folder, and why not.
    """

    parts: Callable[[], tuple[OnnxPart, ...]]
    tokens: tuple[str, ...]
    blank: int
    mels: int
    subsampling: int
    third_parties: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Ctranslate2Model:
    """A model of transformers that CTranslate2's converter knows.

    third_parties: program → whether it may use the folder, and why not.
    """

    model: Any
    tokenizer: Any
    moved: MovedIds
    third_parties: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class GgmlModel:
    """A Whisper with OpenAI's vocabulary. filters: mel filters float32 ``[bins, mels]``."""

    model: Any
    tokenizer: Any
    filters: Any
    third_parties: Mapping[str, str]


@dataclass(frozen=True)
class TokenizerFile:
    """Writes a tokenizer of transformers as ``tokenizer.json``, for models whose text needs no other file."""

    tokenizer: Any

    def __call__(self, folder: Path) -> None:
        self.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


Part = OnnxModel | Ctranslate2Model | GgmlModel | NemoModel


@dataclass(frozen=True, kw_only=True)
class ExportParts:
    """What an architecture offers.

    description: for the runtime. save_text: writes the tokenizer into a folder, in the files that the runtime reads.
    arrays: name of a ``.npy`` file → its content. formats: a model, or a refusal, for each of `FORMATS`.
    next_logits: ``(batch, row, task, ids) -> float32 [vocabulary]``: of the original, after the prompt and ``ids``; None
    for models that are not autoregressive.
    """

    description: Description
    save_text: Callable[[Path], None]
    arrays: Mapping[str, Any]
    formats: Mapping[str, Part | Refused]
    next_logits: Callable[..., Any] | None = None
