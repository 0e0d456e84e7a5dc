"""Damage real files of every format, and read them: nothing comes of it but answers and refusals.

    python tests/service/fuzz.py --cases 20000 --seed 1
    python tests/service/fuzz.py --cases 2000 --structured

The latter reads files of right structure and hostile numbers instead, see hostile.py.
A case fails if it raises anything but an ImageError, keeps the processor busy for more than
SECONDS, ends its process, or needs more than LIMIT_BYTES beyond what that has. Its file is then
kept in the folder `--keep`, and the exit status is 1. test_fuzz.py runs a few of them.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import resource
import signal
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from model_store import PreprocessSpec
from service.imaging import ImageError, read_radiograph

sys.path.insert(0, str(Path(__file__).parent.parent))
from hostile import hostile
from images import CODECS, NATIVE, dicom, jpeg, png, tiff  # pytest is not there to find it

Case = tuple[str, bytes, PreprocessSpec]  # what it was made of, the file, for which network

DATA = Path(__file__).parent.parent / "data"
SECONDS = 2.0
LIMIT_BYTES = 600 * 10**6
FAILED = "FAILED"
FILES = {
    "JPEG-12": uid.JPEGExtended12Bit,
    "JPEG-lossless": uid.JPEGLosslessSV1,
    "JLS": uid.JPEGLSLossless,
    "J2K": uid.JPEG2000Lossless,
}
SPECS = [PreprocessSpec(size=size) for size in (32, 96, 256)]
SIZES = [0, 1, 2, 3, 7, 8, 31, 32, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**32 - 1]
STRUCTURE = [  # what sizes and kinds stand behind
    *(struct.pack("<HH", group, element) for group in (0x28,) for element in (2, 4, 8, 0x10, 0x11)),
    *(struct.pack("<HH", 0x28, element) for element in (0x100, 0x101, 0x102, 0x103, 0x120)),
    struct.pack("<HH", 0x54, 0x220),
    b"\xe0\x7f\x10\x00",
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\xdd\xe0",
    *(bytes([0xFF, marker]) for marker in (0x4F, 0x51, 0x52, 0x5C, 0x90, 0x93, 0xC0, 0xC1, 0xC2)),
    *(bytes([0xFF, marker]) for marker in (0xC3, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xF7, 0xF8)),
    b"IHDR",
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"acTL",
]


def real_files() -> dict[str, bytes]:
    """A real radiograph in every format and transfer syntax, and objects as they were found."""
    picture = Image.open(DATA / "frontal-0048.jpg").convert("L").resize((184, 200))
    eight = np.asarray(picture)
    twelve = (eight.astype(np.uint16) << 4) + np.random.default_rng(0).integers(
        0, 16, eight.shape
    ).astype(np.uint16)
    colour = np.stack([eight] * 3, axis=2)
    files = {"PNG16": png(twelve << 4), "PNG8": png(eight), "PNG-RGB": png(colour)}
    files |= {"JPEG": jpeg(eight), "JPEG-RGB": jpeg(colour), "PNG-palette": palette(picture)}
    files |= {"JPEG-progressive": progressive(picture)}
    files |= {"TIFF": tiff(twelve << 4), "TIFF-LZW": tiff(twelve, compression=5, piece=(16, 0))}
    files["TIFF-tiled"] = tiff(eight, order=">", compression=8, piece=(64, 64), tiled=True)
    for name, syntax in FILES.items():
        files[name] = bytes(CODECS[syntax](twelve, 12))
    for syntax in (*NATIVE, uid.RLELossless, *CODECS):
        values = eight if syntax == uid.JPEGBaseline8Bit else twelve
        files[uid.UID(syntax).keyword] = dicom(values, syntax)
    files["RGB"] = dicom(colour)
    files["RGB-RLE"] = dicom(colour, uid.RLELossless)
    files["padded"] = dicom(twelve, uid.JPEG2000Lossless, PixelPaddingValue=0)
    for syntax in NATIVE:
        files[f"says much, {uid.UID(syntax).keyword}"] = dicom(twelve, syntax, **much())
    lut = pydicom.dcmread(get_testdata_file("mlut_18.dcm", download=False)).ModalityLUTSequence
    files["lut"] = dicom(eight, ModalityLUTSequence=lut)
    for name in ("OBXXXX1A_rle", "explicit_VR-UN", "JPEG-LL", "bad_sequence"):
        files[name] = Path(get_testdata_file(f"{name}.dcm", download=False)).read_bytes()
    return {name: data for name, data in files.items() if len(data) < 2 * 10**6}


def much() -> dict[str, Any]:
    """Attributes of which the pixels know nothing: character sets, dates, codes within codes."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = "399348003", "SCT"
    item.ViewModifierCodeSequence = Sequence([Dataset()])
    item.is_undefined_length_sequence_item = True
    codes = DataElement(Tag("ViewCodeSequence"), "SQ", Sequence([item]), is_undefined_length=True)
    return {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "StudyDate": "20190228",
        "AcquisitionDate": "00000000",
        "StationName": "A室1",
        "StudyInstanceUID": "1.2.3",
        "PatientOrientation": ["L", "F"],
        "ViewCodeSequence": codes,
    }


def palette(picture: Image.Image) -> bytes:
    """A PNG with a palette."""
    buffer = io.BytesIO()
    picture.convert("P").save(buffer, "PNG")
    return buffer.getvalue()


