"""Where new versions go, why one is refused, and how one is served: what needs no torch."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from model_store import ModelExistsError, ModelName, Store, VersionNumber

# Beside the checkout's own, which the package ships
STORE = Path("models")


_NAME, _VERSION = TypeAdapter[str](ModelName), TypeAdapter[str](VersionNumber)


class PublishError(Exception):
    """The run must not become a model version."""


def model_name(text: str) -> str:
    """The name of a new version, as argparse takes a type.

    Raises:
        ArgumentTypeError: A card cannot have it.
    """
    return _checked(text, _NAME, "no name: small letters, digits and hyphens, as swift")


def version_number(text: str) -> str:
    """The number of a new version, as argparse takes a type.

    Raises:
        ArgumentTypeError: A card cannot have it.
    """
    return _checked(text, _VERSION, "no version: three numbers, as 1.0.0")


def _checked(text: str, kind: TypeAdapter[str], problem: str) -> str:
    try:
        return kind.validate_python(text)
    except ValidationError:
        raise ArgumentTypeError(f"{text!r} is {problem}") from None


def refuse_existing(reference: str, store: Store) -> None:
    """Before any work: versions never change, those of the package no more than a site's.

    Raises:
        ModelExistsError: `store` or the package has the version.
    """
    for each, where in ((store, f"{store.root}"), (Store(), "the package")):
        if reference in each.list():
            raise ModelExistsError(
                f"{reference} is already published, in {where}: choose another name or version"
            )


def how_to_serve(reference: str, store: Path) -> str:
    """The command for a version that was just published."""
    return f"CXRVIEW_MODEL_STORE={store} CXRVIEW_MODEL={reference} cxrview serve"
