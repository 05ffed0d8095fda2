"""What a benchmark writes with --json: its numbers, and what is needed to ask for them again."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("av", "mediapipe", "numpy", "onnxruntime", "opencv-contrib-python", "openvino", "ray", "torch")
PACKAGES += ("ultralytics", "webdataset")


def write_json(path: Path | None, numbers: Mapping[str, Any]) -> None:
    """Writes the numbers with machine, command and versions beside them; does nothing without a path."""
    if path is not None:
        about = {"machine": machine(), "command": shlex.join([Path(sys.executable).name, *sys.argv])}
        text = json.dumps({**about, "versions": versions(), **numbers}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_1_min": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
    }


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
