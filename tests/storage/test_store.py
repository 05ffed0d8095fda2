import hashlib
import sys
import threading

import pytest

from storage.store import (
    ObjectError,
    RemoteFile,
    StoreError,
    download,
    list_below,
    parse_url,
    read_range,
    stat,
    upload,
    write,
)
from tests.stores import Store

CONTENT = bytes(range(256)) * 64
URL = "s3://videos/store/a.mp4"


@pytest.fixture(autouse=True)
def content(store: Store) -> None:
    store.put("store/a.mp4", CONTENT)


def test_an_object_is_copied_in_pieces_though_requests_are_dropped(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("storage.store.PIECE_BYTES", 1000)
    store.proxy.drop = 4
    dropped = store.proxy.counts["dropped"]
    sha256 = download(stat(URL), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert store.proxy.counts["dropped"] - dropped > 2


def test_a_request_that_gets_no_answer_is_made_again(store, monkeypatch) -> None:
    monkeypatch.setattr("storage.store.DEADLINE_S", 0.5)
    store.proxy.stall, store.proxy.stall_s = store.proxy.counts["requests"] + 2, 5.0
    assert read_range(URL, 10, 20) == CONTENT[10:20]
    assert store.proxy.counts["stalled"]


def test_a_server_that_comes_back_is_waited_for(store, monkeypatch) -> None:
    monkeypatch.setattr("storage.store.WAITS_S", (0.2,) * 50)
    back = threading.Thread(target=store.restart, args=({"store/a.mp4": CONTENT},))
    store.proxy.down = True
    back.start()
    assert read_range(URL, 0, len(CONTENT)) == CONTENT
    back.join()


def test_a_server_that_stays_away_is_an_error_that_says_how_often_it_was_asked(store, monkeypatch) -> None:
    monkeypatch.setattr("storage.store.WAITS_S", (0.1,))
    store.proxy.drop = 1
    with pytest.raises(StoreError, match=r"s3://videos/store/a.mp4: .*, 2 times") as raised:
        stat(URL)
    assert not isinstance(raised.value, ObjectError)


@pytest.mark.parametrize("url", ["s3://videos/store/gone.mp4", "s3://nobody-has-this/a.mp4"])
def test_what_is_not_there_is_asked_for_once(store, url: str) -> None:
    before = store.proxy.counts["requests"]
    with pytest.raises(ObjectError, match="not there"):
        stat(url)
    assert store.proxy.counts["requests"] - before < 4


def test_what_is_forbidden_says_where_credentials_come_from_and_not_which(store) -> None:
    store.proxy.forbidden.add("store/a.mp4")
    with pytest.raises(ObjectError, match=r"forbidden .*credentials in the environment") as raised:
        stat(URL)
    assert "hushhush" not in str(raised.value)


def test_an_object_is_another_version_when_its_bytes_change_and_not_when_it_is_written_again(store) -> None:
    first = stat(URL)
    store.put("store/a.mp4", CONTENT)
    assert (stat(URL).version, stat(URL).version_number) == (first.version, first.version_number)
    store.put("store/a.mp4", CONTENT[::-1])
    assert stat(URL).version != first.version
    assert stat(URL) == first  # the same object by its name


def test_a_listing_says_what_a_look_at_each_object_says(store) -> None:
    for name in ("b.mp4", "deep/c d#1.mp4"):
        write(f"s3://videos/listed/{name}", name.encode())
    found = list_below("s3://videos/listed")
    assert [file.url for file in found] == ["s3://videos/listed/b.mp4", "s3://videos/listed/deep/c d#1.mp4"]
    assert [(file.size, file.version) for file in found] == [
        (one.size, one.version) for one in (stat(file.url) for file in found)
    ]
    assert [(file.name, file.suffix) for file in found] == [("b.mp4", ".mp4"), ("c d#1.mp4", ".mp4")]


def test_a_file_is_sent_though_requests_are_dropped(store, tmp_path) -> None:
    (tmp_path / "f").write_bytes(CONTENT)
    store.proxy.drop = 2
    upload(tmp_path / "f", "s3://videos/store/sent")
    store.proxy.drop = 0
    assert store.get("store/sent") == CONTENT


def test_a_driver_that_is_not_installed_is_named_with_what_to_do(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match=r"gs://b/a.mp4: gs:// needs gcsfs, which is not installed: pip install gcsfs"):
        parse_url("gs://b/a.mp4")


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hushhush@host/a.mp4",
        "https://host/a.mp4?X-Amz-Signature=hushhush",
        "https://host/a.mp4?sv=2&sig=hushhush",
    ],
)
def test_a_url_that_holds_a_secret_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="credentials in the environment") as raised:
        parse_url(url)
    assert "hushhush" not in str(raised.value)


def test_other_schemes_are_refused() -> None:
    with pytest.raises(ValueError, match="ftp://host/a.mp4: no store that is known; there are s3://"):
        parse_url("ftp://host/a.mp4")


def test_https_is_read_and_a_failing_server_is_not_a_missing_file(store, monkeypatch) -> None:
    url = f"{store.proxy.url}/videos/store/a.mp4"
    file = parse_url(url)
    assert (file.name, stat(url).size, read_range(url, 3, 7)) == ("a.mp4", len(CONTENT), CONTENT[3:7])
    with pytest.raises(ObjectError, match="40[34]"):
        stat(f"{store.proxy.url}/videos/store/gone.mp4")
    monkeypatch.setattr("storage.store.WAITS_S", ())
    store.proxy.drop = 1
    with pytest.raises(StoreError) as raised:
        stat(url)
    assert not isinstance(raised.value, ObjectError)
    assert RemoteFile("https://h/x/b.mp4?id=1").name == "b.mp4"
