"""The page in a real browser, headless, which loads nothing but the page."""

import shutil

import made_up
import numpy as np
import pytest
import test_predictions_page
from made_slides import make_noise
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from cancernet.evaluation import metrics
from cancernet.evaluation.context import Scores
from cancernet.evaluation.page import rounded

BROWSERS = ("chromium", "google-chrome")
OPTIONS: tuple[str, ...] = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run")
OPTIONS += ("--disable-background-networking", "--disable-component-update", "--disable-sync")

# A patient without positions, one with a single class, and one whose name is an attack.
PATIENTS = {"10253": 50, "10254": 43, "anna": 7, "one class": 1, made_up.HOSTILE: 20}
ROWS = made_up.make_rows(PATIENTS, without_place=("anna", made_up.HOSTILE))
PROBABILITIES = made_up.make_probabilities(ROWS)
# On the very threshold: a patch is predicted malignant there, as a double and as a float32.
PROBABILITIES[:4] = [0.5, 0.5, 0.25, np.float32(0.61)]
DATA = made_up.make_data(ROWS, sample=True)
LABELS = DATA.testing.labels
METRICS = made_up.make_metrics(DATA, {"testing": PROBABILITIES})
SCORES = Scores.of(DATA.testing, PROBABILITIES, made_up.DECISION)


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


def test_any_threshold_shows_what_metrics_json_has_and_numpy_counts(driver):
    half, chosen = driver.find_elements(By.CSS_SELECTOR, "[data-threshold]")
    for button, name in ((half, "at_0.5"), (chosen, "at_validation_threshold")):
        button.click()
        assert_live(driver, METRICS["testing"][name])
        for value in ("ppv", "npv"):
            assert text(driver, f"live-bayes-{value}") == text(driver, f"live-{value}")
    for field, threshold in (("slider", 0), ("threshold", 0.25), ("slider", 0.3), ("slider", 1)):
        set_value(driver, field, threshold)
        exact = PROBABILITIES.astype(np.float64)  # As the script compares.
        counts = metrics.confusion(LABELS, exact, threshold=threshold)
        assert_live(driver, counts.rates() | {"confusion_matrix": vars(counts)})


def test_prevalence_changes_the_predictive_values_alone(driver):
    half = METRICS["testing"]["at_0.5"]
    rightly, falsely = half["sensitivity"] * 0.05, (1 - half["specificity"]) * 0.95
    for percent, name, value in ((5, "ppv", rightly / (rightly + falsely)), (0, "npv", 1.0)):
        set_value(driver, "prevalence", percent)
        assert text(driver, f"live-bayes-{name}") == rounded(value) != rounded(half[name])
        assert_live(driver, half)


def test_patients_are_sorted_by_any_column_either_way(driver):
    def rows():
        return driver.execute_script(
            "return Array.from(document.querySelectorAll('#patients tbody tr'),"
            "row => Array.from(row.cells, cell => cell.dataset.value))"
        )

    as_given = rows()
    expected = [each["patient"] for each in METRICS["testing"]["per_patient"]]
    assert [row[0] for row in as_given] == expected
    headings = driver.find_elements(By.CSS_SELECTOR, "#patients thead button")
    for number, button in list(enumerate(headings))[1:]:
        for direction, sign in (("ascending", 1), ("descending", -1)):
            button.click()
            assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == direction
            # What is not defined stands at the end.
            values = [sign * float(row[number]) if row[number] else np.inf for row in rows()]
            assert values == sorted(values)
    assert sorted(rows()) == sorted(as_given)


# Red, green and blue of each cell, row by row; None where nothing is drawn.
CELLS = """
const { canvas } = document.getElementById(arguments[0]), { width, height } = canvas;
const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
Object.assign(copy.canvas, { width, height });
copy.drawImage(canvas, 0, 0);
const { data } = copy.getImageData(0, 0, width, height);
return Array.from(state.slide.at, (_, cell) =>
  data[4 * cell + 3] ? Array.from(data.slice(4 * cell, 4 * cell + 3)) : null);
"""
COLOURS = {"benign": (201, 213, 225), "malignant": (213, 94, 0), "none": (255, 255, 255)}
COLOURS |= {"fp": (230, 159, 0), "fn": (0, 114, 178), "tp": (102, 120, 138)}


def cells(driver, name):
    return [colour and tuple(colour) for colour in driver.execute_script(CELLS, name)]


