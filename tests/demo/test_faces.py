"""The mouth grid's targets, masks and light on drawn pictures; the generator itself where its weights are."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import weights
from demo import directions, faces, generator
from demo.faces import (
    FULL_OPENING,
    OPENINGS,
    PUCKER,
    SPEAKERS,
    STRANGERS,
    VETTED,
    WIDTHS,
    Patch,
    Sight,
    Solution,
    choose_people,
    load_identity,
    load_solutions,
    lower_face_mask,
    mouth_problems,
    node_targets,
    problems,
    save_solutions,
)
from tests.demo.drawn import drawn_identity, drawn_solution

NEUTRAL = np.array([0.01, 0.6, 0.25, 0.08, 0.1, -0.2])


def test_targets_are_the_neutral_mouth_moved_in_opening_and_width():
    targets = node_targets(NEUTRAL)
    middle = WIDTHS.index(0.0)
    np.testing.assert_allclose(targets[:, middle, 0], FULL_OPENING * np.array(OPENINGS))
    assert targets[0, 0, 1] == pytest.approx(0.6 - PUCKER)
    assert (np.diff(targets[..., 1], axis=1) > 0).all()
    assert targets[0, middle, 3] < 0.08  # closed lips are pressed thin
    np.testing.assert_allclose(targets[3, middle, 2:], NEUTRAL[2:])


def test_grid_solver_reaches_its_target_where_the_mouth_is_nearly_linear():
    rng = np.random.default_rng(0)
    true = np.diag([3.0, 3, 2, 2, 2, 2]) + 0.2 * rng.normal(size=(6, 6))

    def see(coefficients: np.ndarray) -> Sight:
        mouth = NEUTRAL + (true @ coefficients + 0.1 * coefficients**2) * faces.TOLERANCE
        return Sight(coefficients, np.zeros((1, 1, 3), np.uint8), mouth, 0.0)

    target = NEUTRAL + np.array([2.0, 1.5, 0, 0, 0, 0]) * faces.TOLERANCE
    best, _ = faces._solve_node(see, target, see(np.zeros(6)), np.zeros(6), true + 0.3 * rng.normal(size=(6, 6)))
    assert np.abs((best.mouth - target) / faces.TOLERANCE)[:2].max() < faces.CLOSE_ENOUGH


def test_patch_shows_the_portrait_outside_its_mask_and_the_other_picture_inside():
    person = drawn_identity()
    alpha = cv2.GaussianBlur(cv2.circle(np.zeros((1024, 1024), np.float32), (512, 640), 60, 1.0, -1), (0, 0), 8)
    patch = Patch(person.portrait, person.points, alpha)
    other = cv2.circle(person.portrait.copy(), (512, 640), 20, (0, 0, 0), -1)
    whole = patch.on_portrait(patch.blend(other, person.points))
    assert whole[640, 512].max() < 5
    far = alpha < 1 / 512
    np.testing.assert_array_equal(whole[far], person.portrait[far])


def test_patch_takes_on_the_light_of_the_portrait():
    person = drawn_identity()
    alpha = cv2.GaussianBlur(cv2.circle(np.zeros((1024, 1024), np.float32), (512, 600), 50, 1.0, -1), (0, 0), 8)
    patch = Patch(person.portrait, person.points, alpha)
    darker = np.clip(person.portrait.astype(int) - 20, 0, 255).astype(np.uint8)
    whole = patch.on_portrait(patch.blend(darker, person.points)).astype(int)
    assert np.abs(whole - person.portrait)[560:640, 470:550].max() <= 4


def test_mask_stays_between_nose_and_jaw():
    person = drawn_identity()
    points = person.points.copy()
    points[[58, 288], :2] = [[320, 700], [704, 700]]
    points[[61, 291], :2] = [[450, 700], [574, 700]]
    points[2, :2] = 512, 600
    for i, x in zip(faces.CHIN, np.linspace(580, 444, len(faces.CHIN)), strict=True):
        points[i, :2] = x, 840
    for i, (x, y) in zip(faces.CHEEKS_AND_NOSE, [(400, 660), (624, 660), (420, 700), (604, 700), (480, 600), (512, 600), (544, 600)], strict=True):  # fmt: skip  # noqa: E501
        points[i, :2] = x, y
    mask = lower_face_mask(points, [points])
    assert mask[720, 512] > 0.99
    assert mask[480, 512] < 0.01
    assert mask[:, 320:335].max() < 0.01
    assert mask[:, 690:704].max() < 0.01


def test_identity_is_read_as_it_was_written(tmp_path: Path):
    person = drawn_identity(seed=12)
    person.save(tmp_path / "deep" / "12.npz")
    again = load_identity(tmp_path / "deep" / "12.npz")
    assert again.seed == 12
    for name, value in vars(person).items():
        if name != "solution":
            np.testing.assert_array_equal(getattr(again, name), value, err_msg=name)
    assert_same(again.solution, person.solution)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["12.npz"]


def assert_same(one: Solution, other: Solution) -> None:
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)
        assert np.asarray(value).dtype == np.asarray(getattr(other, name)).dtype


def test_solutions_are_read_as_they_were_written(tmp_path: Path):
    written = {seed: drawn_solution(seed) for seed in (30, 4, 12)}
    save_solutions(written, tmp_path / "solved.npz")
    read = load_solutions(tmp_path / "solved.npz")
    assert set(read) == set(written)
    for seed, solution in written.items():
        assert_same(read[seed], solution)


def test_everybody_chosen_is_solved_and_it_takes_a_kilobyte_each():
    assert set(load_solutions()) == set(SPEAKERS | STRANGERS)
    assert faces.SOLVED.stat().st_size < 1024 * len(SPEAKERS | STRANGERS) + 4096


def test_acceptance_names_what_is_wrong():
    targets = node_targets(NEUTRAL)
    good = replace(drawn_identity(), mouth_targets=targets, mouth_measured=targets.copy())
    learned = directions.load()

    def found(**changes) -> str:
        return " ".join(problems(replace(good, **changes), learned))

    assert "mouth" not in found()
    assert "opening does not follow" in found(mouth_measured=targets[::-1].copy())
    assert "does not close" in found(mouth_measured=targets + np.array([0.03, 0, 0, 0, 0, 0]))
    assert "beard" in found(mouth_stubble=np.full((8, 5), 2.0))
    assert "eyes do not close" in found(eye_heights=np.array([0.2, 0.2, 0.2, 0.15]))
    missing = targets.copy()
    missing[3, 2] = np.nan
    assert "no face" in found(mouth_measured=missing)


def test_learned_directions_are_small_and_whole():
    assert directions.PATH.stat().st_size < 100_000
    learned = directions.load()
    assert learned.mouth.shape == (6, 512)
    assert np.linalg.norm(learned.reference[0] - learned.reference[3]) == pytest.approx(1, abs=1e-5)
    assert all(np.isfinite(array).all() for array in vars(learned).values())


@pytest.mark.parametrize("group", faces.GROUPS)
def test_people_of_each_group_have_a_kind_of_voice(group):
    assert set(faces.GROUPS[group].values()) <= set(faces.PITCHES)


def test_no_stranger_is_a_speaker_and_the_vetted_all_are():
    assert not set(STRANGERS) & set(SPEAKERS)
    assert set(VETTED) <= set(SPEAKERS)


def test_people_are_chosen_by_group_or_seed():
    assert choose_people(["strangers"]) == STRANGERS
    assert choose_people(["11", "0"]) == {11: "low", 0: "high"}
    with pytest.raises(ValueError, match="people: 9: "):
        choose_people(["0", "9"])
    with pytest.raises(ValueError, match="people: everybody: give vetted, speakers, strangers"):
        choose_people(["everybody"])


@pytest.fixture(scope="module")
def sculptor() -> faces.Sculptor:
    pytest.importorskip("openvino")
    if any(weights.find(name) is None for name in (*generator.WEIGHTS, "face_landmarker")):
        pytest.skip("python weights.py fetch --profile embedded")
    return faces.open_sculptor()


def test_opened_generator_draws_the_original_picture_and_opens_a_mouth(sculptor):
    import openvino

    style = generator.truncate(sculptor.generator.style(0), sculptor.directions.mean_style)
    files = weights.require(*generator.WEIGHTS)
    core = openvino.Core()
    network = core.read_model(files["random_face_synthesis_xml"], files["random_face_synthesis_bin"])
    original = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    expected = (np.clip(original(style[None])[0][0] * 0.5 + 0.5, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    image, points = sculptor.draw(style)
    assert np.abs(image.astype(int) - expected).max() <= 1
    opened, opened_points = sculptor.draw(sculptor.moved(np.tile(style, (23, 1)), np.array([1.0, 0, 0, 0, 0, 0])))
    assert sculptor.mouth(opened_points)[0] - sculptor.mouth(points)[0] > 0.03
    difference = np.abs(opened.astype(int) - image).mean(2)
    x, y = points[[13, 14], :2].mean(0).astype(int)
    assert difference[y - 30 : y + 30, x - 50 : x + 50].mean() > 2 * np.median(difference)  # the mouth, not the wall


def test_face_alone_is_what_the_whole_picture_shows_there(sculptor):
    for seed in (0, 121):
        style = sculptor.base(seed, np.array([0.5, 0.2], np.float32))
        whole = sculptor.generator.render(style)
        np.testing.assert_allclose(sculptor.generator.render_face(style), whole[generator.FACE], atol=1)


COARSE = np.ix_([0, 5], [2, 3])  # of the grid of mouths: each node is searched and drawn alike


@pytest.fixture
def coarse_grid(monkeypatch):
    rows, columns = (indices.ravel() for indices in COARSE)
    monkeypatch.setattr(faces, "OPENINGS", tuple(OPENINGS[i] for i in rows))
    monkeypatch.setattr(faces, "WIDTHS", tuple(WIDTHS[i] for i in columns))


@pytest.mark.usefixtures("coarse_grid")
def test_identity_drawn_from_its_solution_is_the_one_that_was_searched(sculptor, monkeypatch, tmp_path):
    monkeypatch.setattr(sculptor, "usual", sculptor.usual[COARSE])
    searched = sculptor.build(11)
    save_solutions({11: searched.solution}, tmp_path / "solved.npz")
    pictures = []
    render = sculptor.generator.render_face
    monkeypatch.setattr(sculptor.generator, "render_face", lambda styles: pictures.append(0) or render(styles))
    drawn = sculptor.build(11, load_solutions(tmp_path / "solved.npz")[11])
    for name, value in vars(searched).items():
        if name != "solution":
            np.testing.assert_array_equal(getattr(drawn, name), value, err_msg=name)
    assert len(pictures) <= 1 + 4 + 3  # the mouth wide open, the nodes, the eyes: nothing was searched


@pytest.mark.usefixtures("coarse_grid")
def test_wrong_solution_is_noticed_because_the_drawn_mouths_are_measured(sculptor):
    known = load_solutions()
    right = replace(known[11], mouths=known[11].mouths[COARSE])
    assert mouth_problems(sculptor.build(11, right)) == []
    upside_down = replace(right, mouths=right.mouths[::-1].copy())
    assert "opening does not follow" in " ".join(mouth_problems(sculptor.build(11, upside_down)))
    of_another = replace(known[366], mouths=known[366].mouths[COARSE])
    assert mouth_problems(sculptor.build(11, of_another)) != []


class DrawnSculptor:
    """Stands for the one with networks: who is known has the mouths of his solution, who is searched for the right."""

    def __init__(self):
        self.searched: list[int] = []

    def build(self, seed: int, solution: Solution | None = None) -> faces.Identity:
        targets = node_targets(NEUTRAL)
        self.searched += [] if solution else [seed]
        measured = targets if solution is None else targets + solution.neutral.mean()
        return replace(drawn_identity(seed), mouth_targets=targets, mouth_measured=measured)


def test_known_person_is_drawn_and_searched_for_only_if_the_drawn_mouths_are_wrong(caplog):
    sculptor = DrawnSculptor()
    known = {seed: replace(drawn_solution(seed), neutral=np.full(2, error)) for seed, error in ((3, 0.0), (5, 0.1))}
    for seed in (3, 5, 8):
        assert faces.build_identity(seed, sculptor, known).seed == seed  # pyright: ignore[reportArgumentType]
    assert sculptor.searched == [5, 8]
    assert "face 5: its entry in" in caplog.text
    assert "mouth misses its targets" in caplog.text
    assert "face 3" not in caplog.text
