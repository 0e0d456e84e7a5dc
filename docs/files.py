"""Write `docs/files.md`: the answers to the files of pydicom and pydicom-data.

python docs/files.py [FOLDER...]  (also the objects of these folders and zips)
"""

from __future__ import annotations

import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pydicom.data import get_testdata_files

from model_store import Store
from service.api.settings import Settings
from service.imaging import ImageError, read_radiograph
from service.inference import open_network

HERE = Path(__file__).parent
HEAD = """# Answers to test files of pydicom

pydicom and pydicom-data have objects of many vendors and kinds; most are no chest radiographs.
Ten objects of other origin have names in `more/`. The table has the answer of `{model}` to each
(`python docs/files.py`). The number after a name is the PFI or, of an image that is `not_chest`,
the probability of a chest radiograph.

| answer | files |
|---|---|
"""


def main(folders: list[str]) -> None:
    """Classify all, and write the table."""
    version = Store().load(Settings().model)
    network = open_network(version)
    found: dict[str, list[str]] = defaultdict(list)
    for name, data in files(folders):
        try:
            radiograph = read_radiograph(data, version.card.preprocess)
        except ImageError as error:
            found[f"`{error.code}`: {error}"].append(f"`{name}`")
            continue
        (prediction,) = network.run(radiograph.tensor[None])
        decision = version.card.decide(prediction, doubtful=radiograph.doubtful)
        review = ", review" if decision.review else ""
        warnings = "".join(f", `{each}`" for each in radiograph.warnings)
        told = prediction.chest if decision.view == "not_chest" else prediction.pfi
        found[f"{decision.view}{review}{warnings}"].append(f"`{name}` {told:.3f}")
    lines = [
        f"| {answer} | {', '.join(sorted(names))} |" for answer, names in sorted(found.items())
    ]
    text = HEAD.format(model=version.reference) + "\n".join(lines) + "\n"
    (HERE / "files.md").write_text(text)


def files(folders: list[str]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each."""
    for path in sorted({Path(found) for found in get_testdata_files()}):
        if path.is_file():
            yield path.name, path.read_bytes()
    for folder in map(Path, folders):
        if zipfile.is_zipfile(folder):
            with zipfile.ZipFile(folder) as opened:
                for name in sorted(opened.namelist()):
                    if name.endswith(".dcm") or name.startswith("dicom/"):
                        yield f"more/{Path(name).name}", opened.read(name)
            continue
        for path in sorted(folder.rglob("*.dcm")):
            yield f"{folder.name}/{path.name}", path.read_bytes()


if __name__ == "__main__":
    main(sys.argv[1:])
