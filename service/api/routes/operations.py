"""The endpoints for operators: liveness, readiness, metrics."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.api import openapi
from service.api.runtime import runtime_of
from service.api.schemas import Health

LOG = logging.getLogger(__name__)
router = APIRouter(tags=["operation"])


@router.head("/livez", include_in_schema=False)
@router.get(
    "/livez",
    summary="Liveness",
    responses={503: {"model": Health, "description": "Only a new process helps"}},
    response_model_exclude_defaults=True,
)
async def livez(request: Request, response: Response) -> Health:
    """503 if a batch or a decoder has not returned for 60 s, or one of their threads has ended.

    Load never makes it fail, and neither does the end of the process. An image of the lane
    `backfill` has 600 s, because it may get little of the CPU.
    """
    if not (reasons := runtime_of(request).stuck):
        return Health(status="live")
    LOG.error("stuck: %s", "; ".join(reasons))  # the kubelet does not show the body
    response.status_code = 503
    return Health(status="stuck", reasons=reasons)


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    summary="Readiness",
    responses={
        503: {
            "model": Health,
            "description": "It stops, or is stuck; while it starts, connections are refused",
        }
    },
    response_model_exclude_defaults=True,
)
async def readyz(request: Request, response: Response) -> Health:
    """The model has answered its probe, and images are accepted."""
    runtime = runtime_of(request)
    if runtime.ready:
        return Health(status="ready")
    response.status_code = 503
    return Health(status="not ready", reasons=runtime.stuck)


@router.get(
    "/metrics",
    summary="Prometheus",
    response_class=Response,
    responses={200: openapi.METRICS_ANSWER},
)
async def prometheus() -> Response:
    """Prometheus metrics; images/s is `rate(cxrview_images_total[1m])`."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
