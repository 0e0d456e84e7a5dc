"""The processing module of mercure, started as mercure does, beside a real service."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from archive_servers import free_port
from conftest import ROOT
from images import dicom, radiograph
from live import serving
from pydicom import uid

MODULE = ROOT / "deploy/mercure"


def processed(folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run the module on two images and one that is none."""
    source, target = folder / "in", folder / "out"
    source.mkdir()
    target.mkdir()
    task = {"info": {"uid": "1.2"}, "process": {"settings": settings}}
    (source / "task.json").write_text(json.dumps(task))
    (source / "1.2#a.dcm").write_bytes(dicom(radiograph(), ViewPosition="PA"))
    (source / "1.2#b.dcm").write_bytes(dicom(radiograph(), ViewPosition="LL"))
    ct = dicom(radiograph(), SOPClassUID=uid.CTImageStorage)
    (source / "1.2#c.dcm").write_bytes(ct)
    (source / "1.2#a.tags").write_text("{}")
    return subprocess.run(
        ["./docker-entrypoint.sh"],
        env=os.environ | {"MERCURE_IN_DIR": str(source), "MERCURE_OUT_DIR": str(target)},
        cwd=MODULE,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_module_passes_images_on_and_says_their_views(tmp_path: Path) -> None:
    """An image that cannot be classified has its problem, and does not stop the others."""
    with serving(tmp_path / "log", "--model", "swift/1.1.0") as live:
        run = processed(tmp_path, url=live.url)
    assert (run.returncode, run.stderr) == (0, "")
    result = json.loads((tmp_path / "out/result.json").read_text())
    images = result["images"]
    one, other, none = (images[f"1.2#{name}.dcm"] for name in "abc")
    assert one["view"] == other["view"]  # the same picture, so one of the headers is wrong
    assert {one["header"]["agrees"], other["header"]["agrees"]} == {True, False}
    assert none["code"] == "unsupported_sop_class"
    text = result["__mercure_notification"]["text"]
    assert text == f"2 {one['view']}; 1 with a wrong View Position"
    for image in (tmp_path / "in").glob("*.dcm"):
        assert (tmp_path / "out" / image.name).read_bytes() == image.read_bytes()


def test_a_service_that_is_away_fails_the_task(tmp_path: Path) -> None:
    """After the stated time; mercure shows the reason, and keeps the images."""
    run = processed(tmp_path, url=f"http://127.0.0.1:{free_port()}", wait_seconds=0)
    assert run.returncode == 1
    assert "cxrview does not answer" in run.stderr
    assert not list((tmp_path / "out").iterdir())
