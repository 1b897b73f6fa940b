"""The report's page in a real browser: what a reader clicks, types and prints."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.report.search import write as write_trials
from analysis.report.study import write
from tests.analysis.conftest import DrawOnly
from tests.analysis.searches import write_search
from tests.analysis.synthetic import Synthetic

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

ODD = "</script><b>&amp;"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a study with an agent whose name would like to be markup."""
    made = Synthetic(tmp_path_factory.mktemp("page"), agents=("m3po", "ppo", ODD), env_steps=100_000, every=10_000)
    return write(made.write())


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: playwright.Browser, report: Path) -> Iterator[playwright.Page]:
    """The page, opened; at the end nothing was complained about and nothing but the page was asked for."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    yield page
    assert not said
    assert set(asked) == {report.as_uri()}
    page.close()


def column(page: playwright.Page, table: str, index: int) -> list[str]:
    return page.locator(f"{table} tbody tr :nth-child({index}):is(td, th)").all_text_contents()


AGGREGATES = "table:has(caption:text('over all runs and tasks with'))"


def test_a_click_on_a_head_sorts_by_number_and_another_one_turns_it_round(page: playwright.Page) -> None:
    head = page.locator(f"{AGGREGATES} th button", has_text="IQM")
    head.click()
    numbers = [float(text.split()[0]) for text in column(page, AGGREGATES, 2)]
    assert numbers == sorted(numbers)
    assert len(numbers) == 3
    head.press("Enter")  # the keyboard does it as well
    assert [float(text.split()[0]) for text in column(page, AGGREGATES, 2)] == numbers[::-1]
    assert page.locator(f"{AGGREGATES} th[aria-sort=descending]").inner_text().startswith("IQM")


def test_times_sort_by_their_length(page: playwright.Page) -> None:
    compute = "table:has(caption:text('What training cost'))"
    cells = page.locator(f"{compute} tbody tr td:nth-child(3)")
    cells.evaluate_all("(cells) => cells.forEach((of, i) => { of.textContent = ['30 min', '3.1 h', '90 s'][i]; })")
    page.locator(f"{compute} th button", has_text="Training time").click()
    assert column(page, compute, 3) == ["90 s", "30 min", "3.1 h"]


@pytest.mark.parametrize(
    ("index", "texts", "up", "down"),
    [
        # a column of numbers, whatever stands around them; what is not known stands last both ways
        (
            2,
            ["0.49 [0.27, 0.72]", "—", "0.5 [0.1, 0.9]"],
            ["0.49 [0.27, 0.72]", "0.5 [0.1, 0.9]", "—"],
            ["0.5 [0.1, 0.9]", "0.49 [0.27, 0.72]", "—"],
        ),
        (2, ["10.00× [9, 11]", "2.00×", "not reached (below 11.0×)"], [2, 1, 0], [0, 1, 2]),
        (2, ["1e-05", "missing", "-3"], [2, 0, 1], [0, 2, 1]),
        # names that are numbers, and names with numbers
        (1, ["10", "9", "1,000"], [1, 0, 2], [2, 0, 1]),
        (1, ["agent-10", "agent-9", "Agent-11"], [1, 0, 2], [2, 0, 1]),
        (8, ["walker-walk", "reach-v3", "door-v1"], [2, 1, 0], [0, 1, 2]),
    ],
)
def test_numbers_sort_as_numbers_and_what_is_missing_last(
    page: playwright.Page, index: int, texts: list[str], up: list[str] | list[int], down: list[str] | list[int]
) -> None:
    cells = page.locator(f"{AGGREGATES} tbody tr :nth-child({index}):is(td, th)")
    cells.evaluate_all("(cells, texts) => cells.forEach((of, i) => { of.textContent = texts[i]; })", texts)
    head = page.locator(f"{AGGREGATES} thead th:nth-child({index}) button")
    for expected in (up, down):
        head.click()
        assert column(page, AGGREGATES, index) == [texts[at] if isinstance(at, int) else at for at in expected]


def test_seeds_sort_as_numbers(page: playwright.Page) -> None:
    page.locator("#cells summary").click()
    cells = page.locator("#cells tbody tr td:nth-child(3)")
    cells.evaluate_all("(cells) => cells.forEach((of, i) => { of.textContent = `${i}`; })")
    head = page.locator("#cells thead th:nth-child(3) button")
    head.click()
    assert column(page, "#cells", 3) == [str(seed) for seed in range(18)]


def test_names_sort_as_words(page: playwright.Page) -> None:
    page.locator(f"{AGGREGATES} th button", has_text="Agent").click()
    assert column(page, AGGREGATES, 1) == [ODD, "m3po", "ppo"]


def test_a_number_leads_to_the_cells_behind_it(page: playwright.Page) -> None:
    page.locator("table:has(caption:text('Mean score of each task')) tbody tr", has_text="reach-v3").locator(
        "a.behind"
    ).nth(1).click()
    rows = page.locator("#cells tbody tr:visible")
    assert rows.count() == 3  # by hand: one agent on one task with three seeds
    assert set(rows.locator("td:nth-child(2)").all_text_contents()) == {"ppo"}
    assert page.locator("#cells-shown").inner_text() == "3 cells behind ppo, reach-v3."
    page.get_by_role("button", name="Show every cell").click()
    assert rows.count() == 18


def test_the_first_sentence_leads_to_its_cells(page: playwright.Page) -> None:
    page.locator(".headline a.behind").click()
    assert page.locator("#cells tbody tr:visible").count() == 12  # two agents, two tasks, three seeds


def test_the_trials_of_a_search_sort(browser: playwright.Browser, tmp_path: Path, draw_only: DrawOnly) -> None:
    draw_only()
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(write_trials(write_search(tmp_path)).as_uri())
    table = "table:has(th:has-text('State'))"
    page.locator(f"{table} th button", has_text="Score").click()
    found = [re.search(r"[\d.]+", text) for text in column(page, table, 3)]
    scores = [float(number[0]) for number in found if number]
    assert len(scores) == 19  # of twenty trials one failed
    assert scores == sorted(scores)
    assert not said
    page.close()


def test_curves_can_be_chosen_and_read(page: playwright.Page) -> None:
    plot, told = page.locator("#chart .plot"), page.locator("#chart-told")
    assert page.locator("#chart .line").count() == 3
    assert "IQM of normalised score" in plot.inner_text()
    page.get_by_role("combobox", name="Tasks").select_option("cartpole-swingup")
    assert "Episode return" in plot.inner_text()
    plot.scroll_into_view_if_needed()
    box = plot.locator("svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 40, box["y"] + 50)
    assert re.search(r"m3po \d+ \[\d+, \d+\] at 100k", told.inner_text())
    plot.focus()
    page.keyboard.press("ArrowLeft")
    assert re.search(r"m3po \d+ \[\d+, \d+\] at 90k", told.inner_text())


def test_an_agent_can_be_left_out_everywhere(page: playwright.Page) -> None:
    lines = page.locator("#sample-efficiency + figure .agent-1")
    assert lines.first.is_visible()
    page.get_by_label("ppo", exact=True).uncheck()
    assert page.locator("#chart .line").count() == 2
    assert not lines.first.is_visible()


def test_a_logarithmic_axis_has_the_same_curves(page: playwright.Page) -> None:
    before = page.locator("#chart .line").first.get_attribute("points")
    page.get_by_role("checkbox", name="logarithmic axis").check()
    after = page.locator("#chart .line").first.get_attribute("points")
    assert before is not None
    assert after is not None
    assert len(after.split()) == len(before.split()) - 1  # 0 has no logarithm
    assert "NaN" not in after
    assert "10k" in page.locator("#chart .plot").inner_text()


def test_scores_against_seconds(page: playwright.Page) -> None:
    page.get_by_role("combobox", name="Against").select_option(label="Seconds of training")
    assert page.locator("#chart .line").count() == 3
    page.get_by_role("combobox", name="Tasks").select_option("reach-v3")
    assert page.get_by_role("combobox", name="Against").locator("option").all_text_contents() == ["Environment steps"]


def test_odd_names_stay_names(page: playwright.Page) -> None:
    assert page.locator("b").count() == 0
    assert ODD in page.locator(".agents").inner_text()


def test_links_at_the_top_lead_to_parts_that_exist(page: playwright.Page) -> None:
    targets = [link.get_attribute("href") for link in page.locator("nav a").all()]
    assert "#task-by-task" in targets
    assert all(page.locator(str(target)).count() == 1 for target in targets)


def test_the_page_is_narrow_dark_and_on_paper_as_well(page: playwright.Page) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 31)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".agents").is_visible()


def test_without_scripts_everything_is_there_but_the_chart(browser: playwright.Browser, report: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(report.as_uri())
    assert not page.locator("#chart").is_visible()
    assert page.locator("#sample-efficiency + figure svg").is_visible()
    assert column(page, AGGREGATES, 1) == ["m3po", "ppo", ODD]
    page.close()
