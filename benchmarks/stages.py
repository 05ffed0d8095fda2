"""CPU seconds per minute of source, by stage, beside the floor: PyAV decoding the same frames and nothing else.

    python benchmarks/stages.py --profile embedded VIDEO...

One process, one thread. Both are measured in turn for each video, so that a busy machine slows both.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pipelines
from curation.source import curate, identify
from curation.stage import build_stages
from media.frames import GridReader
from media.probe import Limits


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--profile", default="embedded")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    profile = pipelines.load(options.profile, options.set)
    stages, limits = build_stages(profile.stages, profile.device), Limits(**asdict(profile.limits))
    cpu_s: dict[str, float] = defaultdict(float)
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(2):  # the first loads the networks
            cpu_s.clear()
            seconds = 0.0
            for video in options.videos:
                identity = identify(video, limits)
                assert identity.probe is not None, identity.detail
                began = time.process_time()
                for _ in GridReader(video, identity.probe).frames():
                    pass
                cpu_s["floor: decode"] += time.process_time() - began
                began = time.process_time()
                curated = curate(identity, stages, Path(folder), limits, "")
                cpu_s["total"] += time.process_time() - began
                seconds += max(clip["end_frame"] for clip in curated.clips) / 25
                for name, value in curated.source.items():
                    if name.startswith("cpu_s_"):
                        cpu_s[name.removeprefix("cpu_s_")] += value
            if round_ == 0:
                continue
    rest = cpu_s["total"] - sum(value for name, value in cpu_s.items() if name not in ("total", "floor: decode"))
    cpu_s["encode and write"] = rest
    print(f"{seconds:.0f} s of source; CPU seconds per minute of source, and times the floor")
    for name, value in cpu_s.items():
        print(f"{name:24s} {60 * value / seconds:8.2f} {value / cpu_s['floor: decode']:8.2f}x")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
