"""Throughput: how many images a second, how long they take, and what keeps them from being more."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

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

INTERACTIVE = 'lane="interactive"'
BUDGET = f"max({of('cxrview_latency_budget_seconds')})"
P99 = percentile(0.99, "cxrview_answer_seconds", INTERACTIVE)
STAGES = rate("cxrview_stage_seconds_sum", by="stage")
POD = "{{pod}} {{instance}}"  # outside of Kubernetes there is no pod
EMPTY_WITHOUT_GPU = " Empty without a GPU."


def throughput() -> Dashboard:
    """For who runs the service."""
    return sheet(
        "cxrview-throughput",
        "cxrview: throughput",
        "Images a second, how long they take, and what keeps them from being more.",
        [
            ("Images a second", _images()),
            ("Answers", _answers()),
            ("Where the time goes", _stages()),
            ("Saturation", _saturation()),
            ("What answers", _pods()),
        ],
        since="now-1h",
    )


def _images() -> list[Row]:
    now = number(
        "Images/s now",
        "Images classified each second, of both lanes and all pods.",
        IMAGES,
        ask(rate("cxrview_images_total")),
        runbook=["CxrviewStandsStill", "CxrviewRefusesAll"],
        decimals=1,
    )
    over_time = lines(
        "Images/s by view and lane",
        "Images classified each second.",
        IMAGES,
        ask(rate("cxrview_images_total", by="view, lane"), "{{view}}, {{lane}}"),
        stacked=True,
        runbook=["CxrviewStandsStill"],
    )
    return [(9, [(8, now), (16, over_time)])]


def _answers() -> list[Row]:
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
        "Pods that take images; a pod that drains or whose threads have ended does not.",
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
    percentiles = lines(
        "Time of an answer, interactive",
        "From the head of a request to its answer, one image each, beside the latency budget.",
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
        "Images refused each second, by problem code; those of a full service ask for more pods.",
        IMAGES,
        ask(present("cxrview_images_refused_total", by="reason"), "{{reason}}"),
        stacked=True,
        runbook=["CxrviewFull", "CxrviewFails", "CxrviewRefusesMore"],
    )
    return [
        (4, [(8, against), (8, ready), (8, scraped)]),
        (9, [(12, percentiles), (12, refused)]),
    ]


def _stages() -> list[Row]:
    bottleneck = number(
        "Bottleneck",
        "The stage in which images spend most time now. wait_decode and decode ask for CPU, queue"
        " and inference for a smaller model or a GPU, receive for a faster network.",
        "none",
        ask(f"topk(1, {STAGES})", "{{stage}}", now=True),
        named=True,
        runbook=["CxrviewSlow"],
        history=False,
    )
    stages = lines(
        "Seconds in each stage, each second",
        "How many images are in a stage, on average. Where the waiting is longest before is the"
        " bottleneck.",
        "short",
        ask(STAGES, "{{stage}}"),
        stacked=True,
        runbook=["CxrviewSlow"],
    )
    inside = lines(
        "Images inside",
        "Arriving, waiting or being worked on; of these, those that wait for the network.",
        "short",
        ask(f"sum by (lane) ({of('cxrview_inside_images')})", "inside, {{lane}}"),
        ask(f"sum by (lane) ({of('cxrview_queue_images')})", "queue, {{lane}}"),
        runbook=["CxrviewStandsStill"],
    )
    batches = lines(
        "Images in a batch",
        "Mean and 95th percentile of images in one call of the network; more are cheaper.",
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
        rate("cxrview_images_total", by="lane"),
        f"sum by (lane) ({of('cxrview_capacity_images_per_second')})",
    )
    full = lines(
        "Of what there is, in use",
        "Threads that decode, and memory for bodies. At 100 % more pods are needed.",
        "percentunit",
        ask(workers, "decode threads"),
        ask(held, "bytes of bodies"),
        limit=(0.75, 0.95),
        most=1,
        runbook=["CxrviewFull"],
    )
    load = lines(
        "Images/s, of the capacity",
        "What is answered, of what the pods answer while they are busy. Capacity is measured under"
        " load, so that it lags behind after a rest.",
        "percentunit",
        ask(capacity, "{{lane}}"),
        limit=(0.75, 0.95),
        runbook=["CxrviewFull"],
    )
    bodies = lines(
        "Bytes of bodies held",
        "Of all pods, beside the limit beyond which uploads are refused.",
        "bytes",
        ask(f"sum({of('cxrview_held_bytes')})", "held"),
        ask(f"sum({of('cxrview_held_limit_bytes')})", "limit"),
        dashed="limit",
        runbook=["CxrviewFull"],
    )
    return [(8, [(8, full), (8, load), (8, bodies)])]


def _pods() -> list[Row]:
    cpu = lines(
        "CPU by pod",
        "Processors in use.",
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
        "In use, beside what the GPU has." + EMPTY_WITHOUT_GPU,
        "bytes",
        ask(
            f"sum by (pod, instance, kind) ({of('cxrview_gpu_memory_bytes')})",
            f"{{{{kind}}}} {POD}",
        ),
    )
    models = rows(
        "Models",
        "Which model answers in how many pods, and where it runs. More than one line while it is"
        " being replaced.",
        f"sum by (name, version, provider) ({of('cxrview_model_info')})",
        {"name": "Model", "version": "Version", "provider": "Runs on", "Value": "Pods"},
        runbook=["CxrviewOnCpu"],
    )
    builds = rows(
        "Builds",
        "Which versions of the service and of ONNX Runtime answer, in how many pods.",
        f"sum by (version, onnxruntime) ({of('cxrview_build_info')})",
        {"version": "cxrview", "onnxruntime": "ONNX Runtime", "Value": "Pods"},
    )
    return [
        (8, [(6, cpu), (6, memory), (6, gpu), (6, gpu_memory)]),
        (5, [(14, models), (10, builds)]),
    ]
