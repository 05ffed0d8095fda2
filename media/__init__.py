"""Everything that touches ffmpeg (through PyAV), and the geometry of boxes. A leaf: imports no other room.

probe     what a file holds, or why it cannot be used
frames    pictures on the 25 fps grid: scaled for a detector, or cut out around a face
shots     where a source cuts to another shot (PySceneDetect), for curation and generation alike
audio     the sound on the same clock: 16 kHz mono
regions   what of a source's frames a scan kept around faces, so that they need no second decode
encode    the two streams of a sample (H.264, FLAC) and back
writer    frames and another file's sound -> an MP4, for generation
joined    where a file goes on with another recording
geometry  boxes through time: gaps, smoothing, squares (numpy only)
errors    MediaError: a file that cannot be used, and the reason for the manifest
"""
