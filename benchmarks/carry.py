"""What must travel to a machine without a network: prepared, cut into pieces, joined, unpacked.

    python benchmarks/carry.py prepare FOLDER [--piece-mb 50] [--data FOLDER] [--has FILE] ...
    python carry.py join FOLDER INTO        # there; needs Python and nothing else

See carry.md. `prepare` needs pip and git; what else is imported here is Python's own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
TREE = ("benchmarks", "cxrview", "model_store", "service", "training", "tests/*.py", "tests/data")
MODELS = ("googlenet/1.1.0", "swift/1.1.0")  # that are measured; the others stay
GPU = "onnxruntime-gpu"
PROJECT = "cxrview[cpu,training]"
EXTRA = ("psutil", "nvidia-ml-py")  # of the benchmarks and of the GPU's metrics
CHUNK = 2**20
START = """#!/bin/sh
# Join the pieces beside this script, install what travelled, and measure. Again: goes on
#   start.sh INTO BACK [options of gpu.py]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
into=$1 back=$2
shift 2
[ -e "$into/tree" ] || python3 "$here/carry.py" join "$here" "$into"
[ -e "$into/site" ] || {
    python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \\
        --target "$into/site.part" "$into"/wheels/*.whl
    mv "$into/site.part" "$into/site"
}
[ ! -d "$into/data" ] || set -- --data "$into/data" "$@"
cd "$into/tree"
PYTHONUNBUFFERED=1 PYTHONPATH="$into/tree:$into/site" exec python3 benchmarks/gpu.py \\
    --results "$into/results" --back "$back" "$@"
"""


def pack(files: Iterable[Path], into: Path, name: str, piece_bytes: int) -> list[Path]:
    """Files and folders -> NAME.000, NAME.001, ... and NAME.json, which has their hashes.

    Args:
        files: By their last name in the archive.
        into: The folder of the pieces; older ones of this name are replaced.
        name: Of the pieces.
        piece_bytes: The largest piece.
    """
    for old in into.glob(f"{name}.[0-9][0-9][0-9]"):
        old.unlink()
    with tempfile.TemporaryFile() as whole:
        with tarfile.open(fileobj=whole, mode="w") as archive:
            for file in files:
                archive.add(file, file.name)
        whole.seek(0)
        pieces: list[Path] = []
        hashes = {}
        while data := whole.read(piece_bytes):
            piece = into / f"{name}.{len(pieces):03}"
            piece.write_bytes(data)
            hashes[piece.name] = hashlib.sha256(data).hexdigest()
            pieces.append(piece)
    (into / f"{name}.json").write_text(json.dumps(hashes, indent=1) + "\n")
    return pieces


def join(folder: Path, into: Path) -> list[str]:
    """Check all pieces in a folder, and unpack them; returns the names that are unpacked.

    Pieces may lie in folders of their own, as they arrived.

    Raises:
        ValueError: A piece is missing or is not what was sent.
    """
    unpacked = []
    for listed in sorted(folder.rglob("*.json")):
        hashes: dict[str, str] = json.loads(listed.read_text())
        if not hashes or not all(_is_piece(name, listed.stem) for name in hashes):
            continue
        found = {path.name: path for path in folder.rglob(f"{listed.stem}.[0-9][0-9][0-9]")}
        with tempfile.TemporaryFile(dir=into if into.exists() else None) as whole:
            for name, known in hashes.items():
                if name not in found:
                    raise ValueError(f"{name} is missing in {folder}")
                data = found[name].read_bytes()
                if hashlib.sha256(data).hexdigest() != known:
                    raise ValueError(f"{found[name]} is not what was sent")
                whole.write(data)
            whole.seek(0)
            into.mkdir(parents=True, exist_ok=True)
            with tarfile.open(fileobj=whole) as archive:
                unpacked += [name for name in archive.getnames() if "/" not in name]
                archive.extractall(into, filter="data")
    if not unpacked:
        raise ValueError(f"{folder} holds no pieces")
    return unpacked


def _is_piece(name: str, stem: str) -> bool:
    return re.fullmatch(rf"{re.escape(stem)}\.\d{{3}}", name) is not None


def prepare(
    folder: Path, piece_bytes: int, wheels: Path, data: Path | None
) -> dict[str, float | int]:
    """A folder with the pieces of wheels, tree and data, and the scripts that start there.

    Args:
        folder: Made anew.
        piece_bytes: The largest piece.
        wheels: A folder of wheels.
        data: As `gpu.py --data`.

    Returns:
        The number of pieces and their size in MB.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        _copy_tree(tree)
        links = {"wheels": wheels} | ({"data": data} if data else {})
        for name, target in links.items():
            shutil.copytree(target, Path(scratch) / name)
        everything = [tree, *(Path(scratch) / name for name in links)]
        pieces = pack(everything, folder, "carried", piece_bytes)
    shutil.copy(__file__, folder / "carry.py")
    start = folder / "start.sh"
    start.write_text(START)
    start.chmod(0o755)
    return {"pieces": len(pieces), "mb": round(sum(p.stat().st_size for p in pieces) / 2**20, 1)}


def _copy_tree(tree: Path) -> None:
    """The committed files that are needed there, and which commit they are."""
    others = [f":!model_store/{each}" for each in _other_models()] + [":!benchmarks/results"]
    listed = _said("git", "ls-files", "-z", "--", *TREE, "pyproject.toml", *others)
    for name in filter(None, listed.split("\0")):
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    commit = {"commit": _said("git", "rev-parse", "--short", "HEAD").strip()}
    (tree / "commit.json").write_text(json.dumps(commit) + "\n")
    # The service asks for its version, which an installed package has
    version = metadata.version("cxrview")
    about = tree / f"cxrview-{version}.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text(f"Metadata-Version: 2.1\nName: cxrview\nVersion: {version}\n")


def _other_models() -> list[str]:
    versions = {path.parent.relative_to(ROOT / "model_store") for path in _graphs()}
    return sorted({str(each) for each in versions} - set(MODELS))


def _graphs() -> list[Path]:
    return list((ROOT / "model_store").glob("*/*/model.onnx"))


def needed(has: set[str], python: str) -> dict[str, str]:
    """What the project needs besides, by name, in the versions that are installed here.

    Args:
        has: Names that the other machine has; what only they need is not followed.
        python: Its version, as 3.12.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    left = {canonicalize_name(name) for name in has} | {"onnxruntime", "cxrview"}
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, str] = {}
    waiting = [Requirement(each) for each in (PROJECT, *EXTRA)]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name in left and name != "cxrview") or name in found:
            continue
        if name != "cxrview":
            found[name] = metadata.version(name)
        for line in metadata.requires(name) or []:
            need = Requirement(line)
            extras = [{"extra": extra} | environment for extra in (*wanted.extras, "")]
            if need.marker is None or any(need.marker.evaluate(each) for each in extras):
                waiting.append(need)
    return found


def download(names: dict[str, str], wheels: Path, python: str) -> None:
    """Wheels of these versions, and of ONNX Runtime for a GPU, for Linux on x86-64."""
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints-gpu.txt").read_text().splitlines()
        if "==" in line
    )
    wanted = [f"{name}=={version}" for name, version in (names | {GPU: pinned[GPU]}).items()]
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)]
    platforms += ["manylinux2014_x86_64", "manylinux1_x86_64"]
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    words += ["--python-version", python, "--implementation", "cp", "--dest", str(wheels)]
    words += [word for each in platforms for word in ("--platform", each)]
    subprocess.run([*words, *wanted], check=True)  # pip


def main() -> None:
    """Prepare, or join what arrived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command")
    command = commands.add_parser("prepare", help="make the folder that travels")
    command.add_argument("folder", type=Path)
    command.add_argument("--piece-mb", type=int, default=50, help="the largest file that travels")
    command.add_argument(
        "--data", type=Path, help="manifest.csv, images or images.zip, weights.npz"
    )
    command.add_argument("--has", type=Path, help="names of packages that are there, one a line")
    command.add_argument("--python", default="3.12", help="version there")
    command.add_argument("--wheels", type=Path, help="a folder of wheels, in place of a download")
    command = commands.add_parser("join", help="check the pieces in FOLDER, and unpack them")
    command.add_argument("folder", type=Path)
    command.add_argument("into", type=Path)
    options = parser.parse_args()
    if options.command == "join":
        print("unpacked", *join(options.folder, options.into))
        return
    with tempfile.TemporaryDirectory() as scratch:
        wheels = options.wheels or Path(scratch)
        if not options.wheels:
            has = set(options.has.read_text().split()) if options.has else set()
            download(needed(has, options.python), wheels, options.python)
        print(prepare(options.folder, options.piece_mb * 2**20, wheels, options.data))


def _said(*words: str) -> str:
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)  # git
    return ran.stdout


if __name__ == "__main__":
    main()
