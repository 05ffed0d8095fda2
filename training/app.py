"""A page to try a checkpoint: a video, a sound, and the lip-synced result beside the original.

    python training/app.py --checkpoint RUN [--port 7860]

It listens on this machine only unless --host says otherwise. Nothing is sent anywhere; results are marked as
`generate.py` marks them. Uploads (at most --max-upload-mb each) and results are kept in a temporary folder, for an hour
or two, and never longer than until the page ends.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # run as a script, the first place is this file's own folder
    sys.path[0] = str(ROOT)
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio  # noqa: E402
import torch  # noqa: E402

from command import parser_of  # noqa: E402
from training.generator import Generator, Job, Options  # noqa: E402
from training.person import read_choice  # noqa: E402
from training.sampler import SAMPLERS  # noqa: E402

KEEP_S = 3600  # how long a visitor may go on with an upload
NOTE = (
    "The mouth follows the sound; the result has the sound's length at 25 frames a second. Generated pictures carry an "
    "invisible mark. Use faces and voices of people who agreed to it."
)
FACES = ["largest", "left", "right", "1", "2", "3", "4"]
FACE_NOTE = "Whose mouth, where there are several: numbers count from the left. Chosen again after each cut."
HEAR_NOTE = "Otherwise the mouth rests where nobody speaks, whatever else sounds."


def page(generator: Generator, folder: Path) -> gradio.Blocks:
    """The page; results are written to `folder`, uploads and what gradio makes of them are removed after KEEP_S."""

    def run(
        video: str | None, sound: str | None, face: str, hear_all: bool, seed: float, steps: float, guidance: float,
        sampler: str, region: str, progress: gradio.Progress = gradio.Progress(),
    ) -> str:  # fmt: skip
        if not video or not sound:
            raise gradio.Error("Give a video and a sound.")
        total, done = 1, 0

        def progressed(phase: str, count: int) -> None:
            nonlocal total, done
            if phase == "frames":
                total = 3 * count  # the face is looked for, measured, and generated
                return
            done += count
            progress(min(done / total, 1.0), desc="looking for the face" if phase == "faces" else "generating")

        chosen = options_of(face, hear_all, seed, steps, guidance, sampler, region)
        output = Path(tempfile.mkdtemp(dir=folder)) / "generated.mp4"
        try:
            generator.generate(Job(Path(video), Path(sound), output), chosen, progressed)
        except ValueError as error:
            raise gradio.Error(
                str(error).replace(str(Path(video)), "the video").replace(str(Path(sound)), "the sound")
            ) from error
        return str(output)

    plain = generator.complete(Options())
    with gradio.Blocks(title="SayAnything", delete_cache=(KEEP_S, KEEP_S)) as blocks:
        gradio.Markdown(f"# SayAnything\n{NOTE}")
        with gradio.Row():
            video, result = gradio.Video(label="Video"), gradio.Video(label="Result", interactive=False)
        sound = gradio.Audio(label="Sound", type="filepath")
        with gradio.Row():
            face = gradio.Radio(FACES, value=str(plain.face), label="Face", info=FACE_NOTE)
            hear_all = gradio.Checkbox(plain.hear_all, label="Hear all", info=HEAR_NOTE)
        with gradio.Row():
            seed = gradio.Number(plain.seed, label="Seed", precision=0)
            steps = gradio.Slider(1, 50, plain.steps, step=1, label="Steps")
            guidance = gradio.Slider(1.0, 8.0, plain.guidance, step=0.5, label="Guidance")
            sampler = gradio.Radio(sorted(SAMPLERS), value=plain.sampler, label="Sampler")
            region = gradio.Radio(["face", "mouth"], value=generator.region, label="Pasted region")
        button = gradio.Button("Generate", variant="primary")
        asked = [video, sound, face, hear_all, seed, steps, guidance, sampler, region]
        button.click(run, asked, result, concurrency_limit=1)
    return blocks


def options_of(
    face: str, hear_all: bool, seed: float, steps: float, guidance: float, sampler: str, region: str
) -> Options:
    """Return what the fields of the page say."""
    return Options(
        seed=int(seed),
        steps=int(steps),
        guidance=guidance,
        sampler=sampler,
        face=read_choice(face),
        hear_all=hear_all,
        region="mouth" if region == "mouth" else "face",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("python training/app.py", __doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="a run of training/train.py, its folder export, or speaker"
    )
    parser.add_argument("--base", type=Path, help="diffusers folder with the VAE; default: where the training had it")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="0: any that is free (default: %(default)s)")
    parser.add_argument(
        "--max-upload-mb", type=int, default=500, help="larger files are not accepted (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.max_upload_mb < 1:
        parser.error("--max-upload-mb: 1 is the least")
    try:
        generator = Generator(options.checkpoint, torch.device(options.device), options.base)
    except (ValueError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: what visitors gave is removed, whoever ends the page
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")  # they go with the folder
        blocks = page(generator, Path(folder))
        _, address, _ = blocks.launch(
            server_name=options.host,
            server_port=options.port or None,
            allowed_paths=[folder],
            max_file_size=options.max_upload_mb * 1024**2,
            quiet=True,
            show_error=True,
            prevent_thread_lock=True,
        )
        print(f"{address}   (Ctrl-C ends it)", flush=True)
        blocks.block_thread()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
