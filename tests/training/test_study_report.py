"""The figures and the report of a study, perfect or not."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from images import radiograph
from PIL import Image
from study_example import example

from training.study.figures import plots, radiographs
from training.study.figures.flow import fig1_flow
from training.study.figures.radiographs import Picture
from training.study.figures.style import save
from training.study.report.document import Table, bounded, p_value, percent, share_cell
from training.study.report.write import as_markdown, markdown_table, write
from training.study.results import Results

RADIOGRAPHS = ("fig4-examples", "fig6-transformed", "fig8-gallery")
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """What stands in a page; a tag that is closed in the wrong order is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def picture(at: int) -> Picture:
    pixels = (radiograph(64, 64, 8, at)).astype(np.uint8)
    y, x = np.mgrid[-1:1:8j, -1:1:8j]
    return Picture(f"view {at}", pixels, "PFI 0.4321, CC BY 4.0", np.exp(-x * x - y * y), at == 1)


def drawn(results: Results, folder: Path) -> list[tuple[Path, Path]]:
    """All nine, with one image called wrongly among the radiographs."""
    middle, high = (one.threshold for one in results.assessed)
    found = results.calibration
    bins = (found.reliability_before, found.reliability_after)
    pictures = [picture(at) for at in range(5)]
    named = {
        "fig1-flow": fig1_flow(results.flow),
        "fig2-candidates": plots.fig2_candidates(results.candidates, results.chosen),
        "fig3-pfi": plots.fig3_pfi(results.test_images, middle, results.review.band),
        "fig4-examples": radiographs.fig4_examples(pictures),
        "fig5-youden": plots.fig5_youden(results.curves, results.plateau, middle, high),
        "fig6-transformed": radiographs.fig6_transformed([pictures]),
        "fig7-reliability": plots.fig7_reliability(*bins, 0.0204, 0.0243),
        "fig8-gallery": radiographs.fig8_gallery(pictures),
        "fig9-leakage": plots.fig9_leakage(results.leakage),
    }
    return [save(figure, folder, name) for name, figure in named.items()]


@pytest.fixture(scope="module", params=[False, True], ids=["errors", "perfect"])
def run(request, tmp_path_factory) -> tuple[Results, Path]:
    """A study's folder with its figures and both reports."""
    results = example(perfect=request.param)
    folder = tmp_path_factory.mktemp("run")
    drawn(results, folder / "figures")
    write(results, folder)
    return results, folder


@pytest.fixture
def texts(run) -> tuple[str, str]:
    """What a reader sees in report.md and in report.html, blanks aside."""
    _, folder = run
    html = " ".join(Page((folder / "report.html").read_text()).words)
    markdown = (folder / "report.md").read_text().replace("<br>", " ").replace("&lt;", "<")
    return " ".join(markdown.split()), " ".join(html.split())


def test_every_figure_is_a_picture_and_a_drawing(run) -> None:
    """PNG of 200 dpi and 7 inches, and SVG that parses and whose text is text."""
    _, folder = run
    pngs = sorted((folder / "figures").glob("*.png"))
    assert len(pngs) == 9
    for png in pngs:
        with Image.open(png) as image:
            assert image.width == 1400
        svg = png.with_suffix(".svg").read_text()
        assert ET.fromstring(svg).findall(".//{*}text")
        assert "dc:date" not in svg


def test_a_figure_is_the_same_whatever_the_users_style(tmp_path: Path) -> None:
    """Equal numbers are equal bytes, also where the process has settings of its own."""
    first = both_kinds(tmp_path / "1")
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert both_kinds(tmp_path / "2") == first
        assert mpl.rcParams["font.size"] == 20


def both_kinds(folder: Path) -> list[str]:
    """Digests of a plot with hatches and of radiographs with contours."""
    results = example()
    plot = plots.fig3_pfi(results.test_images, 0.5, results.review.band)
    files = save(plot, folder, "a") + save(radiographs.fig8_gallery([picture(1)]), folder, "b")
    return [sha256(file.read_bytes()).hexdigest() for file in files]


