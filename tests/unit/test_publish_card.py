"""The model card: every figure in it is one of the run's."""

from __future__ import annotations

import json
from pathlib import Path

import published_run
import pytest
import yaml

from training import cli
from training.publishing.facts import bases


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return published_run.make(tmp_path)


def card(run: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[dict, str]:
    """The YAML block and the text, as a dry run shows them."""
    command = ["publish", "--model_dir", str(run), "--repo_id", "clinic/whisper-ko", "--dry_run", *options]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out.partition("README.md:\n\n")[2]
    _, block, text = shown.split("---\n", 2)
    return yaml.safe_load(block), text


def scores(run: Path) -> dict:
    return json.loads((run.parent / "results" / "clinic_metrics.json").read_text(encoding="utf8"))


def test_the_front_matter(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block, _ = card(run, capsys, "--licence", "cc-by-4.0")
    index = block.pop("model-index")
    assert block == {
        "language": ["ko"],
        "license": "cc-by-4.0",
        "base_model": ["openai/whisper-small"],
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["polyvox", "domain-whisper", "domain:normal", "domain:dyslexic"],
        "metrics": ["wer", "cer", "cer_spaces"],
    }
    assert index[0]["name"] == "whisper-ko"
    found = {one["dataset"]["name"]: one for one in index[0]["results"]}
    assert list(found) == ["test.csv", "test.csv, domain dyslexic", "test.csv, domain normal"]
    report = scores(run)
    whole = {one["type"]: one["value"] for one in found["test.csv"]["metrics"]}
    assert whole == {name: round(one["value"], 2) for name, one in report["scores"].items()}
    part = {one["type"]: one["value"] for one in found["test.csv, domain dyslexic"]["metrics"]}
    assert part["cer"] == round(report["by_domain"]["dyslexic"]["cer"]["value"], 2)


def test_a_licence_that_nobody_stated_is_said_to_be_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block, text = card(run, capsys)
    assert (block["license"], block["license_name"]) == ("other", "not-stated")
    assert "Licence: not stated. Whoever published this model named none" in text
    assert "Licence: mit." in card(run, capsys, "--licence", "mit")[1]


def test_the_model_its_data_and_its_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = card(run, capsys)[1]
    for line in (
        "| architecture | WhisperForConditionalGeneration |",
        "| parameters | 241,000,000 |",
        "| of them trained | 1,234,567 |",
        "| began from | `openai/whisper-small` |",
        r"| domain tokens | `<\|domain:normal\|>`, `<\|domain:dyslexic\|>` |",
        "| train | `private/train.csv` | 120 | 0.50 | dyslexic: 20, 0.20 h; normal: 100, 0.30 h |",
        "| dev | `private/dev.csv` | 12 | 0.50 |  |",
        "| test | `private/test.csv` | 12 | 0.01 | dyslexic: 6; normal: 6 |",
        "| learns | `blocks` |",
        "| epochs | 3 (30 steps) |",
        "| learning rate | 0.0001, linear |",
        "polyvox 0.1.0, torch 2.13.0.",
        "Commits of Polyvox: training: `c0ffee`, clinic: `c0ffee`.",
    ):
        assert line in text


def test_scores_by_domain_swap_test_and_verdict(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from training.evaluation.summary import score_text

    text, report = card(run, capsys)[1], scores(run)
    part = report["by_domain"]["dyslexic"]
    cells = [score_text(part[name]) for name in ("wer", "cer", "cer_spaces")]
    assert f"| domain dyslexic | 6 | {' | '.join(cells)} |" in text
    assert "| dyslexic | another domain's | " in text
    compared = json.loads((run.parent / "results" / "base_and_clinic.json").read_text(encoding="utf8"))
    assert f"Verdict: {compared['verdict']['line']}." in text
    assert "(B, this model) against `outputs/results/base_predictions.csv` (A)" in text


@pytest.mark.parametrize(("domain", "told"), [("swap", "another domain's"), ("none", "none")])
def test_a_trial_with_wrong_prompts_is_told_so_and_is_no_result_of_the_model(
    run: Path, domain: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, report = run.parent / "results" / "clinic_metrics.json", scores(run)
    report["meta"]["domain"] = domain
    path.write_text(json.dumps(report), encoding="utf8")
    block, text = card(run, capsys)
    assert "model-index" not in block
    assert f"Token in the prompt of all utterances: {told}." in text


def test_limits_are_what_is_known(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = card(run, capsys)[1]
    assert "Made to write transcripts of speech in ko." in text
    assert "Trained on 0.5 hours of speech only." in text
    assert "clip without speech: noise 2.0, silence 0.5." in text
    assert "The longest utterance in training lasted 12.3 s" in text


def test_without_evaluations_it_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    block, text = card(run, capsys, "--results", str(tmp_path / "empty"))
    assert "model-index" not in block and "metrics" not in block
    assert "Not evaluated" in text and "was not measured" in text and "Compared" not in text


def test_a_run_of_an_older_version_has_a_card_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "train_results.json"
    results = json.loads(path.read_text(encoding="utf8"))
    for key in ("data", "trainable_parameters", "commit", "longest_seconds"):
        del results[key]
    published_run.write_json(path, results)
    text = card(run, capsys)[1]
    assert "| train | `private/train.csv` | 120 | not recorded |  |" in text
    assert "| of them trained | not recorded |" in text


DEVICES = [
    {"from_step": 0, "name": "NVIDIA H200", "count": 2, "processes": 2, "precision": "bf16"},
    {"from_step": 20, "name": "Intel Xeon", "count": 1, "processes": 1, "precision": "fp32"},
]


@pytest.mark.parametrize(
    ("devices", "device", "precision"),
    [
        (DEVICES[:1], "2 × NVIDIA H200, bf16", "bf16"),
        (DEVICES, "2 × NVIDIA H200, bf16; from step 20: Intel Xeon, fp32", "bf16, then fp32"),
        (
            [{"from_step": 0, "name": "not recorded"}, DEVICES[1]],
            "not recorded; from step 20: Intel Xeon, fp32",
            "fp32",
        ),
        (
            [{**DEVICES[0], "count": 1}, {**DEVICES[0], "name": "NVIDIA A100", "count": 1}],
            "NVIDIA H200, bf16 and NVIDIA A100, bf16",
            "bf16",
        ),
        (None, "not recorded (the configuration says: two CPU cores)", "fp32"),
    ],
)
def test_the_device_that_trained_is_stated(
    run: Path,
    capsys: pytest.CaptureFixture[str],
    devices: list[dict[str, object]] | None,
    device: str,
    precision: str,
) -> None:
    path = run / "train_results.json"
    results = json.loads(path.read_text(encoding="utf8"))
    published_run.write_json(path, {**results, **({"devices": devices} if devices else {})})
    text = card(run, capsys)[1]
    assert f"| device | {device} |" in text and f"| precision | {precision} |" in text
    assert "data changed" not in text


def test_data_that_changed_on_the_way_are_stated(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "train_results.json"
    results = json.loads(path.read_text(encoding="utf8"))
    counts = {"added": 1200, "removed": 0, "changed": 3, "reordered": True}
    changes = [{"from_step": 20, "train": counts}]
    published_run.write_json(path, {**results, "data_changes": changes})
    text = card(run, capsys)[1]
    assert "| data changed | from step 20: train 1,200 added, 3 changed, in another order |" in text


def test_a_version_of_a_registry_keeps_its_name(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run.parent / "results" / "clinic_metrics.json"
    report = json.loads(path.read_text(encoding="utf8"))
    report["meta"]["manifest"] = "/srv/deep/data/registry.db[v1/test]"
    published_run.write_json(path, report)
    block, text = card(run, capsys)
    dataset = block["model-index"][0]["results"][0]["dataset"]
    assert (dataset["name"], dataset["type"]) == ("registry.db[v1/test]", "registry.db-v1-test")
    assert "`registry.db[v1/test]`" in text and "/srv/" not in text


def test_a_speech_language_model_began_from_both_of_its_parts() -> None:
    model = {
        "type": "voxlm",
        "name": "outputs/a",
        "audio_encoder": "openai/whisper-small",
        "llm": "Qwen/Qwen2-1.5B",
    }
    assert bases(model) == ["outputs/a", "openai/whisper-small", "Qwen/Qwen2-1.5B"]


def test_a_base_in_a_folder_is_no_model_of_the_hub(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "config.yaml"
    text = path.read_text(encoding="utf8").replace("openai/whisper-small", "/srv/models/deep/base_run")
    path.write_text(text, encoding="utf8")
    block, shown = card(run, capsys)
    assert "base_model" not in block
    assert "| began from | `deep/base_run` |" in shown


def test_the_users_own_card_is_used_as_it_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = "---\nlicense: mit\n---\n\nMine, in my words.\n"
    (run / "README.md").write_text(own, encoding="utf8")
    block, text = card(run, capsys)
    assert block == {"license": "mit"} and text.strip() == "Mine, in my words."
    command = ["publish", "--model_dir", str(run), "--repo_id", "o/n", "--licence", "mit", "--dry_run"]
    assert cli.main(command) == 2
    assert "README.md is published as it is" in capsys.readouterr().err
    block, text = card(run, capsys, "--new_card", "--licence", "apache-2.0")
    assert block["license"] == "apache-2.0" and "Mine" not in text
    assert (run / "README.md").read_text(encoding="utf8") == own


def test_a_card_that_is_no_utf8_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "README.md").write_bytes("Modèle".encode("latin-1"))
    assert cli.main(["publish", "--model_dir", str(run), "--repo_id", "o/n", "--dry_run"]) == 2
    assert f"{run / 'README.md'}: not UTF-8 (byte 3); save it as UTF-8, or say --new_card" in (
        capsys.readouterr().err
    )


def test_scores_older_than_the_weights_are_pointed_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import os

    os.utime(run.parent / "results" / "clinic_metrics.json", (0, 0))
    assert cli.main(["publish", "--model_dir", str(run), "--repo_id", "o/n", "--dry_run"]) == 0
    assert "clinic_metrics.json is older than the weights" in capsys.readouterr().err


def test_the_dry_run_shows_what_stays_and_which_paths_are_cut(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["publish", "--model_dir", str(run), "--repo_id", "o/n", "--dry_run"]) == 0
    shown = capsys.readouterr().out
    for line in (
        "checkpoint-20/: checkpoint: optimiser states and earlier weights",
        "logs/: TensorBoard: names this machine",
        "training_args.bin: not part of the model",
        "vocabulary.model: a pickle, which can run code",
        f"{run.parents[1]}/private/train.csv → private/train.csv",
    ):
        assert line in shown
