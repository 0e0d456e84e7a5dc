"""Clients as hospitals have them, in their default configuration: every answer is right."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import needs
import numpy as np
import pytest
import requests
from conftest import ROOT
from images import dicom

PROGRAMS = ROOT / "tests" / "clients"
# Rows and columns of 16 bits: 24 kB, 66 kB, just over what is read at once, 1 MB and 13 MB
SHAPES = [(110, 110), (182, 182), (725, 725), (2828, 2320)]
IN_PARALLEL = 20

Lines = list[tuple[int, str]]  # status and body of each file


def program(name: str) -> str:
    """One that is installed, or that .ci/tools has fetched."""
    folder = os.environ.get("CXRVIEW_TOOLS")
    fetched = Path(folder, "clients", "bin", name) if folder else None
    found = str(fetched) if fetched and fetched.exists() else shutil.which(name)
    if found is None:
        pytest.skip(needs.TOOLS)
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines_of(output: str) -> Lines:
    split = (line.split("\t", 1) for line in output.splitlines())
    return [(int(status), body) for status, body in split]


def java(version: str) -> Callable[..., Lines]:
    def post(url: str, mode: str, files: list[Path], _: Path) -> Lines:
        return lines_of(run(program("java"), PROGRAMS / "Post.java", version, mode, url, *files))

    return post


def node(url: str, mode: str, files: list[Path], _: Path) -> Lines:
    return lines_of(run(program("node"), PROGRAMS / "post.mjs", mode, url, *files))


def go(url: str, mode: str, files: list[Path], _: Path) -> Lines:
    if shutil.which("go") is None:
        pytest.skip(needs.GO)
    return lines_of(run("go", "run", PROGRAMS / "post.go", mode, url, *files))


def curl(*options: str) -> Callable[..., Lines]:
    def post(url: str, mode: str, files: list[Path], folder: Path) -> Lines:
        outputs = [folder / f"answer-{number}" for number in range(len(files))]
        transfers = [
            f'url = "{url}"\ndata-binary = "@{file}"\noutput = "{output}"\n'
            'header = "Content-Type: application/dicom"\n'
            f'write-out = "%{{http_code}} {output}\\n"\n'
            for file, output in zip(files, outputs, strict=True)
        ]
        config = folder / "curl.config"
        common = [program("curl"), "--silent", "--show-error", *options]
        if mode == "parallel":
            common += ["--parallel", "--parallel-max", str(IN_PARALLEL)]
        said = ""
        for part in transfers if mode == "alone" else ["next\n".join(transfers)]:
            config.write_text(part)
            said += run(*common, "--config", config)
        statuses = {line.split(" ", 1)[1]: int(line.split()[0]) for line in said.splitlines()}
        return [(statuses[str(output)], output.read_text()) for output in outputs]

    return post


def each(mode: str, files: list[Path], post: Callable[[Path], tuple[int, str]]) -> Lines:
    with ThreadPoolExecutor(IN_PARALLEL if mode == "parallel" else 1) as threads:
        return list(threads.map(post, files))


def httpx(url: str, mode: str, files: list[Path], _: Path) -> Lines:
    def post(file: Path) -> tuple[int, str]:
        answer = httpx2.post if mode == "alone" else client.post
        found = answer(url, content=file.read_bytes(), timeout=60)
        return found.status_code, found.text

    with httpx2.Client() as client:
        return each(mode, files, post)


def python_requests(url: str, mode: str, files: list[Path], _: Path) -> Lines:
    def post(file: Path) -> tuple[int, str]:
        answer = requests.post if mode == "alone" else session.post
        with file.open("rb") as body:
            found = answer(url, data=body, timeout=60)
        return found.status_code, found.text

    with requests.Session() as session:
        return each(mode, files, post)


CLIENTS = {
    "java": java("default"),
    "java-http1": java("http1"),
    "curl": curl(),
    "curl-http2": curl("--http2"),
    "curl-expect": curl("--header", "Expect: 100-continue"),
    "node": node,
    "httpx": httpx,
    "requests": python_requests,
    "go": go,
}


@pytest.fixture(scope="module")
def service(start, light) -> Iterator[object]:
    """The usual limits, and patience with a slow machine."""
    update = {
        "max_upload_bytes": 2**26,
        "max_batch_body_bytes": 2**26,
        "max_held_bytes": 2**28,
        "max_queue_images": 256,
        "latency_budget_seconds": 120,
        "max_receive_idle_seconds": 60,
    }
    with start(light.model_copy(update=update)) as service:
        yield service


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """A file of each size with its SOP Instance UID, by which its answer is known."""
    folder, noise = tmp_path_factory.mktemp("radiographs"), np.random.default_rng(0)
    found = {}
    for number, shape in enumerate(SHAPES):
        uid = f"1.2.826.0.1.3680043.8.498.{number + 1}"
        file = folder / f"{number}.dcm"
        file.write_bytes(dicom(noise.integers(0, 4096, shape, dtype=np.uint16), SOPInstanceUID=uid))
        found[file] = uid
    return found


@pytest.mark.parametrize("mode", ["alone", "kept", "parallel"])
@pytest.mark.parametrize("client", CLIENTS)
def test_every_answer_is_that_of_the_file(
    service, radiographs: dict[Path, str], client: str, mode: str, tmp_path: Path
) -> None:
    """24 kB, 66 kB, 1 MB and 13 MB: each alone, on a kept connection, and 20 at once."""
    files = list(radiographs) * (IN_PARALLEL // len(SHAPES) if mode == "parallel" else 1)
    answers = CLIENTS[client](f"{service.url}/v1/classify", mode, files, tmp_path)
    assert [status for status, _ in answers] == [200] * len(files)
    uids = [json.loads(body)["sop_instance_uid"] for _, body in answers]
    assert uids == [radiographs[file] for file in files]


def test_a_client_that_insists_on_http_2_is_told(service, radiographs: dict[Path, str]) -> None:
    """With prior knowledge it sends no HTTP/1.1 at all: it gets an error, and no answer."""
    file = next(iter(radiographs))
    command = [program("curl"), "--silent", "--http2-prior-knowledge", "--data-binary", f"@{file}"]
    done = subprocess.run(
        [*command, f"{service.url}/v1/classify"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert "pfi" not in done.stdout
