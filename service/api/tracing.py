"""Send spans of requests to an OpenTelemetry collector, which OTEL_* variables configure."""

from __future__ import annotations

from importlib.metadata import version

from opentelemetry import trace


class TracingError(Exception):
    """Traces cannot be sent."""


def send_traces() -> None:
    """Send the spans of this process from now on, in the background.

    Raises:
        TracingError: The extra `tracing` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingError(f"CXRVIEW_TRACING needs the extra `tracing`: {error}") from error
    named = Resource.create({"service.name": "cxrview", "service.version": version("cxrview")})
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
