"""Where a configuration's splits come from: a download, a demo corpus, one's own export; nothing where they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.recipes import tasks
from training.recipes.state import State
from training.recipes.tasks import Run, Say, Task


def data_tasks(run: Run, options: Sequence[str], state: State, say: Say) -> list[Task]:
    """LibriSpeech's splits, or the demo corpus (``options``: words for `polyvox demo-data`) and its splits.

    Raises `UserError` where there is nothing that the splits could be made of.
    """
    data, splits = run.resolved.values["data"], run.path("splits_dir")
    if libri := data.get("librispeech"):
        return downloads(libri)
    own = not tasks.reads_splits(run.resolved.values, splits)
    if own or tasks.foreign(Path(data["train"]), tasks.SPLIT, state):
        say("the configuration's data are there: nothing to prepare")
        return []
    manifest = run.path("manifest_path")
    return [*_speech(manifest, data["train"], options, state, say), tasks.splitting(manifest, splits)]


def _speech(manifest: Path, train: str, options: Sequence[str], state: State, say: Say) -> list[Task]:
    corpus = demo_corpus(manifest)
    if corpus is None and not manifest.exists():
        raise UserError(
            f"data.train: {train} is not there, nor is {manifest} to make it of; name your manifests in data.train, "
            "data.dev and data.test, or the export to be split in paths.manifest_path"
        )
    if corpus is None or tasks.foreign(manifest, tasks.SYNTHESISE, state):
        return []
    told = ("--corpus", corpus, *options)
    spoken = tasks.synthesis(manifest, state, say, options=told, values=told)
    return [spoken] if spoken else []


def demo_corpus(manifest: Path) -> str | None:
    """The demo corpus with word times in whose folder the manifest lies (``data/english``: english); None: none does."""
    from training.synthetic.demo import CORPORA

    timed = {name: one for name, one in CORPORA.items() if "words" in one.columns}
    return next((name for name, one in timed.items() if one.folder == manifest.parent.name), None)


def downloads(libri: Mapping[str, Any]) -> list[Task]:
    """One for each split that the configuration names; the command leaves alone what is there."""
    from training.data.sources.librispeech import corpus_folder

    root = Path(libri["root"])
    corpus = corpus_folder(root)
    splits = dict.fromkeys(split for part in ("train", "dev", "test") for split in libri[part])
    return [
        Task(
            key=f"download {split}",
            command=tasks.module("training.cli.download", "librispeech", "--output", root, "--splits", split),
            writes=(corpus / split,),
        )
        for split in splits
    ]
