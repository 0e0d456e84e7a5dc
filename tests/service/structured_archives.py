"""Write zips and tars whose headers are well formed and lie, and read them as the service does.

    python tests/service/structured_archives.py --cases 2000 --seed 1

Each holds honest files between what lies. A case fails if anything but an UploadError comes of it,
an honest file is lost, the service and a backfill disagree, it keeps the processor busy for more
than SECONDS, or it needs more than LIMIT_BYTES beyond its body. The exit status is then 1.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from service.backfill.results.rows import ItemError, SourceError
from service.backfill.sources import open_source
from service.uploads.archives import ArchiveLimits, read_archive
from service.uploads.upload import UploadError

sys.path.insert(0, str(Path(__file__).parent.parent))
from pax import record  # pytest is not there to find it

SECONDS = 2.0
LIMIT_BYTES = 600 * 10**6
LIMITS = ArchiveLimits(10_000, 64 * 2**20, 200, 2 * 2**30)
HONEST = random.Random(0).randbytes(3000)
NUMBERS = [0, 1, 2, 511, 512, 513, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
WIDE_NUMBERS = [*NUMBERS, 2**33, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
NAMES = [
    *(b"x.jpg", b"", b"/", b"..", b"../x", b"/x", b"C:\\x", b"\\\\host\\x", b"a/../../x", b"x/"),
    *(b"\0x", b"x\0y", b"\xff\xfe", b"\x1b[2J", b"\r\n", "ü.jpg".encode(), "ü".encode("latin-1")),
    *(b"a/" * 2000, b"n" * 5000, b"PK\x01\x02", b"ustar", b"\xed\xb2\x80", b"%00", b"."),
]


class Tar:
    """A tar that grows header by header."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.bytes = bytearray()

    def add(self, name: bytes, kind: bytes, data: bytes, size: bytes | None = None) -> None:
        """A header whose checksum is right, whatever else it says; and what follows it."""
        block = bytearray(512)
        block[: min(len(name), 100)] = name[:100]
        block[100:124] = b"0000644\0" + b"0000000\0" * 2
        block[124:136] = size or b"%011o\0" % len(data)
        block[136:148] = b"00000000000\0"
        block[148:157] = b" " * 8 + kind
        block[257:265] = self.rng.choice([b"ustar\x0000", b"ustar\x0000", b"ustar  \0", bytes(8)])
        if not self.bytes:
            block[257:262] = b"ustar"
        if kind == b"S":
            block[482] = self.rng.choice([0, 1])
        block[148:156] = b"%06o\0 " % sum(block)
        self.bytes += block + data + bytes(-len(data) % 512)

    def lie(self) -> None:
        """An entry, or what belongs before one."""
        rng = self.rng
        data = rng.randbytes(rng.choice([0, 1, 511, 512, 513, 5000]))
        choice = rng.randrange(6)
        if choice == 0:
            self.add(rng.choice(NAMES), bytes([rng.randrange(256)]), data)
        elif choice == 1:
            self.add(
                rng.choice(NAMES), rng.choice([b"0", b"\0", b"7", b"S", b"x"]), data, number(rng)
            )
        elif choice == 2:
            for _ in range(rng.choice([1, 2, 17, 3000])):
                self.add(b"long", rng.choice([b"L", b"K"]), rng.choice(NAMES))
        elif choice == 3:
            for _ in range(rng.choice([1, 1, 2, 20, 1500])):
                self.add(b"pax", rng.choice([b"x", b"x", b"X", b"g"]), pax(rng))
        elif choice == 4:
            digit = rng.choice([b"1", b"9", b" ", b"0", b"1 ", b"4 =\n", b"\0"])
            self.add(b"pax", b"x", digit * rng.choice([10, 10_000, 10**6]))
        else:
            sizes = b"".join(
                b"%d\n" % rng.choice(WIDE_NUMBERS) for _ in range(rng.choice([3, 900]))
            )
            self.add(b"pax", b"x", b"".join(record(*pair) for pair in sparse(rng)))
            self.add(b"x", b"0", sizes)


def number(rng: random.Random) -> bytes:
    """A size field that is one, or only looks like it."""
    value = rng.choice(WIDE_NUMBERS)
    return rng.choice(
        [
            b"%011o\0" % (value % 8**11),
            b"\x80" + value.to_bytes(11, "big"),
            b"\xff" + (-value % 2**88).to_bytes(11, "big"),
            b"-0000000001\0",
            b"0o777      \0",
            b"1_0        \0",
            b"99999999999\0",
            bytes(12),
            b" " * 12,
            rng.randbytes(12),
        ]
    )


def pax(rng: random.Random) -> bytes:
    """Records, some of which lie about their length."""
    records = []
    for _ in range(rng.choice([1, 2, 5, 300])):
        key = rng.choice([b"path", b"size", b"linkpath", b"hdrcharset", b"mtime", b"GNU.sparse.x"])
        values = [b"", b"-1", b"9" * 5000, b"1e9", b"BINARY", b"0x10", "٣".encode(), b"a=b\nc"]
        whole = record(key, rng.choice([*values, *NAMES, b"%d" % rng.choice(WIDE_NUMBERS)]))
        if rng.random() < 0.1:
            whole = rng.choice([b"0", b"-5", b"9" * 30, b"", b"\xb2"]) + whole
        records.append(whole)
    return b"".join(records)


