"""Many files in one request: one line each, and no bad file fails its neighbours."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import pytest
from conftest import DATA

FRONTAL = (DATA / "frontal-0003.jpg").read_bytes()
LATERAL = (DATA / "lateral-0048.jpg").read_bytes()
DICOM = (DATA / "lateral-0013-header-says-pa.dcm").read_bytes()
FILES = {"a/one.jpg": FRONTAL, "two.jpg": LATERAL, "three": DICOM, "bad.txt": b"hello"}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.mkdir("folder")
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], *members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for member in members:
            archive.addfile(member)
    return buffer.getvalue()


def lines_of(response: httpx2.Response) -> dict[str, dict[str, Any]]:
    """NDJSON by name, as a client would read it."""
    response.raise_for_status()
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert len({line["name"] for line in lines}) == len(lines)
    return {line["name"]: line for line in lines}


def post_form(client: httpx2.Client, files: dict[str, bytes]) -> httpx2.Response:
    parts = [("files", (name, data)) for name, data in files.items()]
    return client.post("/v1/classify/batch", files=parts)


def post_zip(client: httpx2.Client, files: dict[str, bytes]) -> httpx2.Response:
    return client.post("/v1/classify/batch", content=zipped(files))


def post_stored_zip(client: httpx2.Client, files: dict[str, bytes]) -> httpx2.Response:
    return client.post("/v1/classify/batch", content=zipped(files, zipfile.ZIP_STORED))


def post_tar(client: httpx2.Client, files: dict[str, bytes]) -> httpx2.Response:
    return client.post("/v1/classify/batch", content=tarred(files))


Post = Callable[[httpx2.Client, dict[str, bytes]], httpx2.Response]
POSTS = [post_form, post_zip, post_stored_zip, post_tar]


@pytest.mark.parametrize("post", POSTS)
def test_every_file_gets_its_line(client: httpx2.Client, post: Post) -> None:
    """As form, zip or tar: the same names, the same answers as alone, the bad one its problem."""
    lines = lines_of(post(client, FILES))
    assert lines.keys() == FILES.keys()
    for name in ("a/one.jpg", "two.jpg", "three"):
        alone = client.post("/v1/classify", content=FILES[name]).json()
        assert lines[name].pop("name") == name
        assert lines[name].pop("pfi") == pytest.approx(alone.pop("pfi"), abs=1e-5)
        assert lines[name] == alone
    assert lines["bad.txt"]["error"]["code"] == "unrecognised_format"


@pytest.mark.parametrize("post", POSTS)
def test_a_batch_larger_than_the_queue_waits_instead_of_failing(
    client: httpx2.Client, post: Post
) -> None:
    """Eighteen images through a queue of two: every one is answered."""
    lines = lines_of(post(client, {f"{n}.jpg": FRONTAL for n in range(18)}))
    assert [line["view"] for line in lines.values()] == ["frontal"] * 18


def test_an_unnamed_part_is_numbered(client: httpx2.Client) -> None:
    """A form part without a file name is still told apart."""
    response = client.post("/v1/classify/batch", files=[("files", (None, LATERAL))])
    assert lines_of(response)["files[0]"]["view"] == "lateral"


def codes_of(response: httpx2.Response) -> dict[str, str]:
    lines = lines_of(response)
    return {name: line.get("error", {}).get("code", "answered") for name, line in lines.items()}


@pytest.mark.parametrize(
    "name", ["../up.jpg", "a/../../up.jpg", "/etc/x.jpg", "C:\\x.jpg", "..\\up.jpg", "a\x07b.jpg"]
)
@pytest.mark.parametrize("post", [post_zip, post_tar])
def test_names_that_leave_their_folder_are_refused(
    client: httpx2.Client, post: Post, name: str
) -> None:
    """A path traversal name is an error of its entry; the neighbour is answered."""
    expected = {name: "entry_name", "good.jpg": "answered"}
    assert codes_of(post(client, {name: FRONTAL, "good.jpg": LATERAL})) == expected


@pytest.mark.parametrize("post", [post_zip, post_tar])
def test_archives_within_archives_are_refused(client: httpx2.Client, post: Post) -> None:
    """Nothing is unpacked twice."""
    files = {"z": zipped(FILES), "t": tarred(FILES), "good.jpg": LATERAL}
    expected = {"z": "nested_archive", "t": "nested_archive", "good.jpg": "answered"}
    assert codes_of(post(client, files)) == expected


def test_a_zip_bomb_costs_its_entry_only(client: httpx2.Client) -> None:
    """What inflates beyond the limit of a radiograph, or of any ratio, stops there."""
    files = {"huge": bytes(300 * 2**20), "dense": bytes(3 * 2**20), "good.jpg": LATERAL}
    expected = {"huge": "entry_too_large", "dense": "entry_ratio", "good.jpg": "answered"}
    assert codes_of(post_zip(client, files)) == expected


def test_an_entry_over_the_limit_is_refused(client: httpx2.Client) -> None:
    """A file too large for /v1/classify is too large within a batch."""
    noise = bytes(range(256)) * 4 * 4097  # a little more than 4 MiB
    expected = {"large": "entry_too_large", "good.jpg": "answered"}
    files = {"large": noise, "good.jpg": LATERAL}
    assert codes_of(post_stored_zip(client, files)) == expected
    assert codes_of(post_tar(client, files)) == expected
    assert codes_of(post_form(client, files)) == expected


def special(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("special")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(client: httpx2.Client, kind: bytes) -> None:
    """Nothing of the machine is read in a file's place."""
    body = tarred({"good.jpg": LATERAL}, special(kind))
    response = client.post("/v1/classify/batch", content=body)
    assert codes_of(response) == {"good.jpg": "answered", "special": "entry_kind"}


