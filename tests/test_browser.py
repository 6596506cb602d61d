"""The page in a real browser, headless, which loads nothing but the page."""

import shutil
from dataclasses import replace

import made_up
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from cancernet.evaluation import evaluation, page

BROWSERS = ("chromium", "google-chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# A patient without positions, one with a single class, and one whose name is an attack.
PATIENTS = {"10253": 50, "10254": 43, "anna": 7, "one class": 4, made_up.HOSTILE: 20}
ROWS = [
    replace(row, label=0) if row.patient == "one class" else row
    for row in made_up.make_rows(PATIENTS, without_place=("anna", "one class", made_up.HOSTILE))
]
ROWS = [
    replace(row, file=f"testing/{row.label}/attack{number}<b>.png")
    if row.patient == made_up.HOSTILE
    else row
    for number, row in enumerate(ROWS)
]
PROBABILITIES = made_up.make_probabilities(ROWS)
# On the very threshold: a patch is called malignant there, as a double and as a float32.
PROBABILITIES[:4] = [0.5, 0.5, 0.25, np.float32(0.61)]
LABELS = np.array([row.label for row in ROWS])
METRICS = made_up.make_metrics(ROWS, PROBABILITIES, sample=True)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    chromedriver = shutil.which("chromedriver")
    if not (browser and chromedriver):
        pytest.skip(f"no browser: needs one of {', '.join(BROWSERS)}, and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With both paths given, Selenium looks for nothing and downloads nothing.
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return made_up.write_page(folder, ROWS, PROBABILITIES, metrics=METRICS).as_uri()


@pytest.fixture(autouse=True)
def opened(driver, address):
    driver.set_window_size(1280, 1000)
    driver.get(address)
    yield
    assert driver.get_log("browser") == []  # No error, and nothing refused by the page's policy.


def text(driver, name):
    return driver.find_element(By.ID, name).text


def set_value(driver, name, value):
    driver.execute_script(
        "const [field, value] = arguments; field.value = value;"
        "field.dispatchEvent(new Event('input', {bubbles: true}));",
        driver.find_element(By.ID, name),
        value,
    )


def assert_live(driver, point):
    counts = {name: int(text(driver, f"live-{name}")) for name in ("tn", "fp", "fn", "tp")}
    assert counts == point["confusion_matrix"]
    for name in ("sensitivity", "specificity", "ppv", "npv"):
        assert text(driver, f"live-{name}") == page.figure(point[name])


def choose_patient(driver, name):
    chooser = Select(driver.find_element(By.ID, "patient"))
    chooser.select_by_visible_text(f"{name} ({PATIENTS[name]} patches)")


def test_the_slider_at_half_shows_the_figures_of_metrics_json(driver):
    assert_live(driver, METRICS["testing"]["at_0.5"])
    assert text(driver, "live-bayes-ppv") == text(driver, "live-ppv")
    assert text(driver, "live-bayes-npv") == text(driver, "live-npv")


def test_the_validation_threshold_shows_its_figures(driver):
    (button,) = driver.find_elements(
        By.CSS_SELECTOR, "[data-threshold]:not([data-threshold='0.5'])"
    )
    button.click()
    assert_live(driver, METRICS["testing"]["at_validation_threshold"])


@pytest.mark.parametrize("field", ["slider", "threshold"])
@pytest.mark.parametrize("threshold", [0, 0.25, 0.3, 0.8, 1])
def test_another_threshold_shows_what_numpy_counts(driver, field, threshold):
    set_value(driver, field, threshold)
    assert_live(driver, made_up.at(LABELS, PROBABILITIES.astype(np.float64), threshold))


def test_the_slider_moves_by_keys(driver):
    driver.find_element(By.ID, "slider").send_keys(Keys.END)
    assert_live(driver, made_up.at(LABELS, PROBABILITIES, 1.0))


def test_prevalence_changes_the_predictive_values_alone(driver):
    half = METRICS["testing"]["at_0.5"]
    set_value(driver, "prevalence", 5)
    rightly, falsely = half["sensitivity"] * 0.05, (1 - half["specificity"]) * 0.95
    assert text(driver, "live-bayes-ppv") == page.figure(rightly / (rightly + falsely))
    assert text(driver, "live-bayes-ppv") != page.figure(half["ppv"])
    assert_live(driver, half)
    set_value(driver, "prevalence", 0)
    assert text(driver, "live-bayes-ppv") == page.figure(0.0)
    assert text(driver, "live-bayes-npv") == page.figure(1.0)


def rows_of(driver):
    return driver.execute_script(
        "return Array.from(document.querySelectorAll('#patients tbody tr'),"
        "row => Array.from(row.cells, cell => cell.dataset.value))"
    )


def test_patients_are_sorted_by_any_column_either_way(driver):
    as_given = rows_of(driver)
    assert [row[0] for row in as_given] == [
        each["patient"] for each in METRICS["testing"]["per_patient"]
    ]
    for number, button in enumerate(
        driver.find_elements(By.CSS_SELECTOR, "#patients th button")[:6]
    ):
        for direction in ("ascending", "descending"):
            button.click()
            heading = button.find_element(By.XPATH, "..")
            assert heading.get_attribute("aria-sort") == direction
            cells = [row[number] for row in rows_of(driver)]
            known = [cell for cell in cells if cell]
            assert cells[: len(known)] == known  # What is not defined stands at the end.
            if number:
                values = [float(cell) for cell in known]
                assert values == sorted(values, reverse=direction == "descending")
        assert sorted(rows_of(driver)) == sorted(as_given)


@pytest.mark.parametrize("patient", PATIENTS)
def test_the_maps_have_a_cell_a_patch_at_its_own_place(driver, patient):
    choose_patient(driver, patient)
    own = [index for index, row in enumerate(ROWS) if row.patient == patient]
    for name in ("truth", "probability", "errors"):
        cells = driver.execute_script(
            "return Array.from(document.querySelectorAll(`#${arguments[0]} rect`),"
            "cell => [Number(cell.getAttribute('x')), Number(cell.getAttribute('y'))])",
            name,
        )
        assert len(cells) == len({tuple(cell) for cell in cells}) == PATIENTS[patient]
        if ROWS[own[0]].x is not None:
            assert [tuple(cell) for cell in cells] == [(ROWS[i].x, ROWS[i].y) for i in own]
    assert ("stand in rows" in text(driver, "unplaced")) is (ROWS[own[0]].x is None)


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_the_map_of_errors_follows_the_threshold(driver, threshold):
    choose_patient(driver, "10253")
    set_value(driver, "slider", threshold)
    own = np.array([row.patient == "10253" for row in ROWS])
    expected = evaluation.confusion(LABELS[own], PROBABILITIES[own], threshold=threshold)
    for colour, count in (("#e69f00", expected.fp), ("#0072b2", expected.fn)):
        assert len(driver.find_elements(By.CSS_SELECTOR, f"#errors [fill='{colour}']")) == count


def test_pointing_at_a_patch_names_its_file_and_figures(driver):
    choose_patient(driver, "10254")
    index = next(index for index, row in enumerate(ROWS) if row.patient == "10254")
    first, second = driver.find_elements(By.CSS_SELECTOR, "#probability rect")[:2]
    ActionChains(driver).scroll_to_element(second).move_to_element(first).perform()
    assert ROWS[index].file in text(driver, "readout")
    assert f"probability {page.figure(float(PROBABILITIES[index]))}" in text(driver, "readout")
    assert f"recalibrated {page.figure(float(PROBABILITIES[index] / 2))}" in text(driver, "readout")
    driver.find_element(By.ID, "truth").send_keys(Keys.ARROW_RIGHT)
    assert ROWS[index + 1].file in text(driver, "readout")
    first.click()
    assert ROWS[index].file in text(driver, "readout")


def test_a_patient_of_the_table_leads_to_the_slide(driver):
    driver.find_element(By.CSS_SELECTOR, "[data-patient='anna']").click()
    assert len(driver.find_elements(By.CSS_SELECTOR, "#truth rect")) == PATIENTS["anna"]


def test_a_hostile_name_is_text(driver):
    choose_patient(driver, made_up.HOSTILE)
    driver.find_element(By.ID, "truth").send_keys(Keys.ARROW_RIGHT)
    assert "<b>.png" in text(driver, "readout")
    (button,) = [
        button
        for button in driver.find_elements(By.CSS_SELECTOR, "[data-patient]")
        if button.get_attribute("data-patient") == made_up.HOSTILE
    ]
    assert button.text == made_up.HOSTILE
    assert not driver.find_elements(By.TAG_NAME, "b")
    assert len(driver.find_elements(By.TAG_NAME, "script")) == 2


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_not_wider_than_the_screen(driver, width):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width == 390},
    )
    try:
        inside, outside = driver.execute_script(
            "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
        )
        assert inside <= outside <= width
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_is_loaded(driver):
    loaded = driver.execute_script(
        "return performance.getEntriesByType('resource').map(each => each.name)"
    )
    assert [name for name in loaded if not name.startswith("data:")] == []
