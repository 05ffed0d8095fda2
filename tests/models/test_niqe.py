import cv2
import numpy as np
import pytest

import weights
from models.niqe import Niqe
from tests.photograph import photograph


@pytest.fixture(scope="module")
def niqe() -> Niqe:
    path = weights.find("niqe")
    if path is None:
        pytest.skip("python weights.py fetch niqe")
    return Niqe(path)


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """A face of 140x178 pixels with its surroundings: 320x320 of the press photograph inside the ultralytics wheel."""
    return np.ascontiguousarray(photograph()[30:350, 825:1145])


def test_face_is_better_than_its_blurred_and_its_noisy_copy(niqe, face):
    noise = np.random.default_rng(0).normal(0, 25, face.shape)
    noisy = np.clip(face + noise, 0, 255).astype(np.uint8)
    clean, blurred, noised = niqe.score(np.stack([face, cv2.GaussianBlur(face, (0, 0), 3), noisy]))
    assert clean + 1 < blurred
    assert clean + 1 < noised


def test_score_rises_with_the_width_of_the_blur(niqe, face):
    scores = niqe.score(np.stack([face, *(cv2.GaussianBlur(face, (0, 0), sigma) for sigma in (1, 2, 4))]))
    assert (np.diff(scores) > 0).all()


def test_value_on_a_known_picture(niqe, face):
    # pyiqa 0.1.16 with niqe_pris_params.npz on this crop.
    assert niqe.score(face[None])[0] == pytest.approx(5.021, abs=0.02)


def test_scores_are_those_of_pyiqa(niqe, face):
    """Which reads the same paper with torch; blurred, noisy, cut so that two or six blocks are left."""
    import torch
    from pyiqa.archs.niqe_arch import calculate_niqe

    noise = np.random.default_rng(0).normal(0, 9, face.shape)
    pictures = [face, cv2.GaussianBlur(face, (0, 0), 2), np.clip(face + noise, 0, 255).astype(np.uint8)]
    pictures += [face[:200, 20:270], face[30:130]]
    for picture in pictures:
        pixels = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].float() / 255
        mean, covariance = torch.from_numpy(niqe.mean), torch.from_numpy(niqe.covariance)
        expected = float(calculate_niqe(pixels, mu_pris_param=mean, cov_pris_param=covariance))
        assert niqe.score(picture[None])[0] == pytest.approx(expected, abs=0.01)  # its kernels are float32


def test_score_is_the_same_twice_and_whatever_stands_beside_it(niqe, face):
    pair = np.stack([face, face[:, ::-1]])
    together = niqe.score(pair)
    assert together.dtype == np.float32
    np.testing.assert_array_equal(together, niqe.score(pair))
    np.testing.assert_array_equal(together[1:], niqe.score(pair[1:]))


def test_flat_blocks_are_left_out_and_flat_pictures_score_infinity(niqe, face):
    grey = np.full((320, 320, 3), 128, np.uint8)
    halves = grey.copy()
    halves[:, 160:] = 0
    one_block_of_face = grey.copy()
    one_block_of_face[:96, :96] = face[100:196, 100:196]
    scores = niqe.score(np.stack([grey, 0 * grey, halves, one_block_of_face]))
    np.testing.assert_array_equal(scores[:3], np.inf)
    assert np.isfinite(scores[3])


def test_small_and_float_pictures_are_refused(niqe, face):
    with pytest.raises(ValueError, match="96 pixels"):
        niqe.score(face[None, :90, :90])
    with pytest.raises(ValueError, match="uint8"):
        niqe.score(face[None] / 255)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, mu_pris_param=np.zeros(36))
    with pytest.raises(ValueError, match=r"other.npz.*cov_pris_param"):
        Niqe(path)
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"other.npz: not a file of NIQE"):
        Niqe(path)
