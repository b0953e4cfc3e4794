"""Both pages in a real browser: they run without an error, load nothing, fit a phone and print."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.unit.tfmetareg.report.test_registration import POINTS, pair
from tests.unit.tfmetareg.report.test_registration_page import summary
from tests.unit.tfmetareg.report.workdirs import write_result
from tfmetareg.report.figures import save_figure
from tfmetareg.report.page import write_report
from tfmetareg.report.registration import draw_registered
from tfmetareg.report.registration_page import render_registration

PHONE, DESKTOP = (390, 844), (1280, 900)
HOSTILE = (
    "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'> $\\frac{$ \"' & "
    + "long_" * 40
)
# What is wider than its box, which hides the rest.
CUT_OFF = """
return [...document.querySelectorAll("main *")]
  .filter((each) => each.clientWidth && each.scrollWidth > each.clientWidth + 1)
  .filter((each) => getComputedStyle(each).overflowX === "hidden" && !each.closest(".hidden, .curtain"))
  .map((each) => each.outerHTML.slice(0, 80));
"""
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium without a window; the test is skipped where it is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install -e '.[dev]'")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("no chromium with its driver: apt-get install chromium chromium-driver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for option in (*OPTIONS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with a hostile name in every place that takes one."""
    folder = tmp_path_factory.mktemp("report")
    names = (HOSTILE, f"other {HOSTILE}")
    for method, distance in (("not_deformed", 6.0), ("ours_10", 1.0), ("mine", 9.0)):
        write_result(folder, method, distance=distance, task=HOSTILE, names=names)
    # A file's name could not hold the slashes.
    path = folder / "results" / "mine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "method": HOSTILE}))
    (folder / "run.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    (folder / "config.yaml").write_text(f"data: {HOSTILE}\n")
    return write_report(folder)


@pytest.fixture(scope="module")
def registration(tmp_path_factory):
    """The page of a pair that is black before and white after registration; the fixed image is white."""
    folder = tmp_path_factory.mktemp("registration")
    size = (240, 320)
    white, black = np.ones(size, np.float32), np.zeros(size, np.float32)
    panels = pair(size, size, fixed=white, before=black, warped=white)
    panels = panels._replace(fixed_points=POINTS, moving_points=POINTS)
    files = {
        name: save_figure(figure, folder / f"{name}.png").read_bytes()
        for name, figure in draw_registered(panels).items()
    }
    name = HOSTILE.replace("/", "")
    told = summary(warnings=[HOSTILE], inputs={HOSTILE: HOSTILE})
    path = folder / "registration.html"
    path.write_text(render_registration(panels, (name, name), told, files), encoding="utf-8")
    return path


@pytest.fixture(params=["report", "registration"])
def page(request):
    return request.getfixturevalue(request.param)


def opened(browser, page, size=DESKTOP, **emulated):
    """Opens a page at a size in CSS pixels."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": emulated.get("media", "")})
    for log in ("browser", "performance"):
        browser.get_log(log)  # Of earlier pages.
    browser.get(page.as_uri())


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_a_page_runs_without_an_error_and_loads_nothing(browser, page, size):
    opened(browser, page, size)
    browser.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert browser.execute_script("return window.broken") is None
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = {
        message["params"]["request"]["url"].split(",")[0]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert page.as_uri() in requested
    assert all(url == page.as_uri() or url.startswith("data:image/") for url in requested), requested
    pictures = "return [...document.images].map((image) => image.complete && image.naturalWidth > 0)"
    shown = browser.execute_script(pictures)
    assert len(shown) > 3 and all(shown)


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_a_page_is_no_wider_than_the_screen(browser, page, size):
    opened(browser, page, size)
    browser.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    cut_off = browser.execute_script(CUT_OFF)
    assert cut_off == []


def cut(browser):
    """Where the divider stands, in percent, of each view."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.curtain')]"
        ".map((each) => parseFloat(each.style.getPropertyValue('--cut')))"
    )


