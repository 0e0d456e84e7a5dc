"""What bad input gets: one clear problem each, and a service that goes on."""

from __future__ import annotations

import struct
import zlib

import httpx2
import numpy as np
import pytest
from conftest import DATA
from images import dicom, jpeg, png, radiograph
from pydicom import uid

from service.api.problems import CODES

PICTURE = radiograph()
GREY = (PICTURE >> 4).astype(np.uint8)
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=2)


def png_declaring(rows: int, columns: int) -> bytes:
    """A PNG whose header promises what its few bytes do not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


CASES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "empty_image"),
    "text": (b"hello, world", 415, "unrecognised_format"),
    "pdf": (b"%PDF-1.7 ...", 415, "unrecognised_format"),
    "no pixel data": (dicom(PICTURE, PixelData=None), 422, "no_pixel_data"),
    "unknown transfer syntax": (
        dicom(PICTURE, TransferSyntaxUID="1.2.3.4"),
        415,
        "unsupported_transfer_syntax",
    ),
    "video": (
        dicom(GREY, uid.JPEGBaseline8Bit, TransferSyntaxUID=uid.MPEG2MPML),
        415,
        "unsupported_transfer_syntax",
    ),
    "ct": (dicom(PICTURE, SOPClassUID=uid.CTImageStorage), 415, "unsupported_sop_class"),
    "colour png": (png(COLOUR), 415, "colour_image"),
    "colour dicom": (dicom(COLOUR), 415, "colour_image"),
    "multi-frame": (dicom(PICTURE, NumberOfFrames="2"), 415, "multi_frame_image"),
    "one pixel": (png(np.zeros((1, 1), np.uint8)), 422, "image_too_small"),
    "constant": (png(np.full((300, 300), 7, np.uint8)), 422, "blank_image"),
    "png of 50000 x 50000": (png_declaring(50_000, 50_000), 422, "image_too_large"),
    "dicom of 65535 x 65535": (
        dicom(PICTURE, Rows=65_535, Columns=65_535),
        422,
        "image_too_large",
    ),
}
for name, whole in {
    "dicom": dicom(PICTURE),
    "dicom jpeg": dicom(GREY, uid.JPEGBaseline8Bit),
    "png": png(PICTURE),
    "jpeg": jpeg(GREY),
}.items():
    for share in (0.3, 0.6, 0.95):
        cut = whole[: int(len(whole) * share)]
        CASES[f"{name} cut at {share:.0%}"] = (cut, 422, "corrupt_image")


@pytest.mark.parametrize(("body", "status", "code"), CASES.values(), ids=CASES.keys())
def test_bad_input_gets_its_problem(
    client: httpx2.Client, body: bytes, status: int, code: str
) -> None:
    """Status and code are those documented; the answer is RFC 9457, and its text is for people."""
    response = client.post("/v1/classify", content=body)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"urn:cxrview:problem:{code}"
    assert problem["status"] == status
    assert problem["title"]
    assert len(problem["detail"]) > 10
    assert code in CODES


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": "NaN", "WindowWidth": "NaN"},
        {"WindowCenter": "100", "WindowWidth": "-500"},
        {"WindowCenter": ["1", "2"], "WindowWidth": ["0", "0"]},
    ],
    ids=["nan", "inverted", "several"],
)
def test_windows_of_any_kind_are_ignored(
    client: httpx2.Client, attributes: dict[str, object]
) -> None:
    """A VOI window, however broken, changes nothing: it is for eyes, not for the network."""
    expected = client.post("/v1/classify", content=dicom(PICTURE)).json()
    assert client.post("/v1/classify", content=dicom(PICTURE, **attributes)).json() == expected


def test_after_all_that_it_still_answers(client: httpx2.Client) -> None:
    """The service is ready, and a real radiograph gets its view."""
    for body, _, _ in CASES.values():
        client.post("/v1/classify", content=body)
    assert client.get("/readyz").json() == {"status": "ready"}
    body = (DATA / "lateral-0048.jpg").read_bytes()
    assert client.post("/v1/classify", content=body).json()["view"] == "lateral"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nope", 404, "not_found"), ("GET", "/v1/classify", 405, "method_not_allowed")],
)
def test_other_http_errors_are_problems_too(
    client: httpx2.Client, method: str, path: str, status: int, code: str
) -> None:
    """Nothing is answered in two formats."""
    response = client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


def form(*parts: tuple[str, bytes], boundary: bytes = b"XX", end: bool = True) -> bytes:
    pieces = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="a"\r\n\r\n%b\r\n'
        % (boundary, name.encode(), data)
        for name, data in parts
    ]
    return b"".join(pieces) + (b"--%b--\r\n" % boundary if end else b"")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(("other", b"x")), "multipart/form-data; boundary=XX"),
        (form(("file", b"x"), ("file", b"y")), "multipart/form-data; boundary=XX"),
        (form(("file", b"x"), end=False), "multipart/form-data; boundary=XX"),
        (form(("file", b"x")), "multipart/form-data; boundary=YY"),
        (form(("file", b"x")), "multipart/form-data"),
        (b"", "multipart/form-data; boundary=XX"),
    ],
    ids=["no such field", "two files", "cut off", "other boundary", "no boundary", "empty"],
)
def test_malformed_forms(client: httpx2.Client, body: bytes, content_type: str) -> None:
    """A multipart body that is not one, or holds not exactly one `file`, is told so."""
    response = client.post("/v1/classify", content=body, headers={"content-type": content_type})
    assert (response.status_code, response.json()["code"]) == (400, "malformed_multipart")


def test_more_files_than_one_are_counted(client: httpx2.Client) -> None:
    """A form with too many files is refused while it is read."""
    response = client.post("/v1/classify", files=[("file", b"x")] * 3)
    assert (response.status_code, response.json()["code"]) == (413, "too_many_files")


def test_patients_stay_out_of_metrics_and_problems(client: httpx2.Client) -> None:
    """No attribute of a damaged object turns up in its problem or in any metric."""
    marked = {"PatientName": "Zebra^Quagga", "PatientID": "ZQ4711", "RescaleSlope": "0"}
    bodies = [
        dicom(PICTURE, **marked),
        dicom(PICTURE, **marked)[:2000],
        dicom(PICTURE, SOPClassUID=uid.CTImageStorage, **marked),
    ]
    texts = [client.post("/v1/classify", content=body).text for body in bodies]
    texts.append(client.get("/metrics").text)
    assert not [text for text in texts if "Zebra" in text or "ZQ4711" in text]
