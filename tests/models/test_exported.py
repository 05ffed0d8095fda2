"""An export happens once, in another process, and is kept under the weights' own hash."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from models import exported


def write_weights(path: Path, seed: int) -> Path:
    """A Whisper checkpoint of one narrow block."""
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(seed)
    dims = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 16, "n_audio_head": 1, "n_audio_layer": 1}
    dims |= {"n_vocab": 8, "n_text_ctx": 8, "n_text_state": 16, "n_text_head": 1, "n_text_layer": 1}
    model = Whisper(ModelDimensions(**dims))
    nn.init.normal_(model.decoder.positional_embedding)
    torch.save({"dims": dims, "model_state_dict": model.state_dict()}, path)
    return path


def test_workers_that_start_together_export_once_and_other_weights_have_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAYANYTHING_CACHE", str(tmp_path / "cache"))
    exports, really = [], exported.export
    monkeypatch.setattr(exported, "export", lambda *given: exports.append(given) or really(*given))
    (tmp_path / "other").mkdir()
    one, other = write_weights(tmp_path / "w.pt", 0), write_weights(tmp_path / "other" / "w.pt", 1)
    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(lambda _: exported.find_or_export("models.whisper_encoder", one), range(3)))
    assert len(found) == len(exports) == 1
    assert exported.find_or_export("models.whisper_encoder", other) not in found
    assert len(list((tmp_path / "cache" / "exported").glob("*.onnx"))) == 2


def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAYANYTHING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "w.pt").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"w\.pt: cannot be exported"):
        exported.find_or_export("models.whisper_encoder", tmp_path / "w.pt")
