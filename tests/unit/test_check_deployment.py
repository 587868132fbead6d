"""Stock pipelines beside ours: figures and verdict of given outputs, and the whole check on a tiny Whisper."""

from __future__ import annotations

import csv
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from speech_files import manifest, sound
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from whisper_assets import SIZES, tiny

from training.api import deployment as api
from training.base.errors import UserError
from training.cli import check_deployment as cli
from training.config.load import config_from, save_resolved
from training.data.example import AudioRef, Example
from training.data.manifest import load_manifest
from training.evaluation.deployment import OURS, Decoded, judge, reason, score_part, table
from training.evaluation.report import build_report
from training.evaluation.stored import load_deployments
from training.transcription import stock_pipelines
from training.transcription.stock_pipelines import Output, without_text

STOCK = Path(__file__).parents[3] / "shared" / "tokenizers" / "whisper-multilingual"
WORDS = "one two three four five six seven eight nine ten"


def examples(count: int = 4, language: str = "en") -> list[Example]:
    return [
        Example(
            id=f"u{n}", audio=AudioRef(path="-"), duration=10.0, texts={"transcribe": WORDS}, language=language,
            group="ab"[n % 2],
        )
        for n in range(count)
    ]  # fmt: skip


def outputs(*texts: str, covered: float = 10.0, seconds: float = 1.0) -> list[Output]:
    return [Output(text, ((0.0, covered),) if text else (), seconds) for text in texts]


# Figures and verdict


def test_the_figures_of_a_pipeline_are_its_errors_beside_ours() -> None:
    loop = "one two three four five six seven eight nine ten " + "ten " * 5
    part = score_part(
        examples(),
        [
            Decoded(OURS, outputs(*[WORDS] * 4)),
            Decoded("stock", outputs(WORDS, loop, WORDS, WORDS.replace("ten", ""), covered=8.0, seconds=5.0)),
            Decoded("broken", failure="ValueError: no timestamps"),
        ],
        resamples=100,
    )
    found = part["pipelines"]["stock"]
    assert (part["rows"], part["seconds"], part["recordings"], part["metric"]) == (4, 40.0, 2, "wer")
    assert found["insertions"] == {"count": 5, "points": 12.5} and found["deletions"]["count"] == 1
    assert found["wer"]["value"] == found["minus_ours"]["wer"]["value"] == pytest.approx(15.0)
    assert found["minus_ours"]["wer"]["unit"] == "recording" and found["minus_ours"]["wer"]["units"] == 2
    assert (found["loops"], found["without_text"], found["rtf"]) == (1, pytest.approx(20.0), 0.5)
    assert "minus_ours" not in part["pipelines"][OURS]
    assert part["pipelines"]["broken"] == {"failure": "ValueError: no timestamps"}
    shown = table({"parts": {"long": part}})
    assert "one recording: its intervals" in table({"parts": {"long": {**part, "recordings": 1}}})
    assert "+15.0" in shown and "cannot decode: ValueError" in shown and "2 recordings" in shown


def test_a_language_with_free_spacing_is_judged_by_its_characters() -> None:
    rows = [replace(one, texts={"transcribe": "한국 사람"}) for one in examples(2, "ko")]
    part = score_part(
        rows, [Decoded(OURS, outputs("한국사람", "한국 사람")), Decoded("x", outputs("한국", "한국사람"))]
    )
    assert part["metric"] == "cer" and part["pipelines"][OURS]["cer"]["value"] == 0.0
    assert part["pipelines"]["x"]["deletions"] == {"count": 2, "points": 25.0}


def test_the_verdict_names_what_is_worse_by_more_than_the_gap_and_why() -> None:
    good = Decoded(OURS, outputs(*[WORDS] * 4))
    short = score_part(examples(), [good, Decoded("stock", outputs(*[WORDS] * 4))], resamples=100)
    long = score_part(
        examples(),
        [
            good,
            Decoded("stock", outputs(WORDS, WORDS, WORDS, "one two", covered=5.0)),
            Decoded("b", failure="why"),
        ],
        resamples=100,
    )
    assert judge({"short": short}, 1.0)["passed"]
    found = judge({"short": short, "long": long}, 1.0)
    assert not found["passed"] and len(found["problems"]) == 2
    assert found["problems"][0].startswith("stock, long files: WER 20.0 against 0.0 by polyvox: +20.0 [")
    assert (
        "mostly deletions (+20.0 points), 50.0 % of the sound has no text (ours 0.0 %)"
        in found["problems"][0]
    )
    assert found["problems"][1] == "b, long files: cannot decode: why"
    assert judge({"long": {**long, "pipelines": {k: long["pipelines"][k] for k in (OURS, "stock")}}}, 25.0)[
        "passed"
    ]


def test_a_pipeline_that_is_better_than_ours_is_no_problem() -> None:
    part = score_part(
        examples(),
        [Decoded(OURS, outputs(*["one two"] * 4)), Decoded("stock", outputs(*[WORDS] * 4))],
        resamples=100,
    )
    assert judge({"short": part}, 0.0)["passed"]