def progressive(picture: Image.Image) -> bytes:
    """A JPEG in several scans."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", progressive=True)
    return buffer.getvalue()


def flip(data: bytearray, rng: random.Random) -> None:
    """Other bytes, in the header twice out of three times."""
    end = len(data) if rng.random() < 1 / 3 else min(len(data), 1500)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        data[rng.randrange(end)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])


def truncate(data: bytearray, rng: random.Random) -> None:
    """An end too soon."""
    del data[rng.randrange(1, len(data)) :]


def remove(data: bytearray, rng: random.Random) -> None:
    """A hole."""
    at = rng.randrange(len(data))
    del data[at : at + rng.choice([1, 2, 8, 100, 5000])]


def repeat(data: bytearray, rng: random.Random) -> None:
    """A part of it twice, or many times."""
    at = rng.randrange(len(data))
    part = data[at : at + rng.choice([1, 2, 4, 8, 64, 1000])]
    data[at:at] = part * rng.choice([1, 1, 2, 50])


def splice(data: bytearray, rng: random.Random) -> None:
    """A part of it in place of another."""
    source, target = rng.randrange(len(data)), rng.randrange(len(data))
    length = rng.choice([2, 4, 8, 32, 500])
    data[target : target + length] = data[source : source + length]


def lie(data: bytearray, rng: random.Random) -> None:
    """Another number within or behind something that says how the rest is to be read."""
    places = [at for key in rng.sample(STRUCTURE, 8) if (at := data.find(key)) >= 0]
    at = rng.choice(places or [0]) + rng.randrange(2, 40)
    form = rng.choice(["<H", ">H", "<I", ">I", "B"])
    number = rng.choice(SIZES) % 256 ** struct.calcsize(form)
    if at + struct.calcsize(form) <= len(data):
        struct.pack_into(form, data, at, number)


MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [
    flip,
    flip,
    lie,
    lie,
    truncate,
    remove,
    repeat,
    splice,
]


def structured(case: int, seed: int) -> Case:
    """The case of this number of the other kind."""
    name, data = hostile(case, seed)
    return name, data, SPECS[case % len(SPECS)]


def mutated(files: dict[str, bytes], case: int, seed: int) -> Case:
    """The case of this number."""
    rng = random.Random(f"{seed} {case}")
    name = sorted(files)[case % len(files)]
    data = bytearray(files[name])
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if data:
            rng.choice(MUTATIONS)(data, rng)
    return name, bytes(data), rng.choice(SPECS)


def outcome(data: bytes, spec: PreprocessSpec) -> str:
    """The code of a refusal, or that it was answered; anything else is an error of ours."""
    before = reset_peak()
    try:
        radiograph = read_radiograph(data, spec)
    except ImageError as error:
        answer = error.code
    except Exception as error:  # noqa: BLE001  # what the script is looking for
        return f"{FAILED}: {type(error).__name__}: {error}"
    else:
        assert radiograph.tensor.shape == (1, spec.size, spec.size)
        answer = "answered, by another decoder" if radiograph.fallbacks else "answered"
    extra = memory("VmHWM") - before
    return answer if extra <= LIMIT_BYTES else f"{FAILED}: {extra} bytes of memory"


def reset_peak() -> int:
    """Count the peak anew; what is in use already."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(key: str) -> int:
    """Bytes of this process, by the kernel's account."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def run(make: Callable[[int], Case], cases: range) -> Iterator[tuple[int, str]]:
    """Each case and its outcome, in child processes that replace each other when they die."""
    at = cases.start
    while at < cases.stop:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            report(make, range(at, cases.stop), writer)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as lines:
            for line in lines:
                yield at, line.rstrip("\n")
                at += 1
        _, status = os.waitpid(child, 0)
        if at < cases.stop:
            reason = signal.Signals(status).name if status in set(signal.Signals) else str(status)
            yield at, f"{FAILED}: {'SIGPROF, a hang' if reason == 'SIGPROF' else reason}"
            at += 1


def report(make: Callable[[int], Case], cases: range, writer: int) -> None:
    """Write a line for each case; the kernel ends this process where one takes too long."""
    limit = memory("VmSize") + 4 * LIMIT_BYTES  # what makes the case takes some, too
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for case in cases:
        _, data, spec = make(case)
        # Not caught, these signals end even C code that never returns
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of processor time
        signal.setitimer(signal.ITIMER_REAL, 30 * SECONDS)  # and if it waits for ever
        line = outcome(data, spec).replace("\n", " ")
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(writer, f"{line}\n".encode())


def main() -> int:
    """Run the cases; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="for such files")
    parser.add_argument("--structured", action="store_true", help="hostile numbers, see above")
    arguments = parser.parse_args()
    files = {} if arguments.structured else real_files()

    def make(case: int) -> Case:
        if arguments.structured:
            return structured(case, arguments.seed)
        return mutated(files, case, arguments.seed)

    found: Counter[str] = Counter()
    for case, result in run(make, range(arguments.cases)):
        found[result] += 1
        if result.startswith(FAILED):
            name, data, spec = make(case)
            arguments.keep.mkdir(exist_ok=True)
            path = arguments.keep / f"{arguments.seed}-{case}-{name}-{spec.size}"
            path.write_bytes(data)
            print(f"{result}\n  kept as {path}", flush=True)
    for result, count in found.most_common():
        print(f"{count:7} {result}")
    return int(any(result.startswith(FAILED) for result in found))


if __name__ == "__main__":
    sys.exit(main())
