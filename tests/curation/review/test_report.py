"""The page of a run: read as a file, then used in a real browser where one is installed."""

import base64
import gzip
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest

from curation.refilter import main as refilter_main
from curation.review import report
from curation.review.page import as_json
from curation.review.pictures import Album, Preview
from curation.review.report import PICTURES_ELSE, choose_rows, main, round_digits, write_report
from manifests.reader import read_clips
from media.encode import decode_mp4
from tests.curation.outputs import MARGIN, made_output

AXE = os.environ.get("AXE")  # axe.min.js of the npm package axe-core


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_output(tmp_path_factory.mktemp("reported"))


@pytest.fixture(scope="module")
def page(output: Path) -> str:
    return write_report(output).read_text(encoding="utf-8")


def table_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script id="data-table" type="text/plain">(.*?)</script>', page, re.DOTALL)
    return json.loads(gzip.decompress(base64.b64decode(text)))


def album_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script id="data-album" type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_the_table_has_every_clip_with_its_numbers(output: Path, page: str) -> None:
    table, clips = table_of(page), read_clips(output)
    assert table["rows"]["key"] == clips["key"].tolist()
    assert [table["reasons"][code] for code in table["rows"]["reason"]] == clips["reason"].tolist()
    assert [table["sources"][code] for code in table["rows"]["source"]] == clips["source"].tolist()
    blurs = [float("nan") if value is None else value for value in table["scores"]["blur"]]
    np.testing.assert_allclose(blurs, clips["blur"], rtol=1e-3)


def test_each_reason_has_a_gallery_that_says_how_many_it_shows(page: str) -> None:
    album = album_of(page)
    shown = {each["reason"]: (len(each["rows"]), each["of"]) for each in album["reasons"]}
    assert shown == {
        "kept": (2, 2), "blur": (1, 1), "no_face": (1, 1), "no_speech": (2, 2), "duplicate": (1, 1),
        "error:worker_crash": (1, 1),
    }  # fmt: skip
    assert [each["reason"] for each in album["reasons"]][0] == "kept"


def test_pictures_move_and_carry_sound_and_speech_and_overlay_where_there_is_a_sample(output: Path, page: str) -> None:
    table, album = table_of(page), album_of(page)
    of_reason = {
        table["reasons"][table["rows"]["reason"][int(row)]]: picture for row, picture in album["pictures"].items()
    }
    kept, lost = of_reason["kept"], of_reason["no_face"]
    frames = decode_mp4(base64.b64decode(kept["preview"].partition(",")[2]))
    assert frames.shape == (30, 160, 320, 3)
    plain, drawn = frames[:, :, :160].astype(int), frames[:, :, 160:].astype(int)
    assert (
        np.abs(plain - drawn).max() > 100 and np.abs(plain[:, :20] - drawn[:, :20]).max() < 100
    )  # only the box's place
    assert np.abs(plain[:, 133:138] - drawn[:, 133:138]).max() > 100  # the mask reaches below the face
    assert max(kept["wave"]) > 10 and kept["speech"] == [[round(10 / 75, 4), 30 / 75]]
    assert not lost["overlay"] and lost["speech"] is None and lost["begins_s"] == 2.4
    assert "error:worker_crash" not in of_reason  # such a file is never opened


def test_previews_have_the_sound_of_the_clip_where_it_was_moved(output: Path, page: str) -> None:
    clips, album = read_clips(output), album_of(page)
    row = int(np.flatnonzero((clips["reason"] == "kept") & (clips["audio_shift_frames"] == 2))[0])
    preview = base64.b64decode(album["pictures"][str(row)]["preview"].partition(",")[2])
    with av.open(io.BytesIO(preview), "r") as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    samples = 60 * 640
    part = 0.3 * np.sin((np.arange(samples) + (MARGIN + 2) * 640) / 20)  # what the shard holds
    lags = {lag: float(heard[3000 + lag : 30000 + lag] @ part[3000:30000]) for lag in range(-60, 61)}
    period = 2 * np.pi * 20
    best = max(lags, key=lambda lag: lags[lag]) % period
    assert len(heard) >= samples and min(best, period - best) < 2


def test_what_does_not_fit_into_the_page_stays_still_and_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Preview(0.0, b"p", b"m" * 60, False, (0.0, 1.0), (), None, ())
    monkeypatch.setattr(report, "PREVIEW_BYTES", 100)
    assert [len(each.preview) for each in report.limit_bytes({1: one, 2: None, 3: one}).values()] == [60, 0]


