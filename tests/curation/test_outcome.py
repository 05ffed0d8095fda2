"""What a run says of its sources, and when it stops because of them."""

from collections import Counter

import pytest

from curation.outcome import Outcome, StorageError, warn_of_errors


def counted(*reasons: str) -> Outcome:
    outcome = Outcome()
    for reason in reasons:
        outcome.count(reason, 1800.0)
    return outcome


def test_many_unreadable_files_stop_the_run_with_the_last_and_with_what_to_do() -> None:
    with pytest.raises(StorageError, match=r"20 of 120 sources cannot be read \(the last: x.mp4: gone\).*--retry"):
        counted(*["kept"] * 100, *["error:io"] * 20).check("x.mp4: gone")


@pytest.mark.parametrize(("good", "unreadable"), [(0, 19), (181, 20), (10, 0)])
def test_a_few_unreadable_files_do_not(good: int, unreadable: int) -> None:
    counted(*["face_size"] * good, *["error:io"] * unreadable).check("")


def test_other_errors_do_not() -> None:
    counted(*["error:probe"] * 100).check("")


def test_the_line_a_minute_says_how_far_and_how_long() -> None:
    outcome = counted("kept", "error:io", "error:timeout", "error:io")
    assert outcome.describe(1000, 7200.0, 0.25) == (
        "4 of 1,000 sources, 2.0 h of video, 1.0 source-hours/hour, 6:00:00 left, errors: 2 io, 1 timeout"
    )
    assert Outcome().describe(1000, 0.0, 0.0) == (
        "0 of 1,000 sources, 0.0 h of video, , time left unknown, errors: none"
    )


def test_errors_are_said_loudly_at_the_end() -> None:
    assert warn_of_errors(Counter({"kept": 3, "no_face": 2}), 5) == ""
    text = warn_of_errors(Counter({"kept": 3, "error:io": 1, "error:timeout": 2}), 6)
    assert text.startswith("WARNING: 3 of 6 sources ended in an error and gave no clip: 2 timeout, 1 io.")
    assert "--retry failed" in text
