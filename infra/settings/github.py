"""`github` of a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from infra.errors import invalid
from infra.settings.section import Section

if TYPE_CHECKING:
    from typing_extensions import Self


class GithubSettings(Section):
    """The workflow that may invoke the function, without an AWS key in GitHub."""

    repository: str = Field(pattern=r"^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", description="`owner/name`")
    environment: str = Field(
        pattern=r"^[A-Za-z0-9._-]+$",
        description="The workflow's `environment`. Its protection rules decide who can migrate this stage",
    )
    owner_id: int | None = Field(
        default=None,
        ge=1,
        description="The owner's numeric id, if GitHub's tokens contain it: see [ci.md](ci.md#set-up-once)",
    )
    repository_id: int | None = Field(
        default=None, ge=1, description="The repository's numeric id. Set both ids or neither"
    )

    @model_validator(mode="after")
    def _numbers_come_together(self) -> Self:
        if (self.owner_id is None) != (self.repository_id is None):
            raise invalid("owner_id and repository_id need each other: GitHub sends both or neither")
        return self

    @property
    def subject(self) -> str:
        """Return the subject of the tokens that GitHub issues to this workflow."""
        repository = self.repository
        if self.owner_id is not None:
            owner, name = repository.split("/")
            repository = f"{owner}@{self.owner_id}/{name}@{self.repository_id}"
        return f"repo:{repository}:environment:{self.environment}"
