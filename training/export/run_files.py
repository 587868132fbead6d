"""``run.py`` of an exported folder: some forty lines that need the engine, tokenizers, numpy and soundfile alone."""

from __future__ import annotations

from training.models.export_parts import CTRANSLATE2, ONNX

_LANGUAGE_AND_DOMAIN = """\
language = sys.argv[2] if len(sys.argv) > 2 else about["languages"][0]
if language not in prompts["languages"]:
    sys.exit(f"{sys.argv[1]}: which language? One of {', '.join(prompts['languages'])}")
domain = sys.argv[3] if len(sys.argv) > 3 else prompts["domain"]
if prompts["domains"] and domain not in prompts["domains"]:
    sys.exit(f"{sys.argv[1]}: which domain? One of {', '.join(prompts['domains'])}")
domain = [prompts["domains"][domain]] if prompts["domains"] else []
"""
"""Of the ``run.py`` of a Whisper, whatever its engine."""

WHISPER_CTRANSLATE2 = (
    '''\
"""Text of a clip of at most 30 s: python run.py CLIP.wav [LANGUAGE] [DOMAIN]. Needs ctranslate2, tokenizers, numpy, soundfile."""
import json
import sys
from pathlib import Path

import ctranslate2
import numpy as np
import soundfile
from tokenizers import Tokenizer

here = Path(__file__).parent
about = json.loads((here / "polyvox.json").read_text(encoding="utf8"))["description"]
mels, prompts, context, moved = (about[key] for key in ("log_mels", "prompts", "context", "moved_ids"))
sound, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
if rate != mels["sampling_rate"] or len(sound) > mels["n_samples"]:
    sys.exit(f"{sys.argv[1]}: give at most 30 s at {mels['sampling_rate']} Hz")
sound = np.pad(sound.mean(axis=1), (0, 640))[: mels["n_samples"]]
size, hop = mels["n_fft"], mels["hop_length"]
padded = np.pad(sound, size // 2, mode="reflect")
frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][: len(sound) // hop]
power = np.abs(np.fft.rfft(frames * np.hanning(size + 1)[:-1])) ** 2
log = np.log10(np.maximum(power @ np.load(here / "mel_filters.npy"), 1e-10)).T
log = (np.maximum(log, log.max() - 8) + 4) / 4
length = 3000 if context["context"] == "full" else min(3000, 2 * ((log.shape[1] + int(100 * context["margin"]) + 1) // 2))
log = np.pad(log, ((0, 0), (0, length - log.shape[1])), mode="edge").astype(np.float32)
there = [i for i in range(about["vocabulary"]) if i not in moved["ids"]]
place = there.index(moved["before"]) if moved["ids"] else 0
ids = [*there[:place], *moved["ids"], *there[place : place + 1], *moved["ids"], *there[place + 1 :]]
'''
    + _LANGUAGE_AND_DOMAIN
    + """\
model, tokenizer = ctranslate2.models.Whisper(str(here)), Tokenizer.from_file(str(here / "tokenizer.json"))
states = model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(log[None])))
for task in about["tasks"]:
    prompt = [prompts["start"], prompts["languages"][language], prompts["tasks"][task], *domain, prompts["no_timestamps"]]
    most = about["positions"] - len(prompt)
    rows = [ids.index(i) for i in prompt]
    row = model.generate(states, [rows], beam_size=1, max_length=2 * most)[0].sequences_ids[0]
    if len(row) >= most:
        sys.exit(f"{sys.argv[1]}: {task}: no end of the text within {most} tokens")
    print(f"{task}\\t{tokenizer.decode([ids[i] for i in row]).strip()}")
"""
)