def sparse(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """The maps that GNU tar has had."""
    form = rng.choice([b"0", b"1"])
    yield b"GNU.sparse.major", form
    yield b"GNU.sparse.minor", rng.choice([b"0", b"1", b"x"])
    yield b"GNU.sparse.name", rng.choice(NAMES)
    yield b"GNU.sparse.realsize", b"%d" % rng.choice(WIDE_NUMBERS)
    yield b"GNU.sparse.map", b",".join(b"%d" % n for n in rng.choices(WIDE_NUMBERS, k=400))
    for _ in range(rng.choice([1, 200])):
        yield b"GNU.sparse.offset", b"%d" % rng.choice(WIDE_NUMBERS)
        yield b"GNU.sparse.numbytes", rng.choice([b"1", b"-1", b"x"])


def tar(rng: random.Random) -> bytes:
    """Honest files, and what lies between them; sometimes cut off."""
    made = Tar(rng)
    made.add(b"honest", b"0", HONEST)
    for _ in range(rng.choice([1, 1, 2, 5])):
        made.lie()
    made.add(b"last", b"0", HONEST)
    made.bytes += rng.choice([bytes(1024), bytes(512), b"", b"x" * 700])
    return bytes(made.bytes[: rng.choice([None, None, None, len(made.bytes) - 513])])


class Record(NamedTuple):
    """An entry of a zip: what its header and the directory say of it."""

    local: dict[str, int | bytes]
    central: dict[str, int | bytes]
    data: bytes
    offset: int | None = None  # None: where it is


def said(data: bytes, packed: bytes, name: bytes) -> dict[str, int | bytes]:
    """The truth of an entry."""
    return {
        "version": 20,
        "flags": 0,
        "method": 8 if len(packed) != len(data) else 0,
        "crc": zlib.crc32(data),
        "packed": len(packed),
        "size": len(data),
        "name": name,
        "extra": b"",
        "comment": b"",
        "system": 3,
        "mode": 0,
    }


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


BOMB = bytes(100 * 2**20)
BOMB_PACKED = deflated(BOMB)


def liar(rng: random.Random) -> Record:
    """An entry that is honest but for one to three things."""
    data = rng.choice([b"", b"x", HONEST, HONEST[:100] * 50])
    packed = deflated(data) if rng.random() < 0.5 else data
    if rng.random() < 0.05:
        data, packed = BOMB, BOMB_PACKED
    local = said(data, packed, rng.choice(NAMES[:1] * 5 + NAMES))
    central, offset = dict(local), None
    for _ in range(rng.choice([1, 1, 2, 3])):
        target = rng.choice([local, central, central])
        key = rng.choice([*target, "offset"])
        if key == "offset":
            offset = rng.choice([*NUMBERS, *range(0, 7000, 500)])
        elif key in {"flags", "method", "version"}:
            target[key] = rng.choice([1 << rng.randrange(16), rng.randrange(100)])
        elif key == "mode":
            target[key] = rng.randrange(2**16) << 16
        elif key == "extra":
            target[key] = extra(rng)
            central["packed"] = rng.choice([central["packed"], 2**32 - 1])
            offset = rng.choice([offset, 2**32 - 1])
        elif key in {"name", "comment"}:
            target[key] = rng.choice(NAMES)
        else:
            target[key] = rng.choice(NUMBERS) % (256 if key == "system" else 2**32)
    return Record(local, central, packed, offset)


def extra(rng: random.Random) -> bytes:
    """Extra fields, of zip64 and others, whole or not."""
    numbers = [rng.choice(WIDE_NUMBERS) for _ in range(rng.randrange(4))]
    wide = struct.pack(f"<{len(numbers)}Q", *numbers)
    length = rng.choice([len(wide), len(wide), 0, 7, 65535])
    field = struct.pack("<HH", rng.choice([1, 1, 1, 0x7075, 0x9901]), length) + wide
    return rng.choice([field, field * 3, struct.pack("<HH", 9, 0) * 16_000 + field, field[:3]])[
        :65535
    ]


LOCAL = ("version", "flags", "method", "time", "date", "crc", "packed", "size")


def written(records: list[Record]) -> tuple[bytearray, bytearray]:
    """The entries, and their directory."""
    body, directory = bytearray(), bytearray()
    for each in records:
        at = len(body) if each.offset is None else each.offset
        here, there = each.local | {"time": 0, "date": 0}, each.central | {"time": 0, "date": 0}
        body += struct.pack(
            "<4s5HIIIHH",
            b"PK\3\4",
            *(here[key] for key in LOCAL),
            len(here["name"]),
            len(here["extra"]),
        )  # type: ignore[arg-type]
        body += here["name"] + here["extra"] + each.data  # type: ignore[operator]
        directory += struct.pack(
            "<4sBB5HIIIHHHHHII",
            b"PK\1\2",
            20,
            there["system"],
            *(there[key] for key in LOCAL),
            *(len(there[key]) for key in ("name", "extra", "comment")),  # type: ignore[arg-type]
            0,
            0,
            there["mode"],
            at,
        )
        directory += there["name"] + there["extra"] + there["comment"]  # type: ignore[operator]
    return body, directory


def zipped(rng: random.Random, lies: bool) -> bytes:
    """Honest files among those that lie, and an end of the directory that may do so, too."""
    truth = [said(HONEST, HONEST, name) for name in (b"honest", b"last")]
    first, last = (Record(each, each, HONEST) for each in truth)
    copies = rng.choice([1, 1, 1, 2, 300])
    body, directory = written([first, *[liar(rng)] * copies, *map(liar, [rng] * 2), last])
    count, size, start = copies + 4, len(directory), len(body)
    if lies:
        count, size, start = (rng.choice([n, n, rng.choice(NUMBERS)]) for n in (count, size, start))
    comment = rng.choice([b"", b"", b"PK\5\6" * 16_000, b"PK\6\7" * 9])
    body += directory
    if lies and rng.random() < 0.5:
        wide = (rng.choice([n, rng.choice(WIDE_NUMBERS)]) for n in (count, size, start))
        place = len(body)
        body += struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, *wide)
        body += struct.pack("<4sIQI", b"PK\6\7", 0, place, 1)
    body += struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count % 2**16, count % 2**16,
                        size % 2**32, start % 2**32, len(comment)) + comment  # fmt: skip
    return bytes(body)


