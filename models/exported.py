"""Networks as ONNX: exported once from their torch weights, kept in the cache, and run without torch ever after.

A process that only runs networks with ONNX Runtime has 100 MB where torch alone takes 500, and starts in a tenth of the
time. So the export happens in a process of its own, which ends. The file's name holds the weights' hash.
"""

import fcntl
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import onnxruntime

import weights as weight_files
from models.onnx_session import one_thread
from storage.atomic_write import atomic_write
from storage.digest import sha256

VERSION = 1  # of what the exporters below write


def session(exporter: str, weights: Path) -> onnxruntime.InferenceSession:
    """The network of `weights` on one thread of the CPU; `exporter` is the module with its `export(weights, path)`."""
    path = find_or_export(exporter, weights)
    return onnxruntime.InferenceSession(path, one_thread(), providers=["CPUExecutionProvider"])


def find_or_export(exporter: str, weights: Path) -> Path:
    """The ONNX file of a network, made now if it is not there yet. Raises OSError or ValueError if it cannot be."""
    digest = sha256(weights)
    path = weight_files.cache_folder() / "exported" / f"{weights.stem}-{digest[:12]}-{VERSION}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of all the workers that start on a machine, one exports
            if not path.exists():
                export(exporter, weights, path)
    return path


def export(exporter: str, weights: Path, path: Path) -> None:
    command = [sys.executable, "-m", "models.exported", exporter, weights.absolute(), path]
    done = subprocess.run(command, cwd=Path(weight_files.__file__).parent, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise ValueError(f"{weights}: cannot be exported as ONNX: {done.stderr.strip()[-1000:]}")


def main() -> None:
    exporter, weights, path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    content = import_module(exporter).export(weights)
    with atomic_write(path) as file:
        file.write(content)


if __name__ == "__main__":
    main()