@pytest.mark.parametrize("patient", ["10253", "anna"])
def test_the_maps_have_a_cell_a_patch_at_its_own_place(driver, patient):
    choose_patient(driver, patient)
    own = [row for row in ROWS if row.patient == patient]
    columns = 3 if patient == "anna" else 20  # In rows, where the names tell no position.
    expected: list[tuple[int, ...] | None] = [None] * (columns * 3)
    for number, row in enumerate(own):
        cell = 20 * (row.y // 50) + row.x // 50 if row.x and row.y else number
        expected[cell] = COLOURS["malignant" if row.label else "benign"]
    assert cells(driver, "truth") == expected
    assert ("stand in rows" in text(driver, "unplaced")) is (patient == "anna")


def test_the_slide_switches_between_each_patch_alone_and_in_context(driver):
    own = np.array([row.patient == "10253" for row in ROWS])

    def assert_errors(values, threshold):
        expected = vars(metrics.confusion(LABELS[own], values[own], threshold=threshold))
        found = cells(driver, "errors")
        for kind in ("fp", "fn", "tp"):
            assert found.count(COLOURS[kind]) == expected[kind]

    choose_patient(driver, "10253")
    for threshold in (0.5, 0.9):
        set_value(driver, "slider", threshold)
        assert_errors(PROBABILITIES, threshold)
    alone = cells(driver, "probability")
    driver.find_element(By.ID, "by").send_keys(Keys.ARROW_DOWN)  # By keyboard.
    assert_errors(SCORES.in_context, made_up.CONTEXT.threshold)
    drawn = zip(alone, cells(driver, "probability"), strict=True)
    assert all(one != other for one, other in drawn if one)
    label = driver.find_element(By.ID, "probability").get_attribute("aria-label")
    assert label == "Map of probability in context, 10253, 50 patches"
    choose_patient(driver, "anna")  # Without places there are no neighbours.
    for name in ("probability", "errors"):
        assert set(cells(driver, name)) == {None, COLOURS["none"]}
    driver.find_element(By.ID, "truth").send_keys(Keys.ARROW_RIGHT)
    assert "in context not defined" in text(driver, "readout")
    assert text(driver, "readout").endswith("at threshold 0.375 in context")
    driver.find_element(By.ID, "by").send_keys(Keys.ARROW_UP)
    choose_patient(driver, "10253")
    assert cells(driver, "probability") == alone


def test_pointing_at_a_patch_names_its_file_and_figures(driver):
    choose_patient(driver, "10254")
    truth = driver.find_element(By.ID, "truth")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", truth)
    size = truth.size["width"] / 20
    places = {
        (row.x // 50, row.y // 50): index
        for index, row in enumerate(ROWS)
        if row.patient == "10254" and row.x and row.y
    }
    for column, row in ((3, 1), (2, 2), (19, 2)):  # The last is empty, and changes nothing.
        right, down = (int((column - 9.5) * size), int((row - 1) * size))
        ActionChains(driver).move_to_element_with_offset(truth, right, down).perform()
        index = places.get((column, row), places[2, 2])
        assert ROWS[index].file in text(driver, "readout")
        values = [rounded(float(kind[index])) for kind in vars(SCORES).values()]
        said = "probability {}, recalibrated {}, in context {} ".format(*values)
        assert said in text(driver, "readout")
    # The keys go on in the order in which one reads, from the end to the beginning, and in columns.
    keys = (Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    for key, place in zip(keys, ((0, 0), (2, 2), (2, 1), (2, 2), (2, 0)), strict=True):
        truth.send_keys(key)
        assert ROWS[places[place]].file in text(driver, "readout")


def test_a_hostile_name_is_text_and_leads_to_the_slide(driver):
    driver.find_element(By.LINK_TEXT, made_up.HOSTILE).click()
    assert sum(map(bool, cells(driver, "truth"))) == PATIENTS[made_up.HOSTILE]
    driver.find_element(By.ID, "truth").send_keys(Keys.ARROW_RIGHT)
    assert "<b>&amp;.png" in text(driver, "readout")
    assert not driver.find_elements(By.TAG_NAME, "b")
    assert len(driver.find_elements(By.TAG_NAME, "script")) == 2


SLIDES = [make_noise(), make_noise(made_up.HOSTILE, rows=9, files=True)]


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictions")
    return test_predictions_page.write(folder, *SLIDES).as_uri()


def test_predictions_lie_on_the_tissue_and_are_counted_at_any_threshold(driver, predictions):
    driver.get(predictions)
    buttons = driver.find_elements(By.CSS_SELECTOR, "#list button")
    for slide, button in zip(SLIDES, buttons, strict=True):
        button.click()
        assert text(driver, "name") == slide.name == button.text.split("\n")[0]
        assert button.get_attribute("aria-current") == "true"
        assert text(driver, "skipped") == str(len(slide.skipped))
        alone, around = ("", slide.probability, 0.5), ("context", slide.in_context, 0.375)
        for how, values, least in (around, alone):
            Select(driver.find_element(By.ID, "by")).select_by_value(how)
            driver.find_element(By.ID, "reset").click()
            for threshold in (least, 0.25):
                set_value(driver, "slider", threshold)
                known, count = np.isfinite(values).sum(), int(np.sum(values >= threshold))
                live = text(driver, "live")
                assert f"{count} of {known} patches" in live
                assert f"({100 * count / known:.1f} %), {0.04 * count:.2f} mm" in live
        benign, malignant = np.array(COLOURS["benign"]), np.array(COLOURS["malignant"])
        mixed = benign + slide.probability[:, np.newaxis] * (malignant - benign)
        expected = slide.place(mixed, -1.0)
        expected[slide.background] = 181
        found = [colour or (-1, -1, -1) for colour in cells(driver, "probability")]
        assert np.abs(np.reshape(found, expected.shape) - expected).max() <= 1
        set_value(driver, "opacity", 0.25)
        seen = driver.execute_script(
            "const [{ stage, canvas }] = maps; return [canvas.style.opacity,"
            'stage.style.backgroundImage === `url("${state.slide.tissue.src}")`]'
        )
        assert seen == ["0.25", True]
        # The patch chosen is told with its class where that is known.
        driver.find_element(By.ID, "probability").send_keys(Keys.ARROW_LEFT)
        (x, y), value = 0.2 * slide.cells[0], float(slide.probability[0])
        truth = {0: "benign, ", 1: "malignant, ", -1: ""}[int(slide.labels[0])]
        assert text(driver, "readout").startswith(
            f"{slide.sources[0].file if slide.pictures is None else slide.name} \u00b7 "
            f"x {x:.1f} mm, y {y:.1f} mm \u00b7 probability {rounded(value)}, recalibrated "
        )
        predicted = "malignant" if value >= 0.25 else "benign"
        assert f" \u00b7 {truth}predicted {predicted}" in text(driver, "readout")
    driver.find_element(By.CSS_SELECTOR, "[data-step='1']").click()
    assert text(driver, "name") == SLIDES[0].name  # After the last comes the first.
    assert not driver.find_elements(By.CSS_SELECTOR, "p i, button i")


def test_the_map_zooms_and_moves_by_keys_buttons_wheel_and_mouse(driver, predictions):
    driver.get(predictions)
    canvas = driver.find_element(By.ID, "probability")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)

    def seen():
        return driver.execute_script("return [state.zoom, maps[0].scrollLeft, maps[0].scrollTop]")

    def under(right, down):
        """Where on the slide a point is, given from the map's middle; in widths of the slide."""
        return driver.execute_script(
            "const [box, slide] = [maps[0], maps[0].stage].map((it) => it.getBoundingClientRect());"
            "return [(box.x + box.width / 2 + arguments[0] - slide.x) / slide.width,"
            "(box.y + box.height / 2 + arguments[1] - slide.y) / slide.width]",
            *(right, down),
        )

    whole, middle = seen(), under(0, 0)
    canvas.send_keys("++")
    zoomed = seen()
    assert (zoomed[0], *under(0, 0)) == pytest.approx((2.25, *middle), abs=0.01)
    canvas.send_keys(Keys.SHIFT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert seen()[1] > zoomed[1]
    assert seen()[2] < zoomed[2]
    assert "Point at" in text(driver, "readout")  # Moving chooses nothing.
    driver.find_element(By.CSS_SELECTOR, "[data-zoom='0']").click()
    assert seen() == whole
    # The wheel scrolls the page until the map is clicked; then what is pointed at stays in place.
    origin = ScrollOrigin.from_element(canvas, 60, -40)
    ActionChains(driver).scroll_from_origin(origin, 0, -40).perform()
    assert seen() == whole
    canvas.click()
    there = under(60, -40)
    ActionChains(driver).scroll_from_origin(origin, 0, -40).perform()
    assert seen()[0] > 1.2
    assert under(60, -40) == pytest.approx(there, abs=0.01)
    # What is dragged follows the mouse.
    mouse = ActionChains(driver).move_to_element(canvas)
    held = under(0, 0)
    mouse.click_and_hold().move_by_offset(-20, 10).move_by_offset(-20, 10).release().perform()
    assert under(-40, 20) == pytest.approx(held, abs=0.01)


def test_maps_of_a_slide_move_as_one(driver):
    driver.find_element(By.ID, "truth").send_keys("++", Keys.SHIFT, Keys.ARROW_RIGHT)

    def moved(_):
        found = driver.execute_script("return maps.map((map) => map.scrollLeft)")
        return found[0] > 0 and len(set(found)) == 1

    WebDriverWait(driver, 5).until(moved)


@pytest.mark.parametrize("page", ["address", "predictions"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_screen_or_loads_anything(driver, request, page, width):
    driver.get(request.getfixturevalue(page))
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width == 390}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    inside, outside, loaded = driver.execute_script(
        "const page = document.documentElement; return [page.scrollWidth, page.clientWidth,"
        "performance.getEntriesByType('resource').map(each => each.name)]"
    )
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert inside <= outside <= width
    assert all(name.startswith("data:") for name in loaded)