def made(case: int, seed: int) -> tuple[str, bytes, set[str]]:
    """The archive of this number, its kind, and which entries must be answered."""
    rng = random.Random(f"{seed} {case}")
    if case % 2:
        return "tar", tar(rng), {"honest"}
    lies = rng.random() < 0.3
    return "zip", zipped(rng, lies), set() if lies else {"honest", "last"}


def answers(body: bytes) -> tuple[dict[str, str], str]:
    """The code of each entry, `whole` where it is answered; and how the archive ends."""
    found: dict[str, str] = {}
    try:
        for upload in read_archive(body, LIMITS):
            code = upload.error.code if upload.error else "whole"
            if upload.name in {"honest", "last"} and not upload.error:
                assert upload.data == HONEST
            upload.name.encode()
            found.setdefault(upload.name, code)
    except UploadError as error:
        return found, error.code
    return found, "end"


def outcomes(path: Path) -> tuple[dict[str, str], str]:
    """The same of a backfill."""
    found: dict[str, str] = {}
    end = "end"
    source = open_source(str(path))
    locators: list[str] = []
    try:
        locators.extend(source.find())
    except SourceError:
        end = "damaged"
    for locator in locators[:2000]:
        try:
            source.read(locator)
            found[locator] = "whole"
        except ItemError as error:
            found[locator] = error.code
    source.close()
    return found, end


def verdict(kind: str, body: bytes, sound: set[str], path: Path) -> str:
    """How the archive ends; a text that begins with `FAILED` where it must not."""
    path.write_bytes(body)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before, start = memory("VmRSS"), time.process_time()
    found, end = answers(body)
    seconds, extra_bytes = time.process_time() - start, memory("VmHWM") - before
    others, other_end = outcomes(path)
    WORST["seconds"] = max(WORST["seconds"], seconds)
    WORST["bytes"] = max(WORST["bytes"], extra_bytes)
    if seconds > SECONDS or extra_bytes > LIMIT_BYTES:
        return f"FAILED: {seconds:.1f} s, {extra_bytes} bytes"
    if lost := {name for name in sound if found.get(name) != "whole"} - UNLESS.get(end, set()):
        return f"FAILED: {end}, and lost are {lost}"
    if end not in UNLESS and (other_end == "end") != (end == "end"):
        return f"FAILED: the service says {end}, a backfill {other_end}"
    if end not in UNLESS and others.get("honest") != found.get("honest"):
        return f"FAILED: {found.get('honest')} in the service, {others.get('honest')} in a backfill"
    return f"{kind}: {end}, the last file {'answered' if found.get('last') == 'whole' else 'not'}"


# Limits of an upload, not of a backfill; some end the answer before it begins
UNLESS = {"archive_too_large": {"last"}, "too_many_files": {"honest", "last"}}
WORST = {"seconds": 0.0, "bytes": 0}


def memory(key: str) -> int:
    """Bytes of this process, by the kernel's account."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main() -> int:
    """Run the cases; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    limit = memory("VmSize") + 2 * LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for case in range(arguments.first, arguments.first + arguments.cases):
            kind, body, sound = made(case, arguments.seed)
            line = verdict(kind, body, sound, Path(folder, f"case.{kind}"))
            if line.startswith("FAILED"):
                print(f"case {case}, a {kind} of {len(body)} bytes: {line}", flush=True)
                line = "FAILED"
            counted[line] += 1
    for line, count in counted.most_common():
        print(f"{count:7} {line}")
    print(f"worst: {WORST['seconds']:.2f} s of processor time, {WORST['bytes'] / 1e6:.0f} MB")
    return int("FAILED" in counted)


if __name__ == "__main__":
    sys.exit(main())
