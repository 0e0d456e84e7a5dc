"""Throughput: images a second, latency, and the bottleneck."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.dashboards.deliveries import deliveries
from deploy.dashboards.parts import (
    IMAGES,
    Row,
    ask,
    lines,
    number,
    of,
    percentile,
    present,
    process,
    rate,
    rows,
    share,
    sheet,
)
from deploy.dashboards.receiver import receiver

INTERACTIVE = 'lane="interactive"'
BUDGET = f"max({of('cxrview_latency_budget_seconds')})"
P99 = percentile(0.99, "cxrview_answer_seconds", INTERACTIVE)
STAGES = rate("cxrview_stage_seconds_sum", by="stage")
POD = "{{pod}} {{instance}}"  # outside of Kubernetes there is no pod
EMPTY_WITHOUT_GPU = " Empty without a GPU."


def throughput() -> Dashboard:
    """For operators of the service."""
    return sheet(
        "cxrview-throughput",
        "cxrview: throughput",
        "Images a second, latency, and the bottleneck.",
        [
            ("Images a second", _images()),
            ("Answers", _answers()),
            ("Where the time goes", _stages()),
            ("Saturation", _saturation()),
            ("DICOM received", receiver()),
            ("Results delivered", deliveries()),
            ("What answers", _pods()),
        ],
        since="now-1h",
    )


def _images() -> list[Row]:
    now = number(
        "Images/s now",
        "Images classified each second, in both lanes and all pods.",
        IMAGES,
        ask(rate("cxrview_images_total")),
        runbook=["CxrviewStalled", "CxrviewRefusesAll"],
        decimals=1,
    )
    over_time = lines(
        "Images/s by view and lane",
        "Images classified each second; not_chest: no chest radiograph.",
        IMAGES,
        ask(rate("cxrview_images_total", by="view, lane"), "{{view}}, {{lane}}"),
        stacked=True,
        runbook=["CxrviewStalled"],
    )
    return [(9, [(8, now), (16, over_time)])]


def _answers() -> list[Row]:
    return [_answer_numbers(), _answer_lines()]


def _answer_numbers() -> Row:
    against = number(
        "p99 of the budget",
        "The 99th percentile of interactive answers as a share of the latency budget.",
        "percentunit",
        ask(f"{P99} / {BUDGET}"),
        limit=(0.75, 1),
        runbook=["CxrviewSlow"],
    )
    ready = number(
        "Pods ready",
        "Pods that accept images. A pod that drains or has a dead thread is not ready.",
        "short",
        ask(f"sum({of('cxrview_ready')})"),
        limit=(2, 1),
        runbook=["CxrviewNoneReady"],
        decimals=0,
    )
    scraped = number(
        "Pods down",
        "Pods whose metrics Prometheus cannot read.",
        "short",
        ask(f"count({process('up')}) - sum({process('up')})"),
        limit=(1, 1),
        runbook=["CxrviewDown", "CxrviewRestarts"],
        decimals=0,
    )
    return 4, [(8, against), (8, ready), (8, scraped)]


def _answer_lines() -> Row:
    percentiles = lines(
        "Time of an answer, interactive",
        "Time from the head of a request for one image to its answer, and the latency budget.",
        "s",
        *(
            ask(percentile(quantile, "cxrview_answer_seconds", INTERACTIVE), name)
            for quantile, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
        ),
        ask(BUDGET, "budget"),
        dashed="budget",
        runbook=["CxrviewSlow"],
    )
    refused = lines(
        "Refused by reason",
        "Images refused each second, by problem code. If the service is full, add pods.",
        IMAGES,
        ask(present("cxrview_images_refused_total", by="reason"), "{{reason}}"),
        stacked=True,
        runbook=["CxrviewOverloaded", "CxrviewFails", "CxrviewRefusesMore"],
    )
    return 9, [(12, percentiles), (12, refused)]


def _stages() -> list[Row]:
    bottleneck = number(
        "Bottleneck",
        "The stage in which images spend most time now. wait_decode and decode need CPU, queue"
        " and inference a smaller model or a GPU, receive a faster network.",
        "none",
        ask(f"topk(1, {STAGES})", "{{stage}}", now=True),
        named=True,
        runbook=["CxrviewSlow"],
        history=False,
    )
    stages = lines(
        "Seconds in each stage, each second",
        "Mean number of images in a stage. The bottleneck is the stage with the longest wait"
        " before it.",
        "short",
        ask(STAGES, "{{stage}}"),
        stacked=True,
        runbook=["CxrviewSlow"],
    )
    inside = lines(
        "Images inside",
        "Images that arrive, wait or are processed, and those that wait for the network.",
        "short",
        ask(f"sum by (lane) ({of('cxrview_inside_images')})", "inside, {{lane}}"),
        ask(f"sum by (lane) ({of('cxrview_queue_images')})", "queue, {{lane}}"),
        runbook=["CxrviewStalled"],
    )
    batches = lines(
        "Images in a batch",
        "Mean and 95th percentile of images in one call of the network. Larger batches cost less.",
        "short",
        ask(share(rate("cxrview_batch_images_sum"), rate("cxrview_batch_images_count")), "mean"),
        ask(percentile(0.95, "cxrview_batch_images"), "p95"),
    )
    return [(9, [(4, bottleneck), (8, stages), (6, inside), (6, batches)])]


def _saturation() -> list[Row]:
    workers = share(
        rate("cxrview_stage_seconds_sum", 'stage="decode"'), f"sum({of('cxrview_decode_workers')})"
    )
    held = share(f"sum({of('cxrview_held_bytes')})", f"sum({of('cxrview_held_limit_bytes')})")
    capacity = share(
        # Images of jobs pass no admission, which measures the capacity
        rate("cxrview_images_total", 'source!="backfills"', by="lane"),
        f"sum by (lane) ({of('cxrview_capacity_images_per_second')})",
    )
    full = lines(
        "Of what there is, in use",
        "Share of the decode threads and of the memory for bodies in use. At 100 %, add pods.",
        "percentunit",
        ask(workers, "decode threads"),
        ask(held, "bytes of bodies"),
        limit=(0.75, 0.95),
        most=1,
        runbook=["CxrviewOverloaded"],
    )
    load = lines(
        "Images/s, of the capacity",
        "Images answered, without those of jobs, as a share of the capacity. The capacity is"
        " measured under load, so it lags after an idle time.",
        "percentunit",
        ask(capacity, "{{lane}}"),
        limit=(0.75, 0.95),
        runbook=["CxrviewOverloaded"],
    )
    bodies = lines(
        "Bytes of bodies held",
        "Bytes of bodies in all pods, and the limit beyond which uploads are refused.",
        "bytes",
        ask(f"sum({of('cxrview_held_bytes')})", "held"),
        ask(f"sum({of('cxrview_held_limit_bytes')})", "limit"),
        dashed="limit",
        runbook=["CxrviewOverloaded"],
    )
    return [(8, [(8, full), (8, load), (8, bodies)])]


def _pods() -> list[Row]:
    return [_pod_use(), _pod_versions()]


def _pod_use() -> Row:
    cpu = lines(
        "CPU by pod",
        "CPU cores in use.",
        "short",
        ask(
            f"sum by (pod, instance) (rate({process('process_cpu_seconds_total')}"
            "[$__rate_interval]))",
            POD,
        ),
    )
    memory = lines(
        "Memory by pod",
        "Resident memory of the process.",
        "bytes",
        ask(f"sum by (pod, instance) ({process('process_resident_memory_bytes')})", POD),
        runbook=["CxrviewRestarts"],
    )
    gpu = lines(
        "GPU utilisation by pod",
        "Share of the time in which the GPU computes." + EMPTY_WITHOUT_GPU,
        "percentunit",
        ask(f"avg by (pod, instance) ({of('cxrview_gpu_utilization_ratio')})", POD),
        most=1,
        runbook=["CxrviewOnCpu"],
    )
    gpu_memory = lines(
        "GPU memory by pod",
        "Memory in use, and the total of the GPU." + EMPTY_WITHOUT_GPU,
        "bytes",
        ask(
            f"sum by (pod, instance, kind) ({of('cxrview_gpu_memory_bytes')})",
            f"{{{{kind}}}} {POD}",
        ),
    )
    return 8, [(6, cpu), (6, memory), (6, gpu), (6, gpu_memory)]


def _pod_versions() -> Row:
    models = rows(
        "Models",
        "Pods by model and execution provider. There is more than one line during a rollout.",
        f"sum by (name, version, provider) ({of('cxrview_model_info')})",
        {"name": "Model", "version": "Version", "provider": "Runs on", "Value": "Pods"},
        runbook=["CxrviewOnCpu"],
    )
    builds = rows(
        "Builds",
        "Pods by version of the service and of ONNX Runtime.",
        f"sum by (version, onnxruntime) ({of('cxrview_build_info')})",
        {"version": "cxrview", "onnxruntime": "ONNX Runtime", "Value": "Pods"},
    )
    return 5, [(14, models), (10, builds)]
