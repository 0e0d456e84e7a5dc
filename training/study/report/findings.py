"""The results sections of a report: tables, and the sentences that their numbers make."""

from __future__ import annotations

from training.study.report.document import (
    NOTHING,
    Block,
    Cell,
    Figure,
    Section,
    Table,
    Text,
    bounded,
    interval,
    listed,
    optional,
    p_value,
    percent,
    share,
    share_cell,
)
from training.study.report.held_out import gallery, robustness, tests, window
from training.study.results import Candidate, Comparison, Results


def findings(results: Results) -> list[Section]:
    """All results, figures in the order of their numbers."""
    return [
        flow(results),
        candidates(results),
        comparisons(results),
        pfis(results),
        cutoff(results),
        tests(results),
        robustness(results),
        calibration(results),
        gallery(results),
        leakage(results),
        window(results),
        speed(results),
    ]


def flow(results: Results) -> Section:
    """Each step with its counts and what was left out on the way."""
    rows: list[tuple[Cell, ...]] = []
    for step in results.flow:
        counts = (step.images, step.patients, step.frontal, step.lateral)
        left_out = "\n".join(f"{n:,} {reason}" for reason, n in step.excluded.items()) or "none"
        cells = (NOTHING if count is None else f"{count:,}" for count in counts)
        rows.append((step.name, *cells, left_out))
    header = ("Step", "Images", "Patients", "Frontal", "Lateral", "Left out before it")
    caption = "Flow of images. A dash: not counted at this step."
    alt = "; ".join(f"{step.name}: {step.images:,} images" for step in results.flow)
    figure = Figure("fig1-flow", "Flow of images, patients and views.", alt)
    return Section("Flow of images", (figure, Table(caption, header, tuple(rows))), level=3)


def candidates(results: Results) -> Section:
    """The nine, and how clear the choice among them was."""
    rows = tuple(_candidate_row(c, results.chosen) for c in results.candidates)
    header = (
        "Pre-training", "Fine-tuning", "Accuracy, %\n(95 % CI)", "On originals, %\n(95 % CI)",
        "Loss", "Training images\nseen", "Seconds", "Images/s",
    )  # fmt: skip
    caption = (
        "The candidates on validation images: PFI ≥ 0.5, originals and children; then the originals"
        " alone. The loss is cross-entropy in which both views weigh the same."
    )
    parts = [f"{c.name}: {percent(c.accuracy.value)} %" for c in results.candidates]
    alt = f"Accuracy of each candidate. {'; '.join(parts)}. Chosen: {results.chosen}."
    words = "Accuracy of the candidates on validation images and children; bars are 95 % CIs."
    figure = Figure("fig2-candidates", f"{words} Ringed: {results.chosen}.", alt)
    blocks = (Text(_choice(results)), figure, Table(caption, header, rows))
    return Section("Candidates", blocks, level=3)


def _candidate_row(candidate: Candidate, chosen: str) -> tuple[Cell, ...]:
    mark = "\n(chosen)" if candidate.name == chosen else ""
    return (
        f"{candidate.pretraining}{mark}",
        candidate.method,
        share_cell(candidate.accuracy),
        share_cell(candidate.accuracy_originals),
        f"{candidate.loss:.5f}",
        f"{candidate.training_images:,}",
        f"{candidate.seconds:,.0f}",
        f"{candidate.images_per_second:,.1f}",
    )


def _choice(results: Results) -> str:
    chosen = next(c for c in results.candidates if c.name == results.chosen)
    others = [c for c in results.candidates if c.name != results.chosen]
    better = [c for c in others if c.accuracy.value > chosen.accuracy.value]
    equal = [c for c in others if c.accuracy.value == chosen.accuracy.value]
    overlapping = [
        c
        for c in others
        if c.accuracy.ci95[1] >= chosen.accuracy.ci95[0]
        and c.accuracy.ci95[0] <= chosen.accuracy.ci95[1]
    ]
    if better:
        rank = f"{len(better)} of the other {len(others)} candidates reached a higher accuracy."
    elif equal:
        rank = (
            f"{len(equal)} of the other {len(others)} candidates reached the same accuracy, so"
            " accuracy alone did not decide."
        )
    else:
        rank = "No other candidate reached this accuracy."
    return (
        f"Chosen: {chosen.name}, right on {share(chosen.accuracy)} of validation images and"
        f" children. {rank} The intervals of {len(overlapping)} of the others overlap with its own."
    )


def comparisons(results: Results) -> Section:
    """Pooled candidates, by chi-squared."""
    caption = (
        "Candidates pooled, right answers on validation images and children compared by Pearson's"
        " chi-squared. All candidates answered the same images, and children resemble their"
        " image, so answers are not independent: read p as a description."
    )
    header = ("Question", "Pooled: right/n, %", "χ²", "Degrees of\nfreedom", "p")
    rows = tuple(_comparison_row(one) for one in results.comparisons)
    return Section("Pooled comparisons", (Table(caption, header, rows),), level=3)


def _comparison_row(one: Comparison) -> tuple[Cell, ...]:
    groups = "\n".join(
        f"{group.name}: {group.right:,}/{group.n:,} = {percent(group.right / group.n)}"
        for group in one.groups
    )
    if one.chi_squared is None or one.p is None:
        all_right = all(group.right == group.n for group in one.groups)
        undefined = f"undefined: every answer\nwas {'right' if all_right else 'wrong'}"
        return one.question, groups, undefined, f"{one.degrees_of_freedom}", NOTHING
    numbers = (f"{one.chi_squared:.2f}", f"{one.degrees_of_freedom}", p_value(one.p))
    return one.question, groups, *numbers


