"""A checkpoint is arrays by name; a pickle that asks for anything else is refused before it gets it."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from training.evaluation.flax_checkpoint import ArraysOnly, read_arrays


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("was_called",)


def write(path: Path, content: object) -> Path:
    # numpy 2 pickles arrays under a name that the published files, written with numpy 1, do not have
    text = pickle.dumps(content, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.write_bytes(text)
    return path


def test_arrays_are_found_by_their_place(tmp_path: Path) -> None:
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = read_arrays(write(tmp_path / "a.ckpt", {"params": {"Conv_0": {"kernel": kernel, "bias": kernel[0]}}}))
    assert arrays.keys() == {"params/Conv_0/kernel", "params/Conv_0/bias"}
    assert np.array_equal(arrays["params/Conv_0/kernel"], kernel)


def test_pickle_that_calls_something_is_refused_before_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "evil.ckpt", {"params": Evil()})
    with pytest.raises(ValueError, match=r"evil.ckpt: not a checkpoint of arrays: it asks for .*mkdir"):
        read_arrays(path)
    assert not (tmp_path / "was_called").exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "objects.ckpt", {"params": np.array([Evil()], dtype=object)})
    with pytest.raises(ValueError, match="mkdir"):
        read_arrays(path)


@pytest.mark.parametrize("content", [{"params": 3}, ["kernel"], "kernel"])
def test_other_things_than_arrays_are_named(tmp_path: Path, content: object) -> None:
    with pytest.raises(ValueError, match=r"(params|the root) is a "):
        read_arrays(write(tmp_path / "other.ckpt", content))


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x80\x04"])
def test_file_that_is_no_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"page.ckpt: not a checkpoint"):
        read_arrays(path)


def test_nothing_else_can_be_named() -> None:
    assert all(module.startswith("numpy") for module, _ in ArraysOnly.ALLOWED)
