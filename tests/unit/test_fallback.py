"""Whisper's safeguards: another temperature where a text fails, no text where nobody speaks, loops cut and marked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import whisper_assets

from training.base.errors import UserError
from training.data.example import NO_SPEECH, REPETITION, UNCERTAIN, Hypothesis
from training.decoding.fallback import compression_ratio, decode_guarded
from training.decoding.loading import Trained
from training.decoding.predict import predict
from training.decoding.repetition import CUT, cut_loops, loops
from training.models.architecture import DecodeOptions
from training.models.common.log_probabilities import LogProbabilities
from training.models.common.stop_repeats import StopRepeats
from training.models.safeguards import Safeguards, Scored, Search
from training.transcription.suspects import lines, with_repeated_marked
from training.transcription.transcriber import Transcriber
from training.transcription.transcript import Segment, Transcript

LOOP = "thank you. " * 40


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two three", "one two three"),
        ("no, no, no", "no, no, no"),
        ("no, No no. NO! yes", f"no, {CUT} yes"),
        ("so thank you. Thank you. thank you. thank", f"so thank you. {CUT}"),
        ("♪ ♪ ♪ ♪", f"♪ {CUT}"),
        ("하하하하하하하하하하", f"하 {CUT}"),
        ("ご視聴ありがとう" * 5, f"ご視聴ありがとう {CUT}"),
        ("it costs 1000000000", "it costs 1000000000"),
        ("a b a b a b then c d c d c d", f"a b {CUT} then c d {CUT}"),
    ],
)
def test_loops_are_cut_after_their_first_phrase(text: str, expected: str) -> None:
    assert cut_loops(text) == expected
    assert loops(text) == (text != expected)
    assert not loops(expected)


def test_only_loops_compress_well() -> None:
    assert compression_ratio(LOOP) > 2.4 > compression_ratio(whisper_assets.TRANSCRIPT)
    assert compression_ratio("") == 0


@dataclass
class Scripted:
    """A model whose text of a row depends on the temperature: ``texts[row][temperature]``."""

    texts: list[dict[float, Scored]]
    silence: list[float] = field(default_factory=lambda: [0.0, 0.0])
    calls: list[tuple[int, float]] = field(default_factory=list)

    def encode(self, model: Any, batch: Any) -> torch.Tensor:
        return torch.arange(float(len(self.texts)))[:, None, None]

    def no_speech(self, model: Any, states: torch.Tensor) -> list[float]:
        return [self.silence[int(row)] for row in states.flatten()]

    def with_prompt(self, prompts: torch.Tensor, text: str) -> torch.Tensor:
        return prompts

    def prompts(self, batch: Any) -> torch.Tensor:
        return batch["decoder_input_ids"]

    def row(self, model: Any, states: torch.Tensor, row: int) -> torch.Tensor:
        return states[row : row + 1]

    def decode(self, model: Any, prompts: Any, states: torch.Tensor, search: Search) -> Any:
        self.calls.append((len(states), search.temperature))
        return [[self.texts[int(row)][search.temperature]] for row in states.flatten()]


GOOD, UNSURE, LOOPING = Scored("xin chào", -0.2), Scored("what", -1.5), Scored(LOOP.strip(), -0.1)


def guarded(model: Scripted, **changes: Any) -> list[Any]:
    architecture = replace(
        whisper_assets.tiny(task="transcribe"), scored=model, tasks=("transcribe",), aligner=None
    )
    rows = len(model.texts)
    batch = {"decoder_input_ids": torch.zeros(rows, 1, 4, dtype=torch.long), "prompt_length": 4}
    options = DecodeOptions(safeguards=Safeguards(**changes))
    return decode_guarded(architecture, batch, options, model=None)["transcribe"]


def test_only_the_rows_that_fail_are_decoded_again() -> None:
    model = Scripted([{0.0: GOOD}, {0.0: LOOPING, 0.2: UNSURE, 0.4: GOOD}])
    first, second = guarded(model)
    assert model.calls == [(2, 0.0), (1, 0.2), (1, 0.4)]
    assert (first.text, first.quality.temperature, first.quality.suspect) == ("xin chào", 0.0, None)
    assert (second.text, second.quality.temperature, second.quality.suspect) == ("xin chào", 0.4, None)
    assert second.quality.log_probability == -0.2


def test_without_fallback_a_loop_is_cut_and_marked() -> None:
    (row,) = guarded(Scripted([{0.0: LOOPING}]), temperatures=(0.0,))
    assert row.text == f"thank you. {CUT}"
    assert row.quality.suspect == REPETITION and row.quality.uncut == LOOP.strip()
    assert row.quality.compression_ratio > 2.4


def test_where_every_temperature_fails_the_most_probable_text_without_a_loop_is_taken() -> None:
    texts = dict.fromkeys(Safeguards().temperatures, LOOPING)
    unsure = Scored("who", -1.2)
    (row,) = guarded(Scripted([{**texts, 0.4: UNSURE, 0.6: unsure}]))
    assert (row.text, row.quality.suspect, row.quality.temperature) == ("who", UNCERTAIN, 0.6)
    (row,) = guarded(Scripted([texts]))
    assert (row.text, row.quality.suspect, row.quality.temperature) == (
        f"thank you. {CUT}",
        REPETITION,
        0.0,
    )


def test_an_uncertain_text_where_nobody_speaks_is_left_out() -> None:
    model = Scripted([{0.0: UNSURE}, {0.0: GOOD}], silence=[0.8, 0.99])
    first, second = guarded(model)
    assert (first.text, first.quality.suspect, first.quality.uncut) == ("", NO_SPEECH, "what")
    assert first.quality.no_speech == 0.8
    assert second.text == "xin chào" and second.quality.no_speech is None  # a sure text is never asked about
    assert model.calls == [(2, 0.0)]


def test_thresholds_can_be_switched_off() -> None:
    off = {"compression_ratio": None, "log_probability": None, "no_speech": None, "repetition": False}
    rows = guarded(Scripted([{0.0: LOOPING}, {0.0: UNSURE}], silence=[0.9, 0.9]), **off)
    assert [row.text for row in rows] == [LOOP.strip(), "what"]
    assert [row.quality.suspect for row in rows] == [None, None]


@pytest.mark.parametrize("wrong", [{"temperatures": ()}, {"temperatures": (-1.0,)}, {"no_repeat_ngram": -1}])
def test_values_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Safeguards(**wrong)


@pytest.fixture(scope="module")
def tiny() -> Any:
    torch.manual_seed(3)
    return whisper_assets.tiny()


def collated(architecture: Any, *lengths: float) -> Any:
    rows = whisper_assets.features(architecture, lengths)
    return architecture.collate(rows), rows


@pytest.mark.parametrize("end", [0, 25.0])
def test_the_mean_log_probability_is_that_of_the_tokens(tiny: Any, end: float) -> None:
    """Against one pass over the finished text; with ``end`` all rows end at once."""
    model = tiny.model
    batch, _ = collated(tiny, 1.0, 2.5)
    prompts = batch["decoder_input_ids"][:, :, : batch["prompt_length"]]
    states = model.encode(batch["input_features"])
    bias = [[[model.config.eos_token_id], end]] if end else None
    generation = {"max_new_tokens": 12, "do_sample": False, "sequence_bias": bias}
    with torch.no_grad():
        ids, means = model.generate_scored(states, prompts, **generation)
        assert torch.equal(ids, model.generate_tasks(None, prompts, states=states, **generation))
        whole = torch.cat([prompts, ids], dim=-1).flatten(0, 1)
        hidden = model.model.decoder(
            input_ids=whole, encoder_hidden_states=states, use_cache=False
        ).last_hidden_state
        logits = model.proj_out(hidden[:, prompts.shape[-1] - 1 : -1])
        logits[..., model.config.eos_token_id] += end
    for row, mean, scores in zip(ids.flatten(0, 1), means.flatten(), logits, strict=True):
        stop = (row == model.config.eos_token_id).nonzero()
        length = int(stop[0]) + 1 if len(stop) else len(row)
        steps = scores.log_softmax(-1).gather(1, row[:, None])[:length, 0]
        assert float(mean) == pytest.approx(float(steps.mean()), abs=1e-4)
    assert bool(end) == (ids.shape[-1] < 12)


def test_a_text_that_repeats_itself_is_not_written_to_the_end() -> None:
    """Looked at every eighth token: a phrase of three tokens has come often enough after 32 of them, a text never has."""
    phrase, text = torch.arange(3).repeat(30), torch.arange(90)
    stop = StopRepeats(prompt=2)
    rows = torch.stack([phrase, text])
    ended = [n for n in range(1, 89) if stop(torch.cat([rows[:, :2], rows[:, :n]], dim=1), None).any()]
    assert ended[0] == 32 and all(n % 8 == 0 for n in ended)
    assert stop(torch.cat([rows[:, :2], rows[:, :40]], dim=1), None).tolist() == [True, False]


def test_what_fills_up_a_finished_row_does_not_count() -> None:
    scores = LogProbabilities(end=0)
    steps = [
        torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]]),
        torch.tensor([[5.0, 0.0, 0.0], [4.0, 0.0, 1.0]]),
    ]
    chosen = torch.tensor([[0, 0], [1, 0]])  # the first row ends at once, the second one step later
    for n, step in enumerate(steps):
        assert scores(torch.cat([torch.ones(2, 1, dtype=torch.long), chosen[:, :n]], dim=1), step) is step
    first, second = scores.means(torch.cat([torch.ones(2, 1, dtype=torch.long), chosen], dim=1)).tolist()
    wanted = [step.log_softmax(-1) for step in steps]
    assert first == pytest.approx(float(wanted[0][0, 0]))
    assert second == pytest.approx(float(wanted[0][1, 1] + wanted[1][1, 0]) / 2)


def test_drawn_texts_do_not_depend_on_what_is_decoded_beside_them(tiny: Any) -> None:
    options = DecodeOptions(max_new_tokens=8, safeguards=Safeguards(temperatures=(0.9,), no_speech=None))
    full = replace(tiny, collate=tiny.collate.in_full_context())
    both, rows = collated(full, 1.0, 2.0)
    alone = full.collate(rows[1:])
    torch.manual_seed(5)
    first = decode_guarded(full, both, options, model=full.model)["translate"][1]
    torch.manual_seed(6)
    second = decode_guarded(full, alone, options, model=full.model)["translate"][0]
    assert first.text == second.text and first.quality.temperature == 0.9
    greedy = full.decode(alone, DecodeOptions(max_new_tokens=8))["translate"][0]
    assert greedy.text != first.text


def test_beams_and_the_prompt_of_the_text_before(tiny: Any) -> None:
    batch, _ = collated(tiny, 1.0)
    prompts = batch["decoder_input_ids"][:, :, : batch["prompt_length"]]
    longer = tiny.scored.with_prompt(prompts, "TikTok meeting")
    tokenizer = tiny.processor.tokenizer
    assert torch.equal(longer[..., -prompts.shape[-1] :], prompts)
    assert tokenizer.convert_ids_to_tokens(int(longer[0, 0, 0])) == "<|startofprev|>"
    assert tokenizer.decode(longer[0, 0, 1 : -prompts.shape[-1]]).strip() == "TikTok meeting"
    limit = tiny.scored.with_prompt(prompts, "word " * 100)
    assert limit.shape[-1] - prompts.shape[-1] == tiny.positions // 2
    guards = Safeguards(temperatures=(0.0,), initial_prompt="meeting", no_repeat_ngram=2, suppressed=())
    options = DecodeOptions(beam_width=2, max_new_tokens=6, safeguards=guards)
    (row,) = decode_guarded(tiny, batch, options, model=tiny.model)["transcribe"]
    assert row.quality is not None and row.quality.log_probability < 0


def test_predict_decodes_with_safeguards_where_they_are_asked_for(tiny: Any) -> None:
    class Rows:
        manifest = (whisper_assets.example("u", 1.0),)
        durations = torch.tensor([1.0]).numpy()

        def __len__(self) -> int:
            return 1

        def __getitem__(self, row: int) -> Any:
            return tiny.encode(self.manifest[0], whisper_assets.noise(1.0))

    plain = predict(tiny, Rows(), options=DecodeOptions(max_new_tokens=4), with_loss=False)
    assert all(hypothesis.quality is None for hypothesis in plain.hypotheses)
    options = DecodeOptions(max_new_tokens=4, safeguards=Safeguards())
    found = predict(tiny, Rows(), options=options, with_loss=False)
    assert all(isinstance(hypothesis, Hypothesis) for hypothesis in found.hypotheses)
    assert all(hypothesis.quality is not None for hypothesis in found.hypotheses)


def test_models_that_cannot_be_decoded_with_safeguards_say_so(tmp_path: Path) -> None:
    from tone_recogniser import recogniser

    assert Transcriber(recogniser(ctc=True)).asked.safeguards is None
    with pytest.raises(UserError, match="need a Whisper"):
        Transcriber(recogniser(ctc=True), safeguards=Safeguards(temperatures=(0.0,)))
    ours = Transcriber(Trained(whisper_assets.tiny(), tmp_path, "whisper", None))
    assert ours.asked.safeguards == Safeguards()


def segment(start: float, text: str) -> Segment:
    from training.data.example import DecodingQuality

    quality = DecodingQuality(temperature=0.0, log_probability=-0.3, compression_ratio=0.8)
    return Segment(start, start + 9.0, {"transcribe": text}, quality={"transcribe": quality})


def test_the_same_phrase_for_every_window_is_marked_and_told() -> None:
    found = with_repeated_marked([segment(10.0 * n, "Thanks for watching.") for n in range(4)])
    assert all(one.quality["transcribe"].suspect == REPETITION for one in found)
    transcript = Transcript("a.wav", 80.0, ("transcribe",), tuple(found))
    told = list(lines(transcript))
    assert len(told) == 4 and told[1].startswith("a.wav: 0:10.0 to 0:19.0: the text repeats itself")
    assert transcript.as_dict()["segments"][0]["suspect"] == REPETITION
    twice = [segment(0.0, "Yes."), segment(10.0, "Yes."), segment(20.0, "No.")]
    assert with_repeated_marked(twice) == twice
    long = [
        segment(10.0 * n, "What is said in these many words is the same in all windows.") for n in range(3)
    ]
    assert all(one.quality["transcribe"].suspect == REPETITION for one in with_repeated_marked(long))
    assert with_repeated_marked(long[:2]) == long[:2]


def test_kept_repetitions_are_marked_by_their_compression_and_not_cut() -> None:
    (row,) = guarded(Scripted([{0.0: LOOPING}]), temperatures=(0.0,), repetition=False)
    assert (row.text, row.quality.suspect, row.quality.uncut) == (LOOP.strip(), REPETITION, None)


def test_a_text_without_a_run_of_phrases_is_left_as_it_is() -> None:
    """It compresses well, and no phrase follows itself; its spaces stay too."""
    text = "  ".join(f"number {n} of the long and the short and the long list" for n in range(20))
    (row,) = guarded(Scripted([{0.0: Scored(text, -0.1)}]), temperatures=(0.0,))
    assert (row.text, row.quality.suspect, row.quality.uncut) == (text, REPETITION, None)


def test_what_is_left_out_or_uncertain_is_told() -> None:
    quality = segment(0.0, "").quality["transcribe"]
    unsure = replace(quality, suspect=UNCERTAIN)
    segments = [replace(segment(10.0 * n, f"what {n}"), quality={"transcribe": unsure}) for n in range(3)]
    silent = replace(
        segment(40.0, ""), quality={"transcribe": replace(quality, suspect=NO_SPEECH, uncut="you")}
    )
    told = list(lines(Transcript("a.wav", 80.0, ("transcribe",), tuple(segments), no_speech=(silent,))))
    assert len(told) == 2
    assert told[0].startswith("a.wav: 0:00.0 to 0:09.0 and 2 more: uncertain text (transcribe)")
    assert told[1].startswith("a.wav: 0:40.0 to 0:49.0: text left out (transcribe)")


def test_a_loop_of_a_model_without_safeguards_is_told() -> None:
    plain = Segment(0.0, 9.0, {"transcribe": LOOP})
    (told,) = lines(Transcript("a.wav", 9.0, ("transcribe",), (plain,)))
    assert "repeats itself (transcribe; left as it is)" in told
    assert not list(
        lines(Transcript("a.wav", 9.0, ("transcribe",), (replace(plain, texts={"transcribe": "hi"}),)))
    )


def test_ids_that_the_model_has_not_are_refused(tmp_path: Path) -> None:
    trained = Trained(whisper_assets.tiny(), tmp_path, "whisper", None)
    with pytest.raises(UserError, match=r"--suppress_tokens: .* no token 999999; its ids are 0 to \d+"):
        Transcriber(trained, safeguards=Safeguards(suppressed=(1, 999_999)))
    scored: Any = trained.architecture.scored
    assert "begin_suppress_tokens" not in scored.arguments(Search(suppressed=(1,)), prompt=4)


def test_the_probability_of_a_stopped_text_does_not_depend_on_its_neighbours(tiny: Any) -> None:
    """A row whose repetition is stopped is filled up while the others go on; that does not count."""
    stop = StopRepeats(prompt=0)
    scores = LogProbabilities(9, [stop])
    ids = torch.stack([torch.zeros(48, dtype=torch.long), torch.arange(48) % 9])
    ids[0, 32:] = 8  # what fills up a row need not be the end of the text
    logits = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    for n in range(48):
        scores(ids[:, :n], logits)
        stop(ids[:, : n + 1], None)
    first, second = scores.means(ids).tolist()
    expected = logits.log_softmax(-1)
    assert first == pytest.approx(float(expected[0, 0]), abs=1e-5)
    assert second == pytest.approx(float(expected[1, ids[1]].mean()), abs=1e-5)


def test_a_folder_of_faster_whisper_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"suppress_ids": [1]}')
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="CTranslate2's format"):
        Transcriber(tmp_path)
