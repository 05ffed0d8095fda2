"""Sources to measure with: talkers at a height and a bit rate, the same without speech, and speech without a face.

A talker is scaled and encoded once (x264 medium at 25 fps, B-frames, a keyframe every 5 s), and its packets are
repeated until the source is long enough. Talkers are drawn and little moves in them: at these bit rates they decode
like calm studio material. Without speech: the same pictures with quiet noise. Without a face: a zoom into a fractal
with the talker's own sound. What exists already is not made again.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from media.probe import probe

KEPT, NO_SPEECH, NO_FACE = KINDS = ("kept", "no_speech", "no_face")
MBITS = {720: 2.0, 1080: 4.0, 2160: 8.4}
TALKERS = [f"talker_{letter}" for letter in "abcdefghi"]
ENCODING = ("-c:v", "libx264", "-preset", "medium", "-g", "125", "-pix_fmt", "yuv420p")
AAC = ("-c:a", "aac", "-b:a", "128k", "-ar", "48000", "-ac", "2")
AAC_FRAME_S = 1024 / 48000


def ffmpeg(*arguments: str | Path, data: bytes | None = None) -> None:
    """Runs ffmpeg on one thread; raises CalledProcessError, after what ffmpeg said of it."""
    command = [ffmpeg_path(), "-y", "-loglevel", "error", "-filter_threads", "1", "-threads", "1"]
    *given, output = map(str, arguments)
    subprocess.run([*command, *given, "-threads", "1", output], input=data or b"", check=True)  # noqa: S603


def ffmpeg_path() -> str:
    """The system's ffmpeg, or else the one inside the package imageio-ffmpeg."""
    found = shutil.which("ffmpeg")
    if found is None:
        try:
            import imageio_ffmpeg  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise SystemExit(
                "this benchmark needs ffmpeg: apt install ffmpeg, or pip install imageio-ffmpeg"
            ) from error
        found = imageio_ffmpeg.get_ffmpeg_exe()
    return found


def talkers(count: int) -> list[Path]:
    """Talkers of the test corpus, drawn now where they are not in the cache."""
    from tests.talkers import corpus

    return [corpus(*TALKERS[:count]) / f"{name}.mp4" for name in TALKERS[:count]]


def build(
    folder: Path, videos: Sequence[Path], height: int, seconds: float, dropped: int = 0, fill: float = 1.0
) -> dict[str, list[Path]]:
    """A source of each video, and `dropped` without speech and as many without a face: kind -> files.

    The videos take the share `fill` of the picture's height, before a grey wall.
    """
    rate = MBITS.get(height) or MBITS[1080] * height / 1080
    place = folder / (f"{height}p" if fill == 1 else f"{height}p-{fill:g}")
    place.mkdir(parents=True, exist_ok=True)
    short: dict[str, list[Path]] = {KEPT: [scale_video(video, place, height, rate, fill) for video in videos]}
    short[NO_SPEECH] = [without_speech(video, i) for i, video in enumerate(short[KEPT][:dropped])]
    short[NO_FACE] = [without_face(video, i, height, rate) for i, video in enumerate(short[KEPT][:dropped])]
    return {kind: [repeat_packets(file, seconds) for file in files] for kind, files in short.items()}


def scale_video(video: Path, folder: Path, height: int, mbits: float, fill: float) -> Path:
    frame = f"scale=-2:{2 * round(height * fill / 2)}:flags=bicubic,fps=25"
    if fill < 1:  # on a wall with the grain of a camera, which takes its share of the bits
        frame += f",pad={height * 16 // 9}:{height}:(ow-iw)/2:oh-ih:gray,noise=alls=4:allf=t"
    pictures = ("-vf", frame, *ENCODING, "-b:v", f"{mbits}M")
    sound = ("-af", f"atrim=end={probe(video).duration_s - 2 * AAC_FRAME_S:.3f}", *AAC)  # or the next turn starts late
    return make_with_ffmpeg(folder / f"{video.stem}.mp4", "-i", video, *pictures, *sound)


def without_speech(video: Path, number: int) -> Path:
    noise = f"anoisesrc=color=pink:amplitude=0.03:sample_rate=48000:seed={number + 1}"
    both = ("-i", video, "-f", "lavfi", "-i", noise, "-map", "0:v", "-map", "1:a")
    return make_with_ffmpeg(video.with_name(f"{NO_SPEECH}_{video.name}"), *both, "-c:v", "copy", *AAC, "-shortest")


def without_face(video: Path, number: int, height: int, mbits: float) -> Path:
    zoom = f"mandelbrot=size=640x360:rate=25:start_scale={1 / (number + 1):.3f}"
    width = height * 16 // 9
    picture = f"{zoom},scale={width}:{height}:flags=bilinear,noise=alls=6:allf=t,format=yuv420p"
    both = ("-f", "lavfi", "-i", picture, "-i", video, "-map", "0:v", "-map", "1:a")
    path = video.with_name(f"{NO_FACE}_{video.name}")
    return make_with_ffmpeg(path, *both, *ENCODING, "-b:v", f"{mbits}M", "-c:a", "copy", "-shortest")


def repeat_packets(video: Path, seconds: float) -> Path:
    """The packets of a video again and again, until they last so long."""
    folder = video.parent / f"{seconds:g}s"
    folder.mkdir(exist_ok=True)
    return make_with_ffmpeg(folder / video.name, "-stream_loop", "-1", "-i", video, "-t", f"{seconds}", "-c", "copy")


def make_with_ffmpeg(path: Path, *arguments: str | Path) -> Path:
    """The file that ffmpeg makes of these arguments; it appears whole."""
    if not path.exists():
        partial = path.with_name(f".{path.name}")
        ffmpeg(*arguments, "-f", "mp4", partial)
        partial.replace(path)
    return path