def test_a_reason_names_loops_only_where_there_are_more_than_ours() -> None:
    kinds: dict[str, Any] = {kind: {"points": 1.0} for kind in ("substitutions", "deletions", "insertions")}
    ours = {**kinds, "loops": 2, "without_text": 5.0}
    theirs = {**kinds, "insertions": {"points": 4.0}, "loops": 2, "without_text": 6.0}
    assert reason(ours, theirs, 12) == "mostly insertions (+3.0 points)"
    assert "3 of 12 texts run in loops (ours 2)" in reason(ours, {**theirs, "loops": 3}, 12)


def test_sound_without_text_counts_overlaps_once() -> None:
    assert without_text([(0.0, 4.0), (2.0, 5.0), (9.0, 12.0)], 10.0) == pytest.approx(4.0)
    assert without_text([], 3.0) == 3.0


# The user's mistakes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--seconds", "20"], "longer than Whisper's window"),
        (["--utterances", "0", "--files", "0"], "nothing to check"),
        (["--max_gap", "-1"], "--max_gap -1.0: give at least 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(given: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        cli.main([str(tmp_path), *given])


def test_without_the_extra_one_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        stock_pipelines.importlib.util,
        "find_spec",
        lambda name: None if name == "faster_whisper" else found(name),
    )
    with pytest.raises(UserError, match=r"^faster-whisper is not installed: pip install 'polyvox\[deploy\]'"):
        api.check_deployment(tmp_path, api.Wanted())


# The whole check


def speech(folder: Path, count: int = 6) -> Path:
    rows = [
        {
            "id": f"u{n}", "audio_path": sound(folder / f"{n}.wav", 7.0, rate=16_000, seed=n).name, "duration": 7.0,
            "transcript": "xin chào", "language": "vi", "talk": "ab"[n // 3],
        }
        for n in range(count)
    ]  # fmt: skip
    return manifest(folder / "m.tsv", rows)


def test_the_whole_check_of_a_model_from_scratch_at_30_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained on 30 s: stock transformers writes the same for short clips, letter by letter."""
    torch.manual_seed(0)
    made = tiny(encoder_context="full", task="transcribe")
    tokenizer = made.processor.tokenizer
    writes(made.model, tokenizer("n", add_special_tokens=False).input_ids[0], tokenizer.eos_token_id)
    made.save(tmp_path / "run", made.model)
    status = cli.main(
        [
            str(tmp_path / "run"), "--manifest", str(speech(tmp_path / "data")), "--utterances", "2", "--files", "1",
            "--seconds", "35", "--output", str(tmp_path / "out"), "--no_faster_whisper", "--resamples", "100",
        ]
    )  # fmt: skip
    report = json.loads((tmp_path / "out" / "run_deployment.json").read_text())
    with (tmp_path / "out" / "run_deployment.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    short = {
        one: [x["hypothesis"] for x in lines if (x["part"], x["pipeline"]) == ("short", one)]
        for one in (OURS, "transformers")
    }
    assert short[OURS] == short["transformers"] and len(short[OURS]) == 2 and all(short[OURS])
    assert report["parts"]["short"]["pipelines"]["transformers"]["minus_ours"]["wer"]["value"] == 0.0
    assert report["parts"]["long"]["rows"] == 1 and report["verdict"]["passed"] == (status == 0)
    assert capsys.readouterr().out.count("problem:") == len(report["verdict"]["problems"])


def test_where_a_report_is_all_that_is_wanted_a_gap_and_unusable_data_are_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = {"passed": False, "problems": ["much worse"], "line": "1 of the pipelines' results are worse"}
    monkeypatch.setattr(cli, "check_deployment", lambda *args: {"verdict": verdict})
    line = [str(tmp_path), "--no_faster_whisper", "--output", str(tmp_path / "out")]
    assert (cli.main(line), cli.main([*line, "--report_only"])) == (1, 0)
    assert capsys.readouterr().out.count("problem: much worse") == 2

    def refused(*args: Any) -> Any:
        raise api.NotCheckable("3 utterances name no language")

    monkeypatch.setattr(cli, "check_deployment", refused)
    with pytest.raises(UserError, match="name no language"):
        cli.main(line)
    assert cli.main([*line, "--report_only"]) == 0
    assert "not checked: 3 utterances name no language" in capsys.readouterr().out


def test_without_recordings_the_report_is_of_short_clips_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = speech(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("talk", "remark"), encoding="utf-8")
    rows = load_manifest(path)
    with pytest.raises(api.NotCheckable, match="nothing says which recording"):
        api._long_files(rows, api.Wanted(), alone=False)
    with pytest.raises(api.NotCheckable, match="nothing says which recording"):
        api._long_files(rows, api.Wanted(report_only=True), alone=True)
    assert api._long_files(rows, api.Wanted(report_only=True), alone=False) == []
    assert "short clips alone: nothing says which recording" in caplog.text


def test_a_model_of_many_languages_needs_that_of_each_utterance(tmp_path: Path) -> None:
    """Stock pipelines would refuse "auto", which would look like a fault of the model."""
    path = speech(tmp_path)
    rows = load_manifest(path)
    api._check_languages(rows, "auto")
    path.write_text(path.read_text(encoding="utf-8").replace("\tvi\ta", "\t\ta"), encoding="utf-8")
    api._check_languages(load_manifest(path), "ko")
    with pytest.raises(UserError, match=r"3 of 6 utterances name no language.* give --language"):
        api._check_languages(load_manifest(path), "auto")


def test_the_check_of_another_run_of_that_name_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def checked(folder: str) -> str:
        (tmp_path / folder / "run").mkdir(parents=True, exist_ok=True)
        name = api._free_name(tmp_path / "out", "run", tmp_path / folder / "run")
        report = {"meta": {"model_dir": str(tmp_path / folder / "run")}, "run": name}
        api.write(report, [{"id": "u"}], tmp_path / "out", name)
        return name

    assert [checked(folder) for folder in ("a", "b", "a", "b")] == ["run", "run_b", "run", "run_b"]
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {
        "run_deployment.json",
        "run_b_deployment.json",
    }


def test_a_model_of_trimmed_contexts_alone_is_announced_to_be_checked_at_30_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"encoder_context": "trimmed", "full_context_share": 0.0, "task": "transcribe"}
    made = tiny(**config)
    made.save(tmp_path / "run", made.model)
    save_resolved(config_from({"model": {"type": "whisper", "sizes": SIZES, **config}}), tmp_path / "run")
    api._loaded(tmp_path / "run", api.Wanted())
    assert "never on 30 s (model.full_context_share is 0)" in caplog.text


@torch.no_grad()
def writes(model: Any, word: int, end: int) -> None:
    """Make the model sure of one word after the fourth token (``<|notimestamps|>``, or the first time), and of the end after it."""
    positions, tokens = model.model.decoder.embed_positions.weight, model.model.decoder.embed_tokens.weight
    positions[3:] = 0.0
    positions[3, 0], positions[4:, 1] = 8.0, 8.0
    for place, token in ((0, word), (1, end)):
        tokens[token] = 5.0 * torch.eye(tokens.shape[1])[place]


def stock_folder(folder: Path) -> Path:
    """A tiny Whisper with OpenAI's vocabulary that writes "the" whatever the sound is."""
    from transformers import WhisperProcessor, WhisperTokenizer

    tokenizer = WhisperTokenizer.from_pretrained(str(STOCK))
    extractor = WhisperFeatureExtractor.from_pretrained(str(STOCK))
    ids = tokenizer.convert_tokens_to_ids
    size = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
    }
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    end = tokenizer.eos_token_id
    config = WhisperConfig(
        vocab_size=51865, num_mel_bins=extractor.feature_size, pad_token_id=end, bos_token_id=end, eos_token_id=end,
        decoder_start_token_id=ids("<|startoftranscript|>"), **size, **heads,
    )  # fmt: skip
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    writes(model, tokenizer(" the", add_special_tokens=False).input_ids[0], end)
    model.generation_config = GenerationConfig(
        max_length=64, pad_token_id=end, bos_token_id=end, eos_token_id=end, is_multilingual=True, return_timestamps=False,
        decoder_start_token_id=ids("<|startoftranscript|>"), alignment_heads=[[0, 0]],
        lang_to_id={f"<|{code}|>": ids(f"<|{code}|>") for code in ("en", "vi", "ko")},
        task_to_id={task: ids(f"<|{task}|>") for task in ("transcribe", "translate")},
        no_timestamps_token_id=ids("<|notimestamps|>"), prev_sot_token_id=ids("<|startofprev|>"),
    )  # fmt: skip
    model.save_pretrained(folder)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