def test_the_headline_says_what_was_kept_and_where_most_was_lost(page: str) -> None:
    assert "0:00:05 of 0:00:21 in 4 videos kept, 23%; most was lost to duplicate, 0:00:08." in page


def test_a_source_that_is_gone_costs_its_picture_only(tmp_path: Path) -> None:
    output = made_output(tmp_path)
    shutil.rmtree(tmp_path / "videos")
    shutil.rmtree(output / "parts")
    page = write_report(output).read_text(encoding="utf-8")
    table, album = table_of(page), album_of(page)
    assert {table["reasons"][table["rows"]["reason"][int(row)]] for row in album["pictures"]} == {"kept"}  # from shards


def test_names_cannot_break_the_page_and_nothing_is_fetched(page: str) -> None:
    assert "&lt;cleo&gt;.mp4" in page and "<cleo>" not in page.split('<script id="data-table"')[0]
    assert page.count("</script>") == 3
    assert not re.search(r"(src|href)=\"(?!data:|#)", page) and "@import" not in page


def test_json_in_the_page_cannot_end_its_script() -> None:
    assert as_json({"a": "</script>"}) == '{"a":"<\\/script>"}'
    assert json.loads(as_json({"a": "</script>"})) == {"a": "</script>"}


def test_what_failed_is_listed_with_the_end_of_its_log(page: str) -> None:
    failed = page.split('id="failed"')[1].split("</section>")[0]
    assert "error:worker_crash" in failed and "Segmentation fault" in failed


def test_the_page_says_what_lies_near_a_threshold_and_how_to_loosen_it(page: str) -> None:
    blur = next(part for part in page.split("<figure>") if "blur &lt;= max_blur (0.68)" in part)
    text = " ".join(re.sub(r"<[^>]*>", " ", blur).split())
    assert "dropped by it: 1 clips, 0:00:02.60" in text
    assert "within 10 %: 2 of 4 measured; 1 kept (0:00:02.40), 1 dropped by it (0:00:02.60)" in text
    assert "past it with --set filters/blur.max_blur=0.748 , and then 1 kept" in text


def test_the_yield_is_given_by_folder_and_by_label(output: Path, tmp_path: Path, capsys: Any) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,language\nanna.mp4,en\nberta's #1.mp4,de\ncopy of anna.mp4,en\n")
    assert main([str(output), "--labels", str(labels)]) == 0
    text = (output / "report" / "index.html").read_text(encoding="utf-8").split('id="yield"')[1].split("</section>")[0]
    rows = [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in text.split("<tr>")]
    assert any(row.startswith("en 2 0:00:16.00 0:00:04.80 30.0% duplicate") for row in rows)
    assert any(row.startswith("de 1 0:00:03.00 0:00:00.00 0.0% no_speech") for row in rows)
    assert any(row.startswith("(no label) 1") for row in rows)
    labels.write_text("name\nanna\n")
    assert main([str(output), "--labels", str(labels)]) == 1
    assert "needs a column path or file" in capsys.readouterr().err


def test_the_same_run_gives_the_same_page(output: Path) -> None:
    assert write_report(output).read_bytes() == write_report(output).read_bytes()


def test_a_run_of_nothing_has_a_page(tmp_path: Path) -> None:
    from manifests.writer import write_manifests
    from tests.curation.outputs import write_recipe

    write_recipe(tmp_path / "out", score_only=False)
    write_manifests(tmp_path / "out", [], [], scores={}, reasons={})
    assert "0 sources" in write_report(tmp_path / "out").read_text(encoding="utf-8")


def test_a_folder_that_is_no_output_is_told_in_one_line(tmp_path: Path, capsys: Any) -> None:
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("python -m curation.review.report: ")


