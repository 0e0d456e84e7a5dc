"""docs/backfill.md says what the command and the service have."""

from __future__ import annotations

import argparse
import re
from typing import get_args

from conftest import ROOT

from service.api.app import create_app
from service.api.paths import BACKFILLS
from service.api.routes import backfill_schemas as jobs
from service.api.routes import backfills
from service.api.settings import Settings
from service.backfill import job_view
from service.backfill.report import header_audit, write
from service.backfill.sources.kinds import OPTIONS
from service.cli.backfill import add_backfill_options

TEXT = (ROOT / "docs" / "backfill.md").read_text()


def test_every_option_is_documented() -> None:
    """The table has those of the command, and no others."""
    parser = argparse.ArgumentParser(add_help=False)
    add_backfill_options(parser)
    options = {name for action in parser._actions for name in action.option_strings}
    lines = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `--")]
    assert {name for line in lines for name in re.findall(r"`(--[\w-]+)`", line)} == options


def test_every_endpoint_is_documented() -> None:
    """By the last word of its path; and every state of a job."""
    paths = create_app(Settings(model="swift/1.0.0")).openapi()["paths"]
    words = {path.split("/")[-1] for path in paths if path.startswith(f"{BACKFILLS}/")}
    actions = {"pause", "resume", "cancel", "retry-failed"}
    reports = {"results", "certificate", "header-audit", "worklist"}
    assert words == {"{job}", "sources"} | actions | reports
    examples = TEXT.split("auth=")[1].split("```")[0]
    assert all(re.search(rf"\b{word}\b", examples) for word in words - {"{job}"})
    states = re.search(r"\*\*States\*\*: (.*?)\n- \*\*", TEXT, re.DOTALL)
    assert set(get_args(jobs.State)) <= set(re.findall(r"`(\w+)`", states[1]))
    assert get_args(jobs.State) == get_args(job_view.JobViewState)


def test_the_description_of_the_api_has_the_options_of_each_kind_of_source() -> None:
    """With their words, so that a form can be made of it; and none that a source has not."""
    paths = create_app(Settings(model="swift/1.0.0")).openapi()["paths"]
    body = paths[BACKFILLS]["post"]["requestBody"]["content"]["application/json"]["schema"]
    described = {each["title"]: each for each in body["properties"]["options"]["anyOf"]}
    assert described.keys() == OPTIONS.keys()
    for kind, options in OPTIONS.items():
        assert described[kind]["properties"].keys() == options.model_fields.keys()
        assert all(each["description"] for each in described[kind]["properties"].values())
        assert not described[kind]["additionalProperties"]
        assert "$ref" not in str(described[kind])


def test_the_files_that_the_api_answers_are_those_of_the_report() -> None:
    """Their names are written twice, as the report needs the extra `backfill`."""
    assert backfills.CERTIFICATE == write.CERTIFICATE
    assert f"{write.HEADERS}/{header_audit.GROUPS}" == backfills.HEADER_AUDIT
    assert f"{write.HEADERS}/{header_audit.WORKLIST}" == backfills.WORKLIST
