import pytest
import torch

from training.audio import AudioTokens, token_width


def rows_of(frames: int, k: int, layers: int = 3, dim: int = 8) -> torch.Tensor:
    return torch.randn(1, 2 * (frames + 2 * k), layers, dim, generator=torch.Generator().manual_seed(0))


def test_frame_t_hears_the_rows_of_frames_t_minus_k_to_t_plus_k():
    audio, rows = AudioTokens(layers=3, dim=8, window_frames=2), rows_of(6, 2)
    tokens = audio(rows)
    assert tokens.shape == (1, 6, 10 * 3, 8)  # 2 (2 k + 1) rows of 3 layers
    for t in range(6):
        only = audio(rows[:, 2 * t : 2 * t + 10])
        assert torch.equal(tokens[:, t], only[:, 0])


def test_a_token_knows_its_row_and_its_layer():
    audio = AudioTokens(layers=2, dim=8, window_frames=0)
    tokens = audio(torch.ones(1, 2, 2, 8))[0, 0]
    assert len({tuple(token.tolist()) for token in tokens}) == 4


def test_fewer_tokens_for_larger_whispers():
    rows = rows_of(4, 1)
    assert AudioTokens(layers=3, dim=8, window_frames=1, use="last")(rows).shape == (1, 4, 6, 8)
    weighted = AudioTokens(layers=3, dim=8, window_frames=1, use="weighted")
    assert weighted(rows).shape == (1, 4, 6, 8)
    assert weighted.mix is not None
    with torch.no_grad():
        weighted.mix.copy_(torch.tensor([-50.0, -50.0, 50.0]))  # all the weight on the last layer
        last = AudioTokens(layers=3, dim=8, window_frames=1, use="last")
        last.load_state_dict({n: v for n, v in weighted.state_dict().items() if n != "mix"})
        torch.testing.assert_close(weighted(rows), last(rows))


def test_rows_shape_is_what_forward_wants():
    audio = AudioTokens(layers=3, dim=8, window_frames=2)
    assert audio(torch.zeros(1, *audio.rows_shape(7))).shape[1] == 7


def test_whitened_numbers_are_equally_large_and_not_correlated_and_stay_so_when_loaded(tmp_path):
    rows = rows_of(400, 1)
    rows[..., 3] = 2 * rows[..., 2] + 0.1 * rows[..., 3]  # two numbers that go together
    rows = rows * torch.tensor([1.0] * 7 + [100.0]) + 3  # one number of Whisper's dwarfs the others
    audio = AudioTokens(layers=3, dim=8, window_frames=1, numbers=12)
    assert audio.whitening is not None
    audio.fit(rows.flatten(0, 1))
    found = audio.whitening(rows).flatten(0, 2)
    torch.testing.assert_close(found.T.cov(), torch.eye(12), atol=0.06, rtol=0)
    assert found.abs().max() <= audio.whitening.LARGEST
    assert not any(parameter.requires_grad for parameter in audio.whitening.parameters())
    audio.save_pretrained(tmp_path)
    assert torch.equal(AudioTokens.from_pretrained(tmp_path)(rows), audio(rows))
    by_row = AudioTokens(layers=3, dim=8, window_frames=1).norm(rows)
    assert by_row.detach().std(dim=(0, 1, 2))[:7].max() < 0.5, "a LayerNorm leaves the others small"


@pytest.mark.parametrize("use", ["all", "last"])
@pytest.mark.parametrize("numbers", [0, 5])
def test_a_joined_window_is_one_token_that_holds_all_the_rows(numbers: int, use: str):
    rows = rows_of(6, 2)
    shape = {"layers": 3, "dim": 8, "window_frames": 2, "use": use, "numbers": numbers}
    torch.manual_seed(0)
    apart = AudioTokens(**shape)  # pyright: ignore[reportArgumentType]
    joined = AudioTokens(**shape, joined=True)  # pyright: ignore[reportArgumentType]
    joined.load_state_dict(apart.state_dict())
    assert joined(rows).shape == (1, 6, 1, token_width(3 if use == "all" else 1, 8, 2, numbers, joined=True))
    assert torch.equal(joined(rows)[:, :, 0], apart(rows).flatten(2))
