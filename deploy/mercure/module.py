"""Processing module of mercure: asks cxrview for the view of each image, and passes images on.

    python module.py IN OUT

IN has the images of a series or study, as mercure names them (SERIES#FILE.dcm), and task.json. Its
process.settings are `url` (of cxrview), `key` (if it asks for one) and `wait_seconds`. OUT gets the
images, unchanged, and result.json.
"""

import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

WAIT_SECONDS = 300  # for a service that is full or away
PAUSE_SECONDS = 2


def main(source: Path, target: Path) -> int:
    """Classify all images; returns 1 if the service gave no answer to one of them."""
    task = json.loads((source / "task.json").read_text())
    settings = (task.get("process") or {}).get("settings") or {}
    images = sorted(source.glob("*.dcm"))
    answers = {}
    for image in images:
        try:
            answers[image.name] = answer_of(image.read_bytes(), settings)
        except OSError as error:
            sys.stderr.write(f"cxrview does not answer: {error}\n")
            return 1
    for image in images:
        shutil.copy(image, target)
    result = {"images": answers, "__mercure_notification": {"text": summary(answers)}}
    (target / "result.json").write_text(json.dumps(result, indent=1))
    return 0


def answer_of(data: bytes, settings: "dict[str, Any]") -> "dict[str, Any]":
    """The answer of cxrview, or its problem if the image cannot be classified."""
    headers = {"Content-Type": "application/dicom"}
    if settings.get("key"):
        headers["Authorization"] = f"Bearer {settings['key']}"
    url = f"{settings['url'].rstrip('/')}/v1/classify"
    deadline = time.monotonic() + float(settings.get("wait_seconds", WAIT_SECONDS))
    while True:
        request = urllib.request.Request(url, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code in {413, 415, 422}:
                return json.load(error)
            if time.monotonic() > deadline or error.code in {401, 403, 404}:
                raise
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_SECONDS)


def summary(answers: "dict[str, dict[str, Any]]") -> str:
    """One line for mercure's notification; it names no patient."""
    found = [answer for answer in answers.values() if "view" in answer]
    views = [answer["view"] for answer in found]
    counts = ", ".join(f"{views.count(view)} {view}" for view in sorted(set(views)))
    wrong = sum((answer.get("header") or {}).get("agrees") is False for answer in found)
    return f"{counts or 'no chest radiograph'}; {wrong} with a wrong View Position"


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:3])))
