"""What an operator sees: probes, metrics, the card, the documents, start and stop."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import httpx2
import needs
import onnxruntime
import pytest
from conftest import DATA, ROOT
from prometheus_client.metrics import MetricWrapperBase
from pydantic import ValidationError

from model_store import AnsweredView, ModelCard, ModelNotFoundError, ModelVersion
from service.api import metrics
from service.api.app import create_app
from service.api.gpu import GPU
from service.api.metrics import AGREEMENTS, SOURCES, STAGES, Finding
from service.api.problems import CODES, KINDS
from service.api.routes.backfills import OF_JOBS
from service.api.settings import Settings
from service.imaging import Decoder
from service.inference import LANES, STUCK_SECONDS, Classification, Reason

BODY = (DATA / "frontal-0003.jpg").read_bytes()


def value(text: str, metric: str) -> float:
    """One sample of the text format; 0 where it is absent."""
    match = re.search(rf"^{re.escape(metric)} (\S+)$", text, re.MULTILINE)
    return float(match[1]) if match else 0.0


def test_an_image_moves_every_metric(start, light: Settings) -> None:
    """Answers of both lanes and one refusal, and the documented metrics have counted them."""
    with start(light) as service, service.client() as client:
        card = service.runtime.card
        before = client.get("/metrics").text
        view = client.post("/v1/classify", content=BODY).json()["view"]
        client.post("/v1/classify?lane=backfill", content=BODY)
        client.post("/v1/classify", content=b"no image")
        dicom = (DATA / "lateral-0013-header-says-pa.dcm").read_bytes()
        found = client.post("/v1/classify", content=dicom).json()
        client.post("/v1/classify/batch", files={"files": ("a.jpg", BODY)})
        service.until(lambda: not service.runtime.budget.reserved)  # given back after the last byte
        after = client.get("/metrics").text
    moved = [
        *(
            f'cxrview_images_total{{lane="{lane}",source="classify",view="{view}"}}'
            for lane in LANES
        ),
        f'cxrview_images_total{{lane="backfill",source="batch",view="{view}"}}',
        f'cxrview_headers_total{{agreement="{"" if found["header"]["agrees"] else "dis"}agrees"}}',
        *(f'cxrview_stage_seconds_count{{stage="{stage}"}}' for stage in STAGES),
        'cxrview_images_refused_total{reason="unrecognised_format"}',
        "cxrview_batch_images_count",
        "cxrview_pfi_ratio_count",
    ]
    for name in moved:
        assert value(after, name) > value(before, name), name
    for lane in LANES:
        counted = f'cxrview_answer_seconds_count{{lane="{lane}"}}'
        assert value(after, counted) > value(before, counted)
    budget = service.runtime.settings.latency_budget_seconds
    assert value(after, "cxrview_latency_budget_seconds") == budget
    assert value(after, "cxrview_cpu_fallback") == 0
    received = 'cxrview_received_bytes_total{lane="interactive"}'
    sent = len(BODY) + len(b"no image") + len(dicom)
    assert value(after, received) - value(before, received) == sent
    assert f'cxrview_build_info{{onnxruntime="{onnxruntime.__version__}",version="' in after
    for lane in LANES:
        assert f'cxrview_queue_images{{lane="{lane}"}} 0.0' in after
        assert f'cxrview_inside_images{{lane="{lane}"}} 0.0' in after
        assert value(after, f'cxrview_capacity_images_per_second{{lane="{lane}"}}') > 0
    assert "cxrview_ready 1.0" in after
    assert "cxrview_decode_workers_busy 0.0" in after
    workers = len(LANES) * service.runtime.settings.decode_workers
    assert value(after, "cxrview_decode_workers") == workers
    assert "cxrview_held_bytes 0.0" in after
    assert value(after, "cxrview_held_limit_bytes") == service.runtime.settings.max_held_bytes
    info = f'name="mean",provider="cpu",sha256="{card.model_sha256}",version="1.0.0"'
    assert f"cxrview_model_info{{{info}}} 1.0" in after


def test_what_has_not_happened_is_counted_as_zero(client: httpx2.Client) -> None:
    """Else the first of its kind would be no increase, and no alert would see it."""
    text = client.get("/metrics").text
    for kind in KINDS.values():
        assert f'cxrview_images_refused_total{{reason="{kind.code}"}} ' in text
    for decoder in get_args(Decoder):
        assert f'cxrview_decoder_fallbacks_total{{decoder="{decoder}"}} ' in text


def test_metric_labels_come_from_closed_sets(client: httpx2.Client) -> None:
    """Whatever clients send, no label of ours has a value that is not in our tables."""
    client.post("/v1/classify", content=b"x", headers={"content-type": "Doe^Jane"})
    text = client.get("/metrics").text
    named = "view|reason|cause|stage|lane|source|agreement|finding"
    sample = rf'^cxrview_\w+\{{(?:\w+="[^"]*",)*({named})="([^"]*)"'
    labels = set(re.findall(sample, text, re.MULTILINE))
    allowed = {"view": set(get_args(AnsweredView)), "reason": {*CODES, *OF_JOBS}}
    allowed |= {"stage": set(STAGES), "lane": set(LANES)}
    allowed |= {"cause": set(get_args(Reason))}
    allowed |= {"source": set(SOURCES), "agreement": set(AGREEMENTS)}
    allowed |= {"finding": set(get_args(Finding))}
    assert labels
    assert all(found in allowed[label] for label, found in labels)


def answered(**changes: Any) -> Classification:
    """A frontal image that needs no review, of a model without heads beside that of the view."""
    whole = {"view": "frontal", "pfi": 0.9, "threshold": 0.5, "review": False, "header": None}
    whole |= {"sop_instance_uid": None, "warnings": []}
    whole |= {"model": {"name": "swift", "version": "1.1.0", "sha256": ""}}
    return Classification.model_validate(whole | changes)


def gained(client: httpx2.Client, answer: Classification) -> dict[str, float]:
    """What one answer adds to which metric."""
    before = samples(client.get("/metrics").text)
    metrics.count_answer(answer, "interactive", "classify", ("imagecodecs-jpeg",))
    after = samples(client.get("/metrics").text)
    return {
        name.removeprefix("cxrview_"): after[name] - before[name]
        for name in after
        if name.startswith("cxrview_") and after[name] != before[name] and "_bucket" not in name
    }


def samples(text: str) -> dict[str, float]:
    """The values of the text format by name and labels."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(number) for name, _, number in lines if "_created" not in name}


