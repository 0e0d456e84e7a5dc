"""Quality: changes of the images or of their answers."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.dashboards.parts import (
    IMAGES,
    Row,
    ask,
    heat,
    lines,
    number,
    of,
    present,
    rate,
    share,
    sheet,
)
from service.api.problems import KINDS
from service.imaging import ImageError
from service.uploads.upload import UploadError

BAD_FILES = "|".join(
    kind.code for error, kind in KINDS.items() if issubclass(error, ImageError | UploadError)
)
WINDOW = "1h"  # shares of a few minutes' images jump
REVIEW = share(
    rate("cxrview_images_review_total", window=WINDOW), rate("cxrview_images_total", window=WINDOW)
)
DISAGREES = share(
    rate("cxrview_headers_total", 'agreement="disagrees"', window=WINDOW),
    rate("cxrview_headers_total", 'agreement!="silent"', window=WINDOW),
)
PFI = ("CxrviewPfiMoved",)
HEADERS = ("CxrviewHeadersDisagree",)
VIEWS = ("CxrviewFrontalShareMoved",)


def quality() -> Dashboard:
    """For those who are responsible for the results."""
    return sheet(
        "cxrview-quality",
        "cxrview: quality",
        "Changes of the images or of their answers.",
        [
            ("Now", _now()),
            ("The model's answers", _answers()),
            ("The images", _images()),
        ],
        since="now-24h",
    )


def _baseline(record: str) -> str:
    """The mean of a recorded share over a week, without the last hours."""
    return f"avg(avg_over_time({of(record)}[7d] offset 6h))"


def _moved(record: str) -> str:
    return f"abs(avg({of(record)}) - {_baseline(record)})"


def _now() -> list[Row]:
    review = number(
        "For review",
        "Share of images marked for review within an hour: their PFI or chest probability is in its"
        " review band, or the picture is doubtful.",
        "percentunit",
        ask(REVIEW),
        limit=(0.05, 0.15),
        runbook=PFI,
    )
    headers = number(
        "Headers that disagree",
        "Share of DICOM headers with the other view, of those that name a view, within an hour.",
        "percentunit",
        ask(DISAGREES),
        limit=(0.05, 0.1),
        runbook=HEADERS,
    )
    frontals = number(
        "Share of frontals: moved by",
        "Difference between the share of frontals among frontals and laterals of six hours and its"
        " mean of the week.",
        "percentunit",
        ask(_moved("cxrview:frontal_share:rate6h")),
        limit=(0.1, 0.2),
        runbook=VIEWS,
    )
    undecided = number(
        "Share of undecided PFIs: moved by",
        "Difference between the share of PFIs from 0.05 to 0.95 of six hours and its weekly mean.",
        "percentunit",
        ask(_moved("cxrview:pfi_middle_share:rate6h")),
        limit=(0.025, 0.05),
        runbook=PFI,
    )
    return [(5, [(6, review), (6, headers), (6, frontals), (6, undecided)])]


def _answers() -> list[Row]:
    histogram = heat(
        "PFI over time",
        "Number of images with a PFI up to each bound, without not_chest. Normally both ends are"
        " dark. The middle grows if images of another kind arrive.",
        "cxrview_pfi_ratio",
        runbook=PFI,
    )
    middle = lines(
        "Undecided PFIs",
        "Share of PFIs from 0.05 to 0.95 within six hours, and its mean of the week.",
        "percentunit",
        ask(f"avg({of('cxrview:pfi_middle_share:rate6h')})", "six hours"),
        ask(_baseline("cxrview:pfi_middle_share:rate6h"), "mean of a week"),
        dashed="mean of a week",
        runbook=PFI,
    )
    frontals = lines(
        "Share of frontals",
        "Share of frontals among frontals and laterals within six hours, and its weekly mean. The"
        " alert fires at a difference of 20 %.",
        "percentunit",
        ask(f"avg({of('cxrview:frontal_share:rate6h')})", "six hours"),
        ask(_baseline("cxrview:frontal_share:rate6h"), "mean of a week"),
        dashed="mean of a week",
        most=1,
        runbook=VIEWS,
    )
    review = lines(
        "For review, over time",
        "Share of images marked for review, within an hour.",
        "percentunit",
        ask(REVIEW, "for review"),
        limit=(0.05, 0.15),
        runbook=PFI,
    )
    views = lines(
        "Answers by view, over time",
        "Images answered each second, by view. not_chest: no chest radiograph. Only models with a"
        " chest head give this answer.",
        IMAGES,
        ask(rate("cxrview_images_total", by="view"), "{{view}}"),
        stacked=True,
    )
    orientation = lines(
        "Orientation found",
        "Images each second that do not lie as usual: they must be turned clockwise by so many"
        " degrees, their bone is dark (inverted), or they are mirrored. 0 for models without these"
        " heads.",
        IMAGES,
        ask(rate("cxrview_orientation_total", by="finding"), "{{finding}}"),
    )
    return [
        (10, [(16, histogram), (8, middle)]),
        (8, [(12, frontals), (12, review)]),
        (8, [(12, views), (12, orientation)]),
    ]


def _images() -> list[Row]:
    headers = lines(
        "What headers say",
        "DICOM images each second whose View Position agrees with the answer, disagrees, or is"
        " silent.",
        IMAGES,
        ask(rate("cxrview_headers_total", by="agreement"), "{{agreement}}"),
        stacked=True,
        runbook=HEADERS,
    )
    body_parts = lines(
        "What Body Part Examined says",
        "DICOM images each second whose Body Part Examined agrees with the answer, disagrees, or is"
        " silent. It disagrees if it says chest and the answer is not_chest, or the reverse. 0 for"
        " models without a chest head.",
        IMAGES,
        ask(rate("cxrview_body_parts_total", by="agreement"), "{{agreement}}"),
        stacked=True,
    )
    fallbacks = lines(
        "Decoders that gave up",
        "Images each second that a decoder could not read, so the next decoder read them. They"
        " were answered. A rise points to a sender with unusual files.",
        IMAGES,
        ask(present("cxrview_decoder_fallbacks_total", by="decoder"), "{{decoder}}"),
        stacked=True,
    )
    refused = lines(
        "Bad files",
        "Images refused each second because of their content, by problem code.",
        IMAGES,
        ask(
            present("cxrview_images_refused_total", f'reason=~"{BAD_FILES}"', by="reason"),
            "{{reason}}",
        ),
        stacked=True,
        runbook=["CxrviewRefusesMore"],
    )
    return [(8, [(12, headers), (12, body_parts)]), (9, [(12, fallbacks), (12, refused)])]
