"""Everything that touches ffmpeg (through PyAV), and the geometry of boxes. A leaf: imports no other room.

probe     what a file holds, or why it cannot be used
frames    pictures on the 25 fps grid: scaled for a detector, or cut out around a face
audio     the sound on the same clock: 16 kHz mono
encode    the two streams of a sample (H.264, FLAC) and back
geometry  boxes through time: gaps, smoothing, squares (numpy only)
"""
