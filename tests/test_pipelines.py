import typing
from pathlib import Path

import pytest
import yaml

import pipelines
from pipelines import ProfileError, load, names, weights_of
from training.settings import load_settings

TEXT = """\
small:
  device: cpu
  workers: {gpus: 0.0, deadline_s: 1.0, deadline_factor: 1.0, max_gb: 1.0, recycle_gb: 1.0, recycle_sources: 1}
  seed: 0
  shard_bytes: 1_000
  limits:
    max_duration_s: 60.0
    max_pixels: 1000
    max_bytes: 1000
  stages:
    - steps/voice_activity
    - steps/faces
    - steps/stable_spans
    - steps/windows:
        max_s: 20.0
    - steps/crop
    - filters/niqe:
        frames: 5
        max_niqe: 9.0
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "pipelines.yaml"
    file.write_text(TEXT)
    return file


def refusal(path: Path, *overrides: str, name: str = "small", replace: tuple[str, str] = ("", "")) -> str:
    assert replace[0] in TEXT
    path.write_text(TEXT.replace(*replace, 1) if replace[0] else TEXT)
    with pytest.raises(ProfileError) as caught:
        load(name, overrides, path)
    return str(caught.value)


def test_a_profile_has_every_setting_with_defaults_filled_in(path: Path) -> None:
    profile = load("small", path=path)
    assert (profile.name, profile.device, profile.shard_bytes, profile.limits.max_pixels) == (
        "small",
        "cpu",
        1000,
        1000,
    )
    assert [name.partition("/")[2] for name, _ in profile.stages] == [
        "voice_activity", "faces", "stable_spans", "windows", "crop", "niqe",
    ]  # fmt: skip
    assert dict(profile.stages)["filters/niqe"] == {"weights": "niqe", "frames": 5, "max_niqe": 9.0}


@pytest.mark.parametrize("name", names())
def test_the_profiles_of_the_repository_load(name: str) -> None:
    assert load(name).stages


def test_the_paper_profile_has_the_numbers_of_the_paper() -> None:
    stages = dict(load("sayanything").stages)
    assert stages["filters/face_size"]["min_px"] == 228
    assert (stages["steps/stable_spans"]["max_gap_frames"], stages["steps/stable_spans"]["min_s"]) == (8, 2.0)
    assert stages["steps/crop"]["size"] == 320
    assert (stages["filters/syncnet"]["min_confidence"], stages["filters/syncnet"]["max_offset_frames"]) == (3.0, 6)
    assert stages["filters/hyperiqa"]["min_quality"] == 0.40


def test_weights_are_those_that_the_stages_name() -> None:
    assert weights_of("embedded") == ["yolov8n_face", "niqe", "face_landmarker", "whisper_tiny_en", "lip_probe"]
    assert {"syncnet_v2", "hyperiqa"} <= set(weights_of("sayanything"))


def test_an_override_changes_one_number(path: Path) -> None:
    overrides = ["filters/niqe.max_niqe=7.5", "limits.max_pixels=5", "device=cuda", "steps/windows.max_s=10"]
    profile = load("small", overrides, path)
    stages = dict(profile.stages)
    assert stages["filters/niqe"]["max_niqe"] == 7.5 and stages["filters/niqe"]["frames"] == 5
    assert (profile.limits.max_pixels, profile.limits.max_bytes, profile.device) == (5, 1000, "cuda")
    assert stages["steps/windows"]["max_s"] == 10


def test_the_last_override_counts(path: Path) -> None:
    assert load("small", ["seed=1", "seed=2"], path).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("filters/niqe.max_nige=7.5", "did you mean 'max_niqe'?"),
        ("filters/nige.max_niqe=7.5", "did you mean 'filters/niqe.max_niqe'?"),
        ("sed=1", "did you mean 'seed'?"),
        ("max_niqe=7.5", "did you mean 'filters/niqe.max_niqe'?"),
        ("worker.max_gb=4.0", "did you mean 'workers.max_gb'?"),
        ("filters/niqe.max_niqe", "expected path=value"),
        ("=3", "expected path=value"),
        ("filters/niqe.max_niqe=high", "'high', which is text; float is needed"),
        ("filters/niqe.max_niqe=3e-5", "write 3.0e-5"),
        ("filters/niqe.max_niqe=[1", "is not a value"),
        ("limits.max_pixel=1", "did you mean 'max_pixels'?"),
        ("stages=[]", "nothing is called 'stages'"),
    ],
)
def test_overrides_are_as_strict_as_the_file(path: Path, override: str, message: str) -> None:
    assert message in refusal(path, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("filters/niqe.max_niqe=.nan", "is nan; a finite number is needed"),
        ("limits.max_duration_s=.inf", "is inf; a finite number is needed"),
        ("filters/niqe.frames=0", "is 0; more than 0 is needed"),
        ("filters/niqe.frames=-5", "is -5; more than 0 is needed"),
        ("steps/windows.max_s=0.0", "is 0.0; 0.04 is the least"),
        ("shard_bytes=0", "is 0; more than 0 is needed"),
        ("limits.max_pixels=-1", "is -1; more than 0 is needed"),
        ("workers.gpus=-0.5", "is -0.5; 0 is the least"),
        ("device=gpu", "device is 'gpu'"),
        ("device=cuda:0", "did you mean 'cuda'?"),
    ],
)
def test_values_with_which_no_run_can_work_are_refused(path: Path, override: str, message: str) -> None:
    assert message in refusal(path, override)


@pytest.mark.parametrize("size", [321, 0, -2])
def test_crops_of_odd_and_of_no_size_are_refused(size: int) -> None:
    with pytest.raises(ProfileError, match=rf"steps/crop\.size is {size}; "):
        load("embedded", [f"steps/crop.size={size}"])
    assert dict(load("embedded", ["steps/crop.size=322"]).stages)["steps/crop"]["size"] == 322


def test_unknown_names_come_with_their_line_and_a_suggestion(path: Path) -> None:
    assert refusal(path, name="smal") == "profile 'smal' is not in pipelines.yaml; did you mean 'small'?"
    setting = refusal(path, replace=("max_niqe:", "max_nige:"))
    assert setting.startswith("pipelines.yaml:19: ") and setting.endswith("did you mean 'max_niqe'?")
    stage = refusal(path, replace=("filters/niqe:", "filters/nige:"))
    assert stage.startswith("pipelines.yaml:1") and stage.endswith("did you mean 'filters/niqe'?")
    top = refusal(path, replace=("seed:", "sead:"))
    assert top.startswith("pipelines.yaml:4: ") and top.endswith("did you mean 'seed'?")
    limit = refusal(path, replace=("max_pixels:", "max_pixel:"))
    assert limit.startswith("pipelines.yaml:8: ") and limit.endswith("did you mean 'max_pixels'?")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("max_niqe: 9.0", "max_niqe: 3e-5", 19, "'3e-5', which is text; float is needed (YAML reads 3e-5 as text"),
        ("max_niqe: 9.0", "max_niqe: true", 19, "True, which is bool; float is needed"),
        ("frames: 5", "frames: 5.5", 18, "5.5, which is float; int is needed"),
        ("frames: 5", "frames: '5'", 18, "'5', which is text; int is needed"),
        ("frames: 5", "frames:", 18, "None, which is NoneType; int is needed"),
        ("seed: 0", "seed: zero", 4, "'zero', which is text; int is needed"),
        ("device: cpu", "device: 0", 2, "0, which is int; str is needed"),
        ("max_pixels: 1000", "max_pixels: 1e3", 8, "int is needed"),
    ],
)
def test_wrong_types_are_refused_with_their_line(path: Path, old: str, new: str, line: int, message: str) -> None:
    text = refusal(path, replace=(old, new))
    assert text.startswith(f"pipelines.yaml:{line}: ") and message in text


def test_whole_numbers_do_where_fractions_are_wanted(path: Path) -> None:
    path.write_text(TEXT.replace("max_niqe: 9.0", "max_niqe: 9"))
    assert dict(load("small", path=path).stages)["filters/niqe"]["max_niqe"] == 9


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  seed: 0\n", "", "profile 'small' lacks the setting 'seed'"),
        ("    max_bytes: 1000\n", "", "limits lacks the setting 'max_bytes'"),
        ("        frames: 5\n", "        frames: 5\n        frames: 6\n", "pipelines.yaml:19: 'frames' is given twice"),
        ("    - steps/windows:", "    - filters/niqe:", "filters/niqe is listed twice"),
        ("- steps/voice_activity", "- clip", "no stage 'clip'"),
        ("- steps/voice_activity", "- ../shards/index", "no stage '../shards/index'"),
        ("- steps/voice_activity", "- steps/__init__", "no stage 'steps/__init__'"),
        ("- steps/voice_activity", "- steps/voice_activity: 5", "needs settings such as `name: value`, found 5"),
        ("- steps/voice_activity", "- [a, b]", "a stage is a name, or one name with its settings"),
        ("small:\n", "small: 5\nother:\n", "profile 'small' needs settings"),
        ("small:\n", "- small\n", "pipelines.yaml"),
        ("seed: 0", "seed: [0", "pipelines.yaml"),
    ],
)
def test_what_is_no_profile_is_refused(path: Path, old: str, new: str, message: str) -> None:
    assert message in refusal(path, replace=(old, new))


BOMB = "\n".join([f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"a0: &a0 [x]\n{BOMB}\n{TEXT}", "aliases in aliases stand for more than 100000 values"),
        (TEXT.replace("seed: 0", "seed: &a [*a]"), "nested too deeply, or an alias in it stands for itself"),
        (f"{TEXT}deep: {'[' * 5000}{']' * 5000}\n", "nested too deeply"),
        (TEXT.replace("seed: 0", "seed: !!python/object:os.system {}"), "python/object:os.system"),
        (TEXT.replace("seed: 0", "seed: !!int many"), "invalid literal for int"),
        (TEXT.replace("seed: 0", "seed: !!timestamp 2026-01-01"), ":4: seed is datetime.date(2026, 1, 1), which is"),
        (TEXT.replace("seed: 0", "seed: !!binary aGFsbG8="), ":4: seed is b'hallo', which is bytes; int is needed"),
        (TEXT.replace("seed: 0", "? [a, b]\n  : 0"), ":4: a name is needed before the colon"),
        (
            TEXT.replace("max_niqe: 9.0", "max_niqe: .nan"),
            ":19: filters/niqe.max_niqe is nan; a finite number",
        ),
        (TEXT.replace("max_pixels: 1000", "max_pixels: 1" + "0" * 5000), "Exceeds the limit (4300 digits)"),
        (b"small: \xff\xfe", "codec can't decode"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) and "\n" not in value else "",
)
def test_what_yaml_allows_and_a_profile_cannot_be_ends_in_a_message(
    path: Path, text: str | bytes, message: str
) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ProfileError) as caught:
        load("small", path=path)
    assert message in str(caught.value) and str(path.name) in str(caught.value)


def test_aliases_of_yaml_may_share_settings(path: Path) -> None:
    shared = TEXT.replace("limits:\n", "limits: &limits\n") + "other:\n  <<: {device: cuda}\n" + TEXT.partition("\n")[2]
    shared = shared.replace("  <<: {device: cuda}\n  device: cpu\n", "  device: cpu\n")
    text, _, rest = shared.rpartition("  limits:")
    path.write_text(f"{text}  limits: {{<<: *limits, max_pixels: 5}}\n{rest[rest.index('  stages:') :]}")
    assert load("other", path=path).limits == pipelines.SourceLimits(60.0, 5, 1000)
    assert load("small", path=path).limits.max_pixels == 1000


def test_no_stages_are_refused(path: Path) -> None:
    path.write_text(TEXT[: TEXT.index("  stages:")])
    with pytest.raises(ProfileError, match="no stages"):
        load("small", path=path)


def test_the_recipe_form_is_plain_data_that_comes_back(path: Path) -> None:
    plain = load("small", path=path).as_dict()
    assert yaml.safe_load(yaml.safe_dump(plain, sort_keys=False)) == plain
    assert plain["stages"][-1] == {"filters/niqe": {"weights": "niqe", "frames": 5, "max_niqe": 9.0}}


@pytest.mark.parametrize(
    "file", sorted((pipelines.ROOT / "curation").glob("[sf]*/[!_]*.py")), ids=lambda file: file.stem
)
def test_every_stage_file_holds_one_stage_with_plain_settings(file: Path) -> None:
    name = f"{file.parent.name}/{file.stem}"
    for key, (hint, default) in pipelines.settings_of(name).items():
        kind = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
        kind = str if typing.get_origin(kind) is typing.Literal else kind
        assert kind in (int, float, str, bool), f"{name}.{key}"
        assert isinstance(default, kind), f"{name}.{key}"
        pipelines.check_value(default, hint, "", key)


BEFORE_THE_CROP = """\
    - steps/windows:
        max_s: 20.0
    - steps/crop
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    - steps/crop\n", "", "pipelines.yaml:17: filters/niqe needs face crops; put steps/crop before it"),
        (
            "    - steps/faces\n",
            "",
            ":12: steps/stable_spans needs a face track; put steps/faces before it",
        ),
        (
            "    - steps/voice_activity\n",
            "    - filters/clip_speech\n",
            "needs voice activity; put steps/voice_activity",
        ),
        (
            BEFORE_THE_CROP,
            "    - steps/crop\n    - steps/windows\n",
            ":15: steps/windows needs a clip without crops; put it before steps/crop, which ends that",
        ),
        ("    - steps/crop\n", "    - steps/shots\n", "needs the whole source; put it before steps/windows"),
        ("    - steps/crop\n", "    - steps/align_audio\n", "needs the offset of lips and sound; put filters/syncnet"),
    ],
)
def test_a_wrong_order_is_refused_with_what_is_needed_and_which_stage_gives_it(
    path: Path, old: str, new: str, message: str
) -> None:
    assert message in refusal(path, replace=(old, new))


def test_sound_cannot_be_shifted_when_features_were_cut_from_it(path: Path) -> None:
    late = "    - steps/crop\n    - filters/syncnet\n    - steps/whisper\n    - steps/align_audio\n"
    text = refusal(path, replace=("    - steps/crop\n", late))
    assert "steps/align_audio needs sound that can still be shifted; put it before steps/whisper" in text


@pytest.mark.parametrize("name", pipelines.stage_names())
def test_what_a_stage_needs_is_given_by_another_or_there_from_the_start(name: str) -> None:
    given = {what for other in pipelines.stage_names() for what in pipelines.stage_class(other).GIVES}
    assert set(pipelines.stage_class(name).NEEDS) <= given | pipelines.stage_class(name).AT_START


def test_a_setting_of_the_other_half_is_named_with_its_command() -> None:
    with pytest.raises(ProfileError, match=r"did you mean 'optimizer.steps' of training/train.py\?"):
        pipelines.load("embedded", ["optimizer.steps=3"])
    with pytest.raises(ProfileError, match=r"did you mean 'filters/blur.max_blur' of curation/run.py\?"):
        load_settings("embedded", ["filters/blur.max_blur=0.5"])
