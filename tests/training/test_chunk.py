"""The denoiser of a chunk: segments that overlap, frames that are known, and the seams between chunks."""

import numpy as np
import torch

from tests.training.toys import make_checkpoint, make_conditions, make_latents
from training.chunk import average_segments, crossfade, frame_noise, keep_known
from training.network import SayAnything
from training.plan import Segments


def test_where_segments_do_not_overlap_averaging_changes_nothing(tmp_path):
    network = SayAnything.load(make_checkpoint(tmp_path) / "export").eval()
    conditions = make_conditions(1, frames=28)
    rows = torch.randn(1, *network.audio.rows_shape(28))
    with torch.no_grad():
        network.audio.fit(rows[0])  # otherwise all tokens would be the same
        tokens, z = network.audio(rows)[0], make_latents(1, frames=28)[0]
        shown = conditions.concatenated[0]

        def denoise(start: int, end: int, at_once: int = 1) -> torch.Tensor:
            part = slice(start, end)
            return average_segments(network, shown[part], tokens[part], [], Segments(), 1.0, at_once)(z[part], 2.0)

        together, first, second, in_batches = denoise(0, 28), denoise(0, 16), denoise(12, 28), denoise(0, 28, 2)
    torch.testing.assert_close(together[:12], first[:12])
    torch.testing.assert_close(together[16:], second[4:])
    torch.testing.assert_close(together[12:16], (first[12:] + second[:4]) / 2)
    torch.testing.assert_close(in_batches, together, rtol=1e-4, atol=1e-5)


def test_known_frames_are_answered_as_they_are():
    known = torch.ones(4, 4, 2, 2)
    found = keep_known(lambda z, sigma: z * 0, known)(torch.randn(10, 4, 2, 2), 1.0)
    assert found[:4].eq(1).all() and found[4:].eq(0).all()


def test_noise_belongs_to_a_frame_and_crossfades_are_linear():
    assert torch.equal(frame_noise(3, 100, (4, 2, 2)), frame_noise(3, 100, (4, 2, 2)))
    assert not torch.equal(frame_noise(3, 100, (4, 2, 2)), frame_noise(3, 101, (4, 2, 2)))
    before, after = np.zeros((4, 1, 1, 3), np.uint8), np.full((4, 1, 1, 3), 100, np.uint8)
    assert crossfade(before, after)[:, 0, 0, 0].tolist() == [20, 40, 60, 80]
