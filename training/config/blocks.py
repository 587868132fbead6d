"""The blocks of a configuration: one frozen pydantic model each, a docstring under each field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, SerializeAsAny

from training.data.options import Augmentation, Block, Count, NonNegative, Positive, Share
from training.data.sources.options import DatasetOptions, LibriSpeechOptions, ShardOptions
from training.data.sources.source import Source, named
from training.models.options import ModelOptions

KeyPath = tuple[str | int, ...]
Steps = Annotated[int | float, Field(gt=0)]
Strategy = Literal["no", "steps", "epoch"]
Schedule = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
    "onecycle",
]
Precision = Literal["fp32", "fp16", "bf16", "auto"]


MOVED_FROM_MODEL = ("freeze_encoder", "freeze_feature_encoder", "freeze_encoder_epochs")
"""Keys that a file may put in ``model`` or in ``training``; they are kept in ``training``."""


MOVED_TO_MODEL = ("phase", "alignment_weight")
"""Keys of the architecture that a file may put in ``training`` too; they are kept in ``model``."""


class Problem(NamedTuple):
    """One mistake: the key, what is wrong, and the other keys that take part in it."""

    key: KeyPath
    message: str
    involves: tuple[KeyPath, ...] = ()


class Inconsistent(ValueError):
    """Values that are right one by one and contradict each other."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("; ".join(f"{'.'.join(map(str, p.key))}: {p.message}" for p in problems))


class Paths(Block):
    """Folders of the project's data and results. Relative paths start from the working directory."""

    data_root: Path | None = None
    """Folder that relative audio paths start from (see `data.audio_root`); null: each manifest's own folder."""
    manifest_path: Path = Path("data/export/manifest.tsv")
    """The annotation system's export: what `prepare data` cleans and splits."""
    splits_dir: Path = Path("data/splits")
    """Folder of `train.csv`, `dev.csv` and `test.csv`."""
    output_dir: Path = Path("outputs")
    """Folder that holds every run's folder (`output.dir`), `results/` and `charts/`."""