def picture(browser):
    """The shown view, as pixels: float (height, width, 3) in [0, 1]."""
    curtain = browser.find_element("css selector", ".view:not([hidden]) .curtain")
    return np.asarray(Image.open(io.BytesIO(curtain.screenshot_as_png)).convert("RGB"), float) / 255


def slider(browser):
    return browser.find_element("css selector", ".view:not([hidden]) input[type=range]")


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_the_mouse_moves_the_slider_and_the_picture_follows(browser, registration, size):
    from selenium.webdriver import ActionChains

    opened(browser, registration, size)
    assert cut(browser) == [50] * 4
    box = browser.execute_script(
        "const {x, width} = arguments[0].parentElement.getBoundingClientRect(); return [x, width]",
        slider(browser),
    )
    for share in (0.25, 0.8):
        offset = round((share - 0.5) * box[1])
        ActionChains(browser).move_to_element_with_offset(slider(browser), offset, 60).click().perform()
        assert cut(browser) == pytest.approx([100 * share] * 4, abs=1.5)
        row = picture(browser)[-20]
        width = len(row)
        # Left of the divider the overlay of black and white is green, right of it white.
        assert np.abs(row[8 : int((share - 0.05) * width)] - [0, 1, 0]).max() < 0.05
        assert np.abs(row[int((share + 0.05) * width) : -8] - 1).max() < 0.05


def test_keys_move_the_slider_to_both_ends(browser, registration):
    from selenium.webdriver import Keys

    opened(browser, registration)
    slider(browser).send_keys(Keys.ARROW_RIGHT * 3)
    assert 50 < cut(browser)[0] < 60
    slider(browser).send_keys(Keys.HOME)
    assert cut(browser) == [0] * 4
    assert np.abs(picture(browser)[-20, 40:-40] - 1).max() < 0.05
    slider(browser).send_keys(Keys.END)
    assert cut(browser) == [100] * 4
    assert slider(browser).get_attribute("aria-valuetext") == "100 % of the left picture"


def test_a_finger_moves_the_slider(browser, registration):
    opened(browser, registration, PHONE)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    x, y, width, height = browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'});"
        "const box = arguments[0].parentElement.getBoundingClientRect();"
        "return [box.x, box.y, box.width, box.height]",
        slider(browser),
    )
    for kind, share in (("touchStart", 0.5), ("touchMove", 0.4), ("touchMove", 0.3), ("touchEnd", None)):
        points = [] if share is None else [{"x": x + share * width, "y": y + height / 2}]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    assert cut(browser)[0] == pytest.approx(30, abs=3)


def test_the_view_is_chosen(browser, registration):
    opened(browser, registration)
    titles = ["Overlay", "Checkerboard", "Fixed and registered", "Moving and registered"]
    for number, title in enumerate(titles):
        browser.find_element("xpath", f"//label[normalize-space()='{title}']").click()
        visible = browser.execute_script(
            "return [...document.querySelectorAll('.view')].map((each) => !each.hidden)"
        )
        assert visible == [place == number for place in range(4)]
    captions = browser.find_elements("css selector", ".view:not([hidden]) figcaption")
    assert [caption.text for caption in captions] == ["Moving", "Registered"]


def test_on_paper_the_pictures_stand_side_by_side(browser, registration):
    opened(browser, registration, media="print")
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.curtain')].map((each) => [...each.querySelectorAll('img')]"
        ".map((image) => image.getBoundingClientRect())"
        ".map(({left, right, top, height}) => [left, right, top, height]))"
    )
    assert len(boxes) == 4
    for (_, end, top, height), (start, _, other_top, _) in boxes:
        assert end <= start and top == other_top and height > 50
    assert not any(
        browser.execute_script("return arguments[0].offsetParent !== null", each)
        for each in browser.find_elements("css selector", "input, nav, .edge")
    )


def test_a_page_prints(browser, page):
    opened(browser, page)
    options = {"printBackground": False, "paperWidth": 8.27, "paperHeight": 11.69}
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", options)["data"])
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert pdf.startswith(b"%PDF") and 1 < pages < 12