def test_galleries_are_half_the_nearest_and_half_a_seeded_sample_of_as_many_sources_as_there_are() -> None:
    sources = [f"{row}.mp4" for row in range(99)] + ["98.mp4"]
    clips = pd.DataFrame({"reason": "blur", "headroom": np.linspace(-1, -0.01, 100), "source": sources})
    rows = choose_rows(clips, "blur")
    assert len(rows) == len(set(rows)) == PICTURES_ELSE
    assert rows[: PICTURES_ELSE // 2] == [99, 97, 96, 95]
    assert choose_rows(clips, "blur") == rows
    assert len(choose_rows(clips.assign(source="one.mp4"), "blur")) == PICTURES_ELSE
    assert sorted(choose_rows(clips.assign(headroom=np.nan)[:3], "blur")) == [0, 1, 2]


def test_shown_numbers_have_four_digits() -> None:
    assert round_digits(pd.Series([0.123456, -1234.56, 0.0, np.nan])) == [0.1235, -1235.0, 0.0, None]


def test_an_album_without_shards_or_parts_is_empty(tmp_path: Path) -> None:
    row = {
        "key": "k",
        "source_id": "ab" * 32,
        "source": "/gone.mp4",
        "reason": "blur",
        "start_frame": 0,
        "end_frame": 9,
    }
    assert Album(tmp_path, tmp_path, []).picture(row) is None


# In a browser.


@pytest.fixture
def tab(browser: Any, output: Path, page: str) -> Iterator[Any]:
    """The opened page; afterwards nothing may have been complained of, and nothing but the file have been asked for."""
    said, asked = [], []
    address = (output / "report" / "index.html").absolute().as_uri()
    tab = browser.new_page(viewport={"width": 1300, "height": 900})
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(address)
    tab.wait_for_selector("body[data-ready]")
    yield tab
    tab.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]


def wait_until(tab: Any, condition: str) -> None:
    """Until a JavaScript expression is true; playwright's own waiting needs `eval`, which the page forbids."""
    deadline = time.monotonic() + 20
    while not tab.evaluate(condition):
        assert time.monotonic() < deadline, condition
        tab.wait_for_timeout(50)


def column(tab: Any, number: int) -> list[str]:
    return tab.eval_on_selector_all(
        f"#table tbody td:nth-child({number})", "cells => cells.map(cell => cell.textContent)"
    )


def test_the_table_begins_with_what_is_nearest_to_another_verdict_and_sorts_by_any_column(tab: Any) -> None:
    rooms = [abs(float(text.rstrip(" %"))) for text in column(tab, 5) if text]
    assert rooms == sorted(rooms) and len(column(tab, 5)) == 8
    tab.click("#table th:has-text('from')")
    times = column(tab, 2)
    assert times == sorted(times)
    tab.click("#table th:has-text('from')")
    assert column(tab, 2) == sorted(times, reverse=True)


def test_the_table_is_filtered_by_reason_and_searched_by_name(tab: Any) -> None:
    tab.select_option("#reason", "blur")
    assert column(tab, 4) == ["blur"] and tab.inner_text("#count") == "1 of 8 clips"
    tab.select_option("#reason", "")
    tab.fill("#search", "BERTA's")
    assert set(column(tab, 1)) == {"berta's #1.mp4"}
    tab.fill("#search", "")
    tab.check("#near")
    assert sorted(column(tab, 4)) == ["blur", "kept"]
    tab.click("#funnel button:has-text('no_face')")
    tab.uncheck("#near")
    assert column(tab, 4) == ["no_face"]


def test_a_clip_opens_with_its_numbers_a_link_to_its_time_and_a_preview_that_plays(tab: Any) -> None:
    tab.select_option("#reason", "kept")
    tab.click("#table tbody tr")
    assert tab.inner_text("#clip h3") == "kept: anna.mp4 0:00:05.60 to 0:00:08.00"
    assert tab.get_attribute("#clip a", "href").endswith("/videos/anna.mp4#t=5.6,8")
    assert "filters/blur\tblur\t0.65\t<= 0.68\tmax_blur\t4.4 %" in tab.inner_text("#clip table")
    wait_until(tab, "document.querySelector('#clip video').currentTime > 0.2")
    assert tab.evaluate("(v => [v.videoWidth, v.videoHeight, v.loop])(document.querySelector('#clip video'))") == [
        320,
        160,
        True,
    ]
    assert "clip=" in tab.url and tab.locator("#clip svg rect").count() == 1
    tab.keyboard.press("Escape")
    assert not tab.is_visible("#clip")


def test_a_clip_plays_with_its_sound_after_a_click(tab: Any) -> None:
    tab.select_option("#reason", "kept")
    tab.click("#table tbody tr")
    wait_until(tab, "document.querySelector('#clip video').currentTime > 0.3")
    heard = "(v => [v.muted, v.webkitAudioDecodedByteCount > 0])(document.querySelector('#clip video'))"
    assert tab.evaluate(heard) == [False, True]


