"""Model versions: their cards, their store, and the published versions."""

from model_store.card import (
    DataSource,
    Decision,
    Evaluation,
    Interval,
    ModelCard,
    Plateau,
    PreprocessSpec,
    Proportion,
    ReviewBound,
    View,
)
from model_store.store import (
    DEFAULT_MODEL,
    DEFAULT_ROOT,
    ModelExistsError,
    ModelNotFoundError,
    ModelVersion,
    Store,
    StoreError,
    TamperedModelError,
    load_published,
)

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_ROOT",
    "DataSource",
    "Decision",
    "Evaluation",
    "Interval",
    "ModelCard",
    "ModelExistsError",
    "ModelNotFoundError",
    "ModelVersion",
    "Plateau",
    "PreprocessSpec",
    "Proportion",
    "ReviewBound",
    "Store",
    "StoreError",
    "TamperedModelError",
    "View",
    "load_published",
]
