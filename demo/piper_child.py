"""The process that runs piper-tts: sentences in as JSON on stdin, sound and phoneme times out as one .npz file.

piper-tts is GPL-3.0-or-later. Nothing else in this repository imports it: speech.py starts this file as a program of
its own and reads the file it leaves. The voice's noise comes from ONNX Runtime's generator, which is seeded here, and
one thread is used, so that the same request gives the same bytes.

    request: {"voice", "config", "output": paths, "seed": int, "noise": float, "sentences": [{"text", "length_scale"}]}
    result:  sample_rate; per sentence i: sound_<i> int16 [N], phonemes_<i> str [P], samples_<i> int64 [P]
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from piper import PiperVoice
from piper.config import PiperConfig, SynthesisConfig
from piper.patch_voice_with_alignment import add_alignment_output


def main() -> None:
    request = json.load(sys.stdin)
    onnxruntime.set_seed(request["seed"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = onnx.load(request["voice"])
    add_alignment_output(model)  # the voice knows how long each phoneme lasts; this makes it say so
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    config = PiperConfig.from_dict(json.loads(Path(request["config"]).read_text(encoding="utf-8")))
    voice = PiperVoice(session, config)
    arrays: dict[str, np.ndarray] = {"sample_rate": np.array(config.sample_rate)}
    for i, sentence in enumerate(request["sentences"]):
        settings = SynthesisConfig(length_scale=sentence["length_scale"], noise_scale=request["noise"])
        chunks = list(voice.synthesize(sentence["text"], settings, include_alignments=True))
        phonemes = [p for chunk in chunks for p in chunk.phoneme_alignments or ()]
        arrays[f"sound_{i}"] = np.concatenate([chunk.audio_int16_array for chunk in chunks])
        arrays[f"phonemes_{i}"] = np.array([p.phoneme for p in phonemes])
        arrays[f"samples_{i}"] = np.array([p.num_samples for p in phonemes])
        if arrays[f"samples_{i}"].sum() != len(arrays[f"sound_{i}"]):
            raise ValueError(f"piper gave no phoneme times for: {sentence['text']}")
    np.savez(request["output"], allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
