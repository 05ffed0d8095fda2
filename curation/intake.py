"""From a list of videos to what workers are asked: the header and hash of each, then its curation unless it is a copy.

A source is curated as soon as it is identified. Only files of equal size wait for each other: they may have the same
bytes, and then the first of them by name is curated, whichever is read first. An interrupted run therefore reads again
what was under way, not every file.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from curation.clip import Segment
from curation.ledger import Ledger
from curation.schedule import Task
from curation.source import Curated, Identity, duplicate, failed
from curation.videos import Video, state_of, storable
from pipelines import WorkerSettings
from storage.store import RemoteFile

HEADER_DEADLINE_S = 600.0  # to hash a file and read its header, and
HEADER_BYTES_PER_S = 5e6  # so many of its bytes a second


class Intake:
    """The sources of one run that are not finished. `finish` is called with each that needs no worker any more.

    `again` are names of finished ones that are curated once more; `segments` what is to be curated of a source, if not
    all of it.
    """

    def __init__(
        self,
        videos: Iterable[Video],
        ledger: Ledger,
        settings: WorkerSettings,
        finish: Callable[[Identity, Curated], None],
        retry: str | None = None,
        again: Collection[str] = (),
        segments: Mapping[str, tuple[Segment, ...]] = MappingProxyType({}),
    ) -> None:
        self.ledger, self.settings, self.finish, self.segments = ledger, settings, finish, segments
        videos = list(videos)
        waiting = [video for video in videos if storable(video) in again or not ledger.is_finished(video, retry)]
        waiting += ledger.orphans(videos, waiting)
        self.bytes = {path: size_of(path) for path in waiting}
        self.originals = ledger.originals(waiting)
        self.unread = Counter(self.bytes.values())  # size -> files of it that nobody has read yet
        self.read: defaultdict[int, list[Identity]] = defaultdict(list)  # size -> those read, until all of it are
        self.under_way: dict[str, list[Identity]] = {}  # source id -> its copies, while one of them is curated

    def tasks(self) -> list[Task]:
        """Return a task for each source: longest first, so that no straggler ends the run.

        Last of all what was under way when an earlier run died: it may be why.
        """
        order = sorted(self.bytes, key=self._place)
        return [Task("identify", path, self._read_deadline_s(path)) for path in order]

    def _read_deadline_s(self, path: Video) -> float:
        return HEADER_DEADLINE_S + self.bytes[path] / HEADER_BYTES_PER_S

    def _place(self, path: Video) -> tuple[bool, int, str]:
        return storable(path) in self.ledger.interrupted, -self.bytes[path], str(path)

    def take(self, identity: Identity) -> Iterator[Task]:
        """Yield what is to be done now that a file was read: at most one task for each source id."""
        identity = replace(identity, segments=self.segments.get(storable(identity.path), ()))
        size = self.bytes[identity.path]
        self.read[size].append(identity)
        self.unread[size] -= 1
        if not self.unread[size] or not size:
            for each in sorted(self.read.pop(size), key=lambda each: str(each.path)):
                yield from self._decide(each)

    def _decide(self, identity: Identity) -> Iterator[Task]:
        source_id, name = identity.source_id, storable(identity.path)
        if identity.probe is None or source_id is None:
            self.finish(identity, failed(identity, identity.reason, identity.detail))
        elif source_id in self.under_way:
            self.under_way[source_id].append(identity)
        elif self.originals.get(source_id, name) != name:
            self.finish(identity, duplicate(identity, self.originals[source_id]))
        else:
            yield self._curate(identity, source_id, [])

    def _curate(self, identity: Identity, source_id: str, copies: list[Identity]) -> Task:
        self.originals[source_id] = storable(identity.path)
        self.under_way[source_id] = copies
        settings = self.settings
        deadline_s = settings.deadline_s + settings.deadline_factor * identity.duration_s
        if isinstance(identity.path, RemoteFile):  # it may have to be copied to another node than before
            deadline_s += self._read_deadline_s(identity.path)
        return Task("curate", identity, deadline_s)

    def end(self, identity: Identity, curated: Curated) -> Iterator[Task]:
        """Finish a source that was curated, and its copies; yield the next of these if it failed by itself."""
        self.finish(identity, curated)
        source_id = identity.source_id
        assert source_id is not None
        copies = self.under_way.pop(source_id)
        if self.ledger.done[storable(identity.path)].stands_for_copies:
            for copy in copies:
                self.finish(copy, duplicate(copy, str(identity.path)))
            return
        del self.originals[source_id]
        if copies:
            yield self._curate(copies[0], source_id, copies[1:])


def size_of(video: Video) -> int:
    """The bytes of a file; 0 if it is not there."""
    state = state_of(video)
    return state.bytes if state else 0
