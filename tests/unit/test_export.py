"""Exported folders: what they say is what the original says, and what does not is not offered."""

from __future__ import annotations

import copy
import errno
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_assets import saved, utterances
from transformers import WhisperFeatureExtractor
from whisper_assets import noise

import training.cli.export as cli_export
import training.export.exporting as exporting
import training.export.to_ctranslate2 as to_ctranslate2
import training.runtime.ctranslate2_engine as engine
from training.api.exporting import export_model
from training.api.scoring import evaluate
from training.base.errors import UserError
from training.cli import main
from training.data.manifest import load_manifest
from training.data.metric import BLEU, WER
from training.decoding.loading import load_trained
from training.evaluation.intervals import Difference
from training.export.decoded import Utterances, decode_all
from training.export.drift import judged
from training.export.folder import replace_folder
from training.export.gate import Gate
from training.models.common.log_mels import log_mel
from training.models.common.moved_ids import copies_in, order_of, rows_of
from training.models.export_parts import FORMATS, PRECISIONS, LogMelSettings, MovedIds
from training.models.safeguards import Safeguards
from training.runtime.folder import FAILED, PASSED, UNDECIDED
from training.runtime.log_mels import MEL_FILTERS, LogMels
from training.transcription.transcriber import Transcriber

pytest.importorskip("ctranslate2")

DOMAINS: dict[str, Any] = {
    "domains": ["normal", "dyslexic", "other"],
    "domain": "normal",
    "domain_start": "name",
    "task": "both",
    "unfreeze": {"encoder_blocks": 1, "decoder_blocks": 1},
}
OPTIONS: dict[str, dict[str, Any]] = {"whisper": {}, "domain_whisper": DOMAINS}
BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Blocked())
from training.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> Path:
    return utterances(tmp_path_factory.mktemp("data"), "domain=normal")


@pytest.fixture(scope="module")
def models(tmp_path_factory: Any) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: saved(folder / name, name, **options) for name, options in OPTIONS.items()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: Any, models: dict[str, Path], data: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    for name, model in models.items():
        done = export_model(model, folder / name, format="ctranslate2", manifest=data)
        assert done.passed, done.findings
    return {name: folder / name for name in models}


def clips(data: Path) -> list[Path]:
    return sorted(data.parent.glob("*.wav"))


@pytest.mark.parametrize("mels", [80, 128])
def test_log_mels_of_numpy_are_those_of_transformers(mels: int) -> None:
    extractor = WhisperFeatureExtractor(feature_size=mels)
    settings = LogMelSettings(sampling_rate=16_000, n_fft=400, hop_length=160, n_samples=480_000, mels=mels)
    ours = LogMels(settings, np.asarray(extractor.mel_filters, dtype=np.float32))
    for seconds in (0.1, 1.0, 3.217, 30.0):
        sound = noise(seconds) * np.linspace(0, 1, round(seconds * 16_000), dtype=np.float32)
        assert np.abs(log_mel(ours, sound) - log_mel(extractor, sound)).max() < 1e-4


@pytest.mark.parametrize("content", [b"no array", pickle.dumps([0.5]), None])
def test_filters_that_cannot_be_read_are_named(tmp_path: Path, content: bytes | None) -> None:
    settings = LogMelSettings(sampling_rate=16_000, n_fft=400, hop_length=160, n_samples=480_000, mels=80)
    if content is None:
        np.save(tmp_path / MEL_FILTERS, np.array([{}], dtype=object))
    else:
        (tmp_path / MEL_FILTERS).write_bytes(content)
    with pytest.raises(UserError, match=r"mel_filters\.npy: it cannot be read .*; export the model again"):
        LogMels.of_folder(settings, tmp_path)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_exported_folder_transcribes_as_the_original(
    name: str, models: dict[str, Path], exported: dict[str, Path], data: Path
) -> None:
    other, original = Transcriber(exported[name]), Transcriber(models[name])
    assert other.asked.safeguards == original.asked.safeguards == Safeguards()
    assert other(clips(data)[-1]).as_dict() == original(clips(data)[-1]).as_dict()