def test_a_wrong_image_is_marked_in_words(run) -> None:
    """A frame alone would be lost in a copy; only the wrong one is marked."""
    _, folder = run
    svg = ET.parse(folder / "figures" / "fig8-gallery.svg")
    words = ["".join(text.itertext()) for text in svg.iterfind(".//{*}text")]
    assert words.count("called wrongly") == 1


@pytest.mark.parametrize("rows", [[], [[], []], [[picture(0)], [picture(0)] * 2]])
def test_radiographs_that_make_no_grid_are_refused(rows) -> None:
    """No picture, or rows of different lengths."""
    with pytest.raises(ValueError, match="figure of"):
        radiographs.fig6_transformed(rows)


def test_both_reports_hold_every_number(run, texts) -> None:
    """Candidates, rows at both cutoffs, baselines, leakage, verdicts, hashes and settings."""
    results, _ = run
    wanted = [results.title, results.chosen, results.command, results.leakage_text]
    wanted += [results.created, *results.environment.values(), *results.data.values()]
    for one in results.candidates:
        wanted += [one.pretraining, one.method, f"{one.training_images:,}", f"{one.loss:.5f}"]
        wanted += [in_cell(one.accuracy), in_cell(one.accuracy_originals)]
    rows = [row for one in results.assessed for row in one.evaluations]
    for row in (*rows, *results.baselines, *results.window):
        wanted += [row.name, in_cell(row.accuracy), in_cell(row.review)]
    for each in results.leakage:
        wanted += [each.setting, each.model, f"{each.n:,}", each.ci_method]
    for group in (group for each in results.comparisons for group in each.groups):
        wanted.append(f"{group.name}: {group.right:,}/{group.n:,}")
    for step in results.flow:
        wanted += [step.name, f"{step.images:,}", *step.excluded]
    wanted += [f"{each.row} (accuracy)" for each in results.verdicts if not each.as_good]
    wanted += ["retrain_by_image = true", f"{results.calibration.temperature:.3f}"]
    for text in texts:
        assert not [each for each in wanted if each not in text]


def in_cell(part) -> str:
    return share_cell(part).replace("\n", " ")


def test_the_page_is_whole_and_accessible(run) -> None:
    """One h1, headings in order, words for every picture, links that lead somewhere."""
    results, folder = run
    page = Page((folder / "report.html").read_text())
    assert not page.open
    assert len(page.all("h1")) == 1
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("img")) == 9
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    anchors = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(anchors)) == len(anchors)
    assert {link["href"] for link in page.all("a")} <= {f"#{anchor}" for anchor in anchors}
    assert results.title in page.words


