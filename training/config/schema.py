"""What a configuration may say: one frozen pydantic model per block, a docstring under each field.

The docstrings are the reference that `training.config.reference` prints. Files are read by
`training.config.load`; the ``model`` block is checked by the architecture's own ``Options``.
"""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import model_validator

from training.config.agreement import contradictions
from training.config.blocks import (
    MOVED_FROM_MODEL,
    Inconsistent,
    Settings,
    Training,
)

MADE = {"use_attribute_docstrings": False}
"""For classes that ``create_model`` makes: they have no source, and pydantic would look for it in every module there is,
tenths of a second for the first class once transformers is imported. What they inherit keeps its description."""


class Config(Settings):
    """A whole run, resolved: nothing is left to be looked up elsewhere."""

    @model_validator(mode="after")
    def _agree(self) -> Config:
        if problems := contradictions(self):
            raise Inconsistent(problems)
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain values; of the fields that transformers has beside ours, those that were set."""
        values = self.model_dump(mode="json")
        kept = {*Training.model_fields, *self.training.model_fields_set}
        values["training"] = {name: value for name, value in values["training"].items() if name in kept}
        for name in MOVED_FROM_MODEL:
            (values["model"] or {}).pop(name, None)
        return values

    def to_yaml(self) -> str:
        """The resolved configuration, from which alone the run can be repeated."""
        return yaml.safe_dump(
            self.as_dict(), sort_keys=False, allow_unicode=True, default_flow_style=False, width=110
        )
