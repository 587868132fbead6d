"""The measurements measure what they say: order, pairing, gates, and arms that train on the same."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other as they do when one of them is started."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_arms_take_turns_and_ratios_are_paired() -> None:
    from common import in_turns, ratio

    order: list[tuple[str, int]] = []

    def arm(name: str, factor: float) -> Any:
        def once(number: int) -> dict[str, float]:
            order.append((name, number))
            return {"seconds": factor * (1 + number)}  # a machine that gets slower and slower

        return once

    rounds = in_turns({"A": arm("A", 6.0), "B": arm("B", 2.0)}, 3)
    assert order == [("A", 0), ("B", 0), ("A", 1), ("B", 1), ("A", 2), ("B", 2)]
    assert f"{ratio(rounds, 'seconds', 'A', 'B'):.1f}" == "3.0 [3.0, 3.0]"


def test_what_was_found_before_an_arm_failed_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    from common import in_turns

    def fails_later(number: int) -> dict[str, float]:
        if number == 1:
            raise SystemExit(2)
        return {"seconds": 2.0}

    with pytest.raises(SystemExit):
        in_turns({"A": lambda number: {"seconds": float(number)}, "B": fails_later}, 3)
    said = capsys.readouterr().err.splitlines()[-1]
    found = json.loads(said.removeprefix("found before the failure: "))
    assert found["rounds"][0]["arms"] == {"A": {"seconds": 0.0}, "B": {"seconds": 2.0}}
    assert found["unfinished"] == {"A": {"seconds": 1.0}}


def test_the_result_names_machine_versions_and_every_repeat(tmp_path: Path) -> None:
    from common import Round, finish, ratio

    rounds = [Round({"A": {"seconds": s}, "B": {"seconds": 1.0}}, (0.1, 0.2, 0.3)) for s in (2.0, 4.0, 3.0)]
    output = tmp_path / "new" / "result.json"
    status = finish(
        output, argparse.Namespace(output=output), rounds, speed=ratio(rounds, "seconds", "A", "B")
    )
    found = json.loads(output.read_text(encoding="utf8"))
    assert status == 0 and found["failures"] == []
    assert found["speed"] == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert [one["arms"]["A"]["seconds"] for one in found["rounds"]] == [2.0, 4.0, 3.0]
    assert found["rounds"][0]["load"] == [0.1, 0.2, 0.3]
    assert {"processor", "cores", "load", "versions", "python", "commit"} <= found["machine"].keys()


def test_an_earlier_result_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from common import command_line

    parser, earlier, new = command_line("A measurement."), tmp_path / "figures.json", tmp_path / "new.json"
    earlier.write_text("{}", encoding="utf8")
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--output", str(earlier)])
    assert stopped.value.code == 2
    assert f"{earlier} is there already" in capsys.readouterr().err
    assert parser.parse_args(["--output", str(new)]).output == new


def test_none_of_several_results_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gpu import LENGTHS, main, result_of

    for name in LENGTHS:
        earlier = result_of(tmp_path / "figures.json", name)
        earlier.write_text("{}", encoding="utf8")
        with pytest.raises(SystemExit) as stopped:
            main(["--device", "cpu", "--output", str(tmp_path / "figures.json")])
        assert stopped.value.code == 2
        assert f"{earlier} is there already" in capsys.readouterr().err
        earlier.unlink()


def test_a_shut_gate_is_a_status_and_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    from common import finish

    assert finish(None, argparse.Namespace(), [], ["the losses differ"]) == 1
    assert "no ratio is worth printing: the losses differ" in capsys.readouterr().err


def test_worse_scores_shut_the_gate_of_the_training() -> None:
    from common import Round
    from train_whisper_multitask import gate

    def rounds(ours: list[float]) -> list[Round]:
        arms = [
            {"B": {"held_out_loss": b}, "C": {"held_out_loss": c}}
            for b, c in zip((7.0, 7.2), ours, strict=True)
        ]
        return [Round(one, (0, 0, 0)) for one in arms]

    assert gate(rounds([7.1, 7.2]), {"loss": 1e-7}) == []
    assert gate(rounds([6.0, 6.1]), {"loss": 1e-7}) == []
    assert "worse than B's" in gate(rounds([8.0, 8.1]), {"loss": 1e-7})[0]
    assert "differ from stock's" in gate(rounds([7.1, 7.2]), {"loss": 1e-3})[0]
    assert "of C [nan, 7.0]" in gate(rounds([float("nan"), 7.0]), {"loss": 1e-7})[0]
    assert "differ from stock's" in gate(rounds([7.1, 7.2]), {"loss": float("nan")})[0]
    assert "noise of seeds" in gate(rounds([7.1, 7.2])[:1], {"loss": 1e-7})[0]


@pytest.mark.parametrize(
    "options", [["--repeats", "0"], ["--steps", "-1"], ["--batch", "7"], ["--arms", "X"]]
)
def test_what_cannot_be_measured_is_refused_before_anything_is_made(options: list[str]) -> None:
    from train_whisper_multitask import main

    with pytest.raises(SystemExit) as stopped:
        main(options)
    assert stopped.value.code == 2


def test_a_child_that_fails_is_a_message(tmp_path: Path) -> None:
    from common import child

    from training.base.errors import UserError

    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('begun')\nprint(f'[{len(sys.argv)}]')\n", encoding="utf8")
    assert child(script, "a", 1) == [3]
    script.write_text("raise SystemExit('no data')\n", encoding="utf8")
    with pytest.raises(UserError, match=r"script.py a: exit status 1\nno data"):
        child(script, "a")


def test_one_other_hypothesis_shuts_the_gate_of_the_evaluation() -> None:
    from common import Round
    from evaluate_two_tasks import gate

    def rounds(ours: str, wer: float, bleu: float = 50.0) -> list[Round]:
        said = {"transcribe": ["a b"], "translate": ["c"]}
        stock = {"hypotheses": said, "scores": {"wer": 10.0, "bleu": 50.0}}
        full = {"hypotheses": {**said, "translate": [ours]}, "scores": stock["scores"]}
        return [Round({"B": stock, "F": full, "C": {"scores": {"wer": wer, "bleu": bleu}}}, (0, 0, 0))]

    assert gate(rounds("c", 9.0), 1.0) == (1.0, [])
    same, failures = gate(rounds("d", 12.0), 1.0)
    assert same == 0.5 and "'d' for 'c'" in failures[0] and "2.0 points worse" in failures[1]
    assert gate(rounds("c", 9.0, 40.0), 1.0) == (1.0, ["C's BLEU is 10.0 points worse than B's"])
    fewer = rounds("c", 9.0)
    fewer[0].arms["F"]["hypotheses"] = {"transcribe": [], "translate": []}
    assert gate(fewer, 1.0) == (0.0, ["B and F do not score the same clips: 0 and 1 of them"])


def test_operations_are_those_that_torch_counts() -> None:
    from gpu import flops
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import WhisperConfig

    from training.models.common.sizes import SIZES
    from training.models.whisper.model import MultitaskWhisper

    config = WhisperConfig(**SIZES["openai/whisper-tiny"]["config"], attn_implementation="eager")
    model = MultitaskWhisper(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        states = model.encode(torch.zeros(1, 80, 400))
        hidden = model.model.decoder(
            input_ids=torch.zeros(2, 20, dtype=torch.long),
            encoder_hidden_states=states,
            use_cache=False,
        ).last_hidden_state
        model.proj_out(hidden)
    assert flops("openai/whisper-tiny", 4.0, 20) == pytest.approx(3 * counter.get_total_flops(), rel=0.01)


SMALL = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 1100,
}


@pytest.fixture
def clips(tmp_path: Path) -> Any:
    """Four clips of noise with Vietnamese texts."""
    from whisper_runs import Clips, write_rows

    rng = np.random.default_rng(0)
    rows = []
    for number, text in enumerate(("một hai ba", "deadline là gì", "okay", "không sao đâu")):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, rng.standard_normal(16_000 + 3_000 * number) * 0.1, 16_000)
        cells = {"transcript": text, "translation": f"{text} vâng", "language": "vi"}
        rows.append({"audio_path": str(path), "duration": f"{soundfile.info(path).duration:.4f}", **cells})
    manifest = write_rows(tmp_path / "rows.tsv", rows)
    return Clips(tmp_path, manifest, manifest, sum(float(row["duration"]) for row in rows), len(rows))


def test_stock_and_we_hear_the_same_and_learn_the_same_tokens(tmp_path: Path, clips: Any) -> None:
    import datasets
    from our_recipe import overrides
    from stock_recipe import PROMPT, DataCollatorSpeechSeq2SeqWithPadding, features_of, parser, rows_of
    from transformers import WhisperProcessor
    from whisper_runs import make_model

    from training.config.load import load_config
    from training.engine.run import build

    model = make_model(tmp_path / "model", clips, SMALL)
    options = {"model": model, "manifest": clips.train, "root": tmp_path, "work": tmp_path / "work"}
    line = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
    args = parser().parse_args([*line, "--report", "none", "--full_share", "1", "--steps", "1"])
    datasets.disable_caching()
    processor = WhisperProcessor.from_pretrained(model)
    rows = features_of(rows_of(clips.train), processor, tmp_path)
    start = processor.tokenizer.convert_tokens_to_ids("<|startoftranscript|>")
    stock = DataCollatorSpeechSeq2SeqWithPadding(processor, start)(list(rows))
    run = build(load_config(ROOT / "configs" / "dev_whisper.yaml", overrides(args)))
    assert run.architecture.train_collate is not None
    ours = run.architecture.train_collate.in_full_context()([run.train[i] for i in range(len(run.train))])
    labels = stock["labels"].unflatten(0, (2, -1)).transpose(0, 1).clone()  # stock's rows are task by task
    labels[:, :, :PROMPT] = -100
    assert torch.equal(ours["labels"], labels)
    for task in range(2):
        assert torch.equal(ours["input_features"], stock["input_features"].unflatten(0, (2, -1))[task])


@pytest.mark.recipe
def test_both_sides_train_and_say_what_it_took(tmp_path: Path, clips: Any) -> None:
    from whisper_runs import make_model, run

    model = make_model(tmp_path / "model", clips, SMALL)
    options = ["--model", model, "--manifest", clips.train, "--held_out", clips.train, "--root", tmp_path]
    options += ["--steps", 2, "--batch", 8, "--marks", 1]
    kept = {name: tmp_path / f"kept_{name}" for name in "BC"}
    stock = run("stock_recipe.py", tmp_path / "B", *options, "--best", "--keep", kept["B"])
    ours = run("our_recipe.py", tmp_path / "C", *options, "--full_share", 1.0, "--keep", kept["C"])
    # Trained at 30 s, ours is judged on trimmed contexts.
    assert ours["held_out_loss"] == pytest.approx(stock["held_out_loss"], rel=0.01)
    assert ours["held_out_loss"] < ours["losses"]["2"]
    assert ours["audio_seconds"] == pytest.approx(2 * clips.seconds, abs=0.01)
    assert stock["written"]["2"] > 8 * 80 * 3000 * 4 > ours["written"]["2"]
    assert 0 < ours["begun"] < ours["ends"][0] < ours["ends"][1]
    assert not (tmp_path / "B").exists()
    begun, *ended = (load_file(folder / "model.safetensors") for folder in (model, kept["B"], kept["C"]))
    weight = "model.decoder.layers.0.fc1.weight"
    assert not any(torch.equal(begun[weight], weights[weight]) for weights in ended)
    moved = [torch.cat([(weights[name] - begun[name]).flatten() for name in begun]) for weights in ended]
    # Lessons alike but for the prompt, which stock learns too; unrelated ones would stand at 0.00.
    assert torch.cosine_similarity(*moved, dim=0) > 0.3
    asked = ["--manifest", clips.train, "--root", tmp_path, "--max_new_tokens", 4]
    for script, name in (("stock_evaluate.py", "B"), ("our_evaluate.py", "C")):
        said = run(script, tmp_path / "said", "--model", kept[name], *asked)["hypotheses"]
        assert {task: len(texts) for task, texts in said.items()} == {"transcribe": 4, "translate": 4}


def test_worse_words_shut_the_gate_of_equal_steps() -> None:
    from common import Round
    from wer_at_equal_steps import by_context, difference, gate

    nested = {"B": {"full": {"wer": 1.0}}, "C": {"full": {"wer": 2.0}, "trimmed": {"wer": 3.0}}}
    assert by_context(nested) == {"B full": {"wer": 1.0}, "C full": {"wer": 2.0}, "C trimmed": {"wer": 3.0}}

    def rounds(ours: tuple[float, float], bleu: float = 80.0) -> list[Any]:
        return [
            Round({"B full": {"wer": b, "bleu": 80.0}, "C full": {"wer": c, "bleu": bleu}}, (0.0, 0.0, 0.0))
            for b, c in zip((20.0, 22.0), ours, strict=True)
        ]

    assert difference(rounds((21.0, 25.0)), "wer") == pytest.approx((2.0, 2**0.5 + 8**0.5))
    assert gate(rounds((21.0, 25.0))) == gate(rounds((10.0, 10.0))) == []
    assert gate(rounds((30.0, 32.0))) == ["WER is worse than B's by 10.0, the seeds' noise is 2.8"]
    assert gate(rounds((20.0, 22.0), bleu=70.0)) == [
        "BLEU is worse than B's by 10.0, the seeds' noise is 0.0"
    ]
    assert gate(rounds((20.0, 22.0))[:1]) == ["one round has no noise of seeds to hold the scores against"]


def test_nothing_is_said_where_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    from gpu import main

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main([]) == 0
    assert capsys.readouterr().out == "not measured: this machine has no GPU\n"


def test_e2e_says_that_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    from gpu_e2e import main

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main([]) == 0
    assert capsys.readouterr().out == "not measured: this machine has no GPU\n"
