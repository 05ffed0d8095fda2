"""Two hundred good and bad files, one run that is killed ten times, and files that change under it all the while.

    python benchmarks/accidents.py [--files 200] [--kills 10] [--seed 0]

The files are joined recordings, videos cut off or damaged by turned bits, copies, texts and empty files under video
names, videos under wrong names, and good ones. While the command runs, some grow, some are replaced by another video,
cut off, damaged, renamed or removed; then the driver, a worker or everything is killed, and the same command goes on.
At the end:

- every path that was ever in the folder has exactly one row in sources.parquet, or was gone before anybody saw it
- the rows of each cover its frames once, as far as its maker knows them: of joined files both recordings
- a source's sha256 is that of the bytes which lie there; a kept clip's that of bytes which lay there
- the same command again finds nothing to do, and `curation.verify --all` nothing to say

The stages are those of tests/chaos.py: real Ray, real decoding and packing, a drawn face. Exit code 1: one was not so.
"""

import argparse
import hashlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curation.verify.command import verify
from manifests.reader import read_clips, read_sources
from tests.chaos import build_house, drawn, end_of, kill, start, sweep
from tests.videos import Pictures, Sound, tone, write_video

VICTIMS = ("worker", "driver", "everything")
CHANGES_A_RUN = 5
JOINT_FRAMES = 3  # a joined file's second recording is measured by its packets' times
PATIENCE_S = 900.0
TRIES = 5


