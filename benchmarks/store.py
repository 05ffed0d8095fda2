"""Hours of video from an object store that drops one request in fifty and stalls one in two hundred.

    python benchmarks/store.py --hours 0.05

Drawn videos are curated once from a folder and once from moto's S3 server, behind a proxy that drops and stalls
requests; in the middle the server is killed and started anew. All that a user gets is compared but the paths of the
sources, the scratch folder is watched, and the mirror is compared with the output. 10 hours are the figure asked for;
the videos are small (64 pixels), so that what is measured is the way of the bytes, not the curation.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("RAY_worker_niceness", "0")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.chaos import build_house, difference_of_runs, drawn, end_of, start, sweep  # noqa: E402
from tests.stores import Store, put_folder, running_store  # noqa: E402
from tests.videos import Pictures, Sound, tone, write_video  # noqa: E402

SECONDS = 50  # of a video; the profile takes no more than 60
SETTINGS = ("--set", "workers.recycle_sources=1000")  # a worker that starts anew imports for seconds
DROP, STALL, STALL_S = 50, 200, 40.0  # longer than a request may take


class Watch:
    """The most files and bytes in a folder, looked at twenty times a second."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files, self.bytes = folder, 0, 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self) -> None:
        while not self.ended.wait(0.05):
            sizes = self.sizes()
            self.files, self.bytes = max(self.files, len(sizes)), max(self.bytes, sum(sizes))

    def sizes(self) -> list[int]:
        found = []
        for path in self.folder.rglob("*.mp4"):
            try:
                found.append(path.stat().st_size)
            except FileNotFoundError:
                continue
        return found

    def end(self) -> None:
        self.ended.set()
        self.thread.join()


def build(folder: Path, hours: float) -> None:
    for number in range(max(2, round(hours * 3600 / SECONDS))):
        frames = SECONDS * 25 - number % 7  # no two of the same length beside each other
        pictures = Pictures(frames, draw=lambda k, number=number: drawn(k + 31 * number))
        write_video(folder / f"{number:05d}.mp4", pictures, [Sound(tone(frames / 25))])


def restart_in_the_middle(store: Store, output: Path, objects: dict[str, bytes], half: int) -> None:
    while len(list(output.glob("parts/*/*.tar"))) < half:
        time.sleep(0.05)
    store.restart(objects, down_s=5.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--patience", type=float, default=7200.0, help="seconds until a run is said to hang")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for each in ("house", "videos"):
            (folder / each).mkdir()
        house = build_house(folder / "house", deadline_s=options.patience)
        build(folder / "videos", options.hours)
        count = len(list((folder / "videos").iterdir()))
        began = time.monotonic()
        print(end_of(start(house, folder / "videos", folder / "here", *SETTINGS), options.patience)[0], flush=True)
        here_s = time.monotonic() - began
        with running_store(DROP, STALL, STALL_S) as store:
            os.environ.update(store.environment)
            objects = put_folder(store, folder / "videos", "raw")
            watch = Watch(folder / "scratch")
            began = time.monotonic()
            more = ("--scratch", folder / "scratch", "--mirror", "s3://videos/out", *SETTINGS)
            run = start(house, "s3://videos/raw", folder / "there", *map(str, more))
            restart_in_the_middle(store, folder / "there", objects, count // 2)
            outcome, told = end_of(run, options.patience)
            there_s = time.monotonic() - began
            watch.end()
            store.proxy.drop = store.proxy.stall = 0
            wrong = difference_of_runs(folder / "here", folder / "there") if outcome == "finished" else told
            names = [path.name for path in (folder / "there" / "shards").glob("*.tar")]
            mirrored = all(
                store.get(f"out/shards/{each}") == (folder / "there" / "shards" / each).read_bytes() for each in names
            )
            counts = dict(store.proxy.counts)
        largest = max(path.stat().st_size for path in (folder / "videos").iterdir())
        print(f"{count} videos, {count * SECONDS / 3600:.2f} h; folder {here_s:.0f} s, store {there_s:.0f} s")
        print(f"requests: {counts}; the server was killed and started anew once")
        print(f"the run from the store: {outcome}; {wrong or 'the same bytes but for the paths'}")
        print(
            f"scratch: {watch.files} files, {watch.bytes} bytes at most (largest video {largest}); left {watch.sizes()}"
        )
        print(f"mirror: {len(names)} shards, {'the same bytes' if mirrored else 'OTHER BYTES'}")
        good = outcome == "finished" and not wrong and mirrored and not watch.sizes()
    sweep()
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
