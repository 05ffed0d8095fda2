"""Which of several faces is generated: one is chosen in every shot, and followed to its end.

The faces of a shot are linked into tracks by their places. One track is chosen by a rule; those that are seen beside it
are other people, and never generated, not even where the chosen one turns away or leaves. Tracks that never are beside
it are taken for the same person, who moved too fast or was out of sight. What that gives up: nobody is recognised, so
a stranger who comes when the chosen one has gone is taken for him, and after a cut the rule chooses anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from media.geometry import distance
from training.plan import JUMP

FaceChoice = Literal["largest", "left", "right"] | int  # a number: counted from the left, from 1 on
ANOTHER_FACE = 1.0  # box sides, as in curation: however long out of sight, a face a whole side away is another
LASTING_FRAMES = 12  # half a second; a shorter track may be a mistake of the detector
REMEMBERED_FRAMES = 250  # 10 s; who comes back to his place later is a track of his own
BESIDE_FRAMES = 3  # seen in as many frames with another, a face is another person; fewer may be one face found twice


@dataclass
class Track:
    """One face through a shot."""

    frames: list[int] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)  # [4] each

    def add(self, frame: int, box: np.ndarray) -> None:
        self.frames.append(frame)
        self.boxes.append(box)

    def area(self) -> float:
        """Return the pixels that it covers, summed over its frames."""
        return float(sum((box[2] - box[0]) * (box[3] - box[1]) for box in self.boxes))

    def frames_beside(self, other: "Track") -> int:
        return len(set(self.frames) & set(other.frames))


def read_choice(text: str) -> FaceChoice:
    """Return what `--face` says. Raises ValueError."""
    if text == "largest" or text == "left" or text == "right":
        return text
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise ValueError(f"{text!r} is neither largest, left, right nor a number from 1 on")


def follow_person(faces: Sequence[np.ndarray], choice: FaceChoice = "largest") -> np.ndarray:
    """Return the box of the chosen person in each frame of a shot: [n, 4] float32, NaN where it is not seen.

    `faces` has the boxes [N, 4] of each frame.
    """
    boxes = np.full((len(faces), 4), np.nan, np.float32)
    tracks = link(faces)
    chosen = choose(tracks, choice)
    if chosen is None:
        return boxes
    person = [chosen]
    for track in sorted(tracks, key=Track.area, reverse=True):
        if all(track is not known and track.frames_beside(known) < BESIDE_FRAMES for known in person):
            person.append(track)
    for track in reversed(person):  # where two have a frame in common, the one that was taken first
        boxes[track.frames] = track.boxes
    return boxes


def link(faces: Sequence[np.ndarray]) -> list[Track]:
    """Return the tracks of all faces [N, 4] of each frame; of a frame, the nearest pair is linked first."""
    done: list[Track] = []
    live: list[Track] = []
    for t, found in enumerate(faces):
        done += [track for track in live if t - track.frames[-1] > REMEMBERED_FRAMES]
        live = [track for track in live if t - track.frames[-1] <= REMEMBERED_FRAMES]
        followed = nearest(live, t, found)
        for k, box in enumerate(found):
            if k not in followed:
                live.append(Track())
            (followed[k] if k in followed else live[-1]).add(t, box)
    return done + live


def nearest(tracks: Sequence[Track], t: int, found: np.ndarray) -> dict[int, Track]:
    """Return {face: its track} for those of the faces [N, 4] of frame t that can be the next of a track."""
    if not tracks or not len(found):
        return {}
    apart = distance(np.stack([track.boxes[-1] for track in tracks])[:, None], found[None])
    limits = np.minimum(JUMP * (t - np.array([track.frames[-1] for track in tracks])), ANOTHER_FACE)
    pairs = np.argwhere(apart <= limits[:, None])
    taken: dict[int, int] = {}
    for i, k in pairs[np.argsort(apart[*pairs.T], kind="stable")].tolist():
        if k not in taken and i not in taken.values():
            taken[k] = i
    return {k: tracks[i] for k, i in taken.items()}


def choose(tracks: Sequence[Track], choice: FaceChoice) -> Track | None:
    """Return the track that a rule chooses, or None if there are fewer.

    "largest" covers most of the picture, summed over the shot; the others are counted where most are seen at once.
    """
    lasting = [track for track in tracks if len(track.frames) >= LASTING_FRAMES] or list(tracks)
    if not lasting:
        return None
    if choice == "largest":
        return max(lasting, key=Track.area)
    moment = int(np.bincount(np.concatenate([track.frames for track in lasting])).argmax())
    places = [(float(t.boxes[t.frames.index(moment)][[0, 2]].sum()), t) for t in lasting if moment in t.frames]
    there = [track for _, track in sorted(places, key=lambda place: place[0])]
    number = {"left": 0, "right": len(there) - 1}[choice] if isinstance(choice, str) else choice - 1
    return there[number] if number < len(there) else None