@dataclass
class Files:
    """The folder of videos, its next number, and what is known: frames by path (None: nobody knows), all sha256."""

    folder: Path
    dice: random.Random
    frames: dict[Path, int | None] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    number: int = 0

    def video(self, suffix: str, path: Path | None = None) -> tuple[Path, int]:
        """A new video of a second or so, with pictures and sound that no other has."""
        self.number += 1
        frames, number = self.dice.randrange(25, 60), self.number
        path = path or self.folder / f"{number:04d}{suffix}"
        sound = Sound(tone(frames / 25, hertz=200.0 + number), codec="mp2" if path.suffix in (".ts", ".mpg") else "aac")
        pictures = Pictures(frames, draw=lambda i: drawn(i + 13 * number))
        write_video(path, pictures, [sound], options={"movflags": "faststart"} if path.suffix == ".mp4" else None)
        return path, frames

    def note(self, path: Path, frames: int | None) -> None:
        self.frames[path] = frames
        self.seen.add(sha256(path))

    def good(self) -> None:
        self.note(*self.video(".mp4"))

    def joined(self) -> None:
        one, first = self.video(".ts")
        other, second = self.video(".ts")
        path = one.with_name(f"{one.stem}_joined.ts")
        path.write_bytes(one.read_bytes() + other.read_bytes())
        one.unlink()
        other.unlink()
        self.note(path, first + second)

    def truncated(self) -> None:
        path, frames = self.video(".mp4")
        os.truncate(path, int(path.stat().st_size * self.dice.uniform(0.3, 0.95)))
        self.note(path, frames)  # its header, which is in front, promises all of them

    def flipped(self) -> None:
        path, _ = self.video(".mp4")
        self.damage(path)
        self.note(path, None)

    def copied(self) -> None:
        original = self.dice.choice([path for path in self.frames if path.is_file()])
        self.number += 1
        path = self.folder / f"{self.number:04d}_copy{original.suffix}"
        shutil.copyfile(original, path)
        self.note(path, self.frames[original])

    def misnamed(self) -> None:
        path, frames = self.video(".mp4")
        self.note(path.rename(path.with_suffix(".mkv")), frames)

    def no_video(self) -> None:
        self.number += 1
        path = self.folder / f"{self.number:04d}_text.mp4"
        path.write_text("no video" * self.dice.randrange(20))
        self.note(path, None)

    def damage(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        for _ in range(20):
            data[self.dice.randrange(len(data))] ^= 1 << self.dice.randrange(8)
        path.write_bytes(data)

    def change(self) -> str:
        """One accident to a file that is there; says which."""
        path = self.dice.choice(sorted(path for path in self.frames if path.is_file() and path.stat().st_size > 1000))
        what = self.dice.choice(("grown", "replaced", "cut off", "damaged", "renamed", "rewritten", "removed"))
        if what == "renamed":
            self.number += 1
            new = path.rename(path.with_name(f"{self.number:04d}_renamed{path.suffix}"))
            self.note(new, self.frames[path])
        elif what == "removed":
            path.unlink()
        elif what == "rewritten":  # the same bytes, a new time
            path.write_bytes(path.read_bytes())
        elif what == "replaced":
            new, frames = self.video(path.suffix, path.with_name(f"new{path.suffix}"))
            self.note(new.replace(path), frames)
        else:
            if what == "grown":
                with path.open("ab") as file:
                    file.write(os.urandom(5000))
            elif what == "cut off":
                os.truncate(path, path.stat().st_size // 2)
            else:
                self.damage(path)
            self.note(path, None)
        return f"{path.name} {what}"


MAKERS: tuple[Callable[[Files], None], ...] = (
    Files.good, Files.joined, Files.truncated, Files.flipped, Files.copied, Files.misnamed, Files.good, Files.no_video,
)  # fmt: skip


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(folder: Path, count: int, seed: int) -> Files:
    files = Files(folder, random.Random(seed))
    for i in range(count):
        MAKERS[i % len(MAKERS)](files)
    return files


def disturb(house: Path, files: Files, output: Path, seconds: float) -> str:
    """One run, in which files change and then something is killed; what happened."""
    dice = files.dice
    process = start(house, files.folder, output)
    told = []
    for _ in range(CHANGES_A_RUN):
        time.sleep(dice.uniform(0.2, 1.0) * seconds / CHANGES_A_RUN)
        told.append(files.change())
    victim = dice.choice(VICTIMS)
    struck = kill(process, victim, dice)
    end, text = end_of(process, PATIENCE_S)
    sweep()
    if end in ("hung", "refused"):
        raise SystemExit(f"a run {end}: {text}")
    return f"{victim if struck else 'nobody'} killed, the run {end}; {', '.join(told)}"


def run_to_its_end(house: Path, videos: Path, output: Path, *more: str) -> None:
    """The command until it finishes: on a busy machine Ray may not come up at once, and the same command goes on."""
    for _ in range(TRIES):
        end, text = end_of(start(house, videos, output, *more), PATIENCE_S)
        sweep()
        if end != "stopped":
            break
    if end != "finished":
        raise SystemExit(f"a run {end}: {text}")


def wrongs(files: Files, output: Path) -> Iterator[str]:
    """What is not as it must be."""
    yield from (f"verify: {kind}: {text}" for kind, text in verify(output))
    sources, clips = read_sources(output), read_clips(output)
    rows = Counter(sources["path"])
    yield from (f"{path}: {count} rows in sources.parquet" for path, count in rows.items() if count != 1)
    for path in files.frames:
        if path.is_file() and str(path) not in rows:
            yield f"{path}: no row"
    ends: dict[str, int] = {}
    for source, end in zip(clips["source"], clips["end_frame"], strict=True):
        ends[str(source)] = max(int(end), ends.get(str(source), 0))
    for source in sources.to_dict("records"):
        path = Path(source["path"])
        if not path.is_file():
            continue
        if source["reason"] != "error:io" and source["source_id"] != sha256(path):
            yield f"{path}: stored under a sha256 that is not its own ({source['reason']})"
        wanted, found = files.frames[path], ends.get(str(path), 0)
        if wanted is not None and abs(found - wanted) > JOINT_FRAMES:
            yield f"{path}: its rows end at frame {found}, it has {wanted} ({source['reason']})"
    for key, source_id, kept in zip(clips["key"], clips["source_id"], clips["kept"], strict=True):
        if kept and source_id not in files.seen:
            yield f"{key}: kept from bytes that nobody made"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="until a run is killed, at most")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        house, videos, output = (Path(folder) / name for name in ("house", "videos", "out"))
        for place in (house, videos, output):
            place.mkdir()
        build_house(house, deadline_s=PATIENCE_S)
        files = build(videos, options.files, options.seed)
        print(f"{len(files.frames)} files; {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
        for number in range(options.kills):
            print(f"{number}: {disturb(house, files, output, options.seconds)}", flush=True)
        run_to_its_end(house, videos, output, "--retry")
        before = {path.name: path.read_bytes() for path in (output / "shards").iterdir()}
        run_to_its_end(house, videos, output)
        found = list(wrongs(files, output))
        after = {path.name: path.read_bytes() for path in (output / "shards").iterdir()}
        found += ["the same command once more changed the shards"] if before != after else []
        sources, clips = read_sources(output), read_clips(output)
        print(f"\n{len(sources)} sources: {dict(Counter(sources['reason']))}")
        seconds: Counter[str] = Counter()
        for reason, value in zip(clips["reason"], clips["duration_s"], strict=True):
            seconds[str(reason)] += value
        print("seconds: " + ", ".join(f"{reason} {value:.1f}" for reason, value in seconds.items()))
    print("\n".join(found) or "every second of every source is in exactly one row, and verify finds nothing")
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
