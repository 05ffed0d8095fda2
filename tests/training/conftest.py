"""Small real shards, made once."""

from pathlib import Path

import pytest

from tests.training.numbered import Clips, write_shards

CLIPS: Clips = [("anna", 40), ("anna", 25), ("bela", 33), ("cara", 16), ("dora", 70), ("bela", 50), ("egon", 10)]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curated output in miniature: 7 clips (one too short for 16 frames) of 5 sources in several shards."""
    return write_shards(tmp_path_factory.mktemp("shards"), CLIPS)