def pfis(results: Results) -> Section:
    """How far the two views lie apart, and where the images came from."""
    images = results.test_images
    frontal = [image.pfi for image in images if image.view == "frontal"]
    lateral = [image.pfi for image in images if image.view == "lateral"]
    text = f"The test set holds {len(frontal):,} frontal and {len(lateral):,} lateral images."
    if frontal and lateral:
        low, high = min(frontal), max(lateral)
        apart = "the views do not overlap" if low > high else "the views overlap"
        text += (
            f" The lowest PFI of a frontal image is {bounded(low, 4)}, the highest of a lateral"
            f" {bounded(high, 4)}: {apart}."
        )
    words = "PFI of the test images, evenly spaced and by logit; the count axis is logarithmic."
    shown = Figure(
        "fig4-examples", "Test images with their true view and PFI.",
        "Radiographs in a grid, each with its true view, PFI, source and licence.",
        radiographs=True,
    )  # fmt: skip
    blocks = (Text(text), Figure("fig3-pfi", words, text), shown)
    return Section("PFI of the test images", blocks, level=3)


def cutoff(results: Results) -> Section:
    """The plateau and its two points."""
    plateau = results.plateau
    names = {"middle": "the middle in logits", "high": "the upper end, as in the paper"}
    points = listed([f"{bounded(a.threshold, 6)} ({names[a.rule]})" for a in results.assessed])
    text = (
        f"On {plateau.images:,} images ({plateau.measured_on}) Youden's J is highest,"
        f" {plateau.youden_j:.5f}, at every cutoff above {bounded(plateau.low, 6)} and up to"
        f" {bounded(plateau.high, 6)}. Cutoffs assessed: {points}."
    )
    drawn = listed([curve.measured_on for curve in results.curves])
    figure = Figure("fig5-youden", f"Youden's J by cutoff: {drawn}.", text)
    return Section("Cutoff", (Text(text), figure), level=3)


def calibration(results: Results) -> Section:
    """Temperature scaling, and the band of PFIs for a person."""
    found, review = results.calibration, results.review
    test = _change(found.ece_before, found.ece_after)
    grid = _change(found.ece_grid_before, found.ece_grid_after)
    text = (
        f"Temperature scaling divides logits by T = {found.temperature:.3f}. By it the expected"
        f" calibration error of the test images {test}, that of the Figure 6 grid {grid}."
    )
    kept = "keeps" if review.attained <= review.error_bound else "does not keep"
    band = (
        f"PFIs from {bounded(review.band.low, 4)} to {bounded(review.band.high, 4)} are for a"
        f" person to review. The band was chosen on {review.images:,} images"
        f" ({review.measured_on}), so that of the answers outside it at most"
        f" {100 * review.error_bound:g} % are wrong, with {100 * review.confidence:g} %"
        f" confidence; the upper confidence limit reached is {percent(review.attained)} %, which"
        f" {kept} the bound. Answered without review: {share(review.coverage)}."
    )
    outside = [
        str(one.rule)
        for one in results.assessed
        if not review.band.low <= one.threshold <= review.band.high
    ]
    if outside:
        band += f" Of the cutoffs, it does not hold {listed(outside)}; there it is widened to it."
    words = "Share of frontal images by PFI on the Figure 6 grid, before and after scaling."
    figure = Figure("fig7-reliability", f"{words} Bars are 95 % CIs.", text)
    return Section("Calibration and review", (Text(text), Text(band), figure), level=3)


def _change(before: float, after: float) -> str:
    old, new = bounded(before, 4), bounded(after, 4)
    if old == new:
        return f"stays at {new}"
    return f"{'falls' if after < before else 'rises'} from {old} to {new}"


def leakage(results: Results) -> Section:
    """How far the figures depend on the way of measuring."""
    rows = tuple(
        (row.question, row.setting, row.model, f"{row.n:,}",
         f"{percent(row.accuracy)}\n({interval(row.ci95)})", row.ci_method,
         optional(row.auroc, 5), row.note or NOTHING)
        for row in results.leakage
    )  # fmt: skip
    header = (
        "Question", "Setting", "Model", "n", "Accuracy, %\n(95 % CI)", "Interval", "AUROC", "Note",
    )  # fmt: skip
    paragraphs = tuple(Text(part) for part in results.leakage_text.split("\n\n") if part.strip())
    parts = [f"{row.question}, {row.setting}: {percent(row.accuracy)} %" for row in results.leakage]
    words = "Accuracy by way of measuring, with 95 % CIs."
    figure = Figure("fig9-leakage", words, f"{words} {'; '.join(parts)}.")
    caption = "One way of measuring against another; n counts test images over all repeats."
    blocks: tuple[Block, ...] = (*paragraphs, figure, Table(caption, header, rows))
    return Section("What leakage would have added", blocks, level=3)


def speed(results: Results) -> Section:
    """What it cost."""
    cost = results.speed
    text = (
        f"On {cost.device}, {cost.world_size} process{'' if cost.world_size == 1 else 'es'}:"
        f" training takes {cost.training_images_per_second:,.1f} images/s (all layers, forward and"
        f" backward, the slowest candidate), of which making batches takes at most"
        f" {percent(cost.loading_share)} % of a step's time; testing takes"
        f" {cost.test_images_per_second:,.1f} images/s (ONNX Runtime, tensors in memory, batches"
        " of 8)."
    )
    return Section("Speed", (Text(text),), level=3)