WHISPER_ONNX = (
    '''\
"""Text of a clip of at most 30 s: python run.py CLIP.wav [LANGUAGE] [DOMAIN]. Needs onnxruntime, tokenizers, numpy, soundfile."""
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
from tokenizers import Tokenizer

here = Path(__file__).parent
about = json.loads((here / "polyvox.json").read_text(encoding="utf8"))["description"]
mels, prompts, context = (about[key] for key in ("log_mels", "prompts", "context"))
sound, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
if rate != mels["sampling_rate"] or len(sound) > mels["n_samples"]:
    sys.exit(f"{sys.argv[1]}: give at most 30 s at {mels['sampling_rate']} Hz")
features, encoder, decoder = (onnxruntime.InferenceSession(str(here / f"{n}.onnx")) for n in ("features", "encoder", "decoder"))
(log,) = features.run(None, {"waveform": np.pad(sound.mean(axis=1), (0, 640))[: mels["n_samples"]]})
length = 3000 if context["context"] == "full" else min(3000, 2 * ((log.shape[1] + int(100 * context["margin"]) + 1) // 2))
cross = [one.name for one in encoder.get_outputs() if one.name.startswith("cross_")]
log = np.pad(log, ((0, 0), (0, length - log.shape[1])), mode="edge")
states = dict(zip(cross, encoder.run(cross, {"log_mels": log[None]})))
past = [one for one in decoder.get_inputs() if one.name.startswith("past_")]
outputs = ["logits", *(one.name.replace("past_", "longer_") for one in past)]
'''
    + _LANGUAGE_AND_DOMAIN
    + """\
for task in about["tasks"]:
    ids = [prompts["start"], prompts["languages"][language], prompts["tasks"][task], *domain, prompts["no_timestamps"]]
    caches, text = [np.zeros((1, one.shape[1], 0, one.shape[3]), np.float32) for one in past], []
    for _ in range(about["positions"] - len(ids)):
        inputs = {"ids": np.array([ids]), "wanted": np.array([len(ids) - 1]), **states}
        logits, *caches = decoder.run(outputs, {**inputs, **dict(zip([one.name for one in past], caches))})
        logits[..., prompts["suppress"] if text else prompts["suppress"] + prompts["suppress_first"]] = -np.inf
        ids = [int(logits.argmax())]
        if ids[0] == prompts["end"]:
            break
        text += ids
    else:
        sys.exit(f"{sys.argv[1]}: {task}: no end of the text within {len(text)} tokens")
    print(f"{task}\\t{Tokenizer.from_file(str(here / 'tokenizer.json')).decode(text).strip()}")
"""
)

CTC_ONNX = '''\
"""Text of a clip: python run.py CLIP.wav. Needs onnxruntime, numpy, soundfile."""
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

here = Path(__file__).parent
about = json.loads((here / "polyvox.json").read_text(encoding="utf8"))["description"]
output = about["ctc"]
sound, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
if rate != about["sample_rate"] or len(sound) < output["fewest_samples"]:
    sys.exit(f"{sys.argv[1]}: give at least {output['fewest_samples']} samples at {about['sample_rate']} Hz")
features, encoder = (onnxruntime.InferenceSession(str(here / f"{name}.onnx")) for name in ("features", "encoder"))
sound = sound.mean(axis=1)
if about["log_mels"]:  # Whisper's encoder, with silence behind the clip
    settings, context = about["log_mels"], about["context"]
    (values,) = features.run(None, {"waveform": np.pad(sound, (0, 640))[: settings["n_samples"]]})
    wanted = 2 * ((values.shape[1] + int(100 * context["margin"]) + 1) // 2)
    length = 3000 if context["context"] == "full" else min(3000, wanted)
    filled = np.pad(values, ((0, 0), (0, length - values.shape[1])), constant_values=values.min())
    real = min(-(-len(sound) // settings["hop_length"]), values.shape[1])
else:
    (values,) = features.run(None, {"waveform": sound})
    length, real = max(output["shortest"], len(values)), len(values)
    filled = np.zeros((length, *values.shape[1:]), dtype=np.float32)
    filled[:real] = values
mask = (np.arange(length) < real).astype(np.int64)
log_probs, lengths = encoder.run(None, {"features": filled[None], "mask": mask[None]})
best = log_probs[0, : lengths[0]].argmax(axis=-1)
labels = best[np.insert(best[1:] != best[:-1], 0, True)]
text = "".join(output["tokens"][i] for i in labels if i != output["blank"])
print(" ".join(text.replace("\u2581", " ").split()))
'''

