"""Each folder is read back by a restatement of the reading part of the loader that it is for."""

import wave
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from manifests.export import WRITERS, ExportError, export
from manifests.labels import write_labels
from media.encode import decode_flac, decode_mp4
from shards.index import read_index
from shards.reader import read_sample
from shards.sample import AUDIO, VIDEO, Sample
from tests.curation.finished import build


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "out"
    folder.mkdir()
    build(folder)
    text = {"entry": "a", "dataset": "lrs", "licence": "", "split": "test", "transcript": "AND  THIS"}
    write_labels(folder, [{"source": "/raw/anna.mp4", **text}])
    return folder


@pytest.fixture(scope="module")
def samples(output: Path) -> dict[str, Sample]:
    rows = read_index(output / "shards").to_dict("records")
    return {row["key"]: read_sample(output / "shards", row) for row in rows}


def read_mp4(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames and sound of a video, as decord and librosa give them to these loaders."""
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 25
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return np.stack(frames), sound


def check_video(path: Path, sample: Sample) -> None:
    frames, sound = read_mp4(path)
    np.testing.assert_array_equal(frames, decode_mp4(sample.members[VIDEO]))
    assert abs(len(sound) - len(decode_flac(sample.members[AUDIO]))) < 3000  # AAC fills up its last blocks


def test_latentsync_reads_a_path_from_each_line_of_its_list(
    output: Path, samples: dict[str, Sample], tmp_path: Path
) -> None:
    export(output, "latentsync", tmp_path / "to")
    with (tmp_path / "to" / "fileslist.txt").open() as file:
        paths = [Path(line.rstrip()) for line in file]
    assert sorted(path.stem for path in paths) == sorted(samples)
    check_video(paths[0], samples[paths[0].stem])


def test_hallo_begins_with_a_folder_of_videos(output: Path, samples: dict[str, Sample], tmp_path: Path) -> None:
    export(output, "hallo", tmp_path / "to")
    paths = sorted((tmp_path / "to" / "videos").iterdir())
    assert [path.name for path in paths] == sorted(f"{key}.mp4" for key in samples)
    check_video(paths[-1], samples[paths[-1].stem])


def test_av_hubert_reads_a_root_and_five_columns_and_a_line_of_words_each(
    output: Path, samples: dict[str, Sample], tmp_path: Path
) -> None:
    export(output, "avhubert", tmp_path / "to")
    seen = []
    for table in sorted((tmp_path / "to").glob("*.tsv")):
        with table.open() as file:
            root = Path(file.readline().strip())
            for line in file:
                items = line.strip().split("\t")
                frames, audio = int(items[-2]), root / items[2]
                assert len(decode_mp4((root / items[1]).read_bytes())) == frames
                with wave.open(str(audio)) as sound:
                    assert (sound.getframerate(), sound.getnframes()) == (16_000, int(items[-1]))
                    stored = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32768
                np.testing.assert_array_equal(stored, decode_flac(samples[items[0]].members[AUDIO]))
                seen.append(items[0])
        words = table.with_suffix(".wrd").read_text().splitlines()
        assert set(words) == ({"AND THIS"} if table.stem == "test" else {""})
    assert sorted(seen) == sorted(samples) and (tmp_path / "to" / "test.tsv").exists()


def test_frames_sound_and_landmarks_of_a_clip_have_the_same_length(
    output: Path, samples: dict[str, Sample], tmp_path: Path
) -> None:
    export(output, "frames", tmp_path / "to")
    for key, sample in samples.items():
        place, frames = tmp_path / "to" / key, decode_mp4(sample.members[VIDEO])
        names = sorted(path.name for path in (place / "gt_imgs").iterdir())
        assert names == [f"{i:08d}.jpg" for i in range(len(frames))]
        shown = cv2.imread(str(place / "gt_imgs" / names[-1]))
        assert shown is not None and np.abs(shown[..., ::-1].astype(int) - frames[-1]).mean() < 6
        assert len(np.load(place / "landmarks.npy")) == len(np.load(place / "boxes.npy")) == len(frames)
        with wave.open(str(place / "aud.wav")) as sound:
            assert sound.getnframes() == 640 * len(frames)


def test_lrs_has_the_words_beside_sound_without_loss(output: Path, samples: dict[str, Sample], tmp_path: Path) -> None:
    export(output, "lrs", tmp_path / "to")
    texts = sorted((tmp_path / "to").glob("*/*/*.txt"))
    assert len(texts) == len(samples)
    for text in texts:
        assert text.read_text().partition(":")[2].strip() == ("AND  THIS" if text.parts[-3] == "test" else "")
        assert text.with_suffix(".flac").read_bytes() == samples[text.stem].members[AUDIO]


@pytest.mark.parametrize("name", ["avhubert", "latentsync"])
def test_the_same_clips_give_the_same_bytes(output: Path, tmp_path: Path, name: str) -> None:
    contents = []
    for _ in range(2):
        export(output, name, tmp_path / "to")
        files = sorted(path for path in (tmp_path / "to").rglob("*") if path.is_file())
        contents.append([(path.name, path.read_bytes()) for path in files])
        (tmp_path / "to").rename(tmp_path / f"before-{len(contents)}")
    assert contents[0] == contents[1]


def test_a_folder_that_exists_is_not_written_into(output: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="exists; give a new folder"):
        export(output, next(iter(WRITERS)), tmp_path)
