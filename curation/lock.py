"""One driver per output folder: a file with a heartbeat, since file locks do not hold on every network file system.

Only the age of the heartbeat tells whether a driver lives: process ids are reused, and two containers may have the same
host name. The owner is known by a random token, which it reads again before each commit.
"""

import json
import os
import secrets
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

    A lock without a heartbeat for STALE_S is taken over, on whatever host its driver was; at once if its process, of
    this boot and container, is gone.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / "LOCK"
        self.token = secrets.token_hex(16)
        self.stopped = threading.Event()
        self.beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        mine = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "space": process_space(),
            "token": self.token,
            "began": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        }
        for _ in range(3):
            try:
                with self.path.open("x", encoding="utf-8") as file:
                    json.dump(mine, file)
            except FileExistsError:
                self._evict()
            except OSError as error:
                raise LockError(f"{self.path}: cannot be written ({error.strerror})") from error
            else:
                self.beating.start()
                return self
        raise LockError(f"{self.path}: other drivers are starting on this output; wait for them")

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.beating.join()
        if self._is_mine():
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise LockError unless this driver still owns the lock; to be called before each commit."""
        if not self._is_mine():
            raise LockError(
                f"{self.path}: another driver took this output over, or the file was removed; what this one had not "
                "committed is left to the other"
            )

    def _is_mine(self) -> bool:
        with suppress(OSError, ValueError):
            return owner_of(self.path).get("token") == self.token
        return False

    def _evict(self) -> None:
        """Removes a dead driver's lock, or raises LockError. The rename lets only one of several newcomers do it."""
        try:
            age_s = self._age_s()
            owner = owner_of(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise LockError(f"{self.path}: cannot be read ({error.strerror})") from error
        except ValueError:  # created a moment ago and not written yet, or torn
            owner = {}
        if not dead(owner, age_s):
            who = f"process {owner['pid']} on {owner.get('host')}" if "pid" in owner else "an unknown driver"
            raise LockError(
                f"{self.path}: {who} works on this output since {owner.get('began', 'a moment')} (heartbeat "
                f"{age_s:.0f} s ago); wait for it, or stop it first: {STALE_S:.0f} s after its last heartbeat the "
                "lock is taken over"
            )
        grave = self.path.with_name(f".LOCK-{self.token}")
        try:
            self.path.rename(grave)
        except FileNotFoundError:
            return
        except OSError as error:
            raise LockError(f"{self.path}: cannot be taken over ({error.strerror})") from error
        grave.unlink(missing_ok=True)

    def _age_s(self) -> float:
        """Seconds since the last heartbeat, by the clock of the file system: that of another host may differ."""
        return file_system_time(self.path.parent) - self.path.stat().st_mtime

    def _beat(self) -> None:
        while not self.stopped.wait(BEAT_S):
            with suppress(OSError):
                if self._is_mine():
                    os.utime(self.path)


def owner_of(path: Path) -> dict[str, Any]:
    """What a lock says about its driver; raises OSError, or ValueError if it is no JSON object."""
    owner = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(owner, dict):
        raise ValueError(f"{path}: {owner!r} is no lock")
    return owner


def process_space() -> str:
    """What tells the process ids of this boot and container from those of others; empty where nothing does."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def file_system_time(folder: Path) -> float:
    """Now, as the file system of a folder stamps its files; by this machine's clock where nothing can be written."""
    probe = folder / f".clock-{secrets.token_hex(8)}"
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def dead(owner: dict[str, Any], age_s: float) -> bool:
    """Whether the driver that wrote a lock is gone: no heartbeat, or no process, where process ids can be compared."""
    if age_s > STALE_S:
        return True
    space = process_space()
    if not space or (owner.get("host"), owner.get("space")) != (socket.gethostname(), space):
        return False
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # another user's; no process id
        pass
    return False
