"""One driver per output folder: a file with a heartbeat, since file locks do not hold on every network file system."""

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

BEAT_S = 5.0
STALE_S = 60.0  # twelve beats: a driver that is silent for so long is dead


class LockError(ValueError):
    """Another driver works on this output."""


class Lock:
    """`<output>/LOCK`, held by a `with` block and touched every few seconds while it lasts.

    A lock whose driver is dead (its process is gone, or from another host its heartbeat stopped) is taken over.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / "LOCK"
        self.stopped = threading.Event()
        self.beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "began": time.strftime("%Y-%m-%d %H:%M:%S %Z")}
        for _ in range(3):
            try:
                with self.path.open("x", encoding="utf-8") as file:
                    json.dump(mine, file)
            except FileExistsError:
                self._evict()
            else:
                self.beating.start()
                return self
        raise LockError(f"{self.path}: other drivers are starting on this output; wait for them")

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.beating.join()
        self.path.unlink(missing_ok=True)

    def _evict(self) -> None:
        """Removes a dead driver's lock, or raises LockError. The rename lets only one of several newcomers do it."""
        try:
            age_s = time.time() - self.path.stat().st_mtime
            owner = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError:  # created a moment ago and not written yet, or torn
            owner = {}
        if not dead(owner, age_s):
            raise LockError(
                f"{self.path}: process {owner.get('pid')} on {owner.get('host')} works on this output since "
                f"{owner.get('began')} (heartbeat {age_s:.0f} s ago); wait for it, or stop it first"
            )
        grave = self.path.with_name(f".LOCK-{os.getpid()}")
        with suppress(FileNotFoundError):
            self.path.rename(grave)
            grave.unlink()

    def _beat(self) -> None:
        while not self.stopped.wait(BEAT_S):
            with suppress(OSError):
                os.utime(self.path)


def dead(owner: dict[str, Any], age_s: float) -> bool:
    """Whether the driver that wrote a lock is gone."""
    if owner.get("host") == socket.gethostname():
        try:
            os.kill(int(owner["pid"]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return owner["pid"] == os.getpid()
    return age_s > STALE_S