ENCODER_DECODER_ONNX = '''\
"""Texts of a clip: python run.py CLIP.wav [LANGUAGE [LANGUAGE OF THE TRANSLATION]]. Needs onnxruntime, tokenizers, numpy, soundfile."""
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
from tokenizers import Tokenizer

here = Path(__file__).parent
about = json.loads((here / "polyvox.json").read_text(encoding="utf8"))["description"]
prompts, limits = about["task_prompts"], about["waveform"]
languages = [*sys.argv[2:], *about["languages"][len(sys.argv[2:]) :]]
sound, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
if rate != about["sample_rate"] or len(sound) < limits["fewest_samples"]:
    sys.exit(f"{sys.argv[1]}: give at least {limits['fewest_samples']} samples at {about['sample_rate']} Hz")
features, encoder, decoder = (onnxruntime.InferenceSession(str(here / f"{n}.onnx")) for n in ("features", "encoder", "decoder"))
(values,) = features.run(None, {"waveform": sound.mean(axis=1)})
mask = (np.arange(max(limits["shortest"], len(values))) < len(values)).astype(np.int64)
states = encoder.run(None, {"features": np.pad(values, (0, len(mask) - len(values)))[None], "mask": mask[None]})
sound = dict(zip([one.name for one in encoder.get_outputs()], states))
past = [one for one in decoder.get_inputs() if one.name.startswith("past_")]
for task in about["tasks"]:
    language = languages[task == "translate"]
    ids, text = [prompts["start"], prompts["languages"][language], prompts["tasks"][task]], []
    caches = [np.zeros((1, one.shape[1], 0, one.shape[3]), np.float32) for one in past]
    for _ in range(about["positions"] - len(ids)):
        inputs = {"ids": np.array([ids]), **sound, **dict(zip([one.name for one in past], caches))}
        logits, *caches = decoder.run(None, inputs)
        ids = [int(logits[0].argmax())]
        if ids[0] == prompts["end"]:
            break
        text += ids
    print(f"{task}\\t{Tokenizer.from_file(str(here / 'tokenizer.json')).decode(text).strip()}")
'''

LANGUAGE_MODEL_ONNX = '''\
"""Text of a clip of at most 30 s: python run.py CLIP.wav. Needs onnxruntime, tokenizers, numpy, soundfile."""
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
from tokenizers import Tokenizer

here = Path(__file__).parent
about = json.loads((here / "polyvox.json").read_text(encoding="utf8"))["description"]
mels, prompt, context = about["log_mels"], about["spoken_prompt"], about["context"]
sound, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
if rate != mels["sampling_rate"] or len(sound) > mels["n_samples"]:
    sys.exit(f"{sys.argv[1]}: give at most 30 s at {mels['sampling_rate']} Hz")
features, encoder, decoder = (onnxruntime.InferenceSession(str(here / f"{n}.onnx")) for n in ("features", "encoder", "decoder"))
(log,) = features.run(None, {"waveform": np.pad(sound.mean(axis=1), (0, 640))[: mels["n_samples"]]})
frames = log.shape[1]
length = 3000 if context["context"] == "full" else min(3000, 2 * ((frames + int(100 * context["margin"]) + 1) // 2))
log = np.pad(log, ((0, 0), (0, length - frames)), mode="edge")
_, heard = encoder.run(None, {"log_mels": log[None], "frames": np.array([frames])})
groups = -(-((frames + 1) // 2) // prompt["stack"])
ids, text = [*prompt["before"], *[prompt["placeholder"]] * groups, *prompt["after"]], []
sound = np.zeros((1, len(ids), heard.shape[2]), np.float32)
sound[0, len(prompt["before"]) :][:groups] = heard[0, :groups]
past = [one for one in decoder.get_inputs() if one.name.startswith("past_")]
caches = [np.zeros((1, one.shape[1], 0, one.shape[3]), np.float32) for one in past]
for _ in range(about["positions"] - len(ids)):
    inputs = {"ids": np.array([ids]), "sound": sound, "padding": np.zeros(1, np.int64), "read": np.array([[len(ids) - 1]])}
    logits, *caches, _ = decoder.run(None, {**inputs, **dict(zip([one.name for one in past], caches))})
    logits[..., prompt["suppress"]] = -np.inf
    ids, sound = [int(logits[0, 0].argmax())], np.zeros((1, 1, heard.shape[2]), np.float32)
    if ids[0] == prompt["end"]:
        break
    text += ids
print(Tokenizer.from_file(str(here / "tokenizer.json")).decode(text).strip())
'''

RUN_FILES = {
    (ONNX, "ctc"): CTC_ONNX,
    (ONNX, "encoder_decoder"): ENCODER_DECODER_ONNX,
    (ONNX, "whisper"): WHISPER_ONNX,
    (ONNX, "language_model"): LANGUAGE_MODEL_ONNX,
    (CTRANSLATE2, "whisper"): WHISPER_CTRANSLATE2,
}
"""By format and decoder."""
