"""What a PACS renders, against what it stores: does the model see the same view?

    python benchmarks/rendered.py RADIOGRAPHS [--images 504] [--out rendered.json]
    python benchmarks/rendered.py --address https://pacs/dicom-web --since 2024-01-01 [--images 500]

RADIOGRAPHS is a zip with manifest.csv beside it, or a folder of JPEGs whose names begin with their
view: they are stored in an Orthanc that is started, as several kinds of DICOM objects. With
`--address` a sample of your own archive is compared instead; nothing is stored there, and no
identifier is printed or written.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from agreement import Agreement, Cost, Result, merged, tables
from kinds import KINDS, ROOT, SHOWN_OF, Radiograph, objects, orthanc, radiographs

from model_store import Store
from service.backfill.results.rows import ItemError, SourceError
from service.backfill.sources import OptionsError, open_source
from service.backfill.sources.dicomweb import DicomwebSource
from service.backfill.sources.rendered import is_squeezed
from service.imaging import ImageError, read_radiograph
from service.inference import Network, open_network

MODELS = ("googlenet/1.0.0", "swift/1.0.0")
DEFAULT = (512, "png")
WAYS = (DEFAULT, (256, "png"), (512, "jpeg"))
MANY_WAYS = ("12 bit",)  # kinds of which all ways are tried
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
Way = tuple[int, str]  # pixels of the shorter side, format
FREE = {"since": "2024-05-01", "until": "2024-05-01", "requests_per_second": 1e6}


class Pair(NamedTuple):
    """The paths of an image."""

    stored: str
    picture: str
    distrusted: bool = False  # the source would not ask for the picture
    view: str | None = None  # its label


class Seen(NamedTuple):
    """An image that was read in one way."""

    data: memoryview
    pfis: list[float]  # of each model
    seconds: float  # of reading it, and decoding it once


class Comparison:
    """Reads each image in both ways, and asks each model for both."""

    def __init__(self) -> None:
        self.versions = [Store().load(name) for name in MODELS]
        self._networks: list[Network] = [open_network(version) for version in self.versions]
        self._known: dict[tuple[int, bytes], float] = {}  # the same pixels have the same answer
        self.agreements: dict[tuple[str, Way, str], Agreement] = defaultdict(Agreement)
        self.costs: dict[tuple[str, Way], Cost] = defaultdict(Cost)

    def compare(self, kind: str, pair: Pair, way: Way, source: DicomwebSource) -> None:
        """One image: as it is stored, and as it is rendered in one way."""
        cost = self.costs[kind, way]
        try:
            stored = self._seen(source.read, pair.stored)
            picture = self._seen(source.picture, pair.picture)
        except (ItemError, ImageError) as error:
            cost.refused[error.code if isinstance(error, ItemError) else type(error).__name__] += 1
            return
        cost.read_as_stored += pair.distrusted or is_squeezed(picture.data)
        for name, seen in (("stored", stored), ("rendered", picture)):
            cost.sizes[name].append(len(seen.data))
            cost.seconds[name].append(seen.seconds)
        for version, *pfis in zip(self.versions, stored.pfis, picture.pfis, strict=True):
            self.agreements[kind, way, version.reference].add(version, *pfis, pair.view)

    def _seen(self, read: Callable[[str], Any], locator: str) -> Seen:
        begin = time.perf_counter()
        data = memoryview(read(locator))
        pfis, seconds = [], 0.0
        for at, version in enumerate(self.versions):
            tensor = read_radiograph(data, version.card.preprocess).tensor
            seconds = seconds or time.perf_counter() - begin
            key = at, tensor.tobytes()
            if key not in self._known:
                self._known[key] = float(self._networks[at].pfi(tensor[None])[0])
            pfis.append(self._known[key])
        return Seen(data, pfis, seconds)

    def forget(self) -> None:
        """The next images are others."""
        self._known.clear()

    def rows(self) -> list[Result]:
        """All that was found, by kind and way."""
        rows = []
        for (kind, way), cost in self.costs.items():
            models = {
                version.reference: self.agreements[kind, way, version.reference].row()
                for version in self.versions
            }
            named = {"kind": kind, "side": way[0], "format": way[1]}
            rows.append(named | cost.row() | {"models": models})
        return rows


def compare_kinds(comparison: Comparison, options: argparse.Namespace) -> Result:
    """Radiographs with labels, as all kinds of objects, in an Orthanc of our own."""
    pictures = radiographs(options.radiographs, options.images)
    names = options.kinds or list(KINDS)
    with (
        tempfile.TemporaryDirectory() as folder,
        orthanc(options.orthanc, options.plugins, Path(folder)) as archive,
    ):
        sources = {
            (side, kind): open_source(
                archive.address, FREE | {"rendered": side, "rendered_as": kind}
            )
            for side, kind in WAYS
        }
        version = archive.version
        for number, picture in enumerate(pictures, 1):
            made = objects(picture, number, options.enlarge, names)
            stored = [archive.store(each) for each in made]
            _compare_kinds(comparison, number, picture, names, sources)
            for each in stored:
                archive.delete(each)
            comparison.forget()
            _say(f"{number} of {len(pictures)}")
        for source in sources.values():
            source.close()
    views = Counter(picture.view for picture in pictures)
    return {"archive": version, "views": views, "enlarged": options.enlarge}


def _compare_kinds(
    comparison: Comparison,
    number: int,
    picture: Radiograph,
    names: Sequence[str],
    sources: dict[Way, DicomwebSource],
) -> None:
    """The pictures of all kinds, also of those that the source would rather read as stored."""
    found = {
        way: {_stored(path): path for path in source.find()} for way, source in sources.items()
    }
    sizes = {way: _size(paths.values()) for way, paths in found.items()}
    for at, name in enumerate(names, 1):
        series = f"{ROOT}.{number}.1"
        shown = f"studies/{ROOT}.{number}/series/{series}/instances/{series}.{at}"
        of = names.index(SHOWN_OF[name]) + 1 if SHOWN_OF.get(name) in names else at
        stored = f"studies/{ROOT}.{number}/series/{series}/instances/{series}.{of}"
        for way in WAYS if name in MANY_WAYS else (DEFAULT,):
            distrusted = found[way][shown] == shown
            pair = Pair(stored, f"{shown}{sizes[way]}", distrusted, picture.view)
            comparison.compare(name, pair, way, sources[way])


def compare_archive(comparison: Comparison, options: argparse.Namespace) -> Result:
    """A sample of an archive. It has no labels: answers to stored images are the reference."""
    given = {"since": options.since, "until": options.until, "modalities": options.modalities}
    given |= dict(each.split("=", 1) for each in options.option)
    given |= {"rendered": options.side, "rendered_as": options.format}
    way = options.side, options.format
    with closing(open_source(options.address, {k: v for k, v in given.items() if v})) as source:
        chosen = _sample(source.find(), options.images)
        for number, asked in enumerate(chosen, 1):
            if asked == _stored(asked):
                comparison.costs["sample", way].read_as_stored += 1
            else:
                comparison.compare("sample", Pair(_stored(asked), asked), way, source)
            comparison.forget()
            _say(f"{number} of {len(chosen)}")
    return {"archive": "yours", "images": len(chosen)}


def _stored(path: str) -> str:
    return path.partition("/rendered")[0]


def _size(paths: Iterable[str]) -> str:
    """What stands behind the path of an instance, to have it rendered; all have one shape here."""
    return next(path.removeprefix(_stored(path)) for path in paths if path != _stored(path))


def _sample(paths: Iterable[str], most: int) -> list[str]:
    """Drawn from all of them, with a fixed seed, in memory that does not grow with them."""
    chance, kept = random.Random(1), list[str]()
    for number, path in enumerate(paths):
        if number < most:
            kept.append(path)
        elif (at := chance.randrange(number + 1)) < most:
            kept[at] = path
    return kept


def _say(text: str) -> None:
    print(f"\r{text}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Compare, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("radiographs", type=Path, nargs="?")
    add("--images", type=int, default=504)
    add("--kinds", nargs="+", choices=KINDS)
    add("--enlarge", type=int, default=3, help="times the width and height of the radiographs")
    add("--orthanc", type=Path, default=Path("/usr/sbin/Orthanc"))
    add("--plugins", type=Path, nargs="+", default=[PLUGIN])
    add("--address", help="of DICOMweb, instead of an Orthanc")
    add("--since", help="the first Study Date, with --address")
    add("--until")
    add("--modalities", default="CR,DX")
    add("--side", type=int, default=DEFAULT[0], help="pixels of the shorter side")
    add("--format", choices=("png", "jpeg"), default=DEFAULT[1])
    add("--option", action="append", default=[], metavar="NAME=VALUE", help="of the source")
    add("--out", type=Path, help="of the figures, as JSON; others in it stay")
    options = parser.parse_args()
    if bool(options.address) == bool(options.radiographs):
        parser.error("either RADIOGRAPHS or --address")
    comparison = Comparison()
    compare = compare_archive if options.address else compare_kinds
    try:
        about = compare(comparison, options)
    except (OptionsError, SourceError) as error:
        parser.exit(2, f"error: {error}\n")
    result = {"rows": [row | about for row in comparison.rows()]}
    print(f"\n{json.dumps(result, indent=1)}\n\n{tables(result)}")
    if options.out:
        options.out.write_text(json.dumps(merged(options.out, result), indent=1) + "\n")


if __name__ == "__main__":
    main()
