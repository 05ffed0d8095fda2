import pytest

from pipelines import ProfileError
from training.settings import load_settings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.micro_batch=0", "optimizer.micro_batch is 0; more than 0 is needed"),
        ("data.size=1", "data.size is 1; 2 is the least that it can be"),
        ("run.listening_sigmas=[2.0, .nan]", "run.listening_sigmas is nan; a finite number is needed"),
        ("run.device=gpu", "run.device is 'gpu'; did you mean 'cpu'?"),
        ("optimizer.learning_rate=3e-5", "which is text; float is needed (YAML reads 3e-5 as text; write 3.0e-5)"),
        ("optimizer.learning_rat=1.0", "did you mean 'optimizer.learning_rate'?"),
    ],
)
def test_settings_with_which_no_run_can_work_are_refused(override: str, message: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load_settings("embedded", [override])
    assert message in str(caught.value)
