"""Domain-token Whisper by its literal commands: a base, its adaptation, the swap test, files of no domain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_project
from safetensors.torch import load_file

pytestmark = pytest.mark.recipe

ADAPTED = """
_base_: tiny.yaml
model:
  type: domain_whisper
  name: {folder}/run
  sizes: null
  language: vi
  task: transcribe
  domains: [adult, child]
  unfreeze: {{encoder_blocks: 1, decoder_blocks: 1}}
data: {{train: {folder}/train.csv, dev: {folder}/dev.csv, test: {folder}/dev.csv}}
training: {{trainable: blocks, max_steps: 3}}
output: {{dir: {folder}/adapted}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A base of adults, adapted to children."""
    folder = tmp_path_factory.mktemp("domains")
    config = tiny_project.make(folder)
    for name in ("train", "dev"):
        tiny_project.with_domains(folder / f"{name}.csv")
    done = tiny_project.train(config, "data.domains=[adult]", "training.max_steps=2")
    assert done.returncode == 0, done.stderr
    (folder / "adapted.yaml").write_text(ADAPTED.format(folder=folder), encoding="utf8")
    done = tiny_project.train(folder / "adapted.yaml")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_base_heard_its_domain_alone(project: Path) -> None:
    results = json.loads((project / "run" / "train_results.json").read_text(encoding="utf8"))
    assert results["utterances"] == 5


def test_the_adapted_folder_differs_from_the_base_in_blocks_and_token_rows_alone(project: Path) -> None:
    base, adapted = (load_file(project / name / "model.safetensors") for name in ("run", "adapted"))
    table = "model.decoder.embed_tokens.weight"
    changed = {name for name in base if name != table and not base[name].equal(adapted[name])}
    assert changed and all(".layers.0." in name for name in changed)
    assert (
        adapted[table][: len(base[table])].equal(base[table]) and len(adapted[table]) == len(base[table]) + 2
    )


def test_the_table_of_a_dry_run_shows_the_rows(project: Path) -> None:
    done = tiny_project.train(project / "adapted.yaml", "--dry_run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trainable: 2 of" in done.stdout and "<|domain:adult|>" in done.stdout


def test_it_is_evaluated_by_domain_and_with_other_prompts(project: Path) -> None:
    out = project / "results"
    done = tiny_project.polyvox(
        "evaluate", "--model_dir", project / "adapted", "--swap_test", "--output", out
    )
    assert done.returncode == 0, done.stderr
    assert "swap test, CER" in done.stdout and "child, prompt auto" in done.stdout
    swap = json.loads((out / "adapted_swap.json").read_text(encoding="utf8"))
    assert set(swap["by_domain"]["child"]["prompts"]) == {"as_it_is", "swap", "none", "auto"}
    assert swap["heard_domains"]["accuracy"]["rows"] == 2
    done = tiny_project.polyvox(
        "evaluate", "--model_dir", project / "adapted", "--domain", "auto", "--output", out
    )
    assert done.returncode == 0 and "domain predicted correctly:" in done.stdout, done.stderr
    assert (out / "adapted_auto_metrics.json").is_file()


def test_a_swap_test_that_would_tell_nothing_is_refused(project: Path) -> None:
    """With all prompts of one domain the first column would not be the utterances' own."""
    swap = ("--swap_test", "--output", project / "refused")
    done = tiny_project.polyvox("evaluate", "--model_dir", project / "adapted", "--domain", "child", *swap)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "--swap_test --domain child: the test begins with the utterances' own domains" in done.stderr
    done = tiny_project.polyvox("evaluate", "--model_dir", project / "run", *swap)
    assert done.returncode == 2 and "--swap_test: " in done.stderr and "no domains" in done.stderr
    plain = project / "plain.csv"
    plain.write_text("audio_path,duration,transcript\nclip3.wav,0.9,Mẹ nấu cơm chưa\n", encoding="utf8")
    done = tiny_project.polyvox(
        "evaluate",
        "--model_dir",
        project / "adapted",
        "--test_csv",
        plain,
        *swap,
        "--evaluation",
        "resamples=100",
    )
    assert done.returncode == 2 and "--swap_test: no utterance names a domain" in done.stderr
    assert not any((project / "refused").iterdir())


def test_recordings_need_a_domain_or_the_model_says_it(project: Path) -> None:
    clip = project / "clip3.wav"
    done = tiny_project.polyvox("transcribe", clip, "--model", project / "adapted")
    assert (
        done.returncode == 2
        and "--domain adult, child, or auto" in done.stderr
        and "Traceback" not in done.stderr
    )
    done = tiny_project.polyvox(
        "transcribe", clip, "--model", project / "adapted", "--domain", "auto", "--format", "json"
    )
    assert done.returncode == 0, done.stderr
    assert all(one["domain"] in ("adult", "child") for one in json.loads(done.stdout)["segments"])
    done = tiny_project.polyvox("transcribe", clip, "--model", project / "run", "--domain", "child")
    assert done.returncode == 2 and "holds a whisper, which has no domains" in done.stderr


def test_a_domain_that_no_row_has_is_named(project: Path) -> None:
    done = tiny_project.train(project / "tiny.yaml", "data.domains=[elderly]", "--fresh")
    assert done.returncode == 2
    assert "data.domains: no row of train is of the domain 'elderly' (there are: adult, child)" in done.stderr
