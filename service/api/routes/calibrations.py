"""Calibrations of a job's model on its decided images, and the lifespan of what runs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from service.api.auth.permissions import authorise
from service.api.parameters import check_parameters
from service.api.paths import REVIEWS
from service.api.request_context import context_of
from service.api.routes.backfills import manager_of
from service.api.routes.reviews import OF_JOB, reader_of
from service.api.runtime import Runtime
from service.backfill.review.calibration_record import Calibration

if TYPE_CHECKING:
    from service.backfill.manager import Manager
    from service.backfill.review.calibrations import Calibrations

router = APIRouter(
    prefix=f"{REVIEWS}/{{job}}/calibrations",
    tags=["review"],
    dependencies=[authorise("review"), check_parameters],
)


class JobCalibrations(BaseModel):
    """The calibrations of a job, and whether another one can begin."""

    reason: str | None = Field(description="why none can begin now; null: one can")
    calibrations: list[Calibration] = Field(description="the newest first")


@asynccontextmanager
async def open_calibrations(
    runtime: Runtime, manager: Manager | None
) -> AsyncIterator[Calibrations | None]:
    """Calibrate until the block ends; None if jobs are not enabled."""
    if manager is None:
        yield None
        return
    from service.backfill.review.calibrations import Calibrations, Place

    settings = runtime.settings
    place = Place(settings.model_store, settings.calibration_folder, settings.max_calibration_bytes)
    calibrations = await asyncio.to_thread(
        Calibrations, manager.review, place, runtime.pipeline.submit
    )
    try:
        yield calibrations
    finally:
        await asyncio.to_thread(calibrations.close)


def _calibrations_of(request: Request, _: Annotated[Any, Depends(manager_of)]) -> Any:
    return request.app.state.calibrations


# A forward reference, because the module is loaded only if jobs are enabled
CalibrationsDep = Annotated["Calibrations", Depends(_calibrations_of)]


@router.get("", summary="Calibrations of a job", responses=OF_JOB)
def list_all(job: str, calibrations: CalibrationsDep) -> JobCalibrations:
    """Those that run or have ended, and why no other one can begin now."""
    return JobCalibrations(reason=calibrations.refusal(job), calibrations=calibrations.of(job))


@router.post(
    "",
    summary="Calibrate the model of a job",
    status_code=202,
    dependencies=[authorise("admin")],
    responses=OF_JOB,
)
def start(request: Request, job: str, calibrations: CalibrationsDep) -> Calibration:
    """Fit cutoffs and review bands on the decided images, in the background.

    It writes a new version into the model store, and changes none; to serve it is a setting.
    """
    calibrations.of(job)  # so that no unknown text enters the audit log
    context_of(request.scope).reviewed("calibrate", job)
    return calibrations.start(job, reader_of(request))
