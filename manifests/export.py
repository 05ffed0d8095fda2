"""The clips of a finished run, or of a selection of it, as the folders that neighbouring systems read.

    python -m manifests.export OUT --for latentsync --to FOLDER

latentsync: FOLDER/videos/KEY.mp4 with sound and FOLDER/fileslist.txt, its paths line by line (data.train_fileslist of
bytedance/LatentSync, latentsync/data). hallo: FOLDER/videos/KEY.mp4 with sound, what its scripts/data_preprocess.py
begins with. avhubert: FOLDER/video/KEY.mp4, FOLDER/audio/KEY.wav, SPLIT.tsv and SPLIT.wrd (load_audio_visual of
facebookresearch/av_hubert, hubert_dataset.py). frames: FOLDER/KEY/gt_imgs/00000000.jpg, aud.wav, landmarks.npy
[T, K, 2] in pixels and boxes.npy, for systems that train on one person (GeneFace++, Speech2Lip) and preprocess it.
lrs: FOLDER/SPLIT/SOURCE/KEY.mp4, .flac and .txt with `Text:`. docs/exports.md says what each still lacks.

Videos are those of the shards, 25 frames a second, not encoded again; the sound is AAC in an mp4, else without loss.
"""

import io
import sys
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd

from clock import SAMPLE_RATE
from command import parser_of
from manifests.labels import add_labels, read_labels
from manifests.reader import ManifestError, read_clips
from media.encode import BITEXACT, decode_flac, decode_mp4, encode_audio
from shards.index import INDEX_NAME, read_index
from shards.reader import ShardError, read_sample
from shards.sample import AUDIO, BOXES, LANDMARKS, VIDEO, Sample, decode_npy
from storage.atomic_write import atomic_folder
from storage.table import TableError

AUDIO_BITS_PER_S = 128_000
FULL_SCALE = 32767


class ExportError(ValueError):
    """The clips cannot be exported; the text says why."""


@dataclass(frozen=True)
class Exported:
    """A clip, and what is known of it: split and transcript are empty where no list says them."""

    sample: Sample
    frames: int
    source: str
    split: str
    transcript: str


def write_latentsync(clips: Iterator[Exported], folder: Path, final: Path) -> None:
    keys = list(write_videos(clips, folder / "videos"))
    text = "".join(f"{final.absolute() / 'videos' / key}.mp4\n" for key in keys)
    (folder / "fileslist.txt").write_text(text, encoding="utf-8")


def write_hallo(clips: Iterator[Exported], folder: Path, final: Path) -> None:
    for _ in write_videos(clips, folder / "videos"):
        pass


def write_videos(clips: Iterator[Exported], folder: Path) -> Iterator[str]:
    """Write each clip as an mp4 with sound; yield its key."""
    folder.mkdir()
    for clip in clips:
        (folder / f"{clip.sample.key}.mp4").write_bytes(with_sound(clip.sample))
        yield clip.sample.key


def write_avhubert(clips: Iterator[Exported], folder: Path, final: Path) -> None:
    for name in ("video", "audio"):
        (folder / name).mkdir()
    for clip in clips:
        key, split = clip.sample.key, clip.split or "train"
        video, audio = f"video/{key}.mp4", f"audio/{key}.wav"
        (folder / video).write_bytes(clip.sample.members[VIDEO])
        samples = write_wav(folder / audio, decode_flac(clip.sample.members[AUDIO]))
        table = folder / f"{split}.tsv"
        if not table.exists():
            table.write_text(f"{final.absolute()}\n", encoding="utf-8")
        append(table, f"{key}\t{video}\t{audio}\t{clip.frames}\t{samples}")
        append(folder / f"{split}.wrd", " ".join(clip.transcript.split()))


