"""A talking-head corpus of people who do not exist, with known truth.

generator.py   the network that draws a face, one style per layer
geometry.py    mouth, pose and eye measurements on 478 landmarks
directions.py  learns which style changes move the mouth and nothing else
faces.py       one identity: base picture, mouth grid, eyelids; the vetted seeds; `python -m demo.faces`
solved.npz     what the search found about each of them: a few numbers per mouth shape, and no picture
speech.py      text -> sound with phoneme times -> mouth opening and width over time
piper_child.py the process that runs piper-tts
recordings.py  a real voice -> its phoneme times, by warping piper's onto it
render.py      identity + mouth track -> frames; frames + sound -> video file
corpus.py      the table corpus.yaml -> videos and truth.json; `python -m demo.corpus`
base.py        a small UNet and a fitted codec where SVD's would stand; `python -m demo.base`
side_by_side.py  source and generated beside each other, with the sound
run.py         all of it in order, from nothing to a video that speaks; `make demo`
"""

import logging

# diffusers imports bitsandbytes where it is installed, which then warns of a kernel that nothing here uses.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
