"""Texts from files are shown as texts: names, headers and problems with markup do nothing."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from browser import Screen, payload
from conftest import ROOT
from images import dicom, radiograph
from playwright.sync_api import Route, expect

PAYLOADS = Path(__file__).with_name("payloads.txt").read_text().splitlines()
# Characters that cannot be seen: they end lines, hide what follows, or turn the order of letters
UNSEEN = {"a\u0000b": "a␀b", "a\nb\tc": "a␊b␉c", "exe.\u202egnp": "exe.⟨U+202E⟩gnp"}
STYLES = (ROOT / "service/ui/index.html").read_text().count("stylesheet")
ELEMENTS = "script:not([src]), iframe, object, embed, base, video, math, template, style, [onerror]"


def test_there_are_fifty() -> None:
    """Of different kinds."""
    assert len(set(PAYLOADS)) == 50


def harmless(screen: Screen) -> None:
    """No element was made of a text; no script ran, nothing was asked of elsewhere (Screen)."""
    assert screen.page.locator(ELEMENTS).count() == 0
    assert screen.page.locator("link[rel=stylesheet]").count() == STYLES
    assert screen.page.title() == "cxrview: frontal or lateral"


def texts(screen: Screen, place: str) -> list[str]:
    found = screen.page.locator(place).all_text_contents()
    assert found
    return found


def test_names_of_files_are_texts(screen: Screen) -> None:
    """In the list, in the details and in titles; also those of the entries of a zip."""
    screen.page.set_viewport_size({"width": 1800, "height": 2600})  # all cards are there
    names = [*PAYLOADS, *UNSEEN]
    screen.choose(*(payload(name, b"no image") for name in names)).answered(len(names))
    expected = [*PAYLOADS, *UNSEEN.values()]
    assert texts(screen, ".card .name") == expected
    for number in range(0, len(names), 10):
        screen.cards.nth(number).click()
        expect(screen.detail.get_by_role("heading")).to_have_text(expected[number])
    harmless(screen)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, name in enumerate(PAYLOADS):
            archive.writestr(f"{number}/{name}.png", "no image")
    screen.page.get_by_role("button", name="Clear").click()
    screen.choose(payload("<b>.zip", buffer.getvalue())).answered(len(PAYLOADS))
    found = texts(screen, ".card .name")
    assert len(found) == len(PAYLOADS)
    assert "<b>.zip/0/<script>alert(1)</script>.png" in found
    harmless(screen)


def test_values_of_headers_are_texts(screen: Screen) -> None:
    """Of real objects, as far as the service answers them."""
    marked = ("<B>", '"><I>', "&LT;B&GT;", "{VALUE}")
    pixels = radiograph(256, 256)
    files = [
        payload(f"{n}.dcm", dicom(pixels, ViewPosition=text, BodyPartExamined=text))
        for n, text in enumerate(marked)
    ]
    screen.choose(*files).answered(len(files))
    for number, text in enumerate(marked):
        screen.card(f"{number}.dcm").click()
        assert texts(screen, "article.detail dd bdi") == [text, text]
    harmless(screen)


@pytest.mark.parametrize("first", range(0, 50, 10))
def test_no_text_of_an_answer_is_markup(screen: Screen, first: int) -> None:
    """Even if the service, or what stands before it, answered such texts."""
    chosen = PAYLOADS[first : first + 10]
    left = iter(chosen)

    def answer(route: Route) -> None:
        text = next(left, None)
        if text is None:
            route.continue_()
            return
        problem = {"code": text, "title": text, "detail": text, "status": text}
        route.fulfill(status=422, content_type="application/problem+json", body=json.dumps(problem))

    screen.page.route("**/v1/classify**", answer)
    screen.choose(*(payload(f"{n}.dcm", b"x") for n in range(len(chosen)))).answered(len(chosen))
    found = set()
    for number in range(len(chosen)):
        screen.card(f"{number}.dcm").click()
        found |= set(
            texts(screen, "article.detail .verdict, article.detail > p, article.detail dd")
        )
    assert set(chosen) <= found
    harmless(screen)


def test_the_card_of_the_model_is_text(screen: Screen) -> None:
    """A version may be of another author."""
    card = screen.page.request.get(f"{screen.url}/v1/model").json()
    card |= {"intended_use": PAYLOADS[0], "limitations": PAYLOADS, "licence": PAYLOADS[1]}
    card["data"] = [
        {**source, "name": text, "origin": text, "licence": text, "note": text}
        for source, text in zip(card["data"] * 9, PAYLOADS, strict=False)
    ]
    card["evaluations"] = [
        {**row, "name": text, "note": text}
        for row, text in zip(card["evaluations"] * 9, PAYLOADS, strict=False)
    ]
    screen.page.route("**/v1/model", lambda route: route.fulfill(json=card))
    screen.open("#model")
    screen.page.reload()
    screen.page.get_by_role("heading", name="Limits").wait_for()
    assert texts(screen, ".model ul:not(.sources) > li") == PAYLOADS
    assert screen.page.locator(ELEMENTS).count() == 0
