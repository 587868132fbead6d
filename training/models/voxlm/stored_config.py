"""Configuration and processor of a speech model made of a Whisper encoder and a causal language model."""

from __future__ import annotations

from typing import Any, ClassVar

from jinja2 import TemplateError
from transformers import AutoConfig, PreTrainedConfig, WhisperConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.processing_utils import ProcessorMixin

from training.base.errors import UserError
from training.models.common.plain_text import control_tokens_in

AUDIO = "<|audio|>"
"""Placeholder of one group of encoder frames in the prompt; the projector's output takes its place."""
RESPONSE = "0123456789"
"""A response by which the token that ends one is found: no template and no control token is written with it."""
TURN, END = "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML."""
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'user' %}{{ '\n' }}{% else %}{{ eos_token }}{% endif %}{% endfor %}"
)
"""Instruction and response, a line each, for language models that were not trained on turns."""


def with_template(tokenizer: Any) -> Any:
    """The tokenizer, with a chat template where it has none.

    ChatML where its turns are tokens of the vocabulary (base models of Qwen); else a plain prompt, after the BOS token
    where the tokenizer itself begins texts with it: without its BOS a Gemma takes the text for noise.
    """
    if tokenizer.chat_template:
        return tokenizer
    if {TURN, END} <= set(tokenizer.get_added_vocab()):
        tokenizer.chat_template = CHAT_TEMPLATE
        return tokenizer
    begins = tokenizer.bos_token_id is not None and tokenizer("x").input_ids[:1] == [tokenizer.bos_token_id]
    tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + PLAIN_TEMPLATE
    return tokenizer


def check_instruction(tokenizer: Any, instruction: str, option: str) -> None:
    """`UserError` where the instruction contains a control token of the tokenizer."""
    if found := control_tokens_in(tokenizer, instruction):
        raise UserError(
            f"{option}: {found[0]} is a control token of the language model's tokenizer; write the instruction without it"
        )


class VoxLMConfig(PreTrainedConfig):
    """audio_config: of the Whisper whose encoder is used. text_config: of the language model. audio_token_id: of
    `AUDIO`. stack: encoder frames in one group. projector_width: of the projector's hidden layer. projector_scaled:
    its output has mean and deviation of the language model's embeddings (folders of earlier versions: deviation 1
    around 0). aligner: arguments of `training.models.voxlm.aligner.WordAligner`, None where there is no phase 2 yet."""

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
    projector_scaled: bool = False
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

        Raises `UserError` for an instruction that holds a control token, which the template would obey, and for a
        template that does not take one turn of the user, or loses the sound.
        """
        check_instruction(self.tokenizer, instruction, "model.instruction")
        asked = self._rendered([{"role": "user", "content": AUDIO + instruction}], add_generation_prompt=True)
        parts = asked.split(AUDIO)
        if len(parts) != 2:
            raise UserError(
                f"model.instruction, or the language model's chat template: the prompt has {AUDIO} {len(parts) - 1} times, "
                "where once is right"
            )
        before, after = (self.tokenizer(part, add_special_tokens=False).input_ids for part in parts)
        return before, after

    def end(self) -> int:
        """The token that ends a response: what the chat template writes after one, else the tokenizer's EOS.

        Raises `UserError` where there is neither: the model would never learn to stop.
        """
        turns = [{"role": "user", "content": RESPONSE}, {"role": "assistant", "content": RESPONSE}]
        whole = self._rendered(turns)
        after = self.tokenizer(whole.rpartition(RESPONSE)[2], add_special_tokens=False).input_ids
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        if after and after[0] in special:
            return after[0]
        if self.tokenizer.eos_token_id is None:
            raise UserError(
                "model.llm: its tokenizer has no token that ends a text (eos_token), and its chat template writes none "
                "after a response; name another language model, or set eos_token in its tokenizer_config.json"
            )
        return self.tokenizer.eos_token_id

    def check_tokens(self, instruction: str, rows: int) -> None:
        """`UserError` where a token of the prompt, or the one that ends a response, has no row among ``rows`` of the
        embedding: the folder's tokenizer is another model's."""
        before, after = self.prompt(instruction)
        for token in (*before, *after, self.end()):
            if token >= rows:
                raise UserError(
                    f"model.llm: {self.tokenizer.convert_ids_to_tokens(token)!r} of the prompt is token {token}, and the "
                    f"model has embeddings for {rows}; the tokenizer in that folder is another model's"
                )

    def _rendered(self, turns: list[dict[str, str]], **options: Any) -> str:
        """The chat template's text of the turns."""
        try:
            return self.tokenizer.apply_chat_template(turns, tokenize=False, **options)
        except TemplateError as error:
            raise UserError(
                f"model.llm: its chat template does not take a turn of the user and one of the assistant ({error}); "
                "remove the template from the folder's tokenizer, then a plain prompt is used"
            ) from error
