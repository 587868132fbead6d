"""The fields of `Seq2SeqTrainingArguments` that a ``training`` block may set by their own names.

Importing this module imports transformers and torch: `training.config.load` does so only for a
configuration that uses such a field.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from functools import lru_cache
from typing import Any

from pydantic import create_model
from transformers import Seq2SeqTrainingArguments

from training.config.blocks import Training
from training.config.schema import MADE

_ELSEWHERE = "is decided elsewhere: say {}"
_BY_TRAINER = "is the trainer's own business: {}"

REFUSED = {
    "output_dir": _ELSEWHERE.format("output.dir"),
    "use_cpu": _ELSEWHERE.format("profile.device: cpu"),
    "no_cuda": _ELSEWHERE.format("profile.device: cpu"),
    "resume_from_checkpoint": _ELSEWHERE.format("--resume on the command line"),
    "dataloader_num_workers": _ELSEWHERE.format("dataloader.num_workers"),
    "dataloader_pin_memory": _ELSEWHERE.format("dataloader.pin_memory"),
    "dataloader_prefetch_factor": _ELSEWHERE.format("dataloader.prefetch_factor"),
    "dataloader_multiprocessing_context": _ELSEWHERE.format("dataloader.multiprocessing_context"),
    "generation_num_beams": _ELSEWHERE.format("evaluation.num_beams"),
    "generation_max_length": _ELSEWHERE.format("evaluation.max_new_tokens"),
    "generation_config": _ELSEWHERE.format("evaluation.num_beams and evaluation.max_new_tokens"),
    "evaluation_strategy": "is gone from transformers: say eval_strategy",
    "group_by_length": "is gone from transformers: set max_batch_seconds, and batches hold clips of like length",
    "train_sampling_strategy": _BY_TRAINER.format("max_batch_seconds makes batches of clips of like length"),
    "length_column_name": _BY_TRAINER.format("lengths come from the manifest's duration column"),
    "sortish_sampler": _BY_TRAINER.format("max_batch_seconds makes batches of clips of like length"),
    "overwrite_output_dir": "is gone from transformers: nothing is overwritten; --resume goes on, output.dir starts anew",
    "save_safetensors": "is gone from transformers: checkpoints are safetensors, always",
    "logging_dir": "is gone from transformers: curves lie in the folder logs of output.dir",
    "tokenizer": "is gone from transformers: the architecture brings its processor",
    "remove_unused_columns": _BY_TRAINER.format("examples keep their audio, always"),
    "predict_with_generate": _BY_TRAINER.format("hypotheses are generated, always"),
    "do_train": _ELSEWHERE.format("train.py trains, run_evaluation.py scores"),
    "do_eval": _ELSEWHERE.format("eval_strategy"),
    "do_predict": _ELSEWHERE.format("run_evaluation.py"),
    "local_rank": "is gone: start several processes with accelerate launch",
    "label_names": _BY_TRAINER.format("labels come from the architecture's collator"),
    "gradient_checkpointing_kwargs": _BY_TRAINER.format("frozen parts need use_reentrant false"),
    "activation_checkpointing_kwargs": _BY_TRAINER.format("frozen parts need use_reentrant false"),
    "average_tokens_across_devices": _BY_TRAINER.format("losses are divided by the tokens of all devices"),
    "accelerator_config": _BY_TRAINER.format("batches are cut for each process by the sampler"),
    "auto_find_batch_size": "would change batches behind the sampler's back: ask --dry_run what fits",
    "eval_do_concat_batches": _BY_TRAINER.format("hypotheses are keyed by utterance"),
    "eval_use_gather_object": _BY_TRAINER.format("hypotheses are keyed by utterance"),
    "batch_eval_metrics": _BY_TRAINER.format("scores are of the whole corpus"),
    "include_for_metrics": _BY_TRAINER.format("hypotheses are keyed by utterance"),
    "run_name": _ELSEWHERE.format("output.experiment_name"),
    "dataloader_drop_last": _BY_TRAINER.format("no utterance is left out"),
    "prediction_loss_only": _BY_TRAINER.format("hypotheses are generated, always"),
    "eval_accumulation_steps": _BY_TRAINER.format("hypotheses leave the device batch by batch"),
    "fp16_full_eval": _BY_TRAINER.format("evaluation runs in the precision of training"),
    "bf16_full_eval": _BY_TRAINER.format("evaluation runs in the precision of training"),
    "hub_token": "would be saved with the run: log in with `hf auth login` instead",
}
"""Names that are not taken, and why; some of them are names of older versions of transformers."""

HANDLED = ("per_device_train_batch_size", "per_device_eval_batch_size", "activation_checkpointing")
"""Names that the loader translates into the short ones before it gets here."""


def _type_of(hint: Any) -> Any:
    """The field's type; of ``Enum | str`` only the enum, so that a wrong name is seen."""
    parts = typing.get_args(hint)
    enums = [part for part in parts if isinstance(part, type) and issubclass(part, enum.Enum)]
    if not enums:
        return hint
    return enums[0] | None if type(None) in parts else enums[0]


@lru_cache(maxsize=1)
def fields() -> dict[str, tuple[Any, Any]]:
    """Name → (type, default) of every field that may be set verbatim."""
    hints = typing.get_type_hints(Seq2SeqTrainingArguments)
    taken = {*Training.model_fields, *REFUSED, *HANDLED}
    return {
        field.name: _type_and_default(field, hints[field.name])
        for field in dataclasses.fields(Seq2SeqTrainingArguments)
        if field.init and field.name not in taken and not field.name.startswith("_")
    }


def _type_and_default(field: dataclasses.Field[Any], hint: Any) -> tuple[Any, Any]:
    kind = _type_of(hint)
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    is_name = isinstance(kind, type) and issubclass(kind, enum.Enum) and isinstance(default, str)
    return kind, kind(default) if is_name else default


VerbatimTraining: type[Training] = create_model(
    "VerbatimTraining", __base__=Training, __module__=__name__, __cls_kwargs__=MADE, **fields()
)  # type: ignore[call-overload]
"""`Training` with every field that `Seq2SeqTrainingArguments` has beside it."""
