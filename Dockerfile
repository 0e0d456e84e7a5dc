# cxrview as an image: `docker build --target cpu .`, `--target gpu .`, or `--target backfill .`, which is
# the first with what works on archives (databases, Parquet, S3), which is larger, so apart; `--target ray .`
# is that one with Ray, for clusters of KubeRay; `--target dicom .` is the first with what receives and
# sends DICOM, which `gpu` and `backfill` have too
#
# The model is inside, so that a pod needs no network to start. It runs as any user, with a root
# file system that is read-only: it writes nowhere.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS python
# Debian's own Python, whose security fixes come with those of the base: hence no version
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*

# What builds stays behind in these two stages
FROM python AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --without-pip /opt/cxrview
WORKDIR /source
COPY pyproject.toml constraints.txt constraints-gpu.txt README.md LICENSE ./
COPY cxrview cxrview
COPY service service
COPY training training
COPY model_store model_store

FROM build AS build-cpu
# Compiled now, because a read-only root keeps nothing that is compiled later
RUN pip --python /opt/cxrview/bin/python install --no-cache-dir --constraint constraints.txt ".[cpu,tracing]" \
    && python3 -m compileall -q -j 0 /opt/cxrview/lib

FROM build-cpu AS build-backfill
RUN pip --python /opt/cxrview/bin/python install --no-cache-dir --constraint constraints.txt ".[cpu,backfill,dicom,tracing]" \
    && python3 -m compileall -q -j 0 /opt/cxrview/lib

FROM build-cpu AS build-dicom
RUN pip --python /opt/cxrview/bin/python install --no-cache-dir --constraint constraints.txt ".[cpu,dicom,tracing]" \
    && python3 -m compileall -q -j 0 /opt/cxrview/lib \
    && mkdir -p /made/cxrview

FROM build-backfill AS build-ray
RUN pip --python /opt/cxrview/bin/python install --no-cache-dir --constraint constraints.txt ".[cpu,backfill,ray,tracing]" \
    && python3 -m compileall -q -j 0 /opt/cxrview/lib

FROM build AS build-gpu
RUN pip --python /opt/cxrview/bin/python install --no-cache-dir \
        --constraint constraints.txt --constraint constraints-gpu.txt ".[gpu,dicom,tracing]" \
    && pip --python /opt/cxrview/bin/python uninstall --yes onnxruntime onnxruntime-gpu \
    && pip --python /opt/cxrview/bin/python install --no-cache-dir --no-deps \
        --constraint constraints-gpu.txt onnxruntime-gpu \
    && python3 -m compileall -q -j 0 /opt/cxrview/lib

FROM python AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cxrview" \
      org.opencontainers.image.description="Frontal or lateral: the view of a chest radiograph, from its pixels" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/cxrview/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, which Kubernetes can prove not to be root
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["cxrview"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
# For engines without probes of their own; Kubernetes ignores it
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]

FROM runtime AS gpu
COPY --from=build-gpu /opt/cxrview /opt/cxrview
ENV CXRVIEW_PROVIDER=cuda

FROM runtime AS backfill
COPY --from=build-backfill /opt/cxrview /opt/cxrview

FROM runtime AS dicom
COPY --from=build-dicom /opt/cxrview /opt/cxrview
# /var/lib/cxrview, where a volume keeps the outbox
COPY --from=build-dicom --chown=10001:10001 /made /var/lib
EXPOSE 11112

FROM runtime AS ray
COPY --from=build-ray /opt/cxrview /opt/cxrview
# Also where login shells look, which have a PATH of their own, and older operators start
COPY --from=build-ray /opt/cxrview/bin/ray /opt/cxrview/bin/cxrview /usr/local/bin/
# Ray keeps its state under /tmp, and must not report its use
ENV HOME=/tmp \
    RAY_USAGE_STATS_ENABLED=0

FROM runtime AS cpu
COPY --from=build-cpu /opt/cxrview /opt/cxrview
