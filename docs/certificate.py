"""Draw certificate.png, the picture in backfill-results.md: of the radiographs in tests/data.

python docs/certificate.py        needs Chromium and the extra `dev`
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from service.backfill.report.write import PAGE
from service.cli import main as cxrview

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser import chromium

HERE = Path(__file__).parent
IMAGES = HERE.parent / "tests" / "data"
HEIGHT = 740  # of the page, in pixels


def main() -> None:
    """Classify, certify, and photograph the page."""
    with tempfile.TemporaryDirectory() as folder:
        assert cxrview(["backfill", str(IMAGES), f"--out={folder}/out"]) == 0
        subprocess.run(
            [
                chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={folder}/browser", f"--window-size=794,{HEIGHT}",
                "--force-device-scale-factor=1.5", f"--screenshot={HERE / 'certificate.png'}",
                (Path(folder) / "out" / PAGE).as_uri(),
            ],
            check=True, capture_output=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
