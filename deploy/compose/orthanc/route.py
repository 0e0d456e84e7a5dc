"""Orthanc plugin: sends each new radiograph to cxrview by STOW-RS, until cxrview has it.

It follows Orthanc's list of changes, and keeps its place in Orthanc's database. So nothing is lost
if cxrview is away or full, or if Orthanc is restarted. What Orthanc has before the plugin is loaded
for the first time is not sent: that is the work of a backfill. Only the standard library is used.

It cannot send by C-STORE: Orthanc does not tell a script whether a failure is for ever.
"""

import json
import os
import threading
import time
import urllib.error
import urllib.request

import orthanc

# The lane of images that a person waits for; without it, other images come first
URL = os.environ.get("ROUTE_URL", "http://cxrview:8000") + "/dicom-web/studies?lane=interactive"
KEY = os.environ.get("ROUTE_KEY", "")
# CR, DX and Secondary Capture. A report is none of these, so the results of cxrview are not sent
# back to it
RADIOGRAPHS = {
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
    "1.2.840.10008.5.1.4.1.1.7.4",
}
PLACE = 4711  # number of the property in Orthanc's database; those of users begin at 1024
REFUSED = {409, 413, 415}  # this image can never be classified; any other error is temporary
IDLE_SECONDS, FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1, 1, 60

LOADED = time.strftime("%Y%m%dT%H%M%S", time.gmtime())  # as Orthanc writes the dates of changes
stopping = threading.Event()


def follow() -> None:
    """Send what is new, in its order, until Orthanc stops."""
    place = int(orthanc.GetGlobalProperty(PLACE, "") or begin())
    while not stopping.is_set():
        found = json.loads(orthanc.RestApiGet(f"/changes?since={place}&limit=100"))
        for change in found["Changes"]:
            if change["ChangeType"] == "NewInstance" and not send(change["ID"]):
                return
            place = change["Seq"]
            orthanc.SetGlobalProperty(PLACE, str(place))
        if found["Done"]:
            stopping.wait(IDLE_SECONDS)


def begin() -> int:
    """The last change before the plugin was loaded, which becomes the place."""
    place, done = 0, False
    while not done:
        found = json.loads(orthanc.RestApiGet(f"/changes?since={place}&limit=1000"))
        older = [change["Seq"] for change in found["Changes"] if change["Date"] < LOADED]
        place = max(older, default=place)
        done = found["Done"] or len(older) < len(found["Changes"])
    orthanc.SetGlobalProperty(PLACE, str(place))
    return place


def send(instance: str) -> bool:
    """Send one instance, if it is a radiograph; False if Orthanc stops before that is done."""
    try:
        if sop_class(instance) not in RADIOGRAPHS:
            return True
        data = orthanc.RestApiGet(f"/instances/{instance}/file")
    except orthanc.OrthancException:
        return True  # it was deleted meanwhile
    wait = FIRST_WAIT_SECONDS
    while not stopping.is_set():
        error = post(data)
        if error is None:
            return True
        orthanc.LogWarning(f"cxrview does not have {instance} yet: {error}")
        stopping.wait(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)
    return False


def sop_class(instance: str) -> str:
    """The SOP Class UID of an instance."""
    return orthanc.RestApiGet(f"/instances/{instance}/metadata/SopClassUid").decode()


def post(data: bytes) -> "str | None":
    """Send one file; returns why it has to be sent again, or None."""
    headers = {"Content-Type": "application/dicom", "Accept": "application/dicom+json"}
    if KEY:
        headers["Authorization"] = f"Bearer {KEY}"
    try:
        with urllib.request.urlopen(urllib.request.Request(URL, data, headers), timeout=120):
            return None
    except urllib.error.HTTPError as error:
        if error.code not in REFUSED:
            return f"it answers {error.code}"
        orthanc.LogWarning(f"cxrview cannot classify an image: {error.code}")
        return None
    except OSError as error:
        return f"it does not answer ({type(error).__name__})"


worker = threading.Thread(target=follow, name="cxrview")


def changed(kind: int, _level: int, _resource: str) -> None:
    """Begin and end with Orthanc."""
    if kind == orthanc.ChangeType.ORTHANC_STARTED:
        worker.start()
    elif kind == orthanc.ChangeType.ORTHANC_STOPPED:
        stopping.set()
        worker.join()


orthanc.RegisterOnChangeCallback(changed)
