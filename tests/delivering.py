"""Delivers what an outbox holds until it is killed: outbox URL, file of destinations, clock."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from service.dicom.delivery import Deliveries
from service.dicom.destinations import read_destinations
from service.dicom.outbox import Outbox


def main() -> None:
    """The clock is so many seconds ahead: leases of processes that were killed have expired."""
    url, file, ahead = sys.argv[1:]

    def now() -> float:
        return time.time() + float(ahead)

    deliveries = Deliveries(Outbox(url, now), read_destinations(Path(file)), lambda *_: None, now)
    deliveries.start()
    print("delivering", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