FALLBACK = 'decoder_fallbacks_total{decoder="imagecodecs-jpeg"}'
PFI = {"pfi_ratio_count": 1, "pfi_ratio_sum": pytest.approx(0.9)}
LIES = {
    "rotation_degrees": 0,
    "rotation_probability": 0.9,
    "inverted": False,
    "inverted_probability": 0.1,
    "mirrored": None,
    "mirrored_probability": None,
}


@pytest.mark.parametrize(
    ("agrees", "agreement"), [(True, "agrees"), (False, "disagrees"), (None, "silent")]
)
def test_what_is_rare_is_counted(
    client: httpx2.Client, agrees: bool | None, agreement: str
) -> None:
    """A decoder that failed, an image for a person to look at, a header that agrees or not."""
    header = {"view_position": "PA", "agrees": agrees}
    assert gained(client, answered(review=True, header=header)) == PFI | {
        FALLBACK: 1,
        'images_total{lane="interactive",source="classify",view="frontal"}': 1,
        'images_review_total{view="frontal"}': 1,
        f'headers_total{{agreement="{agreement}"}}': 1,
    }


def test_an_image_that_is_no_chest_radiograph_is_counted_apart(client: httpx2.Client) -> None:
    """Its PFI says nothing, and is left out; its Body Part Examined is compared."""
    header = {"view_position": "PA", "agrees": None, "body_part_agrees": False}
    answer = answered(view="not_chest", chest=0.2, review=True, header=header)
    assert gained(client, answer) == {
        FALLBACK: 1,
        'images_total{lane="interactive",source="classify",view="not_chest"}': 1,
        'images_review_total{view="not_chest"}': 1,
        'headers_total{agreement="silent"}': 1,
        'body_parts_total{agreement="disagrees"}': 1,
        "chest_ratio_count": 1,
        "chest_ratio_sum": pytest.approx(0.2),
    }


@pytest.mark.parametrize(
    ("lies", "findings"),
    [
        ({}, []),
        ({"rotation_degrees": 90}, ["turn_90"]),
        ({"rotation_degrees": 180, "mirrored": True}, ["turn_180", "mirrored"]),
        ({"rotation_degrees": 270, "inverted": True}, ["turn_270", "inverted"]),
        ({"rotation_degrees": None, "inverted": None, "mirrored": False}, []),
    ],
)
def test_images_that_do_not_lie_as_usual_are_counted(
    client: httpx2.Client, lies: dict[str, Any], findings: list[str]
) -> None:
    """Each finding by itself; an image may have two."""
    found = gained(client, answered(chest=0.9, orientation=LIES | lies))
    counted = {name: by for name, by in found.items() if name.startswith("orientation_total")}
    assert counted == {f'orientation_total{{finding="{finding}"}}': 1 for finding in findings}