def test_a_moved_threshold_shows_what_refilter_would_give(tab: Any, output: Path, tmp_path: Path) -> None:
    handle = tab.locator("#limits input[type=number][aria-label='max_blur of filters/blur']")
    for setting, change in (("0.75", "gained"), ("0.6", "lost")):
        handle.fill(setting)
        kept = int(re.match(r"(\d+) clips", tab.inner_text("#moved b")).group(1))  # type: ignore[union-attr]
        assert (
            refilter_main([str(output), "--set", f"filters/blur.max_blur={setting}", "--to", str(tmp_path / change)])
            == 0
        )
        clips = read_clips(tmp_path / change)
        assert kept == clips["kept"].sum() != 2
        tab.select_option("#change", change)
        assert len(column(tab, 1)) == 1
        tab.select_option("#change", "")
    assert f"--set filters/blur.max_blur={setting} --to" in tab.inner_text("#moved code")


def test_the_address_holds_what_is_chosen_and_moved(tab: Any) -> None:
    tab.select_option("#reason", "kept")
    tab.locator("#limits input[type=number][aria-label='max_blur of filters/blur']").fill("0.6")
    tab.click("#table th button:has-text('from')")
    address, shown = tab.url, column(tab, 1)
    other = tab.context.browser.new_page()
    other.goto(address)
    other.wait_for_selector("body[data-ready]")
    assert (
        other.url == address
        and column(other, 1) == shown
        and other.inner_text("#moved b") == tab.inner_text("#moved b")
    )
    assert other.locator("#table th[aria-sort=ascending]").inner_text() == "from ▴"
    other.close()


def test_a_bar_of_a_histogram_filters_the_table_and_the_selection_is_saved_as_csv(tab: Any, tmp_path: Path) -> None:
    plot = tab.locator(".plot[data-limit]", has=tab.locator("text:text-is('blur')"))
    plot.locator("rect.hit").last.click()
    assert column(tab, 4) == ["blur"] and tab.input_value("#score") == "blur"
    with tab.expect_download() as download:
        tab.click("#save")
    table = pd.read_csv(download.value.path())
    assert table["reason"].tolist() == ["blur"] and table["blur"].tolist() == [0.7]


def test_the_keyboard_reaches_the_table_and_says_how_it_is_sorted(tab: Any) -> None:
    tab.focus("#table th button")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.textContent") == "source ▴"
    assert tab.locator("#table th[aria-sort=ascending]").count() == 1
    tab.focus("#table tbody button")
    tab.keyboard.press("Enter")
    assert tab.is_visible("#clip")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_is_wider_than_the_screen_and_axe_finds_nothing(
    browser: Any, output: Path, page: str, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True)
    tab = context.new_page()
    tab.goto((output / "report" / "index.html").absolute().as_uri())
    tab.wait_for_selector("body[data-ready]")
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    if AXE is None:
        context.close()
        pytest.skip("AXE is not set: npm install axe-core, AXE=node_modules/axe-core/axe.min.js")
    tab.evaluate(Path(AXE).read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document)")["violations"]
    context.close()
    assert not [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]


def test_a_link_to_a_clip_opens_it(tab: Any, output: Path) -> None:
    key = read_clips(output)["key"].iloc[0]
    tab.evaluate(f"location.hash = 'clip={key}'")
    tab.wait_for_selector("#clip[open]")
    assert key in tab.inner_text("#clip")


def test_a_picture_in_the_gallery_plays_under_the_mouse_and_shows_its_overlay(tab: Any) -> None:
    card = tab.locator(".card").first
    card.hover()
    wait_until(tab, "document.querySelector('.card video')?.currentTime > 0.1")
    side = "getComputedStyle(document.querySelector('.card video')).objectPosition"
    plain = tab.evaluate(side)
    tab.evaluate("document.querySelector('#overlay').click()")
    assert tab.evaluate(side) != plain
    card.click()
    assert tab.is_visible("#clip")


def test_a_source_that_failed_has_no_picture_and_its_log(tab: Any) -> None:
    tab.select_option("#reason", "error:worker_crash")
    tab.click("#table tbody tr")
    assert "Segmentation fault" in tab.inner_text("#clip pre")
    assert tab.locator("#clip video").count() == 0
