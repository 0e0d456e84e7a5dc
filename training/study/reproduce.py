"""One study from its TOML file to its report: `python -m training reproduce CONFIG --out RUN`.

Every step leaves its result in the run's folder and is not made again where that lies. With
`torchrun`, all processes train all layers together; what is done once, the first one does.
"""

from __future__ import annotations

from pathlib import Path

from training.data.manifest import ManifestError, read_and_check
from training.data.split import split
from training.evaluate.calibration import images_needed
from training.study.candidates import Trained, train_candidate
from training.study.conclude import Retrained, conclude
from training.study.config import CONFIG, Study
from training.study.data import Radiographs, only_source, resplit
from training.study.photographs import list_photographs
from training.study.pretrain import Pretrained, pretrain
from training.study.results import Candidate, Results
from training.study.statistics import choose
from training.train import processes
from training.train.evaluation_rows import mixed_sources


def reproduce(study: Study, run: Path, command: str, *, resume: bool) -> Results | None:
    """Run a study whole, or go on with it.

    Returns:
        Its results; None in all processes but the first.

    Raises:
        ManifestError: Radiographs or photographs cannot be used; found before training starts.
        ValueError: The folder holds another study, or holds this one and `resume` is not set.
        FloatingPointError: A loss is no longer a number.
        KeyboardInterrupt: Ctrl-C; the run can be resumed.
    """
    processes.join()
    if processes.rank() == 0:
        _claim(study, run, resume=resume)
    processes.wait()
    radiographs = read_radiographs(study)
    pretrained = [pretrain(study, kind, run) for kind in study.pretrain.kinds]
    trained = [
        train_candidate(study, radiographs, start, method, run / "candidates")
        for start in pretrained
        for method in study.finetune.methods
    ]
    chosen = choose([each.found for each in trained])
    retrained = _retrain(study, radiographs, chosen, pretrained, run)
    results = None
    if processes.rank() == 0:
        results = conclude(
            study, radiographs, trained=trained, retrained=retrained, run=run, command=command
        )
    processes.wait()
    return results


def _claim(study: Study, run: Path, *, resume: bool) -> None:
    file = run / CONFIG
    if file.exists():
        if not resume:
            raise ValueError(f"{run} holds a study already; --resume goes on with it")
        before = file.read_bytes()
        study.save(run)
        if file.read_bytes() != before:
            file.write_bytes(before)
            raise ValueError(f"{run} holds a study with other settings; choose another folder")
    run.mkdir(parents=True, exist_ok=True)
    study.save(run)


def read_radiographs(study: Study) -> Radiographs:
    """Read, check and split all radiographs; find what would stop the study later.

    Raises:
        ManifestError: With all problems.
    """
    for kind in study.pretrain.kinds:
        if kind != "colour":
            list_photographs(study.data, subset=kind == "subset-greyscale")
    images = read_and_check(study.data.manifest, study.data.images, study.preprocess)
    shares = study.split
    parts = split(images.rows, study.seed, shares.by, shares.validation, shares.test)
    radiographs = Radiographs(images, parts)
    problems = _problems(study, radiographs)
    if problems:
        raise ManifestError(*problems)
    return radiographs


def _problems(study: Study, radiographs: Radiographs) -> list[str]:
    found = []
    for part in ("train", "validation", "test"):
        rows = radiographs.rows_at(radiographs.of(part))
        missing = {"frontal", "lateral"} - {row.view for row in rows}
        found += [f"{part} holds no {view} image after the split" for view in sorted(missing)]
    needed = images_needed(study.assess.error_bound, study.assess.confidence)
    own = len(radiographs.of("validation"))
    if own < needed:
        found.append(
            f"assess.error_bound of {study.assess.error_bound:.1%} needs {needed} validation "
            f"images even without an error; there are {own}"
        )
    return found


def _retrain(
    study: Study,
    radiographs: Radiographs,
    chosen: Candidate,
    pretrained: list[Pretrained],
    run: Path,
) -> Retrained:
    """The chosen candidate's way once more: split by image, and on each source alone."""
    start = next(each for each in pretrained if each.kind == chosen.pretraining)

    def again(other: Radiographs, folder: Path) -> tuple[Radiographs, Trained]:
        return other, train_candidate(study, other, start, chosen.method, folder)

    by_image = None
    if study.assess.retrain_by_image:
        other = resplit(study, radiographs, study.seed, "image")
        by_image = again(other, run / "by-image")
    sources = mixed_sources(radiographs.rows) if len(mixed_sources(radiographs.rows)) > 1 else []
    on_source = {
        source: again(only_source(study, radiographs, source, study.seed), run / f"fit-on-{source}")
        for source in sources
    }
    return Retrained(by_image, on_source)
