"""Hooks for Schemathesis: how it sends the bodies of the Store transaction, which it does not know.

SCHEMATHESIS_HOOKS names this module.
"""

from __future__ import annotations

import schemathesis

RELATED = 'multipart/related; type="application/dicom"'

schemathesis.serializer.alias([RELATED, "application/dicom"], "application/octet-stream")
