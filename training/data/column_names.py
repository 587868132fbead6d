"""The names of a manifest's columns, and what other tables call them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

COLUMNS = (
    "id", "video_id", "audio_path", "duration", "transcript", "translation", "start", "end", "speaker", "language",
    "target_language", "domain", "group", "words", "word_languages", "split", "split_hint",
)  # fmt: skip
"""The columns that the library knows. Others are carried along and read through `Manifest.column`."""
NUMBERS = ("duration", "start", "end")
"""Columns of seconds."""
STRUCTURED = ("words", "word_languages")
"""Columns whose cells may be lists."""
TEXTS = ("transcript", "translation")
"""Columns of what is learned."""

ALIASES = {
    "audio_path": ("file_path", "path", "file_name", "filename", "audio"),
    "transcript": ("text", "sentence", "transcription"),
    "speaker": ("speaker_id", "client_id"),
}
"""Names that `polyvox data prepare` takes for our columns where ours is not there and none is given."""
_GUESSES = {
    "audio_path": (
        *ALIASES["audio_path"],
        *("audio_file", "audio_filepath", "audio_filename", "file", "wav", "wav_path", "wav_filename", "clip"),
    ),
    "transcript": (
        *ALIASES["transcript"],
        *("normalized_text", "normalised_text", "normalized_transcript", "transcript_text", "raw_text"),
        *("raw_transcription", "sentences", "transcripts", "caption", "utterance", "label", "reference", "txt"),
    ),
    "translation": ("target_text", "translated_text", "target", "translations"),
    "duration": ("length", "seconds", "dur", "audio_duration", "duration_seconds", "duration_s", "audio_length"),
    "speaker": ALIASES["speaker"],
}  # fmt: skip


def guess(ours: str, there: Sequence[str]) -> str | None:
    """Which of the columns ``there`` is probably ``ours``: one with a usual other name, else one that is spelt alike."""
    folded = {name.strip().strip('"').casefold().replace(" ", "_").replace("-", "_"): name for name in there}
    for name in (ours, *_GUESSES.get(ours, ())):
        if name in folded:
            return folded[name]
    near = difflib.get_close_matches(ours, [name for name in there if name not in COLUMNS], n=1, cutoff=0.75)
    return near[0] if near else None


def known(names: Sequence[str]) -> int:
    """How many of ``names`` are names of columns, ours or usual others."""
    usual = {*COLUMNS, *(name for others in _GUESSES.values() for name in others)}
    return sum(name.strip().casefold() in usual for name in names)