def test_the_page_needs_nothing_else(run) -> None:
    """No script, and no address but those within the page."""
    _, folder = run
    page = Page((folder / "report.html").read_text())
    assert not page.all("script")
    addresses = [a[key] for _, a in page.tags for key in ("src", "href") if key in a]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|url\(", (folder / "report.html").read_text())


def test_every_row_of_a_table_is_as_wide_as_its_header(run) -> None:
    """Counting the cells that reach down from rows above; the same in both reports."""
    _, folder = run
    for table in re.findall(r"<table.*?</table>", (folder / "report.html").read_text(), re.DOTALL):
        widths: dict[int, int] = {}
        for at, line in enumerate(re.findall(r"<tr>.*?</tr>", table, re.DOTALL)):
            for cell in re.findall(r"<t[hd][^>]*>", line):
                height = re.search(r'rowspan="(\d+)"', cell)
                for row in range(at, at + (int(height[1]) if height else 1)):
                    widths[row] = widths.get(row, 0) + 1
        assert len(set(widths.values())) == 1
    lines = (folder / "report.md").read_text().splitlines()
    for above, below in pairwise(lines):
        if above.startswith("|") and below.startswith("|"):
            assert above.count("|") == below.count("|")


def test_the_same_study_gives_the_same_report(run) -> None:
    """Written again over the first, from results.json."""
    results, folder = run
    files = [folder / "report.md", folder / "report.html"]
    before = [sha256(file.read_bytes()).hexdigest() for file in files]
    results.save(folder)
    write(Results.load(folder), folder)
    assert [sha256(file.read_bytes()).hexdigest() for file in files] == before


def test_radiographs_that_may_not_be_shown_are_left_out_in_words(tmp_path: Path) -> None:
    """Neither report links to a figure that does not exist."""
    write(example(), tmp_path)
    html, markdown = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert not Page(html).all("img")
    assert "](figures/" not in markdown
    for text in (html, markdown):
        for number in (4, 6, 8):
            assert f"Figure {number} is left out: no radiograph" in text
        assert "Figure 1 is left out: it was not drawn" in text


def test_a_perfect_result_is_not_oversold(run, texts) -> None:
    """Where no image was called wrongly, the summary names what n images support."""
    results, _ = run
    first = results.assessed[0].evaluations[0].accuracy
    caution = f"No error was seen, but 184 images support no more than an accuracy above {98.02} %"
    for text in texts:
        assert (caution in text) == (first.count == first.n)
        assert f"compatible with up to {percent(1 - first.ci95[0])} % of errors" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Not published, because it is worse than googlenet/1.0.0 in 1 of 3 rows"),
        ({"config": {}}, "Not published. It is worse than googlenet/1.0.0 in 1 of 3 rows"),
        ({"config": {"publish": {"when": "never"}}}, "Not published, as the configuration asks"),
        ({"published": "a/1.0.0"}, "Published as a/1.0.0. It is worse than googlenet/1.0.0 in 1"),
        ({"verdicts": ()}, "Not published. It was compared with no published version."),
        ({"kappa": None}, "Agreement of two readers: not measured."),
        ({"chosen": "colour, fc-originals"}, "7 of the other 8 candidates reached a higher"),
        ({"baselines": (), "window": (), "leakage": ()}, "0.97820"),
        ({"test_images": ()}, "0 frontal and 0 lateral"),
    ],
)
def test_sentences_follow_the_numbers(changes, said, tmp_path: Path) -> None:
    """Whatever a study found or left out, the report says that and no more."""
    write(example().model_copy(update=changes), tmp_path)
    assert said in (tmp_path / "report.md").read_text()
    assert said in " ".join(Page((tmp_path / "report.html").read_text()).words)


def test_a_missed_bound_is_called_missed(tmp_path: Path) -> None:
    """The review band keeps its bound only if the limit reached is below it."""
    results = example()
    missed = results.review.model_copy(update={"attained": 0.0123})
    write(results.model_copy(update={"review": missed}), tmp_path)
    assert "1.23 %, which does not keep the bound" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "100.00"), (0.999999, ">99.99"), (0.99994, "99.99"), (0.0, "0.00"), (1e-6, "<0.01")],
)
def test_nothing_is_rounded_to_perfect(value: float, text: str) -> None:
    """100 % and 0 % are said only of what is just that."""
    assert percent(value) == text


def test_probabilities_are_bounded_too() -> None:
    """AUROC and p likewise; p as journals want it."""
    assert bounded(0.999999, 5) == ">0.99999"
    assert bounded(0.5, 4) == "0.5000"
    assert [p_value(p) for p in (1.0, 0.9999, 0.0449, 1e-9)] == [
        "1.00", ">0.99", "0.045", "<0.001",
    ]  # fmt: skip


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "a | b", "*a* [b](c) `d` _e_"])
def test_text_is_shown_as_it_is(hostile: str, tmp_path: Path) -> None:
    """Titles, notes and file names are text, never markup."""
    write(example().model_copy(update={"leakage_text": hostile}), tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    assert hostile in page.words
    assert not page.all("script")
    assert "<script" not in (tmp_path / "report.md").read_text()
    assert markdown_table(Table("", (hostile,), ())).count("|") == 4 + hostile.count("|")
    assert as_markdown("snake_case_name") == "snake_case_name"


def test_embedded_radiographs_are_jpeg_and_plots_svg(run) -> None:
    """Radiographs as SVG would be ten times the size."""
    _, folder = run
    kinds = [image["src"][:15] for image in Page((folder / "report.html").read_text()).all("img")]
    assert kinds.count("data:image/jpeg") == len(RADIOGRAPHS)
    assert kinds.count("data:image/svg+") == 6
    assert len((folder / "report.html").read_bytes()) < 3_000_000
