"""The networks that measure: one file each, imported only where they are used, because most load a heavy library.

yolo_face         where faces are
face_landmarks    478 points and 52 blendshapes of a face; the index lists of lips and face oval
voice_activity    when somebody speaks
whisper_features  what is spoken, 50 rows per second
hyperiqa, niqe    how good a picture is, as people see it; and without learned opinions
syncnet           whether lips and sound fit, by the published network
mouth             what the mouth does, in numbers, from landmarks
head_pose         how the head is turned, likewise
mask              the rectangle around the mouth that training and generation hide (section 3.2)
lip_probe         whether lips and sound fit, by a small regression (lip_probe.npz); lip_probe_fit fits another
sync              the same by two small towers (sync_small.safetensors); training/sync.py trains others

exported          networks of torch as ONNX files, made once; onnx_session runs them on one thread of the CPU
whisper_encoder   Whisper's encoder as such a file, so that workers need no torch

A constructor takes the weight file (see weights.py) and, where it can use one, a device. All run on one thread of the
CPU unless a device is given, and give the same numbers for a picture or a track whatever was measured before it.
"""

import os

# ONNX Runtime's official builds send usage data to Microsoft and keep a device id in ~/.cache, unless this is set
# before they are first imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
