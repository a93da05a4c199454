"""What all settings have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """An object of cdk.json. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
