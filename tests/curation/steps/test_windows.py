from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.steps.windows import Windows
from tests.clips import clip_of


@given(st.integers(0, 1000), st.integers(1, 5000), st.sampled_from([2.0, 4.96, 20.0]))
def test_windows_cover_the_clip_and_are_never_too_long_nor_under_half(start: int, frames: int, max_s: float) -> None:
    clip = replace(clip_of(start + frames), start_frame=start)
    lengths = [len(part) for part in Windows(max_s)(clip)]
    limit = round(max_s * 25)
    assert sum(lengths) == frames
    assert max(lengths) <= limit
    assert max(lengths) - min(lengths) <= 1
    if frames > limit:
        assert min(lengths) >= limit // 2


@pytest.mark.parametrize(("frames", "lengths"), [(500, [500]), (501, [250, 251]), (1001, [334, 333, 334])])
def test_20_seconds_are_one_clip_and_a_frame_more_is_two(frames: int, lengths: list[int]) -> None:
    assert [len(part) for part in Windows()(clip_of(frames))] == lengths