def test_the_predicted_domain_is_that_of_the_original(
    models: dict[str, Path], exported: dict[str, Path], data: Path
) -> None:
    sides = [
        Transcriber(folder, domain="auto", safeguards=Safeguards(temperatures=(0.0,)))
        for folder in (models["domain_whisper"], exported["domain_whisper"])
    ]
    domains = [
        [segment.domain for one in side.transcribe(clips(data)) for segment in one.segments] for side in sides
    ]
    assert domains[0] == domains[1] and len(set(domains[0])) > 1


def test_polyvox_transcribes_without_torch_and_transformers(exported: dict[str, Path], data: Path) -> None:
    command = [
        str(clips(data)[0]),
        "--model",
        str(exported["whisper"]),
        "--format",
        "srt",
        "--task",
        "transcribe",
    ]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "transcribe", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1\n00:00:00,000 --> ")


@pytest.mark.parametrize("name", OPTIONS)
def test_the_folder_runs_with_its_engine_alone(
    name: str, models: dict[str, Path], exported: dict[str, Path], data: Path
) -> None:
    clip = clips(data)[0]
    code = f"import sys; sys.modules['training'] = sys.modules['torch'] = None; sys.argv[1:] = ['{clip}']; import runpy; runpy.run_path('{exported[name] / 'run.py'}')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    # Random weights never end a text: run.py, which has no bound of its own, must say so and print nothing short.
    assert done.returncode == 1 and "no end of the text" in done.stderr, done.stderr