def test_every_metric_is_documented() -> None:
    """docs/metrics.md has one line of each, and of no other: name, type, labels, meaning."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    ours = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
    described = [(metric._labelnames, *metric.describe()) for metric in ours]
    described += [(family._labelnames, family) for family in GPU.describe()]
    lines = set()
    for labelnames, family in described:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in labelnames)
        lines.add(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    assert {line for line in text.splitlines() if line.startswith("| `cxrview_")} == lines


@pytest.mark.skipif(sys.platform != "linux", reason=needs.LINUX)
def test_the_process_is_measured(client: httpx2.Client) -> None:
    """Its memory, its CPU time, its start and its open files, by the Prometheus client."""
    text = client.get("/metrics").text
    assert value(text, "process_resident_memory_bytes") > 2**20
    assert value(text, "process_cpu_seconds_total") > 0
    assert 0 < time.time() - value(text, "process_start_time_seconds") < 24 * 3600
    assert 0 < value(text, "process_open_fds") <= value(text, "process_max_fds")


def test_the_card_is_served(client: httpx2.Client, default: ModelVersion) -> None:
    """`/v1/model` is the card, whole."""
    assert ModelCard.model_validate_json(client.get("/v1/model").content) == default.card


def test_it_is_live_and_ready(client: httpx2.Client) -> None:
    """Both probes answer."""
    assert client.get("/livez").json() == {"status": "live"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_the_documents_need_no_internet(client: httpx2.Client) -> None:
    """Scripts and styles of /docs come from the service itself."""
    page = client.get("/docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources
    for source in sources:
        assert source.startswith("/")
        assert client.get(source).status_code == 200


def test_openapi_documents_bodies_and_problems(client: httpx2.Client) -> None:
    """The description names every accepted body and every problem's code."""
    api = client.get("/openapi.json").json()
    one = api["paths"]["/v1/classify"]["post"]
    assert {"application/dicom", "image/png", "multipart/form-data"} <= one["requestBody"][
        "content"
    ].keys()
    many = api["paths"]["/v1/classify/batch"]["post"]
    assert "application/x-ndjson" in many["responses"]["200"]["content"]
    assert one["responses"]["415"]["content"].keys() == {"application/problem+json"}
    text = str(one["responses"])
    assert all(f"`{kind.code}`" in text for kind in KINDS.values())
    assert "examples" in api["components"]["schemas"]["Classification"]


def test_the_lane_is_one_of_two(client: httpx2.Client) -> None:
    """It is documented with its values; another one is told so, without what was sent."""
    api = client.get("/openapi.json").json()
    named = {each["name"]: each for each in api["paths"]["/v1/classify"]["post"]["parameters"]}
    lane = named["lane"]
    assert lane["schema"]["enum"] == list(LANES)
    assert lane["schema"]["default"] == "interactive"
    response = client.post("/v1/classify?lane=Doe^Jane", content=BODY)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "invalid_request")
    assert problem["detail"].startswith("lane: ")
    assert "Doe" not in response.text


@pytest.mark.parametrize("path", ["/v1/classify?lanes=backfill", "/v1/classify?lane=backfill&x=1"])
def test_an_unknown_parameter_is_refused(client, path: str) -> None:
    """A misspelt one would have no effect; its value may be a patient's."""
    response = client.post(f"{path}Doe", content=b"x")
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "invalid_request")
    assert "unknown; this endpoint has lane" in problem["detail"]
    assert "Doe" not in response.text
    response = client.get("/v1/model?version=1")
    assert (response.status_code, response.json()["detail"]) == (
        422,
        "version: unknown; this endpoint has none",
    )
    assert client.get("/livez?probe=1").status_code == 200  # balancers add what they like


def test_every_code_is_documented() -> None:
    """docs/problems.md lists exactly the codes of the table."""
    page = (ROOT / "docs" / "problems.md").read_text().split("## Warnings")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(CODES)


def test_every_setting_describes_itself() -> None:
    """In a sentence, from which docs/settings.md is made."""
    for name, field in Settings.model_fields.items():
        assert (field.description or "").strip().endswith("."), name


