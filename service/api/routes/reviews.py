"""The review of jobs: worklists, decisions of persons, and the pictures that they decide about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api import openapi
from service.api.auth.permissions import authorise, count_image
from service.api.json_body import received_json
from service.api.parameters import check_parameters
from service.api.paths import REVIEWS
from service.api.problems import REVIEW_RESPONSES
from service.api.request_context import context_of
from service.api.routes.backfills import manager_of
from service.api.routes.review_schemas import (
    NewDecision,
    ReviewedJob,
    ReviewedJobs,
    ReviewEntries,
    ReviewEntry,
    ReviewSummary,
    StoredDecision,
)
from service.api.runtime import runtime_of
from service.backfill.ledger.readings import ReviewStateError
from service.inference import Explanation, Image

if TYPE_CHECKING:
    from service.backfill.review.review import Review

AT_ONCE = 50  # entries of one answer
MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}

Responses = dict[int | str, dict[str, Any]]
ASKED: Responses = {status: REVIEW_RESPONSES[status] for status in (401, 403, 404, 503)}
OF_JOB = ASKED | {status: REVIEW_RESPONSES[status] for status in (409, 422)}
DECIDED = OF_JOB | {status: REVIEW_RESPONSES[status] for status in (408, 413)}
SHOWN = OF_JOB | {status: REVIEW_RESPONSES[status] for status in (410, 415, 429)}

Instance = Annotated[int, Path(ge=1, lt=2**63, description="the number of the image")]
Show = Annotated[
    Literal["open", "second", "conflicts", "all"],
    Query(
        description="`open`: read by no person; `second`: read by one other person; `conflicts`: "
        "read by two others in two ways, and not adjudicated"
    ),
]
After = Annotated[int, Query(ge=0, lt=2**63, description="the place to begin at")]
Form = Annotated[
    Literal["manifest", "corrections", "history"],
    Query(
        description="`manifest`: labelled images, for `python -m training calibrate`; "
        "`corrections`: accepted views of wrong headers, for `cxrview corrections`; `history`: "
        "each decision"
    ),
]
FileFormat = Annotated[Literal["csv", "parquet"], Query(alias="format")]

router = APIRouter(
    prefix=REVIEWS, tags=["review"], dependencies=[authorise("review"), check_parameters]
)


def _review_of(manager: Annotated[Any, Depends(manager_of)]) -> Any:
    return manager.review


# A forward reference, because the module is loaded only if jobs are enabled
ReviewDep = Annotated["Review", Depends(_review_of)]


def reader_of(request: Request) -> str:
    """The name under which a client decides."""
    return context_of(request.scope).client


def _recorded(action: str) -> Any:
    """A dependency that records a request in the audit log first, if the job can be reviewed."""

    def record(request: Request, job: str, review: ReviewDep) -> None:
        context_of(request.scope).reviewed(action, review.job(job).id)

    return Depends(record)


@router.get("", summary="List jobs to review", responses=ASKED)
def list_all(request: Request, review: ReviewDep) -> ReviewedJobs:
    """The jobs that are done, the newest first."""
    jobs = [ReviewedJob.of(job) for job in review.jobs()]
    return ReviewedJobs(reader=reader_of(request), reviews=jobs)


@router.get("/{job}", summary="State of a review", responses=OF_JOB)
def summary(job: str, review: ReviewDep) -> ReviewSummary:
    """How many images are decided, by whom, and how far two readers agree."""
    return ReviewSummary.of(review.summary(job))


@router.get(
    "/{job}/worklist",
    summary="Images to decide about",
    dependencies=[_recorded("worklist")],
    responses=OF_JOB,
)
def worklist(
    request: Request,
    job: str,
    review: ReviewDep,
    show: Show = "open",
    after: After = 0,
) -> ReviewEntries:
    """Images whose header disagrees, that are no chest, or lie in the review band.

    Certain answers come first, of these those whose header disagrees, and the most certain first.
    """
    reader = reader_of(request)
    found = review.entries(job, reader, show, after, AT_ONCE)
    pairs = zip(found.rows, found.readings, strict=True)
    entries = [ReviewEntry.of(row, readings, reader) for row, readings in pairs]
    return ReviewEntries(entries=entries, next=found.next)


@router.post(
    "/{job}/decisions",
    summary="Decide about an image",
    response_model=StoredDecision,
    responses=DECIDED,
    openapi_extra=openapi.NEW_DECISION,
)
async def decide(request: Request, job: str, review: ReviewDep) -> StoredDecision:
    """Add a decision, or take one back. It is on the disk when it is answered; none is deleted."""
    wanted = await received_json(request, NewDecision, declared=True)
    context = context_of(request.scope)
    identifier = (await run_in_threadpool(review.job, job)).id
    if wanted.reader not in {None, context.client}:
        raise ReviewStateError("the client that asks is another reader")
    asked = {"instance": wanted.instance, "role": wanted.role, "decision": wanted.decision}
    context.reviewed("decide" if wanted.decision else "undo", identifier, **asked)
    return StoredDecision.of(
        await run_in_threadpool(
            review.decide, job, wanted.instance, context.client, wanted.role, wanted.decision
        )
    )


@router.get(
    "/{job}/export",
    summary="Decisions as a file",
    response_class=Response,
    dependencies=[_recorded("export")],
    responses=OF_JOB | {200: openapi.DECISIONS_ANSWER},
)
def export(
    job: str, review: ReviewDep, form: Form = "manifest", file_format: FileFormat = "csv"
) -> Response:
    """The decisions of a job as a manifest, as corrections, or all that was decided."""
    data = review.export(job, form, file_format)
    headers = {"Content-Disposition": f'attachment; filename="{form}.{file_format}"'}
    return Response(data, media_type=MEDIA_TYPES[file_format], headers=headers)


@router.get(
    "/{job}/pictures/{instance}",
    summary="The picture of an image",
    response_model=Explanation,
    responses=SHOWN,
    dependencies=[count_image],
)
async def picture(request: Request, job: str, instance: Instance, review: ReviewDep) -> Response:
    """An image of the worklist, read again from the source of the job, as `explain` shows it.

    The service keeps nothing of it.
    """
    runtime, context = runtime_of(request), context_of(request.scope)
    identifier = (await run_in_threadpool(review.job, job)).id
    context.reviewed("picture", identifier, instance=instance)
    settings = runtime.settings
    with runtime.admission.slot("interactive") as slot:
        async with runtime.budget.reserve(
            "interactive", settings.max_upload_bytes, settings.latency_budget_seconds
        ) as reservation:
            original = await run_in_threadpool(review.read, job, instance)
            reservation.add(len(original.data))
            reservation.settle()
            image = Image(original.data, "interactive", displayed=True)
            check = original.check
            del original  # so that its bytes are freed once they are decoded
            slot.arrived()
            found = await runtime.explain(image, request, check)
    return Response(found.model_dump_json(), media_type="application/json")
