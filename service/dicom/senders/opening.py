"""Which sender delivers to which kind of destination."""

from __future__ import annotations

from service.dicom.destinations import (
    CStoreDestination,
    Destination,
    FhirDestination,
    FolderDestination,
    StowDestination,
    WebhookDestination,
)
from service.dicom.senders.fhir import FhirSender
from service.dicom.senders.folder import FolderSender
from service.dicom.senders.sender import Sender
from service.dicom.senders.stow import StowSender
from service.dicom.senders.webhook import WebhookSender


def open_sender(destination: Destination) -> Sender:
    """The sender of a destination; it connects when the first result is due."""
    match destination:
        case CStoreDestination():
            from service.dicom.senders.c_store import CStoreSender

            return CStoreSender(destination)
        case StowDestination():
            return StowSender(destination)
        case FhirDestination():
            return FhirSender(destination)
        case WebhookDestination():
            return WebhookSender(destination)
        case FolderDestination():
            return FolderSender(destination)
    raise TypeError(destination.kind)
