import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from archive_servers import Seaweed, seaweed

from service.backfill.results.rows import ItemError, SourceError
from service.backfill.sources import open_source
from service.backfill.sources.names import name_of

KEY, SECRET = "backfill", "not-in-any-text"
ODD = ["a b.dcm", "50%.dcm", "line\nbreak.dcm", "käse/日本.png", "%41+1.dcm", "x/y&z=?#.jpg"]
MANY = [f"many/{n:04}.dcm" for n in range(1050)]  # more than a page of a listing
FAST = {"first_delay_seconds": "0.05", "max_delay_seconds": "0.2", "timeout_seconds": "5"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed(tmp_path_factory.mktemp("weed"), KEY, SECRET) as started:
        started.fill("archive", {name: name.encode() for name in [*ODD, *MANY]})
        yield started


@pytest.fixture(autouse=True)
def environment(server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)


def test_a_bucket_gives_each_object_once() -> None:
    """Page by page, whatever the key; the prefix chooses."""
    source = open_source("s3://archive")
    found = list(source.find())
    assert [name_of(locator) for locator in found] == sorted([*ODD, *MANY], key=str.encode)
    odd = [locator for locator in found if not locator.startswith("many/")]
    assert sorted(bytes(source.read(locator)).decode() for locator in odd) == sorted(ODD)
    assert list(open_source("s3://archive/many/").find()) == MANY
    assert not list(open_source("s3://archive", {"until": "2001-01-01"}).find())


def test_what_a_bucket_has_not_is_an_outcome_of_its_own() -> None:
    """404 is not tried again; nor is what is too large."""
    source = open_source("s3://archive", {"max_image_bytes": 8, "first_delay_seconds": 60})
    for locator, code in {"gone.dcm": "not_found", "many/0000.dcm": "entry_too_large"}.items():
        with pytest.raises(ItemError) as caught:
            source.read(locator)
        assert caught.value.code == code
    assert source.read("a b.dcm") == b"a b.dcm"


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_a_bucket_that_is_refused_is_no_fault_of_an_image(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """403 ends both at once, and says no secret; so does a bucket that is not there."""
    monkeypatch.setenv(variable, "wrong-and-secret")
    source = open_source("s3://archive", {"first_delay_seconds": 60})
    for call in (lambda: list(source.find()), lambda: source.read("a b.dcm")):
        with pytest.raises(SourceError, match="403") as caught:
            call()
        assert "secret" not in f"{caught.value}{source!r}{vars(source)['_options']!r}"


def test_no_keys_are_sent_where_none_are_wanted() -> None:
    """And this bucket wants some."""
    with pytest.raises(SourceError, match="403"):
        list(open_source("s3://archive", {"anonymous": "true"}).find())
    with pytest.raises(SourceError, match="404"):
        list(open_source("s3://nowhere").find())


def test_a_store_that_is_restarted_costs_only_time(server: Seaweed) -> None:
    """A listing goes on where it was, and reads wait."""
    source = open_source("s3://archive/many/", FAST)
    listing = source.find()
    found = [next(listing) for _ in range(1000)]
    source.read(found[0])  # so it is known that images can be had
    server.stop()
    back = threading.Timer(1, server.start)
    back.start()
    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(source.read, locator) for locator in found[:20]]
        found += listing
        assert [bytes(read.result()).decode() for read in reads] == found[:20]
    back.join()
    assert found == MANY


def test_a_store_that_stays_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up after the set patience; closing the source ends the wait at once."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="does not answer"):
        open_source("s3://archive", FAST | {"patience_seconds": 1}).read("a")
    source = open_source("s3://archive", {"first_delay_seconds": 60, "max_delay_seconds": 60})
    threading.Timer(0.1, source.close).start()
    with pytest.raises(SourceError, match="closed"):
        source.read("a")
