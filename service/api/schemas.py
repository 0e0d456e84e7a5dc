"""Answers of the endpoints for operators."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, Field

from service.api.auth.clients import Client, Permission
from service.api.auth.rates import Usage


class ClientAccess(BaseModel):
    """A client, and what it may do."""

    name: str
    permissions: list[Permission]

    @classmethod
    def of(cls, client: Client) -> Self:
        """Of a client that is authenticated."""
        return cls(name=client.name, permissions=sorted(client.permissions))


class ClientUsage(BaseModel):
    """One client, and the counts of its images in this process."""

    name: str
    permissions: list[Permission] | None = Field(description="null for clients without a key")
    images: int
    limited: int = Field(description="requests refused because of its rate")

    @classmethod
    def of(cls, name: str, client: Client | None, usage: Usage) -> Self:
        """From the client's key, if it has one, and its counts."""
        permissions = None if client is None else sorted(client.permissions)
        return cls(name=name, permissions=permissions, images=usage.images, limited=usage.limited)


class Health(BaseModel):
    """The answer of the probes."""

    status: Literal["live", "stuck", "ready", "not ready"]
    reasons: list[str] = Field(default=[], description="why it is stuck; absent where it is not")
