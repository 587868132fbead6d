"""What of a run is published: the model and its figures, no states, no pickles, no paths, no utterances, no tokens."""

from __future__ import annotations

import json
from pathlib import Path

import published_run
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from training import cli
from training.publishing import private

PARTS = st.text("aä9_.@+-", min_size=1, max_size=8).filter(lambda part: set(part) != {"."})
PATHS = st.lists(PARTS, min_size=1, max_size=6)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return published_run.make(tmp_path)


def pack(run: Path) -> dict[str, bytes]:
    """Name → content of what would go, without the card."""
    from training.config.load import load_config
    from training.publishing.contents import pack
    from training.publishing.evidence import collect

    config = load_config(run / "config.yaml")
    parcel = pack(run, collect(run, config, run.parent / "results"), config.output.log_file)
    return {
        item.name: item.content if isinstance(item.content, bytes) else item.content.read_bytes()
        for item in parcel.items
    }


def test_these_files_go_and_no_others(run: Path) -> None:
    assert sorted(pack(run)) == [
        "clinic.log",
        "config.json",
        "config.yaml",
        "generation_config.json",
        "metrics/clinic_metrics.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "results/base_and_clinic.json",
        "results/clinic_metrics.json",
        "results/clinic_swap.json",
        "tokenizer.json",
        "train_results.json",
    ]


def test_no_path_of_this_machine_goes(run: Path) -> None:
    files = pack(run)
    outside = str(run.parents[1])
    assert [name for name, content in files.items() if outside in content.decode("utf8", "replace")] == []
    config = yaml.safe_load(files["config.yaml"])
    assert config["data"]["train"] == "private/train.csv" and config["output"]["dir"] == "outputs/clinic"
    assert json.loads(files["train_results.json"])["best_checkpoint"] == "outputs/clinic/checkpoint-20"
    assert json.loads(files["results/clinic_metrics.json"])["meta"]["manifest"] == "private/test.csv"
    assert files["clinic.log"].decode().startswith("the data lie in private\n")


def test_what_is_no_path_stays_as_it_is(run: Path) -> None:
    files = pack(run)
    for name in ("tokenizer.json", "generation_config.json", "model-00001-of-00002.safetensors"):
        assert files[name] == (run / name).read_bytes()
    before = yaml.safe_load((run / "config.yaml").read_text(encoding="utf8"))
    after = yaml.safe_load(files["config.yaml"])
    assert after["model"] == before["model"] and after["training"] == before["training"]


def test_the_uploaded_configuration_is_one(run: Path, tmp_path: Path) -> None:
    from training.config.load import load_config

    copy = tmp_path / "copy.yaml"
    copy.write_bytes(pack(run)["config.yaml"])
    assert load_config(copy).model == load_config(run / "config.yaml").model


def test_no_utterance_and_no_speaker_goes(run: Path) -> None:
    files = pack(run)
    held = (run.parent / "results" / "clinic_metrics.json").read_text(encoding="utf8")
    assert published_run.NEVER in held and "speaker1" in held
    for content in files.values():
        text = content.decode("utf8", "replace")
        assert published_run.NEVER not in text and "speaker1" not in text and "death split" not in text
    assert json.loads(files["results/clinic_metrics.json"])["scores"]["cer"]["value"] > 0
    assert "loss 1.5000" in files["clinic.log"].decode()


@pytest.mark.parametrize("file", ["tokenizer.json", "config.yaml", "README.md", "../../clinic.log"])
def test_a_token_stops_it_and_is_not_said(
    run: Path, file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "s3cr3t-of-the-registry"
    monkeypatch.setenv("MY_API_KEY", secret)
    path = run / file
    old = path.read_text(encoding="utf8") if path.exists() else ""
    path.write_text(
        f"{old}\n# {secret}\n" if "json" not in file else json.dumps({"key": secret}), encoding="utf8"
    )
    done = cli.main(["publish", "--model_dir", str(run), "--repo_id", "o/n", "--dry_run"])
    shown = "".join(capsys.readouterr())
    if file == "config.yaml":  # a remark is not copied
        assert done == 0 and secret not in shown
        return
    assert done == 2 and "holds an access token" in shown and Path(file).name in shown
    assert secret not in shown


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb hf_" + "a" * 30, 2),
        ("AKIA" + "A" * 16, 1),
        ("a token: of the tokenizer", None),
        ("hf_hub", None),
        ("\nmy-password", 2),
    ],
)
def test_secrets_are_found_by_their_form_and_by_the_environment(text: str, line: int | None) -> None:
    known = private.secrets_of([("DB_PASSWORD", "my-password"), ("A_TOKEN", "short"), ("HOME", "tokenizer")])
    assert known == {"my-password"}
    assert private.line_of_secret(text, known) == line


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("/home/alice/speech/train.csv", "speech/train.csv"),
        ("/Users/alice/train.csv", "train.csv"),
        ("/home/alice", "."),
        ("/mnt/disks/big/corpora/ko/train.csv", "ko/train.csv"),
        ("C:\\Users\\alice\\speech\\train.csv", "speech/train.csv"),
        ("D:/corpora/ko/train.csv", "ko/train.csv"),
        ("~/speech/a/train.csv", "speech/a/train.csv"),
        ("sqlite:////srv/data/registry.db", "sqlite:///data/registry.db"),
        ("postgresql://alice:secret@db/speech", "postgresql://db/speech"),
        ("data/splits/train.csv", "data/splits/train.csv"),
        ("openai/whisper-small", "openai/whisper-small"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("và/hoặc", "và/hoặc"),
    ],
)
def test_paths_are_cut_down(path: str, left: str) -> None:
    assert private.without_paths({"a": [path]}, {}) == {"a": [left]}


@given(PATHS)
def test_what_is_left_of_a_path_is_relative_and_its_end(parts: list[str]) -> None:
    path = "/" + "/".join(["srv", "corpora", *parts])
    found: dict[str, str] = {}
    left = private.without_paths(path, found)
    assert not left.startswith("/") and path.endswith(left) and found == {path: left}
    assert private.without_paths(left, {}) == left


def test_the_working_directory_and_the_home_are_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/srv/people/alice")
    assert private.relative(f"{tmp_path}/a/b/c/d.csv") == "a/b/c/d.csv"
    assert private.relative("/srv/people/alice/x/y/z.csv") == "x/y/z.csv"


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("train_results.json", "the run is not finished"),
        ("config.yaml", "no run of ours"),
        ("config.json", "config.json is missing"),
        ("model-00002-of-00002.safetensors", "model-00002-of-00002.safetensors is missing"),
    ],
)
def test_what_is_not_whole_is_refused(
    run: Path, lost: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / lost).unlink()
    assert cli.main(["publish", "--model_dir", str(run), "--repo_id", "o/n", "--dry_run"]) == 2
    assert told in capsys.readouterr().err


def test_damaged_weights_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    assert cli.main(["publish", "--model_dir", str(run), "--repo_id", "o/n", "--dry_run"]) == 2
    assert "model-00001-of-00002.safetensors: damaged" in capsys.readouterr().err