class Data(Block):
    """Which utterances a run reads."""

    manifest: Path | None = None
    """One manifest whose column `split` says train, dev or test, in place of `train`, `dev` and `test`."""
    dev_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """With `manifest`: share of the training rows that checkpoints are chosen on, where the column names no dev
    rows. Whole speakers, where the test rows' speakers are not those of training; else utterances."""
    train: Path | None = Path("${paths.splits_dir}/train.csv")
    """Manifest (TSV, CSV or JSONL) to train on."""
    dev: Path | None = Path("${paths.splits_dir}/dev.csv")
    """Manifest that checkpoints are chosen on; null (with `training.eval_strategy: no`): none is chosen."""
    test: Path | None = Path("${paths.splits_dir}/test.csv")
    """Manifest that the finished run is scored on, once."""
    audio_root: Path | None = Path("${paths.data_root}")
    """Folder that the manifests' relative audio paths start from; null: each manifest's own folder."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column → the manifest's column, where the names differ (`transcript: sentence`)."""
    keep_text_markers: tuple[str, ...] = ()
    """Words of `nan`, `None`, `N/A`, `null` and the like that are real words in this data. Other rows whose text is only such
    a word go into the ledger (`missing_text_marker`)."""
    dataset: DatasetOptions | None = None
    """A `datasets` dataset in place of `train`, `dev` and `test`."""
    registry: str | None = None
    """A data registry (SQLite file or SQLAlchemy URL, see `docs/registry.md`) in place of `train`, `dev`, `test`."""
    version: str = "v1"
    """Which frozen version of the registry."""
    shards: ShardOptions | None = None
    """WebDataset shards in place of `train`, `dev` and `test`; `columns` maps our names to those in their JSON."""
    librispeech: LibriSpeechOptions | None = None
    """LibriSpeech in place of `train`, `dev` and `test`."""
    domains: tuple[str, ...] | None = None
    """Train, and choose checkpoints, on utterances of these domains alone; null: on all. The test split stays whole."""
    max_dropped_share: Share = 0.02
    """A run refuses to start when more than this share of a split cannot be used."""
    min_seconds: NonNegative = 0.1
    """Shorter clips are dropped into the ledger."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """Every source that is named; more than one is a mistake (`training.config.agreement`)."""
        from training.data.sources.configured import KINDS, Table
        from training.registry.data_source import RegistrySource

        kinds: dict[str, type[Source]] = {**KINDS, RegistrySource.key: RegistrySource}
        return tuple(kinds[key].of(self) for key in named(dict(self))) or (Table.of(self),)

    @property
    def source(self) -> Source:
        """The source of the utterances."""
        return self.sources[0]


class Audio(Block):
    """Audio: sample rate, length and channel."""

    sample_rate: Count = 16000
    """Samples per second that the model expects; other rates are resampled when read."""
    max_length_seconds: Positive = 30.0
    """Longer clips are dropped (never cut: their text would stay whole)."""
    channel: Annotated[int, Field(ge=0)] | Literal["left", "right"] | None = None
    """Of files with several channels, for rows whose column `channel` names none: a number from 0, `left` or `right`.
    null: the mean, or the loudest channel where the channels cancel each other."""


class Lora(Block):
    """Low-rank adapters (Hu et al. 2021), through peft."""

    r: Count = 16
    """Rank."""
    alpha: Positive = 32.0
    """Scale: the update is multiplied by alpha / r."""
    dropout: Share = 0.05
    """Dropout in front of the adapters."""
    after_epochs: NonNegative = 0.0
    """Epochs in which the adapters are not trained, only the modules that are trained in full beside them (a projector)."""


class Training(Block):
    """How a run trains: the short names below and, verbatim, the fields of `Seq2SeqTrainingArguments`."""

    batch_size: Count | None = None
    """Utterances per device and step. null: 8, or no bound when `max_batch_seconds` is set."""
    eval_batch_size: Count | None = None
    """Utterances per device in evaluation at most; null: as many as `evaluation.batch_seconds` holds."""
    max_batch_seconds: Positive | None = None
    """Audio seconds per device and step, padding included: batches are made of clips of like length and hold at
    most `batch_size` of them. null: `batch_size` utterances, whatever their length."""
    gradient_accumulation_steps: Count = 1
    """Batches per optimiser step."""
    learning_rate: NonNegative = 5e-5
    """Peak learning rate of AdamW."""
    learning_rates: dict[str, NonNegative] = Field(default_factory=dict)
    """Peak learning rates of single parameters: pattern or group, as in `freeze`, → rate (`{ctc_head.*: 1.0e-2}`: an output layer
    that is new beside pretrained parts). All others have `learning_rate`."""
    lr_scheduler_type: Schedule = "linear"
    """Shape of the learning rate after the warm-up."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the steps over which the learning rate rises."""
    warmup_steps: NonNegative | None = None
    """Steps over which the learning rate rises (below 1: a share of the steps)."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay; biases and layer norms are left out."""
    max_grad_norm: NonNegative = 1.0
    """Gradients are scaled down to this norm; 0: never."""
    label_smoothing_factor: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability mass spread over the whole vocabulary in the cross entropy."""
    num_train_epochs: Positive = 3.0
    """Passes over the training split."""
    max_steps: Annotated[int, Field(ge=-1)] = -1
    """Optimiser steps; when positive it decides in place of `num_train_epochs`."""
    fp16: bool | None = None
    """Half precision with loss scaling. null: as `profile.precision` says."""
    bf16: bool | None = None
    """bfloat16. null: as `profile.precision` says."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    cpu_threads: Count | None = None
    """Threads of torch in the training process; null: its own choice (one for each core, or OMP_NUM_THREADS). Models of
    less than a million parameters train fastest on one, the other cores reading ahead."""
    eval_strategy: Strategy = "steps"
    """When the dev split is scored."""
    eval_steps: Steps | None = None
    """Steps between evaluations (below 1: a share of the run); null: `logging_steps`."""
    save_strategy: Literal["no", "steps", "epoch", "best"] | None = None
    """When a checkpoint is written; null: at each evaluation, or by steps where there is none."""
    save_steps: Steps | None = None
    """Steps between checkpoints (below 1: a share of the run); null: `eval_steps`."""
    save_total_limit: Count | None = 3
    """Checkpoints kept (the best one always)."""
    logging_steps: Steps = 50
    """Steps between lines in the log."""
    load_best_model_at_end: bool | None = None
    """The run ends with its best checkpoint, not its last. null: yes, where the dev split is scored."""
    metric_for_best_model: str | None = None
    """What "best" means: eval_loss, eval_wer, eval_cer, eval_bleu, eval_chrf, or one of these scores of a domain of
    the dev rows (eval_cer_child). Where model and dev rows have times of words also eval_onset_mae, the milliseconds by which the
    starts of words are wrong. Without a name it is eval_wer where the run transcribes, else eval_bleu. A falling loss can hide a
    rising WER."""
    greater_is_better: bool | None = None
    """null: no for losses and error rates, yes for the rest."""
    early_stopping_patience: Count | None = None
    """Stop after this many evaluations without improvement; null: never."""
    report_to: str | tuple[str, ...] = "tensorboard"
    """Where curves go: tensorboard, wandb, a list of both, none."""
    seed: int = 42
    """Seed of the weights, the batches and the dropout."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Score, choose and keep the moving average of the weights with this decay (0.999: over some thousand steps);
    null: the weights themselves."""
    average_checkpoints: Annotated[int, Field(ge=2)] | None = None
    """When the run ends, average the weights of this many newest checkpoints, and keep the average where the dev
    split says that it is no worse than the best; null: never."""
    trainable: Literal["all", "lna", "blocks", "lora"] = "all"
    """all: everything that is not frozen; lna: layer norms and attention only (Li et al. 2021); blocks: the last
    blocks and the new tokens (`model.unfreeze` of domain_whisper); lora: adapters only."""
    freeze: tuple[str, ...] = ()
    """Parameter-name patterns (`model.encoder.layers.0.*`) or groups of the architecture (`encoder`) that get no
    gradient. A pattern that matches nothing is an error."""
    lora: Lora | None = None
    """Adapters, when `trainable: lora`."""
    freeze_encoder: bool | None = None
    """The speech encoder gets no gradient, for the whole run or for `freeze_encoder_epochs`."""
    freeze_feature_encoder: bool | None = None
    """The convolutions in front of the encoder get no gradient."""
    freeze_encoder_epochs: NonNegative | None = None
    """The encoder is frozen for this many epochs and trained from then on."""


