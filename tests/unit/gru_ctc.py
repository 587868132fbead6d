"""A CTC model as a package of somebody else would have it: log-mels, a convolution, a bidirectional GRU, characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoFeatureExtractor, ParakeetFeatureExtractor, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from training import Architecture, Example
from training.models.abilities import CtcFrames
from training.models.architecture import BatchCollator, BuildContext, ParameterGroups, UtteranceEncoder
from training.models.batch import Batch
from training.models.common import SETTINGS
from training.models.common.ctc import check_feasible, ctc_loss
from training.models.ctc.tokenizer import CtcTokenizer
from training.models.options import ModelOptions

HOP, STRIDE = 160, 4


class Options(ModelOptions):
    """The ``model:`` block."""

    type: str = "gru_ctc:GruCtcArchitecture"
    """The architecture."""
    task: Literal["transcribe"] = "transcribe"
    """CTC transcribes."""
    language: str = "vi"
    """Language of the speech."""
    width: int = Field(64, ge=8)
    """Width of the GRU, both directions together."""
    layers: int = Field(2, ge=1)
    """Layers of the GRU."""

    @property
    def learns_vocabulary(self) -> bool:
        """Characters of the training texts."""
        return True


class GruCtcConfig(PreTrainedConfig):
    """Sizes."""

    model_type = "my_gru_ctc"
    vocab_size: int = 32
    width: int = 64
    layers: int = 2
    mels: int = 80


@dataclass
class Output(ModelOutput):
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    encoder_last_hidden_state: torch.Tensor | None = None


class GruCtc(PreTrainedModel):
    """GRU with a CTC output."""

    config_class = GruCtcConfig
    main_input_name = "input_features"
    accepts_loss_kwargs = True
    label_smoothing = 0.0

    def __init__(self, config: GruCtcConfig) -> None:
        super().__init__(config)
        self.convolution = nn.Conv1d(config.mels, config.width, 5, stride=STRIDE, padding=2)
        self.gru = nn.GRU(
            config.width, config.width // 2, config.layers, bidirectional=True, batch_first=True
        )
        self.head = nn.Linear(config.width, config.vocab_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """torch's own."""

    def states(self, sound: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.convolution(sound.transpose(1, 2)).relu().transpose(1, 2)
        return self.gru(hidden)[0]

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
        num_items_in_batch: Any = None,
    ) -> Output:
        states = self.states(input_features, attention_mask)
        logits = self.head(states)
        loss = None
        if labels is not None:
            targets = labels[:, 0]
            items = (
                num_items_in_batch if num_items_in_batch is not None else (targets != -100).sum().clamp(min=1)
            )
            loss = ctc_loss(logits, frames(attention_mask), targets) / items
        return Output(loss=loss, logits=logits, encoder_last_hidden_state=states)


def frames(mask: torch.Tensor) -> torch.Tensor:
    return (mask.sum(-1) + STRIDE - 1) // STRIDE


@dataclass(frozen=True)
class Encode(UtteranceEncoder):
    extractor: Any
    tokenizer: CtcTokenizer
    tasks: tuple[str, ...] = ("transcribe",)

    def __call__(self, example: Example, waveform: np.ndarray) -> dict[str, Any]:
        labels = self._labels(example, len(waveform))
        sound = self.extractor(waveform, sampling_rate=16000, return_tensors="np")
        return {
            "id": example.id,
            "seconds": len(waveform) / 16000,
            "input_features": sound["input_features"][0][: len(waveform) // HOP],
            "labels": {"transcribe": labels},
            "prompt": {"transcribe": 0},
        }

    def _labels(self, example: Example, samples: int) -> list[int]:
        labels = self.tokenizer.encode(example.texts.get("transcribe", ""))
        check_feasible(-(-(samples // HOP) // STRIDE), labels)
        return labels

    def check(self, example: Example, seconds: float) -> None:
        self._labels(example, int(seconds * 16000))


@dataclass(frozen=True)
class Collate(BatchCollator):
    tasks: tuple[str, ...] = ("transcribe",)

    def __call__(self, features: Sequence[dict[str, Any]]) -> Batch:
        sounds = [torch.as_tensor(row["input_features"]) for row in features]
        labels = [torch.tensor(row["labels"]["transcribe"], dtype=torch.long) for row in features]
        return {
            "ids": [row["id"] for row in features],
            "seconds": sum(row["seconds"] for row in features),
            "input_features": pad_sequence(sounds, batch_first=True),
            "attention_mask": pad_sequence(
                [torch.ones(len(s), dtype=torch.long) for s in sounds], batch_first=True
            ),
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100)[:, None],
        }


@dataclass
class Processor:
    feature_extractor: Any
    tokenizer: CtcTokenizer

    def save_pretrained(self, folder: Any, **_: Any) -> None:
        self.feature_extractor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


@dataclass(frozen=True, kw_only=True)
class GruCtcArchitecture(Architecture):
    """GRU-CTC from scratch."""

    Options: ClassVar[type[ModelOptions]] = Options

    @classmethod
    def build(cls, options: Any, context: BuildContext) -> Any:
        if context.source is not None:
            tokenizer = CtcTokenizer.from_pretrained(context.source)
            extractor: Any = AutoFeatureExtractor.from_pretrained(context.source)
            model: Any = GruCtc.from_pretrained(context.source)
        else:
            rows = list(context.texts()) if context.texts else []
            tokenizer = CtcTokenizer.characters(text for task, _, text in rows if task == "transcribe")
            extractor = ParakeetFeatureExtractor()
            config = GruCtcConfig(
                vocab_size=len(tokenizer),
                width=options.width,
                layers=options.layers,
                mels=extractor.feature_size,
            )
            setattr(
                config, SETTINGS, {"type": options.type, "task": options.task, "language": options.language}
            )
            with torch.device("meta" if context.meta else "cpu"):
                model = GruCtc(config)
        return cls(
            model=model,
            processor=Processor(extractor, tokenizer),
            tasks=options.tasks,
            languages=(options.language, options.language),
            sample_rate=16000,
            encode=Encode(extractor, tokenizer),
            collate=Collate(),
            spectrogram=True,
            frames=CtcFrames(
                tokens=("", *tokenizer.tokens[1:]),
                blank=0,
                seconds_per_frame=HOP * STRIDE / 16000,
                log_probs=log_probs,
                speller=tokenizer,
            ),
        )

    def parameter_groups(self) -> ParameterGroups:
        return ParameterGroups(patterns={"encoder": ("convolution.*", "gru.*")})

    @property
    def positions(self) -> None:
        return None

    def generate(
        self, batch: Batch, *, model: Any = None, states: Any = None, **_: Any
    ) -> Mapping[str, torch.Tensor]:
        raise NotImplementedError("this model is read by its frames")

    def text(self, ids: Sequence[int]) -> str:
        return self.processor.tokenizer.decode(ids)


def log_probs(model: Any, batch: Batch, states: Any = None) -> list[np.ndarray]:
    with torch.no_grad():
        if states is None:
            states = model.states(batch["input_features"], batch["attention_mask"])
        rows = model.head(states).float().log_softmax(-1).cpu().numpy()
    return [row[:n] for row, n in zip(rows, frames(batch["attention_mask"]).tolist(), strict=True)]
