"""What ``/openapi.json`` says of the form, which the routes read themselves."""

from __future__ import annotations

from typing import Any

from training.serving.fields import FORMATS, GRANULARITIES, WIDEST_BEAM

_PROPERTIES: dict[str, Any] = {
    "file": {"type": "string", "format": "binary", "description": "The recording."},
    "model": {"type": "string"},
    "language": {"type": "string", "description": "ISO 639 code of the speech."},
    "prompt": {"type": "string"},
    "temperature": {"type": "number", "minimum": 0, "maximum": 1},
    "response_format": {"type": "string", "enum": list(FORMATS)},
    "timestamp_granularities[]": {
        "type": "array",
        "items": {"type": "string", "enum": list(GRANULARITIES)},
    },
    "stream": {"type": "boolean"},
    "domain": {"type": "string"},
    "hot_words": {"type": "string", "description": "Words and phrases, parted by commas."},
    "beam_width": {"type": "integer", "minimum": 1, "maximum": WIDEST_BEAM},
}
_ERROR = {
    "description": "Why not, and what to do.",
    "content": {"application/json": {"schema": {"type": "object", "required": ["error"]}}},
}
TRANSCRIPTION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": _PROPERTIES}
            }
        },
    },
    "responses": {
        **{str(status): _ERROR for status in (400, 401, 404, 408, 413, 415, 422, 429, 503, 504)},
        "200": {
            "description": "The transcript.",
            "content": {
                kind: {}
                for kind in (
                    "application/json",
                    "text/plain",
                    "application/x-subrip",
                    "text/vtt",
                    "text/event-stream",
                )
            },
        },
    },
}
