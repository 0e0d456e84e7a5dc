"""The DICOM receiver: what peers send by C-STORE, and their associations."""

from __future__ import annotations

from deploy.dashboards.parts import Row, ask, lines, of, present

REFUSED = ["CxrviewDicomRefused"]


def receiver() -> list[Row]:
    """For operators whose peers send by C-STORE; empty without the receiver."""
    objects = lines(
        "Objects received by C-STORE, by status",
        "Answers each second. 0000: success; 0122: no radiograph; A700: full, send again; A900:"
        " not what the request says; C000: cannot be classified; 0110: an error of the service.",
        "ops",
        ask(present("cxrview_dicom_objects_total", by="status"), "{{status}}"),
        stacked=True,
        runbook=REFUSED,
    )
    open_now = lines(
        "Associations open",
        "Of all pods together. Each pod has a limit of its own, dicom_max_associations.",
        "short",
        ask(f"sum({of('cxrview_dicom_associations')})", "open"),
    )
    rejected = lines(
        "Associations rejected by reason",
        "Rejections each second. called_ae: the peer calls another AE title; calling_ae: the peer"
        " is not in dicom_callers; limit: too many are open; stopping: the pod ends;"
        " application_context, protocol_version, malformed: the peer speaks no valid DICOM; tls:"
        " the handshake failed.",
        "ops",
        ask(present("cxrview_dicom_associations_rejected_total", by="reason"), "{{reason}}"),
        stacked=True,
    )
    return [(9, [(8, objects), (8, open_now), (8, rejected)])]