def test_the_engine_alone_names_the_domains_where_one_is_unknown(
    exported: dict[str, Path], data: Path
) -> None:
    command = [sys.executable, str(exported["domain_whisper"] / "run.py"), str(clips(data)[0]), "vi", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "which domain? One of normal, dyslexic, other" in done.stderr, done.stderr


def test_the_record_says_what_was_checked(exported: dict[str, Path], models: dict[str, Path]) -> None:
    record = json.loads((exported["domain_whisper"] / "polyvox.json").read_text())
    assert record["architecture"] == "domain_whisper"
    assert record["check"]["verdict"] == PASSED and record["check"]["utterances"] == 6
    assert record["check"]["how"].endswith("tokens and texts must be identical")
    assert record["third_parties"]["faster-whisper"].startswith("no")
    assert record["description"]["prompts"]["domains"].keys() == set(DOMAINS["domains"])
    parity = json.loads((exported["whisper"] / "parity.json").read_text())
    assert parity["check"]["tasks"]["transcribe"]["identical"] == 6
    assert "model.safetensors" in parity["source"]["files"] and "model.bin" in parity["files"]


def test_evaluate_takes_the_folder(exported: dict[str, Path], models: dict[str, Path], data: Path) -> None:
    sides = [evaluate(folder, manifest=data) for folder in (exported["whisper"], models["whisper"])]
    texts = [[(row["id"], row["task"], row["hypothesis"]) for row in scores.predictions] for scores in sides]
    assert (
        texts[0] == texts[1]
        and sides[0].report["meta"]["parameters"] == sides[1].report["meta"]["parameters"]
    )


def test_a_folder_that_nobody_compared_says_so(models: dict[str, Path], tmp_path: Path) -> None:
    export_model(models["whisper"], tmp_path / "out", format="ctranslate2", quantize=True, check=False)
    check = json.loads((tmp_path / "out" / "polyvox.json").read_text())["check"]
    assert check["verdict"] == "not checked" and "nobody" in check["how"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--format", "ggml"], "whisper.cpp derives its control ids"),
        (["--format", "nemo"], "FastConformer"),
    ],
)
def test_a_refusal_is_one_line(
    arguments: list[str], reason: str, models: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    for model in models.values():
        command = ["export", "--model", str(model), *arguments, "--output", str(tmp_path / "out")]
        assert main(command) == 2
        message = capsys.readouterr().err.strip().splitlines()
        assert len(message) == 1 and reason in message[0]


DEFECTS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {}


def defect(model: str) -> Any:
    def keep(function: Callable[[pytest.MonkeyPatch], None]) -> Any:
        DEFECTS[function.__name__] = (model, function)
        return function

    return keep


def described(patch: pytest.MonkeyPatch, change: Callable[[Any], dict[str, Any]]) -> None:
    """Parts whose description is changed."""
    offered = exporting.offered

    def changed(*arguments: Any) -> Any:
        parts = offered(*arguments)
        description = parts.description.model_copy(update=change(parts.description))
        return replace(parts, description=description)

    patch.setattr(exporting, "offered", changed)


@defect("whisper")
def shuffled_mel_bands(patch: pytest.MonkeyPatch) -> None:
    offered = exporting.offered

    def changed(*arguments: Any) -> Any:
        parts = offered(*arguments)
        return replace(parts, arrays={"mel_filters": parts.arrays["mel_filters"][:, ::-1]})

    patch.setattr(exporting, "offered", changed)


@defect("suppressing")
def dropped_suppress_list(patch: pytest.MonkeyPatch) -> None:
    move = to_ctranslate2._move_config

    def changed(config: Any, order: Any) -> None:
        move(config, order)
        config.suppress_ids = []

    patch.setattr(to_ctranslate2, "_move_config", changed)


@defect("whisper")
def padding_to_30_seconds(patch: pytest.MonkeyPatch) -> None:
    described(patch, lambda old: {"context": old.context.model_copy(update={"context": "full"})})


@defect("domain_whisper")
def wrong_domain_id(patch: pytest.MonkeyPatch) -> None:
    def change(old: Any) -> dict[str, Any]:
        names, ids = list(old.prompts.domains), list(old.prompts.domains.values())
        domains = dict(zip(names, ids[1:] + ids[:1], strict=True))
        return {"prompts": old.prompts.model_copy(update={"domains": domains})}

    described(patch, change)


@defect("whisper")
def another_tokenizer(patch: pytest.MonkeyPatch) -> None:
    """The same ids, and other words."""
    offered = exporting.offered

    def changed(*arguments: Any) -> Any:
        parts = offered(*arguments)

        def save_text(folder: Path) -> None:
            parts.save_text(folder)
            tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf8"))
            pieces, added = tokenizer["model"]["vocab"], {one["content"] for one in tokenizer["added_tokens"]}
            names = [name for name in pieces if name not in added]
            tokenizer["model"]["vocab"] |= dict(
                zip(names, [pieces[name] for name in names[::-1]], strict=True)
            )
            (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf8")

        return replace(parts, save_text=save_text)

    patch.setattr(exporting, "offered", changed)


@defect("whisper")
def max_length_not_doubled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine, "longest_asked", lambda new, prompt: new)


@pytest.fixture(scope="module")
def suppressing(tmp_path_factory: Any, models: dict[str, Path]) -> Path:
    """A model that must not write what it would write most."""
    architecture: Any = load_trained(models["whisper"]).architecture
    architecture.model.generation_config.suppress_tokens = architecture.processor.tokenizer.encode(
        "O", add_special_tokens=False
    )
    folder = tmp_path_factory.mktemp("suppressing")
    architecture.save(folder, architecture.model)
    return folder


@pytest.mark.parametrize("name", [*DEFECTS])
def test_a_defect_fails_the_comparison(
    name: str, models: dict[str, Path], suppressing: Path, data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    model, put_back = DEFECTS[name]
    folder = {**models, "suppressing": suppressing}[model]
    if model == "suppressing":
        assert export_model(folder, tmp_path / "good", format="ctranslate2", manifest=data).passed
    put_back(monkeypatch)
    done = export_model(folder, tmp_path / "out", format="ctranslate2", manifest=data)
    assert done.verdict == FAILED and done.folder == tmp_path / "out.failed"
    assert not (tmp_path / "out").exists() and (done.folder / "parity.json").is_file()


def test_the_command_fails_with_status_1(
    models: dict[str, Path], data: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    shuffled_mel_bands(monkeypatch)
    command = [
        "export",
        "--model",
        str(models["whisper"]),
        "--format",
        "ctranslate2",
        "--output",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--check_manifest", str(data)]) == 1
    out, err = capsys.readouterr()
    assert "identical" in out and "was not written" in err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device", "model.bin"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 2),
    ],
)
def test_no_half_folder_is_left(
    error: BaseException, status: int, models: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    def stopped(part: Any, folder: Path, precision: str, **options: Any) -> None:
        (folder / "model.bin").write_bytes(b"half")
        raise error

    monkeypatch.setitem(exporting.WRITERS, "ctranslate2", stopped)
    command = ["export", "--model", str(models["whisper"]), "--format", "ctranslate2", "--no_check"]
    assert main([*command, "--output", str(tmp_path / "out")]) == status
    assert list(tmp_path.iterdir()) == []
    message = capsys.readouterr().err
    assert "Traceback" not in message and (status != 2 or "No space left on device" in message)


def test_what_is_there_is_not_replaced_unasked(models: dict[str, Path], tmp_path: Path) -> None:
    def write(force: bool) -> Any:
        return export_model(
            models["whisper"], tmp_path / "out", format="ctranslate2", check=False, force=force
        )

    write(False)
    with pytest.raises(UserError, match="--force"):
        write(False)
    write(True)
    (tmp_path / "out" / "polyvox.json").unlink()
    with pytest.raises(UserError, match="something else"):
        write(True)


def damage(folder: Path, what: str) -> None:
    record = folder / "polyvox.json"
    if what == "missing":
        (folder / "model.bin").unlink()
    elif what == "hash":
        with (folder / "model.bin").open("r+b") as file:
            file.seek(1000)
            file.write(b"\0\1\2")
    elif what == "version":
        record.write_text(record.read_text().replace('"version": 1', '"version": 99', 1))
    elif what == "cut":
        record.write_text(record.read_text()[:500])
    elif what == "outside":
        content = json.loads(record.read_text())
        content["files"]["../model.bin"] = "0"
        record.write_text(json.dumps(content))
    else:
        content = json.loads(record.read_text())
        del content["description"]["tasks"]
        record.write_text(json.dumps(content))


@pytest.mark.parametrize("what", ["missing", "hash", "version", "cut", "outside", "field"])
def test_a_damaged_folder_is_told_in_one_line(
    what: str, exported: dict[str, Path], data: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = Path(shutil.copytree(exported["whisper"], tmp_path / "copy"))
    damage(folder, what)
    assert main(["transcribe", str(clips(data)[0]), "--model", str(folder)]) == 2
    message = capsys.readouterr().err.strip().splitlines()
    assert len(message) == 1 and message[0].startswith(f"error: {folder}")


def test_an_exported_folder_is_not_exported_again(exported: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exported already"):
        export_model(exported["whisper"], tmp_path / "out", format="ctranslate2")


def test_writing_leaves_the_original_as_it_was(models: dict[str, Path], tmp_path: Path) -> None:
    """CTranslate2's quantisation works in place; the comparison would be with a model that it has changed."""
    original = load_trained(models["whisper"])
    before = {name: weight.clone() for name, weight in original.architecture.model.state_dict().items()}
    wanted = exporting.Wanted(format="ctranslate2", precision="int8", output=tmp_path / "out", gate=None)
    exporting.export(original, wanted)
    after = original.architecture.model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


class Referenced:
    """Utterances whose references are given texts."""

    def __init__(self, rows: Any, texts: list[dict[str, str]]) -> None:
        self.rows, self.texts = rows, texts

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        return replace(self.rows[row], texts=self.texts[row])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rows, name)


def test_int8_of_a_clipped_layer_fails(models: dict[str, Path], data: Path) -> None:
    """The original is right by definition; a copy of it passes, one whose largest weights are cut off does not."""
    original: Any = load_trained(models["whisper"]).architecture.with_tasks(("transcribe",))
    parts = original.export_parts()
    rows = load_manifest(data)
    said = decode_all(original, Utterances(rows, max_new_tokens=12), parts.description.prompts.end)
    references = Referenced(rows, [{task: f"{one.text} a" for task, one in row.items()} for row in said])
    gate = Gate(Utterances(references, max_new_tokens=12))
    (finding,) = gate(original, original, parts, "int8")
    assert finding.verdict == PASSED
    clipped = replace(original, model=copy.deepcopy(original.model))
    with torch.no_grad():
        clipped.model.model.decoder.layers[0].fc2.weight.clamp_(-0.05, 0.05)
    (finding,) = gate(original, clipped, parts, "int8")
    assert finding.verdict == FAILED and finding.figures["exported"] > finding.figures["original"] + 20


def test_scores_are_compared_only_where_there_are_references(
    models: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    lines = [line.split("\t") for line in data.read_text(encoding="utf8").splitlines()]
    manifest = data.parent / "transcripts.tsv"
    manifest.write_text("".join("\t".join(line[:4] + line[5:]) + "\n" for line in lines), encoding="utf8")
    options: dict[str, Any] = {"format": "ctranslate2", "precision": "int8", "manifest": manifest}
    with pytest.raises(UserError, match="--task transcribe"):
        export_model(models["whisper"], tmp_path / "out", **options)
    export_model(models["whisper"], tmp_path / "out", tasks=("transcribe",), **options)
    record = json.loads((tmp_path / "out.failed" / "polyvox.json").read_text())
    assert record["description"]["tasks"] == ["transcribe"] and record["check"]["verdict"] == UNDECIDED
    assert record["check"]["how"].endswith("scores may be worse by 1 points at most")


@pytest.mark.parametrize("most", [-1.0, float("nan"), float("inf")])
def test_a_bound_that_would_let_everything_pass_is_refused(
    most: float, models: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--max_drift"):
        export_model(models["whisper"], tmp_path / "out", manifest=data, max_drift=most)


@pytest.mark.parametrize("output", [".", "/"])
def test_a_place_without_a_name_is_refused(output: str, models: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="name a new folder"):
        export_model(models["whisper"], output, format="ctranslate2", check=False)


def test_ctrl_c_between_the_two_renames_leaves_what_was_there(tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("new", "place"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    rename = Path.rename

    def stopped(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(tmp_path / "new", tmp_path / "place")
    assert (tmp_path / "place" / "place").is_file()


def test_a_folder_that_did_not_pass_says_so_when_it_is_used(
    exported: dict[str, Path], tmp_path: Path, caplog: Any
) -> None:
    folder = Path(shutil.copytree(exported["whisper"], tmp_path / "copy"))
    load_trained(folder)
    assert "did not pass" not in caplog.text
    record = json.loads((folder / "polyvox.json").read_text())
    record["check"]["verdict"] = FAILED
    (folder / "polyvox.json").write_text(json.dumps(record))
    load_trained(folder)
    assert f"{folder}: the comparison with the original did not pass (failed)" in caplog.text


def test_the_command_offers_what_the_library_does() -> None:
    assert set(cli_export.FORMATS) == set(FORMATS) == set(exporting.PRECISIONS_OF)
    assert set(cli_export.PRECISIONS) == set(PRECISIONS)


def difference(value: float, low: float, high: float) -> Difference:
    return Difference(20.0 + value, 20.0, value, low, high, 0.5, "utterance", 200, 200)


def test_the_bound_on_the_bad_side_decides() -> None:
    assert judged(difference(0.2, -0.4, 0.9), 1.0, WER) == (PASSED, None)
    assert judged(difference(3.0, 1.2, 4.0), 1.0, WER) == (FAILED, None)
    assert judged(difference(0.0, -2.0, 2.0), 1.0, WER) == (UNDECIDED, 800)
    assert judged(difference(1.5, -2.0, 4.0), 1.0, WER) == (UNDECIDED, None)
    assert judged(difference(-0.2, -0.9, 0.4), 1.0, BLEU) == (PASSED, None)
    assert judged(difference(-3.0, -4.0, -1.2), 1.0, BLEU) == (FAILED, None)


def test_a_narrow_interval_over_next_to_no_utterances_decides_nothing() -> None:
    assert judged(replace(difference(0.0, 0.0, 0.0), units=1), 1.0, WER) == (UNDECIDED, 5)
    assert judged(replace(difference(0.0, 0.0, 0.0), units=5), 1.0, WER) == (PASSED, None)


def test_an_original_that_recognises_nothing_cannot_be_compared_by_scores() -> None:
    assert judged(replace(difference(0.0, 0.0, 0.0), a=100.0, b=100.0), 1.0, WER) == (UNDECIDED, None)


def test_rows_of_moved_ids() -> None:
    order = order_of(MovedIds(ids=(7, 8), before=4), 9)
    assert order.tolist() == [0, 1, 2, 3, 7, 8, 4, 7, 8, 5, 6]
    assert rows_of(order, 9).tolist() == [0, 1, 2, 3, 6, 9, 10, 4, 5]
    assert copies_in(order, 9).tolist() == [7, 8] and copies_in(order_of(MovedIds(), 9), 9).tolist() == []
