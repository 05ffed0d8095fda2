import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from media.audio import read_sound
from media.encode import encode_flac
from media.frames import GridReader, read_pictures
from media.probe import probe
from pipelines import ROOT
from tests.training.toys import make_checkpoint
from training import generate
from training.generator import Film, Generator, Job, Options, Take
from training.watermark import detect

QUICK = Options(steps=2, guidance=1.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def generator(checkpoint: Path) -> Generator:
    return Generator(checkpoint, torch.device("cpu"))


@pytest.fixture(scope="module")
def videos(talkers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three seconds, and others shorter, of corpus videos; stream copies."""
    folder, source = tmp_path_factory.mktemp("videos"), talkers("talker_a", "silence", "gap_15")
    return {"talker": source / "talker_a.mp4", "gap": source / "gap_15.mp4", "folder": folder}


def sound(folder: Path, samples: int, name: str = "sound.flac") -> Path:
    tone = 0.3 * np.sin(np.arange(samples) * 0.05).astype(np.float32)
    (folder / name).write_bytes(encode_flac(tone))
    return folder / name


def planes(path: Path) -> list[tuple[np.ndarray, ...]]:
    described = probe(path)
    return [picture.planes for picture in read_pictures(GridReader(path, described), 0, described.frames)]


def test_the_sounds_own_scale_is_an_option_and_none_by_default():
    def scale(*words: str) -> float | None:
        return generate.options_of(generate.parser().parse_args(words)).audio_guidance

    assert scale("--audio-guidance", "0") == 0.0
    assert scale() is Options().audio_guidance is None


@pytest.mark.parametrize("samples", [16000, 16001, 640, 25000])
def test_the_result_is_exactly_as_long_as_the_sound(generator, videos, tmp_path, samples):
    job = Job(videos["talker"], sound(tmp_path, samples), tmp_path / "out.mp4")
    frames = generator.generate(job, QUICK)
    assert frames == -(-samples // 640)
    assert probe(job.output).frames == frames
    assert len(read_sound(job.output)) == samples
    with av.open(str(job.output)) as container:
        assert container.streams.video[0].frames == frames
        assert container.streams.audio[0].codec_context.name == "flac"  # copied
        assert "SayAnything" in container.metadata["comment"]


def test_outside_the_face_every_byte_is_the_sources(generator, videos, tmp_path):
    job = Job(videos["talker"], sound(tmp_path, 16000), tmp_path / "out.mp4")
    generator.generate(job, Options(steps=2, guidance=1.0, crf=0))
    before, after = planes(videos["talker"])[:25], planes(job.output)
    track = generator.faces.follow(job.video, probe(job.video), 25, generator.mask)
    for t, (old, new) in enumerate(zip(before, after, strict=True)):
        changed = np.argwhere(old[0] != new[0])
        x0, y0, x1, y1 = track.squares[t]
        assert len(changed) > 1000
        assert changed[:, 0].min() >= y0 - 1 and changed[:, 0].max() <= y1 + 1
        assert changed[:, 1].min() >= x0 - 1 and changed[:, 1].max() <= x1 + 1


def test_frames_without_a_face_pass_through_and_the_mark_is_found(generator, videos, tmp_path):
    job = Job(videos["gap"], sound(tmp_path, 640 * 140), tmp_path / "out.mp4")
    track = generator.faces.follow(job.video, probe(job.video), 140, generator.mask)
    without = np.flatnonzero(~track.has_face)
    assert 0 < len(without) < 60
    generator.generate(job, Options(steps=1, guidance=1.0, crf=0, payload=7))
    before, after = planes(videos["gap"]), planes(job.output)
    for t in without:
        assert all(np.array_equal(a, b) for a, b in zip(before[t], after[t], strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert detect(job.output).payload == 7


def test_what_is_pasted_is_the_checkpoints_region_unless_told(generator, videos, monkeypatch):
    described = probe(videos["talker"])
    track = generator.faces.follow(videos["talker"], described, 2, generator.mask)
    film = Film(GridReader(videos["talker"], described), track, np.arange(2))
    picture, made = film.pictures(1, 2)[0], np.zeros((generator.size, generator.size, 3), np.uint8)

    def take(options: Options) -> Take:
        return Take(film, read_sound(videos["talker"]), made, np.zeros(4), options)

    def box(options: Options) -> list[float]:
        crop = next(generator.place_crops(take(options), [(1, picture, made)]))
        assert crop.source.shape == made.shape and np.abs(crop.source.astype(int)).mean() > 20
        return crop.box.tolist()

    face, mouth = track.boxes[1].tolist(), generator.locate_crop(track, 1)[1].tolist()
    assert mouth[0] > face[0] and mouth[2] < face[2]
    assert generator.mask.crop == "mouth" and box(Options()) == pytest.approx(mouth)
    assert box(Options(region="face")) == pytest.approx(face)
    monkeypatch.setattr(generator, "region", "face")
    assert box(Options()) == pytest.approx(face)
    assert box(Options(region="mouth")) == pytest.approx(mouth)


def test_a_longer_sound_plays_the_video_back(generator, videos, tmp_path):
    short = tmp_path / "short.mp4"
    copy_start(videos["talker"], short, frames=20)
    job = Job(short, sound(tmp_path, 640 * 50), tmp_path / "out.mp4")
    assert generator.generate(job, Options(steps=1, guidance=1.0, crf=0)) == 50
    luma = np.stack([y.astype(np.float32) for y, _, _ in planes(job.output)])
    x0, y0, x1, y1 = np.nan_to_num(generator.faces.follow(short, probe(short), 20, generator.mask).squares[0]).astype(
        int
    )
    luma[:, y0 - 4 : y1 + 4, x0 - 4 : x1 + 4] = 0  # what lies outside the face is the video, forward and back
    steps = np.abs(np.diff(luma, axis=0)).mean(axis=(1, 2))
    assert steps.max() <= 3 * np.median(steps[:15]) + 0.05


def test_streaming_and_a_given_reference_work(generator, videos, tmp_path):
    import cv2

    picture = tmp_path / "face with a space.png"
    source = read_pictures(GridReader(videos["talker"], probe(videos["talker"])), 3, 4)[0]
    rgb = cv2.transform(cv2.merge([cv2.resize(p, source.planes[0].shape[::-1]) for p in source.planes]), source.to_rgb)
    cv2.imwrite(str(picture), rgb[..., ::-1])
    job = Job(videos["talker"], sound(tmp_path, 640 * 30), tmp_path / "out.mp4")
    assert (
        generator.generate(job, Options(steps=1, guidance=1.0, chunk_frames=1, reference=picture, region="mouth")) == 30
    )


def test_the_same_seed_gives_the_same_file(generator, videos, tmp_path):
    jobs = [Job(videos["talker"], sound(tmp_path, 6400), tmp_path / f"{i}.mp4") for i in range(3)]
    for job, seed in zip(jobs, (1, 1, 2), strict=True):
        generator.generate(job, Options(steps=1, guidance=1.0, seed=seed))
    first, again, other = (job.output.read_bytes() for job in jobs)
    assert first == again != other


def copy_start(source: Path, target: Path, frames: int) -> None:
    with av.open(str(source)) as found, av.open(str(target), "w") as out:
        stream = found.streams.video[0]
        copied = out.add_stream_from_template(stream)
        for number, packet in enumerate(found.demux(stream)):
            if packet.dts is None or number >= frames:
                break
            packet.stream = copied
            out.mux(packet)


def test_what_cannot_be_done_is_told(generator, checkpoint, videos, tmp_path, capsys):
    talker, tone = str(videos["talker"]), str(sound(tmp_path, 6400))
    black = tmp_path / "black.mp4"
    with av.open(str(black), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(10):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((240, 320, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))

    def said(*words: str) -> str:
        code = generate.main([*words])
        assert code == 2
        return capsys.readouterr().err

    here = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "o.mp4"), "--device", "cpu"]
    assert "no face in its first 0.4 s" in said(*here, "--video", str(black), "--audio", tone)
    assert "no audio stream" in said(*here, "--video", talker, "--audio", str(black))
    assert "no such file" in said(*here, "--video", str(tmp_path / "no.mp4"), "--audio", tone)
    assert "neither a training run" in said(
        "--checkpoint", str(tmp_path), *here[2:], "--video", talker, "--audio", tone
    )
    assert "needed" in said("--checkpoint", str(checkpoint))
    assert not (tmp_path / "o.mp4").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_the_face_and_what_is_heard_are_said_on_the_command_line(capsys):
    def chosen(*words: str) -> tuple[str | int, bool]:
        options = generate.options_of(generate.parser().parse_args(words))
        return options.face, options.hear_all

    assert chosen() == ("largest", False)
    assert chosen("--face", "left") == ("left", False)
    assert chosen("--face", "2", "--hear-all") == (2, True)
    with pytest.raises(SystemExit):
        chosen("--face", "middle")
    assert "neither largest, left, right nor a number" in capsys.readouterr().err


@pytest.mark.slow
def test_a_list_does_what_it_can_and_says_what_it_could_not(checkpoint, videos, tmp_path):
    tone = sound(tmp_path, 6400)
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(f"video,audio,output\n{videos['talker']},{tone},a.mp4\n{tmp_path / 'no.mp4'},{tone},b.mp4\n")
    command = [
        sys.executable,
        str(ROOT / "training" / "generate.py"),
        "--checkpoint",
        str(checkpoint),
        "--list",
        str(jobs),
    ]
    done = subprocess.run(
        [*command, "--device", "cpu", "--steps", "1"], capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 1, done.stderr
    assert "b.mp4: " in done.stderr and "no such file" in done.stderr
    assert probe(tmp_path / "a.mp4").frames == 10