def test_encrypted_and_exotic_entries_are_refused(client: httpx2.Client) -> None:
    """What cannot be read without a password or a rare method says so."""
    body = zipped({"x": LATERAL}, zipfile.ZIP_LZMA)
    assert codes_of(client.post("/v1/classify/batch", content=body)) == {"x": "entry_kind"}
    stored = bytearray(zipped({"x": LATERAL}, zipfile.ZIP_STORED))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := stored.find(signature, at + 1)) >= 0:
            stored[at + offset] |= 1  # the flag that says "encrypted"
    codes = codes_of(client.post("/v1/classify/batch", content=bytes(stored)))
    assert codes == {"x": "entry_kind"}


def test_an_entry_without_a_name_is_refused(client: httpx2.Client) -> None:
    """An empty name is told, and does not end the archive."""
    body = zipped({"x": FRONTAL, "good.jpg": LATERAL}, zipfile.ZIP_STORED)
    nameless = bytearray(body)
    at = nameless.find(b"PK\x01\x02", body.find(b"PK\x01\x02") + 1)  # after the folder's
    nameless[at + 28 : at + 30] = b"\0\0"  # the name's length, and the name itself goes
    del nameless[at + 46]
    end = nameless.find(b"PK\x05\x06")
    size = int.from_bytes(nameless[end + 12 : end + 16], "little") - 1
    nameless[end + 12 : end + 16] = size.to_bytes(4, "little")
    codes = codes_of(client.post("/v1/classify/batch", content=bytes(nameless)))
    assert codes == {"": "entry_name", "good.jpg": "answered"}


def test_a_damaged_entry_costs_itself_only(client: httpx2.Client) -> None:
    """A wrong checksum in the middle is that entry's problem."""
    body = bytearray(zipped({"x": FRONTAL, "good.jpg": LATERAL}, zipfile.ZIP_STORED))
    body[body.find(FRONTAL) + 1000] ^= 0xFF
    codes = codes_of(client.post("/v1/classify/batch", content=bytes(body)))
    assert codes == {"x": "corrupt_archive", "good.jpg": "answered"}


def test_an_archive_that_ends_too_early_says_so_in_its_last_line(client: httpx2.Client) -> None:
    """A tar cut off in the middle: what came before is answered, then the damage is named."""
    body = tarred({"good.jpg": LATERAL, "cut.jpg": FRONTAL})
    cut = body[: body.find(FRONTAL) + 100]
    codes = codes_of(client.post("/v1/classify/batch", content=cut))
    assert codes["good.jpg"] == "answered"
    assert "corrupt_archive" in codes.values()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 415, "unknown_archive"),
        (b"hello", 415, "unknown_archive"),
        (LATERAL, 415, "unknown_archive"),
        (zipped({str(n): b"x" for n in range(21)}), 413, "too_many_files"),
    ],
    ids=["empty", "text", "an image", "too many entries"],
)
def test_bodies_that_are_no_archive(
    client: httpx2.Client, body: bytes, status: int, code: str
) -> None:
    """Known at once, so it is the request's problem and not a line's."""
    response = client.post("/v1/classify/batch", content=body)
    found = response.json()["code"] if status == response.status_code else response.text
    assert (response.status_code, found) == (status, code)


def test_a_zip_without_its_directory_is_corrupt(client: httpx2.Client) -> None:
    """The end of the zip, with its table of contents, is missing."""
    body = zipped(FILES)[:2000]
    codes = codes_of(client.post("/v1/classify/batch", content=body))
    assert codes == {"": "corrupt_archive"}


def test_too_many_entries_of_a_tar_end_the_answer(client: httpx2.Client) -> None:
    """A tar has no table of contents: the limit is met while reading, and said in the last line."""
    body = tarred({f"{n}.jpg": LATERAL for n in range(25)})
    codes = codes_of(client.post("/v1/classify/batch", content=body))
    assert codes[""] == "too_many_files"
    assert codes["0.jpg"] == "answered"


def test_an_archive_that_inflates_too_far_ends_there(client: httpx2.Client) -> None:
    """The work of one request is bounded, not only its memory: 27 MiB in entries of 3."""
    filler = np.random.default_rng(0).bytes(2**17) + bytes(3 * 2**20 - 2**17)
    files = {"good.jpg": LATERAL} | {f"{n}.bin": filler for n in range(9)}
    codes = codes_of(post_zip(client, files))
    assert codes["good.jpg"] == "answered"
    assert codes["0.bin"] == "unrecognised_format"
    assert codes[""] == "archive_too_large"
    assert "8.bin" not in codes


def test_too_many_parts_of_a_form(client: httpx2.Client) -> None:
    """A form's files are counted while it is read."""
    response = client.post("/v1/classify/batch", files=[("files", b"x")] * 21)
    assert (response.status_code, response.json()["code"]) == (413, "too_many_files")
