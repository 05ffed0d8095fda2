"""The clocks of every clip: frames, sound samples and Whisper rows, and how many of one lie in another."""

FPS = 25  # paper, section 4.1: clips are processed at 25 frames a second
SAMPLE_RATE = 16_000  # of the sound, one channel (paper, section 4.1)
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
WHISPER_ROWS_PER_FRAME = 2  # Whisper's encoder gives 50 rows a second
