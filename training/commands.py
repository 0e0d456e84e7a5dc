"""The commands of the extra `training`: the study, and training, testing and publishing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from model_store import Store
from training.data.split import SHARES, By
from training.evaluate.heads import as_heads_table
from training.evaluate.metrics import as_table
from training.export import gallery
from training.export.publication import (
    STORE,
    how_to_serve,
    model_name,
    refuse_existing,
    version_number,
)
from training.export.publish import publish
from training.export.quantize import derive
from training.export.test_report import cross_source, test_run
from training.networks import pretrained
from training.networks.heads import HEADS
from training.study.config import read_study
from training.study.report.write import write
from training.study.reproduce import reproduce
from training.study.results import Results
from training.train import distil, processes
from training.train.fit import fit
from training.train.loop import CHECKPOINT
from training.train.settings import COMMAND, SETTINGS, FitSettings


def add_commands(commands: Any) -> None:
    """Add them to those of `python -m training`."""
    _add_reproduce(commands)
    command = commands.add_parser("report", help="write a study's report anew from its results")
    command.add_argument("run", type=Path, help="holds results.json and figures")
    command.set_defaults(run_command=_report)

    pretrained.add_command(commands)
    gallery.add_command(commands)

    command = commands.add_parser(
        "fit",
        help="fine-tune GoogLeNet; run again to resume",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="1500 steps of 24 images take half an hour on two CPU cores.",
    )
    _add_fit_options(command)
    command.set_defaults(run_command=_fit)

    distil.add_command(commands)
    derive.add_command(commands)

    command = commands.add_parser("test", help="test a finished run, once")
    command.add_argument("run", type=Path)
    _add_point_options(command)
    command.set_defaults(run_command=_test)

    command = commands.add_parser(
        "cross-source", help="fit on each source that holds both views, test on each other"
    )
    _add_fit_options(command)
    _add_point_options(command)
    command.set_defaults(run_command=_cross_source)

    _add_publish(commands)


def _add_reproduce(commands: Any) -> None:
    command = commands.add_parser(
        "reproduce", help="the published study, whole: nine candidates, one chosen, its report"
    )
    command.add_argument(
        "config", type=Path, help="TOML file, or paper.toml, here.toml, smoke.toml"
    )
    command.add_argument("--out", type=Path, required=True, help="folder of the run")
    command.add_argument("--resume", action="store_true", help="go on with the run in --out")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="KEY=VALUE",
        help="as data.manifest=radiographs.csv; may be repeated",
    )
    command.add_argument(
        "--split",
        choices=get_args(By),
        help="what is kept whole: patients, or images as in the paper (short for split.by)",
    )
    command.set_defaults(run_command=_reproduce)


def _add_publish(commands: Any) -> None:
    command = commands.add_parser("publish", help="export a tested run to the model store")
    command.add_argument("run", type=Path, help="folder of a run that `test` has tested")
    command.add_argument("--name", type=model_name, required=True, help="of the model, as swift")
    command.add_argument(
        "--version", type=version_number, required=True, help="as 1.0.0; immutable once published"
    )
    command.add_argument("--probe", type=Path, required=True, help="PNG that may be shared")
    command.add_argument(
        "--cross-source",
        type=Path,
        help="folder of runs tested on other sources: of `cross-source`, or runs with --leave-out",
    )
    command.add_argument(
        "--limitation",
        action="append",
        default=[],
        metavar="SENTENCE",
        help="what the card must say of this model's data; may be repeated",
    )
    command.add_argument(
        "--derived-from", metavar="NAME/VERSION", help="the published teacher of a student"
    )
    command.add_argument("--store", type=Path, default=STORE, help=f"default: {STORE}")
    command.add_argument("--force", action="store_true", help="although it is below the floors")
    command.set_defaults(run_command=_publish)


def _add_fit_options(command: argparse.ArgumentParser) -> None:
    default = {name: field.default for name, field in FitSettings.__dataclass_fields__.items()}
    command.add_argument("run", type=Path, help="folder for checkpoints and results")
    command.add_argument("--manifest", type=Path, required=True, help="CSV of labelled images")
    command.add_argument("--images", type=Path, required=True, help="zip or folder they lie in")
    begin = command.add_mutually_exclusive_group()
    begin.add_argument(
        "--weights", type=Path, help="npz of the command `weights`; else from scratch"
    )
    begin.add_argument(
        "--start",
        metavar="NAME/VERSION",
        help="begin with a version that the package ships, of the same network",
    )
    command.add_argument(
        "--network", choices=("googlenet", "swift"), default=default["network"], help="which one"
    )
    command.add_argument("--size", type=int, default=default["size"], help="pixels of its input")
    command.add_argument("--steps", type=int, default=default["steps"], help="of one batch")
    command.add_argument("--batch", type=int, default=default["batch"], help="images")
    command.add_argument("--rate", type=float, default=default["rate"], help="peak of one cycle")
    command.add_argument("--seed", type=int, default=default["seed"], help="of split and batches")
    command.add_argument(
        "--check-every",
        type=int,
        default=default["check_every"],
        metavar="STEPS",
        help="between validations and checkpoints",
    )
    command.add_argument(
        "--children",
        type=int,
        default=default["children"],
        help="augmented copies of each validation image",
    )
    command.add_argument("--test-share", type=float, default=SHARES["test"], help="of the patients")
    command.add_argument(
        "--heads",
        nargs="+",
        choices=HEADS[1:],
        default=(),
        help="ask these of an image, too; the manifest may then hold the view not_chest",
    )
    command.add_argument(
        "--leave-out",
        nargs="+",
        default=(),
        metavar="SOURCE",
        help="sources of the manifest that neither train nor validate, but are the test",
    )


def _add_point_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--rule",
        choices=("middle", "high"),
        default="middle",
        help="which point of the Youden plateau is the cutoff; `high` is the paper's",
    )
    command.add_argument(
        "--margin",
        type=float,
        default=1.0,
        help="logits around the cutoff that are marked for review at least",
    )


def _settings(options: argparse.Namespace) -> FitSettings:
    return FitSettings(
        manifest=options.manifest,
        images=options.images,
        weights=options.weights,
        steps=options.steps,
        batch=options.batch,
        rate=options.rate,
        seed=options.seed,
        check_every=options.check_every,
        children=options.children,
        test_share=options.test_share,
        heads=("view", *options.heads) if options.heads else (),
        left_out=tuple(options.leave_out),
        network=options.network,
        start=options.start,
        size=options.size,
    )


def _reproduce(options: argparse.Namespace) -> None:
    split = [f"split.by={options.split}"] if options.split else []
    study = read_study(options.config, [*options.changes, *split])
    try:
        results = reproduce(study, options.out, options.command_line, resume=options.resume)
    finally:
        processes.leave()
    if results:
        print(f"{results.chosen} was chosen; the report is {options.out / 'report.html'}")


def _report(options: argparse.Namespace) -> None:
    write(Results.load(options.run), options.run)


def _fit(options: argparse.Namespace) -> None:
    settings = _settings(options)
    begun = (options.run / SETTINGS).exists()
    settings.save(options.run)  # first, so that a run with other settings keeps its command
    (options.run / COMMAND).write_text(options.command_line + "\n")
    try:
        fit(settings, options.run)
    except Exception:
        if not begun and not (options.run / CHECKPOINT).exists():
            # It did not begin: the folder is free for other settings
            for name in (SETTINGS, COMMAND):
                (options.run / name).unlink()
        raise


def _test(options: argparse.Namespace) -> None:
    report = test_run(options.run, options.rule, options.margin)
    print(as_table(report.evaluations))
    if report.head_evaluations:
        print(as_heads_table(report.head_evaluations))


def _cross_source(options: argparse.Namespace) -> None:
    print(as_table(cross_source(_settings(options), options.run, options.rule, options.margin)))


def _publish(options: argparse.Namespace) -> None:
    refuse_existing(f"{options.name}/{options.version}", Store(options.store))
    version = publish(
        run=options.run,
        name=options.name,
        version=options.version,
        probe=options.probe.read_bytes(),
        crossing=options.cross_source,
        limitations=tuple(options.limitation),
        derived_from=options.derived_from,
        training_command=(options.run / COMMAND).read_text().strip(),
        publish_command=options.command_line,
        force=options.force,
    )
    print(f"published {version.reference} in {Store(options.store).add(version)}")
    print(f"serve it: {how_to_serve(version.reference, options.store)}")
