"""docs/configuration.md is what the schema says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from training.config import reference
from training.config.schema import Config
from training.models import lookup


def blocks(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for name, field in model.model_fields.items():
        inner = reference._model_of(field.annotation)
        if inner is not None and inner is not BaseModel:
            yield from blocks(inner, f"{path}.{name}")


def every_block() -> list[tuple[str, type[BaseModel]]]:
    architectures = [(name, lookup.options_class(name)) for name in lookup.available()]
    return [one for name, model in [("", Config), *architectures] for one in blocks(model, name)]


def test_the_document_is_fresh() -> None:
    assert reference.TARGET.is_file()
    written = reference.TARGET.read_text(encoding="utf-8")
    assert written == reference.document(), "stale: run python -m training.config.reference"


@pytest.mark.parametrize(
    ("path", "model"), every_block(), ids=lambda one: one if isinstance(one, str) else ""
)
def test_every_field_is_explained(path: str, model: type[BaseModel]) -> None:
    # A block of the configuration is explained by its class.
    told = {
        name: field.description
        or (model is Config and (reference._model_of(field.annotation) or Config).__doc__)
        for name, field in model.model_fields.items()
    }
    silent = [name for name, text in told.items() if not text]
    assert silent == []


def test_every_key_stands_in_the_document() -> None:
    text = reference.document()
    for _, model in every_block():
        for name in model.model_fields:
            assert f"`{name}`" in text


def test_a_stale_document_is_noticed(tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(reference, "TARGET", tmp_path / "docs" / "configuration.md")
    assert reference.main(["--check"]) == 1
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    reference.TARGET.write_text(reference.TARGET.read_text().replace("Beam width", "Beam size"))
    assert reference.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().out
