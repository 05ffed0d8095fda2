"""Training reads a mirror as it reads the folder: the same batches, with requests dropped; the cache has a bound."""

import argparse
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from models.mask import MaskSettings
from shards.index import INDEX_NAME, read_index
from shards.reader import ShardError
from shards.remote import bring_index
from storage.store import ObjectError, RemoteFile, StoreError
from tests.stores import Store, put_folder
from tests.training.numbered import SIDE
from training.batch import Batch
from training.data import loader, open_data
from training.mixture import bring_indexes, parse_data
from training.settings import DataSettings

SETTINGS = DataSettings(size=SIDE, workers=0, max_bad_share=1.0)
URL = "s3://videos/training"


@pytest.fixture
def mirror(store: Store, shards: Path) -> Store:
    put_folder(store, shards, "training")
    store.put("training/recipe.yaml", b"hash: x")
    return store


def batches(data: Path, mode: str = "index", count: int = 6, workers: int = 0) -> list[Batch]:
    opened = open_data(data, replace(SETTINGS, mode=mode), MaskSettings())  # pyright: ignore[reportArgumentType]
    return list(islice(loader(opened, 2, workers=workers), count))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        a.keys == b.keys
        and not a.quarantined
        and not b.quarantined
        and all(
            torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True) if torch.is_tensor(x)
        )
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("mode", ["index", "stream"])
def test_a_mirror_gives_the_batches_of_the_folder(mirror, shards, tmp_path, mode: str) -> None:
    mirror.proxy.drop = 5
    folder = bring_index(URL, tmp_path / "data")
    found = batches(folder, mode)
    assert same(found, batches(shards, mode))
    assert not same(found, batches(shards, mode, 7)[1:])
    assert (folder / "recipe.yaml").read_bytes() == b"hash: x"
    assert not list(folder.rglob("*.tar"))


def test_the_loaders_processes_read_a_mirror_as_well(mirror, shards, tmp_path) -> None:
    folder = bring_index(URL, tmp_path / "data")
    batches(folder, count=1)  # this process has spoken to the store before it forks
    assert same(batches(folder, workers=1), batches(shards))


def test_a_url_may_be_of_the_shards_alone(mirror, shards, tmp_path) -> None:
    folder = bring_index(f"{URL}/shards", tmp_path / "data")
    assert same(batches(folder), batches(shards))
    assert (folder / "recipe.yaml").is_file()


def test_a_cache_keeps_what_was_read_and_no_more_than_its_bound(mirror, shards, tmp_path) -> None:
    index = read_index(shards / "shards")
    bound = sum(index["bytes"].tolist()) // 2
    folder = bring_index(URL, tmp_path / "data", tmp_path / "cache", bound / 1e9)
    batches(folder, count=20)
    kept = {path.name: path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert 0 < sum(kept.values()) <= bound and set(kept) < set(index["sha256"])
    before = mirror.proxy.counts["requests"]
    assert same(batches(folder, count=20), batches(shards, count=20))
    again = mirror.proxy.counts["requests"] - before
    bring_index(URL, tmp_path / "data", tmp_path / "cache", 1.0)
    batches(folder, count=20)
    before = mirror.proxy.counts["requests"]
    assert same(batches(folder, count=20), batches(shards, count=20))
    assert mirror.proxy.counts["requests"] == before and again > 0


def test_a_cached_sample_that_was_torn_is_read_again(mirror, shards, tmp_path) -> None:
    folder = bring_index(URL, tmp_path / "data", tmp_path / "cache", 1.0)
    batches(folder)
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-100])
    assert same(batches(folder), batches(shards))


@pytest.mark.parametrize("mode", ["index", "stream"])
def test_a_store_that_does_not_answer_stops_and_replaces_nothing(mirror, tmp_path, monkeypatch, mode: str) -> None:
    folder = bring_index(URL, tmp_path / "data")
    opened = open_data(folder, replace(SETTINGS, mode=mode), MaskSettings())  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr("storage.store.WAITS_S", ())
    mirror.proxy.drop = 1
    with pytest.raises(StoreError) as raised:
        next(loader(opened, 2))
    assert not isinstance(raised.value, ObjectError)


def test_a_shard_that_is_gone_is_a_damaged_one(mirror, shards, tmp_path) -> None:
    folder = bring_index(URL, tmp_path / "data")
    opened = open_data(folder, SETTINGS, MaskSettings())
    mirror.remove(f"training/shards/{read_index(shards / 'shards')['shard'].iloc[-1]}")
    found = list(islice(loader(opened, 2), 12))
    assert any("not there" in reason for batch in found for _, reason in batch.quarantined)


def test_a_mirror_without_an_index_is_refused(store, tmp_path) -> None:
    store.put("empty/recipe.yaml", b"")
    with pytest.raises(ShardError, match=f"s3://videos/empty: no {INDEX_NAME} in it"):
        bring_index("s3://videos/empty", tmp_path)
    with pytest.raises(ObjectError, match="s3://nobody-has-this: not there"):
        bring_index("s3://nobody-has-this", tmp_path)


def test_an_argument_may_be_a_url_with_a_weight(tmp_path) -> None:
    assert parse_data("s3://b/out=0.5") == (RemoteFile("s3://b/out"), 0.5)
    assert parse_data("s3://b/run=a") == (RemoteFile("s3://b/run=a"), 1.0)
    with pytest.raises(argparse.ArgumentTypeError, match="ftp://b: no store that is known"):
        parse_data("ftp://b")
    assert bring_indexes([(tmp_path, 2.0)], tmp_path, None, 0) == [(tmp_path, 2.0)]