def test_the_page_on_security_names_what_there_is() -> None:
    """Each setting that it names exists, and each file."""
    text = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(max_\w+|trusted_proxies|latency_budget_seconds)`", text))
    assert len(named) > 10
    assert named <= Settings.model_fields.keys()
    for path in re.findall(r"`((?:service|tests)/[\w/]+(?:\.py)?)/?`", text):
        assert (ROOT / path).exists(), path


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable is read under its prefix, checked, and frozen."""
    monkeypatch.setenv("CXRVIEW_MAX_QUEUE_IMAGES", "7")
    settings = Settings()
    assert settings.max_queue_images == 7
    assert settings.decode_workers >= 1
    with pytest.raises(ValidationError, match="frozen"):
        settings.max_queue_images = 8


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("MAX_BATCH_IMAGES", "6"),
        ("MAX_BATCH_IMAGES", "0"),
        ("PROVIDER", "tpu"),
        ("MAX_UPLOAD_BYTES", "-1"),
        ("MAX_ARCHIVE_RATIO", "1"),
        ("DECODE_WORKERS", "many"),
        ("LATENCY_BUDGET_SECONDS", "0"),
        ("MAX_UPLOAD_BYTES", str(2**30)),
        ("MAX_BATCH_BODY_BYTES", str(200 * 2**20)),
    ],
)
def test_wrong_settings_do_not_start(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: str
) -> None:
    """A value that cannot be meant is told by its name."""
    monkeypatch.setenv(f"CXRVIEW_{name}", wrong)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_what_kubernetes_sets_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service called cxrview puts CXRVIEW_PORT=tcp://... into every pod; it must not matter."""
    monkeypatch.setenv("CXRVIEW_PORT", "tcp://10.0.0.1:8000")
    Settings()


def test_a_missing_model_ends_the_start() -> None:
    """The process fails with the reason, and never becomes ready."""
    with pytest.raises(ModelNotFoundError, match=r"googlenet/9\.9\.9"):
        create_app(Settings(model="googlenet/9.9.9"))


def test_it_is_not_ready_once_it_stops() -> None:
    """When the batcher has closed, /readyz says 503 and images are told why."""

    async def scenario() -> tuple[int, dict[str, str], int]:
        app = create_app(Settings())
        async with app.router.lifespan_context(app):
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
                await asyncio.to_thread(app.state.runtime.pipeline.close)
                ready = await client.get("/readyz")
                refused = await client.post("/v1/classify", content=BODY)
        return ready.status_code, refused.json(), refused.status_code

    ready, problem, status = asyncio.run(scenario())
    assert (ready, status, problem["code"]) == (503, 503, "stopping")


def test_it_is_live_until_it_is_stuck(
    start, light: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """503 and the reason while a batch does not return, then as ever; who drains is let be."""
    answers: list[httpx2.Response] = []
    with start(light) as service, service.client() as client:

        def probe() -> None:
            answers.extend([client.get("/livez"), client.get("/readyz")])

        runtime = service.runtime
        with service.network_held():
            probe()
            runtime.stuck_seconds["interactive"] = 0
            probe()
            runtime.draining.set()
            probe()
        runtime.draining.clear()
        service.until(lambda: not runtime.stuck)
        probe()
    assert [answer.status_code for answer in answers] == [200, 200, 503, 503, 200, 503, 200, 200]
    reasons = ["a batch of the lane interactive has run for 0 s"]
    assert answers[2].json() == {"status": "stuck", "reasons": reasons}
    assert answers[3].json() == {"status": "not ready", "reasons": reasons}
    assert answers[5].json() == {"status": "not ready"}
    ours = [record for record in caplog.records if record.name == "service.api.routes.operations"]
    assert [record.getMessage() for record in ours] == [f"stuck: {reasons[0]}"]


def test_the_kubelet_waits_for_what_load_may_take() -> None:
    """A restart takes several failures in a row, each of a whole answer, and never one slow one."""
    chart = (ROOT / "helm" / "cxrview" / "templates" / "deployment.yaml").read_text()
    probe = chart.split("livenessProbe:")[1].split("resources:")[0]
    found = {name: int(number) for name, number in re.findall(r"(\w+): (\d+)", probe)}
    assert "path: /livez" in probe
    assert found["failureThreshold"] >= 3
    assert found["timeoutSeconds"] >= 5
    assert found["periodSeconds"] * found["failureThreshold"] <= min(STUCK_SECONDS.values())


def test_an_unforeseen_error_tells_nothing_but_its_code() -> None:
    """500 is a problem too, and keeps its inside to the log."""

    async def scenario() -> httpx2.Response:
        app = create_app(Settings())

        @app.get("/broken")
        def broken() -> None:
            raise RuntimeError("Doe^Jane")

        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/broken")

    response = asyncio.run(scenario())
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "Doe" not in response.text


def test_uploads_never_touch_a_disk(service, tmp_path: Path) -> None:
    """Serving a large form opens no file for writing."""
    program = f"""
import sys
opened = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        opened.append(arguments[0])
import asyncio, httpx2
from service.api import metrics
from service.api.app import create_app
from service.api.routes.backfills import OF_JOBS
from service.api.gpu import GPU
from service.api.metrics import STAGES
from service.api.settings import Settings
from service.imaging import Decoder
from service.inference import LANES
async def main():
    app = create_app(Settings())
    async with app.router.lifespan_context(app):
        sys.addaudithook(watch)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            body = open({str(DATA / "frontal-0003.jpg")!r}, "rb").read() + bytes(3 * 2**20)
            one = await client.post("/v1/classify", files={{"file": body}})
            many = await client.post("/v1/classify/batch", files=[("files", body)] * 3)
            print(one.status_code, many.text.count("frontal"), opened)
asyncio.run(main())
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert run.stdout.split() == ["200", "3", "[]"]
