"""Configuration and processor of a speech model made of a Whisper encoder and a causal language model."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig, WhisperConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.processing_utils import ProcessorMixin

from training.base.errors import UserError
from training.models.common.plain_text import control_tokens_in

AUDIO = "<|audio|>"
"""Placeholder of one group of encoder frames in the prompt; the projector's output takes its place."""


def check_instruction(tokenizer: Any, instruction: str, option: str) -> None:
    """`UserError` where the instruction contains a control token of the tokenizer."""
    if found := control_tokens_in(tokenizer, instruction):
        raise UserError(
            f"{option}: {found[0]} is a control token of the language model's tokenizer; write the instruction without it"
        )


class VoxLMConfig(PreTrainedConfig):
    """audio_config: of the Whisper whose encoder is used. text_config: of the language model. audio_token_id: of
    `AUDIO`. stack: encoder frames in one group. projector_width: of the projector's hidden layer. aligner: arguments
    of `training.models.voxlm.aligner.WordAligner`, None where there is no phase 2 yet."""

    model_type = "voxlm"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "audio_config": SubConfigSpec(config_class=WhisperConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
    }

    audio_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    audio_token_id: int | None = None
    stack: int = 4
    projector_width: int = 2048
    aligner: dict | None = None
    tie_word_embeddings: bool = False  # of this class; the language model ties its own

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.hidden_size = self.text_config.hidden_size  # type: ignore[union-attr]


class VoxLMProcessor(ProcessorMixin):
    """A Whisper feature extractor and the language model's tokenizer, which knows `AUDIO` and has a chat template."""

    def __init__(self, feature_extractor: Any, tokenizer: Any, **kwargs: Any) -> None:
        super().__init__(feature_extractor, tokenizer, **kwargs)

    def prompt(self, instruction: str) -> tuple[list[int], list[int]]:
        """Token ids before the sound and between sound and response, by the chat template.

        Raises `UserError` for an instruction that holds a control token, which the template would obey.
        """
        check_instruction(self.tokenizer, instruction, "model.instruction")
        asked = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": AUDIO + instruction}], tokenize=False, add_generation_prompt=True
        )
        parts = asked.split(AUDIO)
        if len(parts) != 2:
            raise UserError(
                f"model.instruction, or the language model's chat template: the prompt has {AUDIO} {len(parts) - 1} times, "
                "where once is right"
            )
        before, after = (self.tokenizer(part, add_special_tokens=False).input_ids for part in parts)
        return before, after

    def end(self) -> int:
        """The token that ends a response: what the chat template writes after one, else the tokenizer's EOS."""
        response = "x"
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": response}]
        whole = self.tokenizer.apply_chat_template(turns, tokenize=False)
        after = self.tokenizer(whole.rpartition(response)[2], add_special_tokens=False).input_ids
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        return after[0] if after and after[0] in special else self.tokenizer.eos_token_id
