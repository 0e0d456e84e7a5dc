"""Draw certificate.png, the picture in backfill-results.md: of the radiographs in tests/data.

python docs/certificate.py        needs Chromium
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from model_store import Store
from service.backfill.audit import PAGE, Known, audit
from service.backfill.files import publish, temporary
from service.backfill.rows import Row
from service.backfill.sinks import Parquet
from service.imaging import ImageError, read_radiograph
from service.inference import Network, open_network

HERE = Path(__file__).parent
IMAGES = HERE.parent / "tests" / "data"
CHROMIUM = "/usr/bin/chromium"
HEIGHT = 700  # of the page, in pixels


def main() -> None:
    """Classify, certify, and photograph the page."""
    network = open_network(Store().load("googlenet/1.0.0"))
    rows = [_row(path, network) for path in sorted(IMAGES.iterdir())]
    with tempfile.TemporaryDirectory() as folder:
        path = Parquet().path(Path(folder), datetime.now(UTC).date(), "1")
        part = Parquet().write_part(rows, path)
        publish(temporary(path))
        found = audit(Path(folder), Path(folder), Known(len(rows), [part]))
        assert found.valid, found.errors
        subprocess.run(
            [
                CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={folder}/browser", f"--window-size=794,{HEIGHT}",
                "--force-device-scale-factor=1.5", f"--screenshot={HERE / 'certificate.png'}",
                (Path(folder) / PAGE).as_uri(),
            ],
            check=True, capture_output=True,
        )  # fmt: skip


def _row(path: Path, network: Network) -> Row:
    card, data, start = network.version.card, path.read_bytes(), time.perf_counter()
    try:
        radiograph = read_radiograph(data, card.preprocess)
    except ImageError:
        # The only other file there is its ATTRIBUTION.md
        return Row(
            path.name, "skipped", "unrecognised_format", bytes=len(data), finished=datetime.now(UTC)
        )
    pfi = float(network.run(radiograph.tensor[np.newaxis])[0])
    decision, header = card.decide(pfi), radiograph.header
    return Row(
        path.name,
        "done",
        key=radiograph.sop_instance_uid or f"sha256:{hashlib.sha256(data).hexdigest()}",
        sop_instance_uid=radiograph.sop_instance_uid,
        format=radiograph.format,
        transfer_syntax=radiograph.transfer_syntax,
        view=decision.view,
        pfi=pfi,
        threshold=card.threshold,
        review=decision.review,
        view_position=header and header.view_position,
        view_position_agrees=header and header.agrees(decision.view),
        warnings=" ".join(radiograph.warnings),
        bytes=len(data),
        seconds=time.perf_counter() - start,
        finished=datetime.now(UTC),
        model=network.version.reference,
        model_sha256=card.model_sha256,
    )


if __name__ == "__main__":
    main()
