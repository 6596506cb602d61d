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

from cancernet.evaluation import metrics
from cancernet.evaluation.page import rounded

BROWSERS = ("chromium", "google-chrome")
OPTIONS: tuple[str, ...] = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run")
OPTIONS += ("--disable-background-networking", "--disable-component-update", "--disable-sync")

# A patient without positions, one with a single class, and one whose name is an attack.
PATIENTS = {"10253": 50, "10254": 43, "anna": 7, "one class": 1, made_up.HOSTILE: 20}
ROWS = [
    replace(row, file=f"testing/{row.label}/attack{number}<b>.png")
    if row.patient == made_up.HOSTILE
    else row
    for number, row in enumerate(
        made_up.make_rows(PATIENTS, without_place=("anna", made_up.HOSTILE))
    )
]
PROBABILITIES = made_up.make_probabilities(ROWS)
# On the very threshold: a patch is predicted malignant there, as a double and as a float32.
PROBABILITIES[:4] = [0.5, 0.5, 0.25, np.float32(0.61)]
DATA = made_up.make_data(ROWS, sample=True)
LABELS = DATA.testing.labels
METRICS = made_up.make_metrics(DATA, {"testing": PROBABILITIES})


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
    return made_up.write_page(folder, DATA, PROBABILITIES, METRICS).as_uri()


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
        assert text(driver, f"live-{name}") == rounded(point[name])


def choose_patient(driver, name):
    chooser = Select(driver.find_element(By.ID, "patient"))
    chooser.select_by_visible_text(f"{name} ({PATIENTS[name]} patches)")


def test_the_two_thresholds_show_the_metrics_of_metrics_json(driver):
    half, chosen = driver.find_elements(By.CSS_SELECTOR, "[data-threshold]")
    for button, name in ((chosen, "at_validation_threshold"), (half, "at_0.5")):
        button.click()
        assert_live(driver, METRICS["testing"][name])
    assert text(driver, "live-bayes-ppv") == text(driver, "live-ppv")
    assert text(driver, "live-bayes-npv") == text(driver, "live-npv")


def test_another_threshold_shows_what_numpy_counts(driver):
    for field, threshold in (("slider", 0), ("threshold", 0.25), ("slider", 0.3), ("slider", 1)):
        if threshold == 1:
            driver.find_element(By.ID, field).send_keys(Keys.END)
        else:
            set_value(driver, field, threshold)
        exact = PROBABILITIES.astype(np.float64)  # As the script compares.
        counts = metrics.confusion(LABELS, exact, threshold=threshold)
        point = {name: getattr(counts, name) for name in metrics.METRICS}
        assert_live(driver, point | {"confusion_matrix": vars(counts)})


def test_prevalence_changes_the_predictive_values_alone(driver):
    half = METRICS["testing"]["at_0.5"]
    set_value(driver, "prevalence", 5)
    rightly, falsely = half["sensitivity"] * 0.05, (1 - half["specificity"]) * 0.95
    assert text(driver, "live-bayes-ppv") == rounded(rightly / (rightly + falsely))
    assert text(driver, "live-bayes-ppv") != rounded(half["ppv"])
    assert_live(driver, half)
    set_value(driver, "prevalence", 0)
    assert text(driver, "live-bayes-ppv") == rounded(0.0)
    assert text(driver, "live-bayes-npv") == rounded(1.0)


def rows_of(driver):
    return driver.execute_script(
        "return Array.from(document.querySelectorAll('#patients tbody tr'),"
        "row => Array.from(row.cells, cell => cell.dataset.value))"
    )


def test_patients_are_sorted_by_any_column_either_way(driver):
    as_given = rows_of(driver)
    expected = [each["patient"] for each in METRICS["testing"]["per_patient"]]
    assert [row[0] for row in as_given] == expected
    headings = driver.find_elements(By.CSS_SELECTOR, "#patients thead button")
    assert len(headings) == 6
    for number, button in enumerate(headings):
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


@pytest.mark.parametrize("patient", ["10253", "anna"])
def test_the_maps_have_a_cell_a_patch_at_its_own_place(driver, patient):
    choose_patient(driver, patient)
    places = [(row.x, row.y) for row in ROWS if row.patient == patient]
    for name in ("truth", "probability", "errors"):
        cells = driver.execute_script(
            "return Array.from(document.querySelectorAll(`#${arguments[0]} rect`),"
            "cell => [Number(cell.getAttribute('x')), Number(cell.getAttribute('y'))])",
            name,
        )
        assert len(cells) == len({tuple(cell) for cell in cells}) == PATIENTS[patient]
        if patient != "anna":
            assert [tuple(cell) for cell in cells] == places
    assert ("stand in rows" in text(driver, "unplaced")) is (patient == "anna")


def test_the_map_of_errors_follows_the_threshold(driver):
    choose_patient(driver, "10253")
    own = np.array([row.patient == "10253" for row in ROWS])
    for threshold in (0.5, 0.9):
        set_value(driver, "slider", threshold)
        expected = metrics.confusion(LABELS[own], PROBABILITIES[own], threshold=threshold)
        for colour, count in (("#e69f00", expected.fp), ("#0072b2", expected.fn)):
            cells = driver.find_elements(By.CSS_SELECTOR, f"#errors [fill='{colour}']")
            assert len(cells) == count


def test_pointing_at_a_patch_names_its_file_and_figures(driver):
    choose_patient(driver, "10254")
    index = next(index for index, row in enumerate(ROWS) if row.patient == "10254")
    first, second = driver.find_elements(By.CSS_SELECTOR, "#probability rect")[:2]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", second)
    ActionChains(driver).move_to_element(first).perform()
    assert ROWS[index].file in text(driver, "readout")
    assert f"probability {rounded(float(PROBABILITIES[index]))}" in text(driver, "readout")
    assert f"recalibrated {rounded(float(PROBABILITIES[index] / 2))}" in text(driver, "readout")
    driver.find_element(By.ID, "truth").send_keys(Keys.ARROW_RIGHT)
    assert ROWS[index + 1].file in text(driver, "readout")
    first.click()
    assert ROWS[index].file in text(driver, "readout")


def test_a_hostile_name_is_text_and_leads_to_the_slide(driver):
    buttons = driver.find_elements(By.CSS_SELECTOR, "[data-patient]")
    (button,) = [button for button in buttons if button.text == made_up.HOSTILE]
    button.click()
    assert len(driver.find_elements(By.CSS_SELECTOR, "#truth rect")) == PATIENTS[made_up.HOSTILE]
    driver.find_element(By.ID, "truth").send_keys(Keys.ARROW_RIGHT)
    assert "<b>.png" in text(driver, "readout")
    assert not driver.find_elements(By.TAG_NAME, "b")
    assert len(driver.find_elements(By.TAG_NAME, "script")) == 2


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_not_wider_than_the_screen_and_loads_nothing(driver, width):
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width == 390}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    inside, outside, loaded = driver.execute_script(
        "const page = document.documentElement; return [page.scrollWidth, page.clientWidth,"
        "performance.getEntriesByType('resource').map(each => each.name)]"
    )
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert inside <= outside <= width
    assert all(name.startswith("data:") for name in loaded)
