"""Known differences have their known numbers, and nothing depends on where a chunk of frames ends."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from media.audio import AudioTrack
from media.probe import probe
from models.lip_probe import LipProbe
from models.mouth import CHANNELS
from models.syncnet import SyncNet, SyncNetModel
from tests.training.evaluation.test_inception import blocks
from tests.videos import Pictures, Sound, numbered, tone, write_video
from training.evaluation import metrics
from training.evaluation.frechet import Features
from training.evaluation.metrics import (
    GENERATED,
    REFERENCE,
    SIDES,
    Chunk,
    ClipFeatures,
    FaceCrop,
    LipMetric,
    Metric,
    PixelSimilarity,
    Row,
    Settings,
    SyncMetric,
    cut,
    measure,
    read_chunks,
)

CROP = FaceCrop(320, 1.7, 5.0)


def chunk(ours: np.ndarray, theirs: np.ndarray, first: int = 0) -> Chunk:
    return Chunk(first, {GENERATED: list(ours), REFERENCE: list(theirs)}, None, None, whole=True)


def similarity(ours: np.ndarray, theirs: np.ndarray) -> Row:
    measured = PixelSimilarity()
    measured.reset(0, dict.fromkeys(SIDES))
    for k in range(len(ours)):
        measured.update(chunk(ours[k : k + 1], theirs[k : k + 1]))
    return measured.compute()


def test_equal_pictures_are_infinitely_alike() -> None:
    pictures = blocks(0, 64, 64, 3)
    assert similarity(pictures, pictures) == {"psnr": math.inf, "ssim": pytest.approx(1, abs=1e-12)}


def test_noise_of_known_strength_has_the_psnr_of_the_formula() -> None:
    """Every pixel 5 levels off: 20 log10(255 / 5); of two frames, one of them equal, half that error."""
    picture = blocks(0, 64, 64) // 2 + 60
    signs = np.random.RandomState(0).randint(0, 2, picture.shape) * 2 - 1
    noisy = (picture + 5 * signs).astype(np.uint8)
    assert similarity(noisy, picture)["psnr"] == pytest.approx(20 * math.log10(255 / 5))
    half = similarity(np.concatenate([noisy, picture]), np.concatenate([picture, picture]))
    assert half["psnr"] == pytest.approx(20 * math.log10(255 / 5) + 10 * math.log10(2))


def test_gaussian_noise_has_the_psnr_of_its_sigma() -> None:
    grey = np.full((4, 128, 128, 3), 128, np.uint8)
    noisy = np.rint(grey + np.random.RandomState(0).normal(0, 8, grey.shape)).astype(np.uint8)
    expected = 10 * math.log10(255**2 / (8**2 + 1 / 12))  # rounding adds a twelfth
    assert similarity(noisy, grey)["psnr"] == pytest.approx(expected, abs=0.03)


def test_psnr_and_ssim_are_those_of_torchmetrics() -> None:
    """Whose SSIM also counts windows that look over the edge; they are left out here, as its authors do."""
    theirs = blocks(1, 96, 120)
    ours = np.clip(theirs + np.random.RandomState(3).normal(0, 15, theirs.shape), 0, 255).astype(np.uint8)
    one, other = (torch.from_numpy(each).permute(0, 3, 1, 2).double() for each in (ours, theirs))
    _, everywhere = structural_similarity_index_measure(one, other, data_range=255.0, return_full_image=True)
    wanted = {"psnr": float(peak_signal_noise_ratio(one, other, data_range=255.0))}
    wanted["ssim"] = float(everywhere[..., 5:-5, 5:-5].mean())
    assert similarity(ours, theirs) == pytest.approx(wanted, abs=1e-6)


class Named:
    """Stands for a network: a clip's feature is the number of its first frame."""

    def measure(self, clips: np.ndarray) -> np.ndarray:
        assert clips.shape[1:] == (16, 2, 2, 3)
        assert (np.diff(clips[0, :, 0, 0, 0].astype(int)) == 1).all(), "frames in a row"
        return clips[:, 0, 0, 0, :1].astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 16, 100])