class Dataloader(Block):
    """How batches are loaded."""

    num_workers: Annotated[int, Field(ge=0)] = 2
    """Processes that decode audio and encode examples; 0: in the main process."""
    pin_memory: bool = True
    """Page-locked batches, for faster copies to a GPU (without effect on CPU)."""
    prefetch_factor: Count | None = 2
    """Batches that each worker holds ready (without effect when there are no workers)."""
    multiprocessing_context: Literal["fork", "forkserver", "spawn"] | None = None
    """How workers start; null: as the operating system does (spawn on Windows)."""


class Evaluation(Block):
    """How hypotheses are made and scored."""

    num_beams: Count = 1
    """Beam width; 1: greedy."""
    max_new_tokens: Count | None = None
    """Tokens per hypothesis at most; null: what the model allows."""
    batch_seconds: Positive = 60.0
    """Audio seconds per evaluation batch, padding included."""
    max_utterances: Count | None = None
    """Utterances of the dev split scored during training; null: all."""
    resamples: Count = 1000
    """Bootstrap resamples for the 95 % intervals."""
    retain: tuple[Path, ...] = ()
    """Manifests of other languages or domains that a run from pretrained weights must not forget: scored with the start
    weights and with the run's, with a verdict on each."""
    fallback: bool = False
    """Score test sets with Whisper's safeguards, as `polyvox transcribe` decodes (temperature fallback, no-speech rule, loops
    cut); false: greedy or beam search alone, so that scores can be compared. The dev split in training is scored without."""
    silence_probes: bool = True
    """Also count the words that the model invents on silence, noise and music."""


class Output(Block):
    """Where a run is written."""

    dir: Path = Path("${paths.output_dir}/${output.experiment_name}")
    """The run's folder: checkpoints, logs, the resolved configuration, results of training."""
    experiment_name: Annotated[str, Field(min_length=1, pattern=r"^[^/\\]+$")] = "run"
    """Name in charts and result files; without one, the name of the configuration's file."""
    suffix: Annotated[str, Field(pattern=r"^[^/\\]*$")] = ""
    """Text that is put behind ``experiment_name``, and so behind the name of the folder unless ``dir`` is given; ``--smoke`` has
    ``_smoke``. The resolved configuration holds the whole name, and no suffix."""
    log_file: Path | None = None
    """File to which the printed lines are appended too."""
    wandb_project: str | None = None
    """Project on wandb, with `training.report_to: wandb`; null: what the variable WANDB_PROJECT says."""
    wandb_entity: str | None = None
    """Team or user on wandb."""


class Profile(Block):
    """Settings that depend on the hardware; the dry run plans for it."""

    name: str = "default"
    """`cpu`, `rtx2050`, `cuda_8gb`, `cuda_16gb`, `cuda_24gb`, `a100`, `h100`, `mps` choose that profile of
    `configs/profiles` whole, in the place of an inherited one, as `--hardware` does; `auto`: the one that suits the
    machine. Any other name is that of a profile of your own, which also says what it is."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto: a GPU where there is one. mps: Apple's GPUs."""
    memory_gb: Positive | None = None
    """Memory of the device in GB, that the dry run's plan must fit; null: that of this machine."""
    precision: Precision = "fp32"
    """Arithmetic, unless `training.fp16` or `training.bf16` is set. auto: on a GPU bf16, or fp16 on an older one. On a processor
    bf16 where it multiplies it in hardware (AVX512-BF16, AMX), else fp32. The run says which and why."""
    description: str = ""
    """One line about the machine."""
    price_per_hour: Annotated[float, Field(ge=0)] | None = None
    """What an hour of the machine costs, in any currency: the dry run says what the whole run costs where it can time it."""


class Settings(Block):
    """All blocks together. `training.config.schema.Config` checks that they agree."""

    model: SerializeAsAny[ModelOptions] | None = None
    """The architecture (`type`) and its options; absent in files that only prepare data."""
    data: Data = Data()
    paths: Paths = Paths()
    audio: Audio = Audio()
    augmentation: Augmentation = Augmentation()
    training: SerializeAsAny[Training] = Training()
    dataloader: Dataloader = Dataloader()
    evaluation: Evaluation = Evaluation()
    output: Output = Output()
    profile: Profile = Profile()