@pytest.mark.skipif(not STOCK.is_dir(), reason="needs ../shared")
def test_the_whole_check_with_the_vocabulary_of_openai(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = all(importlib.util.find_spec(name) for name in ("faster_whisper", "ctranslate2"))
    folder = stock_folder(tmp_path / "model")
    arguments = [
        str(folder), "--manifest", str(speech(tmp_path / "data")), "--utterances", "1", "--files", "1", "--seconds", "40",
        "--language", "vi", "--output", str(tmp_path / "out"), "--max_gap", "0", "--resamples", "100",
        *([] if there else ["--no_faster_whisper"]),
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    (report,) = load_deployments(tmp_path / "out")
    names = [OURS, "transformers", *(["faster_whisper"] if there else [])]
    for part in report["parts"].values():
        assert part["rows"] == 1 and list(part["pipelines"]) == names
        assert all(
            found["rtf"] > 0 and 0 <= found["without_text"] <= 100 for found in part["pipelines"].values()
        )
    assert report["parts"]["long"]["seconds"] == pytest.approx(3 * 7.0 + 2 * 0.3, abs=0.01)
    lines = (tmp_path / "out" / "model_deployment.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 2 * len(names)
    written = [one.split(",")[-1] for one in lines[1 : 1 + len(names)]]
    assert written == ["the"] * len(names)
    assert "verdict: as good in every pipeline" in capsys.readouterr().out
    page = build_report([], deployments=[report])
    assert 'id="deployment"' in page and "long files: 1" in page and 'id="deployment"' not in build_report([])