def test_clips_are_16_frames_of_each_second(tmp_path: Path, size: int) -> None:
    frames = np.arange(91, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2).repeat(3, 3)
    features = Features(tmp_path / "fvd", 1)
    clips = ClipFeatures(Named(), features)  # type: ignore[arg-type]
    clips.reset(0, dict.fromkeys(SIDES))
    for first in range(0, len(frames), size):
        part = frames[first : first + size]
        clips.update(chunk(part, part, first))
    assert clips.compute() == {"clips": 4}
    assert features.read(0, REFERENCE).ravel().tolist() == [0, 25, 50, 75]


@pytest.fixture(scope="module")
def syncnet(tmp_path_factory: pytest.TempPathFactory) -> SyncNet:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    torch.save(SyncNetModel().state_dict(), path)
    return SyncNet(path)


def test_sync_of_chunks_is_sync_of_the_whole(syncnet: SyncNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SYNC_WINDOWS", 6)
    random = np.random.RandomState(0)
    crops = random.randint(0, 256, (21, 224, 224, 3)).astype(np.uint8)
    sound = AudioTrack((3000 * random.normal(size=21 * 640)).astype(np.int16))
    whole = syncnet.measure(crops, sound[:])
    sync = SyncMetric(syncnet)
    sync.reset(0, {GENERATED: sound, REFERENCE: None})
    for first in range(0, 21, 4):
        part = chunk(crops[first : first + 4], crops[first : first + 4], first)
        part.__dict__["sync_crops"] = {side: list(crops[first : first + 4]) for side in SIDES}
        sync.update(part)
    found = sync.compute()
    assert found["sync_c"] == pytest.approx(whole.confidence, abs=1e-5)
    assert found["sync_d"] == pytest.approx(whole.min_distance, abs=1e-5)
    assert found["sync_offset_frames"] == -whole.offset_frames
    assert found["reference_sync_c"] is None, "no sound, no sync"


class Mesh:
    points, blendshapes = np.full((10, 478, 3), np.nan, np.float32), np.full((10, 52), np.nan, np.float32)


class Landmarks:
    def measure(self, faces: np.ndarray) -> Mesh:
        return Mesh()


class Whisper:
    def rows(self, sound: AudioTrack, first: int, last: int) -> np.ndarray:
        return np.zeros((last - first, 5, 384), np.float16)


def test_lip_probe_says_nothing_of_a_video_without_mouths() -> None:
    probe = LipProbe(np.zeros((384, 96)), np.zeros((576, 2 * CHANNELS)), np.zeros(2 * CHANNELS), np.zeros(5), 0, 0, 0)
    lip = LipMetric(probe, Landmarks(), Whisper())  # type: ignore[arg-type]
    lip.reset(0, dict.fromkeys(SIDES, AudioTrack(np.zeros(6400, np.int16))))
    part = chunk(np.zeros((10, 4, 4, 3), np.uint8), np.zeros((10, 4, 4, 3), np.uint8))
    part.__dict__["faces"] = dict.fromkeys(SIDES, np.zeros((10, 320, 320, 3), np.uint8))
    lip.update(part)
    names = ("lip_confidence", "lip_offset_frames", "reference_lip_confidence", "reference_lip_offset_frames")
    assert lip.compute() == dict.fromkeys(names)


def test_face_is_cut_in_whole_pixels_and_scaled() -> None:
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[50:150, 100:200] = 255
    assert cut(frame, np.array([99.6, 50.4, 200.2, 149.7]), 320).min() == 255
    assert cut(frame, np.array([0, 0, 200, 200]), 96).shape == (96, 96, 3)


class Detector:
    """Finds one face of 40 pixels in the pictures whose number is even."""

    def __init__(self, finds: bool = True) -> None:
        self.finds, self.asked = finds, 0

    def detect(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        self.asked += 1
        found = [[12, 4, 52, 44, 0.9]] if self.finds and self.asked % 2 else np.empty((0, 5))
        return [np.array(found, np.float32)]


def video(path: Path, frames: int = 20, width: int = 64, sound: bool = False) -> Path:
    sounds = [Sound(tone(frames / 25), codec="aac")] if sound else []
    return write_video(path, Pictures(frames, draw=lambda i: numbered(i, width)), sounds)


def compared(ours: Path, theirs: Path, *asked: Metric, detector: Detector | None = None, **settings: int) -> Row:
    how = Settings(CROP, whole=detector is None, **settings)
    return measure({GENERATED: ours, REFERENCE: theirs}, 0, asked, detector, how)  # type: ignore[arg-type]


def test_videos_are_compared_frame_by_frame(tmp_path: Path) -> None:
    ours = video(tmp_path / "a.mp4")
    assert compared(ours, ours, PixelSimilarity()) == {"frames": 20, "psnr": math.inf, "ssim": pytest.approx(1)}
    assert compared(ours, ours, PixelSimilarity(), detector=Detector())["psnr"] == math.inf


@pytest.mark.parametrize(("expansion", "side"), [(1.7, 68), (1.0, 40)])
def test_faces_are_cut_as_far_around_as_the_crop_says(tmp_path: Path, expansion: float, side: int) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(20, draw=lambda i: numbered(i, 128, 96)))
    paths: dict[str, Path] = dict.fromkeys(SIDES, path)
    boxes = np.tile(np.array([44, 28, 84, 68], np.float32), (20, 1))
    settings = Settings(FaceCrop(32, expansion, 1.0))
    part = next(read_chunks(paths, dict.fromkeys(SIDES, probe(path)), boxes, False, settings))
    assert part.boxes is not None and part.faces[GENERATED].shape == (16, 32, 32, 3)
    np.testing.assert_allclose(part.boxes[:, 2:] - part.boxes[:, :2], side, atol=1)


def test_two_frames_more_are_forgiven_and_three_are_not(tmp_path: Path) -> None:
    ours, theirs = video(tmp_path / "a.mp4", 20), video(tmp_path / "b.mp4", 22)
    assert compared(ours, theirs, PixelSimilarity())["frames"] == 20
    with pytest.raises(ValueError, match=r"a.mp4 lasts 20 frames of 25 fps, its reference 23.*--length-tolerance"):
        compared(ours, video(tmp_path / "c.mp4", 23), PixelSimilarity())
    assert compared(ours, tmp_path / "c.mp4", PixelSimilarity(), length_tolerance=3)["frames"] == 20


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is 64x48, its reference 80x48"):
        compared(video(tmp_path / "a.mp4"), video(tmp_path / "b.mp4", width=80), PixelSimilarity())


def test_video_without_a_face_is_refused(tmp_path: Path) -> None:
    ours = video(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"a.mp4: no face in it; --region frame needs none"):
        compared(ours, ours, PixelSimilarity(), detector=Detector(finds=False))


def test_sync_without_sound_is_refused(tmp_path: Path, syncnet: SyncNet) -> None:
    ours = video(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"a.mp4: no sound"):
        compared(ours, ours, SyncMetric(syncnet), detector=Detector())


def test_sync_is_measured_in_a_video_with_sound(tmp_path: Path, syncnet: SyncNet) -> None:
    ours = video(tmp_path / "a.mp4", sound=True)
    found = compared(ours, ours, SyncMetric(syncnet), detector=Detector())
    assert found["sync_c"] == found["reference_sync_c"]
    assert found["sync_c"] is not None


def test_torn_file_is_refused(tmp_path: Path) -> None:
    ours = write_video(tmp_path / "a.mkv", Pictures(100))
    torn = tmp_path / "b.mkv"
    torn.write_bytes(ours.read_bytes()[: ours.stat().st_size // 3])
    with pytest.raises(ValueError, match=r"ends after \d+ of 100 frames|lasts \d+ frames"):
        compared(torn, ours, PixelSimilarity())
