import io
from pathlib import Path

import numpy as np
import pytest
import torch

from models.syncnet import (
    BATCH_WINDOWS,
    FRAME_SAMPLES,
    VSHIFT,
    SyncNet,
    SyncNetModel,
    compare,
    fold_time,
    mfcc,
    syncnet_boxes,
    syncnet_crops,
    time_to_channels,
    to_int16,
)

FRAMES = 46  # 41 windows


def official_state(model: SyncNetModel) -> dict[str, torch.Tensor]:
    """The entries of a file as old as the authors': without the counters of BatchNorm."""
    return {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def save(state: dict, path: Path) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (FRAMES, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    """Noise whose loudness and colour change all the time, as speech does."""
    rng = np.random.default_rng(2)
    loudness = np.interp(np.arange(FRAMES * FRAME_SAMPLES) / FRAME_SAMPLES, np.arange(FRAMES), rng.random(FRAMES))
    noise = rng.normal(0, 0.2, len(loudness))
    return (loudness * (noise + np.roll(noise, 1) * loudness)).astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, frames: np.ndarray, audio: np.ndarray) -> Path:
    """Random networks, of which the last layer of the lips is solved such that `frames` and `audio` are in sync."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    model = SyncNetModel().eval()
    net = SyncNet(save(official_state(model), path))
    windows = FRAMES - 5
    sounds = net.embed_audio(audio, windows)
    head = net.lip[-1]
    assert isinstance(head, torch.nn.Sequential)
    last, head[-1] = head[-1], torch.nn.Identity()
    hidden = torch.cat([net.embed_lips(frames, windows), torch.ones(windows, 1)], dim=1)
    solution = torch.linalg.lstsq(hidden.double(), sounds.double(), driver="gelsd").solution.float()
    last.load_state_dict({"weight": solution[:-1].T, "bias": solution[-1]})
    state = official_state(model) | {f"netfclip.3.{name}": value for name, value in last.state_dict().items()}
    return save(state, path)


@pytest.fixture(scope="module")
def net(weights: Path) -> SyncNet:
    return SyncNet(weights)


def test_layout_fills_a_file_of_the_official_size():
    buffer = io.BytesIO()
    torch.save(official_state(SyncNetModel()), buffer, _use_new_zipfile_serialization=False)
    # 54,561,024 bytes are parameters; the names of storages differ in length from machine to machine.
    assert len(buffer.getvalue()) == pytest.approx(54_573_114, abs=1000)


def test_file_with_batchnorm_counters_loads_too(tmp_path):
    model = SyncNetModel()
    path = tmp_path / "new.model"
    torch.save(model.state_dict(), path)
    SyncNet(path)


def test_missing_and_foreign_entries_are_named(tmp_path):
    state = official_state(SyncNetModel())
    state["netfclip.9.bias"] = state.pop("netfcaud.0.bias")
    path = save(state, tmp_path / "odd.model")
    with pytest.raises(ValueError, match=r"odd.model.*SyncNet(?s:.*)netfcaud.0.bias(?s:.*)netfclip.9.bias"):
        SyncNet(path)


def test_another_shape_is_named(tmp_path):
    state = official_state(SyncNetModel())
    state["netfcaud.3.bias"] = torch.zeros(512)
    with pytest.raises(ValueError, match=r"netfcaud.3.bias"):
        SyncNet(save(state, tmp_path / "odd.model"))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_file_that_holds_no_weights_is_refused(tmp_path, content):
    path = tmp_path / "page.model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"page.model: not the weights of SyncNet"):
        SyncNet(path)


def test_folding_time_into_channels_changes_nothing():
    torch.manual_seed(1)
    model = SyncNetModel().eval()
    frames_bgr = torch.randint(0, 256, (7, 3, 224, 224)).float()
    windows_bgr = torch.stack([frames_bgr[start : start + 5].transpose(0, 1) for start in range(3)])
    with torch.inference_mode():
        in_3d = model.netcnnlip(windows_bgr).flatten(1)
        folded = fold_time(model.netcnnlip).eval()(time_to_channels(frames_bgr.flip(1))).flatten(1)
    assert in_3d.std() > 0
    torch.testing.assert_close(folded, in_3d, rtol=1e-4, atol=1e-4 * float(in_3d.abs().max()))


def test_windows_do_not_depend_on_where_batches_end(net, frames):
    windows = BATCH_WINDOWS + 1
    together = net.embed_lips(frames, windows)
    last_alone = net.embed_lips(frames[BATCH_WINDOWS:], 1)
    torch.testing.assert_close(together[-1:], last_alone, rtol=1e-4, atol=1e-4)


def test_mfcc_are_those_of_python_speech_features():
    # python_speech_features 0.6: mfcc(signal, 16000), rows 0, 3 (digital silence) and 4.
    signal = np.random.default_rng(0).integers(-8000, 8000, 1000).astype(np.int16)
    signal[400:900] = 0
    features = mfcc(signal.astype(np.float64))
    assert features.shape == (5, 13)
    expected_first = [22.87696, -36.752994, -11.525042, -15.858836, -10.471702, -3.187902, -8.340385]
    expected_first += [-3.358072, -2.804428, -12.1179, -4.400128, 4.111246, -1.102382]
    expected_last = [21.250997, -33.871942, -7.162875, -5.697373, 7.522078, 5.759119, 6.94053]
    expected_last += [-3.372079, -4.783014, -11.467053, -14.2925, 3.461473, 9.479212]
    np.testing.assert_allclose(features[0], expected_first, atol=1e-6)
    np.testing.assert_allclose(features[3], [-36.043653] + [0] * 12, atol=1e-6)
    np.testing.assert_allclose(features[4], expected_last, atol=1e-6)


def test_sound_takes_the_scale_of_16_bit_files():
    np.testing.assert_array_equal(to_int16(np.array([0.5, -1, 1, 1.5], np.float32)), [16384, -32768, 32767, 32767])


def test_clip_in_sync_has_offset_zero(net, frames, audio):
    score = net.measure(frames, audio)
    assert score.offset_frames == 0
    assert score.min_distance == pytest.approx(score.distances[VSHIFT])
    assert score.min_distance < 0.1 * score.confidence
    assert score.distances.shape == (2 * VSHIFT + 1,)
    assert score.distances.dtype == np.float32


@pytest.mark.parametrize("frames_late", [1, 4])
def test_late_sound_has_a_negative_offset(net, frames, audio, frames_late):
    late = np.concatenate([np.zeros(frames_late * FRAME_SAMPLES, np.float32), audio])
    assert net.measure(frames, late).offset_frames == -frames_late


@pytest.mark.parametrize("frames_early", [1, 4])
def test_early_sound_has_a_positive_offset(net, frames, audio, frames_early):
    assert net.measure(frames, audio[frames_early * FRAME_SAMPLES :]).offset_frames == frames_early


def test_delaying_the_sound_by_its_offset_brings_it_into_sync(net, frames, audio):
    early = audio[3 * FRAME_SAMPLES :]
    offset = net.measure(frames, early).offset_frames
    delayed = np.concatenate([np.zeros(offset * FRAME_SAMPLES, np.float32), early])
    assert net.measure(frames, delayed).offset_frames == 0


def test_same_clip_has_the_same_score_twice(net, frames, audio):
    np.testing.assert_array_equal(net.measure(frames[:10], audio).distances, net.measure(frames[:10], audio).distances)


def test_read_only_and_mirrored_frames_are_taken(net, frames, audio):
    mirrored = frames[:6, :, ::-1]
    mirrored.flags.writeable = False
    assert net.measure(mirrored, audio).distances.tolist() == net.measure(mirrored.copy(), audio).distances.tolist()


def test_distances_beyond_the_clip_are_to_zeros():
    lips, sounds = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 1.0]])
    score = compare(lips, sounds)
    expected = np.full(2 * VSHIFT + 1, 5.0)
    expected[VSHIFT] = 3.0
    np.testing.assert_allclose(score.distances, expected, atol=1e-5)
    assert (score.offset_frames, round(score.min_distance, 4), round(score.confidence, 4)) == (0, 3.0, 2.0)


def test_too_short_and_ill_shaped_clips_are_refused(net, frames, audio):
    with pytest.raises(ValueError, match="needs 6 frames"):
        net.measure(frames[:5], audio)
    with pytest.raises(ValueError, match="needs 6 frames"):
        net.measure(frames, audio[: 5 * FRAME_SAMPLES])
    with pytest.raises(ValueError, match="224"):
        net.measure(frames[:, :200], audio)


def drifting_boxes(count: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    centre = np.array([160.0, 140.0]) + rng.normal(0, 6, (count, 2))
    half = np.array([60.0, 80.0]) + rng.normal(0, 4, (count, 2))
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def test_crop_is_the_originals_padded_slice():
    """The geometry of run_pipeline.py written as it works there: pad the whole picture with grey, then slice."""
    import cv2
    from scipy.signal import medfilt

    boxes = drifting_boxes(15)
    pictures = np.random.default_rng(4).integers(0, 256, (15, 320, 320, 3), dtype=np.uint8)
    crops = syncnet_crops(pictures, boxes)
    x0, y0, x1, y1 = boxes.astype(np.float64).T
    half, x, y = (medfilt(v, 13) for v in (np.maximum(x1 - x0, y1 - y0) / 2, (x0 + x1) / 2, (y0 + y1) / 2))
    for t in range(15):
        border = int(half[t] * 1.8)
        padded = np.pad(pictures[t], ((border, border), (border, border), (0, 0)), constant_values=110)
        rows = slice(int(y[t] + border - half[t]), int(y[t] + border + half[t] * 1.8))
        columns = slice(int(x[t] + border - half[t] * 1.4), int(x[t] + border + half[t] * 1.4))
        np.testing.assert_array_equal(crops[t], cv2.resize(padded[rows, columns], (224, 224)))


def test_steady_face_is_cut_with_1_4_to_the_sides_1_up_and_1_8_down():
    boxes = np.tile(np.array([100, 90, 200, 190], np.float32), (20, 1))  # centre 150, 140, half size 50
    np.testing.assert_array_equal(syncnet_boxes(boxes), np.tile([80, 90, 220, 230], (20, 1)))


def test_what_lies_beyond_the_picture_is_grey():
    boxes = np.tile(np.array([0, 100, 160, 260], np.float32), (13, 1))
    crops = syncnet_crops(np.zeros((13, 320, 320, 3), np.uint8), boxes)
    assert crops.shape == (13, 224, 224, 3)
    assert (crops[:, :, 0] == 110).all()
    assert (crops[:, 0, 112] == 0).all()


def test_face_outside_of_its_picture_is_refused():
    boxes = np.tile(np.array([900, 900, 1000, 1000], np.float32), (13, 1))
    with pytest.raises(ValueError, match="outside"):
        syncnet_crops(np.zeros((13, 320, 320, 3), np.uint8), boxes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees_with_cpu(weights, net, frames, audio):
    on_cpu, on_cuda = net.measure(frames, audio), SyncNet(weights, "cuda").measure(frames, audio)
    assert on_cuda.offset_frames == on_cpu.offset_frames
    np.testing.assert_allclose(on_cuda.distances, on_cpu.distances, rtol=1e-2, atol=1e-2)
