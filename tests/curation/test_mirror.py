import hashlib
import shutil
from pathlib import Path

import pytest

from curation.mirror import SUMS, Mirror, MirrorError, files_to_copy, main, parse_target
from storage.store import list_below
from tests.stores import Store

FILES = {
    "shards/shard-000000.tar": b"0" * 5000,
    "shards/shard-000001.tar": b"1" * 3000,
    "recipe.yaml": b"hash: x",
    "manifests/clips.parquet": b"clips",
    "report/index.html": b"<p>",
    "shards/index.parquet": b"index",
}
OTHERS = ("parts/aa/x.tar", "ledger/000000.parquet", "shards/.tmp-x.tar", "shards/.packed/a.json", "LOCK")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    for name in (*FILES, *OTHERS):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES.get(name, b"other"))
    return tmp_path / "out"


def url_of(tmp_path: Path) -> str:
    """A prefix of this test alone."""
    return f"s3://videos/mirror/{hashlib.sha256(bytes(tmp_path)).hexdigest()[:8]}"


def there(store: Store, url: str) -> dict[str, bytes]:
    return {
        file.url.removeprefix(f"{url}/"): store.get(file.url.removeprefix("s3://videos/")) for file in list_below(url)
    }


def puts(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is sent from now on."""
    from curation import mirror

    sent: list[str] = []
    upload = mirror.upload
    monkeypatch.setattr("curation.mirror.upload", lambda path, url: sent.append(path.name) or upload(path, url))
    return sent


def test_a_mirror_holds_what_training_needs_with_sums_and_the_index_comes_last(store, output, tmp_path) -> None:
    assert files_to_copy(output) == list(FILES)
    store.proxy.drop = 3
    assert main([str(output), url_of(tmp_path)]) == 0
    store.proxy.drop = 0
    found = there(store, url_of(tmp_path))
    sums = found.pop(SUMS).decode()
    assert found == FILES
    assert sums == "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(FILES.items()))


def test_what_is_there_with_the_same_bytes_is_not_sent_again(store, output, tmp_path, monkeypatch) -> None:
    url = url_of(tmp_path)
    sent = puts(store, monkeypatch)
    assert main([str(output), url]) == 0 and len(sent) == len(FILES)
    store.remove(f"{url.removeprefix('s3://videos/')}/{SUMS}")  # as when it was interrupted before its end
    (output / "recipe.yaml").write_bytes(b"hash: y")  # the same size
    sent.clear()
    assert main([str(output), url]) == 0
    assert sent == ["recipe.yaml"]
    sent.clear()
    assert main([str(output), url]) == 0
    assert sent == []


def test_bytes_that_were_altered_on_the_way_are_an_error(store, output, tmp_path, monkeypatch, capsys) -> None:
    def garble(path: Path, url: str) -> None:
        store.put(url.removeprefix("s3://videos/"), path.read_bytes()[:-1] + b"?")

    monkeypatch.setattr("curation.mirror.upload", garble)
    assert main([str(output), url_of(tmp_path)]) == 1
    assert "has other bytes than were sent" in capsys.readouterr().err


def test_a_store_that_fails_says_how_to_go_on_and_the_same_command_does(store, output, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("storage.store.WAITS_S", ())
    mirror = Mirror(output, parse_target(url_of(tmp_path)))
    mirror.copy_later("shards/shard-000000.tar")
    mirror.under_way[0].result()
    store.proxy.drop = 1
    with pytest.raises(MirrorError, match=r"is whole; .*\n  python -m curation.mirror .*out s3://videos/mirror"):
        mirror.finish()
    store.proxy.drop = 0
    sent = puts(store, monkeypatch)
    assert main([str(output), url_of(tmp_path)]) == 0
    assert len(sent) == len(FILES) - 1 and "shard-000000.tar" not in sent


def test_a_missing_bucket_a_store_that_is_none_and_an_unfinished_output_are_refused(store, output, capsys) -> None:
    assert main([str(output), "s3://nobody-has-this/x"]) == 2
    assert "s3://nobody-has-this/x: not there" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(output), "https://host/x"])
    assert "a mirror is a prefix in a store: s3://, gs://, az://" in capsys.readouterr().err
    shutil.rmtree(output / "shards")
    assert main([str(output), "s3://videos/x"]) == 2
    assert "is it a finished output?" in capsys.readouterr().err