def append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def write_frames(clips: Iterator[Exported], folder: Path, final: Path) -> None:
    for clip in clips:
        place = folder / clip.sample.key
        (place / "gt_imgs").mkdir(parents=True)
        for i, frame in enumerate(decode_mp4(clip.sample.members[VIDEO])):
            cv2.imwrite(str(place / "gt_imgs" / f"{i:08d}.jpg"), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
        write_wav(place / "aud.wav", decode_flac(clip.sample.members[AUDIO]))
        for name, member in (("landmarks", LANDMARKS), ("boxes", BOXES)):
            if member in clip.sample.members:
                np.save(place / f"{name}.npy", decode_npy(clip.sample.members[member]).astype(np.float32))


def write_lrs(clips: Iterator[Exported], folder: Path, final: Path) -> None:
    for clip in clips:
        place = folder / (clip.split or "main") / clip.source[:16]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{clip.sample.key}.mp4").write_bytes(with_sound(clip.sample))
        (place / f"{clip.sample.key}.flac").write_bytes(clip.sample.members[AUDIO])
        (place / f"{clip.sample.key}.txt").write_text(f"Text:  {clip.transcript}\n", encoding="utf-8")


Writer = Callable[[Iterator[Exported], Path, Path], None]
WRITERS: dict[str, Writer] = {
    "latentsync": write_latentsync,
    "hallo": write_hallo,
    "avhubert": write_avhubert,
    "frames": write_frames,
    "lrs": write_lrs,
}


def with_sound(sample: Sample) -> bytes:
    """The mp4 of a sample with its sound as AAC beside the pictures, which are not encoded again."""
    buffer = io.BytesIO()
    with (
        av.open(io.BytesIO(sample.members[VIDEO]), "r", format="mp4") as pictures,
        av.open(buffer, "w", format="mp4", options=BITEXACT) as out,
    ):
        video = out.add_stream_from_template(pictures.streams.video[0])
        sound = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono", options={"b": str(AUDIO_BITS_PER_S)})
        assert isinstance(sound, av.AudioStream)
        sound.codec_context.thread_count = 1
        packets = []
        for packet in pictures.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                packets.append(packet)
        packets += encode_audio(sound, decode_flac(sample.members[AUDIO]), "fltp")
        for packet in sorted(packets, key=lambda each: each.dts * each.time_base):  # pyright: ignore
            out.mux(packet)
    return buffer.getvalue()


def write_wav(path: Path, audio: np.ndarray) -> int:
    """Write [N] float32 as a 16-bit mono WAV; return the number of samples."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(
            np.clip(np.round(audio * (FULL_SCALE + 1)), -FULL_SCALE - 1, FULL_SCALE).astype("<i2").tobytes()
        )
    return len(audio)


def read_exported(output: Path) -> Iterator[Exported]:
    """The clips of an output or of a selection, in the order of the shards. Raises ShardError."""
    index: Any = read_index(output / "shards")
    known = labels_of(output, index["key"])
    for row in index.to_dict("records"):
        split, transcript = known.get(row["key"], ("", ""))
        yield Exported(read_sample(output / "shards", row), row["frames"], row["source_id"], split, transcript)


def labels_of(output: Path, keys: pd.Series) -> dict[str, tuple[str, str]]:
    """{key: split and transcript} as far as the list of a data set says them."""
    try:
        clips: Any = read_clips(output)
    except ManifestError:  # a selection: it has no manifests of its own
        return {}
    clips = add_labels(clips[clips["key"].isin(keys)], read_labels(output))
    empty = pd.Series("", clips.index)
    columns = [clips.get(name, empty).fillna("") for name in ("split", "transcript")]
    return {key: (str(a), str(b)) for key, a, b in zip(clips["key"], *columns, strict=True)}


def export(output: Path, name: str, to: Path) -> None:
    """Write the folder `to`, whole or not at all. Raises ExportError, ShardError or TableError."""
    if to.exists():
        raise ExportError(f"{to}: exists; give a new folder")
    if not (output / "shards" / INDEX_NAME).is_file():
        raise ExportError(f"{output}: no shards/{INDEX_NAME}; only a finished run or a selection can be exported")
    with atomic_folder(to) as temporary:
        WRITERS[name](read_exported(output), temporary, to)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("python -m manifests.export", __doc__)
    parser.add_argument("output", type=Path, help="folder of a finished run, or a selection of manifests.balance")
    parser.add_argument("--for", dest="name", required=True, choices=sorted(WRITERS), help="who reads it")
    parser.add_argument("--to", type=Path, required=True, help="folder to write; must not exist")
    options = parser.parse_args(arguments)
    try:
        export(options.output, options.name, options.to)
    except (ExportError, ManifestError, ShardError, TableError, OSError) as error:
        print(f"manifests.export: {error}", file=sys.stderr)
        return 2
    print(options.to)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
