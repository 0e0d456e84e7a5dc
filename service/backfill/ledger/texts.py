"""Texts as the ledger stores them."""

from __future__ import annotations

import hashlib


def hash_of(text: str) -> bytes:
    """A 16-byte hash of a locator or key: shorter than most texts, and in practice unique."""
    return hashlib.blake2b(encoded(text), digest_size=16).digest()


def encoded(text: str) -> bytes:
    """A text as bytes; file names may hold bytes that are not UTF-8, as lone surrogates."""
    return text.encode("utf-8", "surrogatepass")


def decoded(data: bytes) -> str:
    """The inverse of `encoded`."""
    return data.decode("utf-8", "surrogatepass")
