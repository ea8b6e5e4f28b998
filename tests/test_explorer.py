"""The explorer's page, in a browser that can reach nothing."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acn_lightning import ACN
from acn_lightning.commands._inputs import collect
from acn_lightning.inference.collection import Collection
from acn_lightning.inference.embedding import Embedding, embed
from acn_lightning.inference.explorer import page, sprite
from tests.conftest import names_of

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
DRIVER = shutil.which("chromedriver") or ""


def content_of(text):
    """The data in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found[1])


def some_collection(size=30, names=("a", "b"), channels=1, side=6, files=()):
    images = torch.randint(0, 256, (size, channels, side, side + 2), dtype=torch.uint8)
    labels = torch.arange(size) % (len(names) + 1) - 1
    return Collection("mine", images, images, labels, tuple(names), files, torch.arange(size))


def some_codes(size=30, k=4):
    codes = torch.randn(size, 3)
    far = torch.cdist(codes, codes).fill_diagonal_(torch.inf).topk(k, largest=False)
    return Embedding(codes, far.indices, far.values, codes[:, :2], None, 1.0)


def test_the_page_has_places_labels_and_neighbours():
    collection, coded = some_collection(), some_codes()
    data = content_of(page(collection, coded, "t", 30, 48))
    assert [data["labels"][label]["name"] for label in data["label"]] == names_of(collection)
    assert data["neighbours"] == coded.neighbours.flatten().tolist()
    np.testing.assert_allclose(data["distances"], coded.distances.flatten(), rtol=1e-4)
    np.testing.assert_allclose(
        list(zip(data["x"], data["y"], strict=True)), coded.places, rtol=1e-4
    )
    assert data["names"][7] == "image 7"


@pytest.mark.parametrize(("channels", "size", "side"), [(1, 30, 48), (3, 30, 48), (1, 700, 200)])
def test_each_image_is_in_its_place_of_a_sheet(channels, size, side):
    tall = 150 if side == 200 else 6
    collection = some_collection(size, channels=channels, side=tall)
    sheets, columns, each, (wide, high) = sprite(collection, side)
    assert len(sheets) == -(-size // each)
    assert max(max(one["width"], one["height"]) for one in sheets) <= 4096
    for row in (0, 1, size // 2, size - 1):
        sheet = Image.open(io.BytesIO(base64.b64decode(sheets[row // each]["base64"])))
        place = row % each
        left, top = place % columns * wide, place // columns * high
        found = np.asarray(sheet.crop((left, top, left + wide, top + high)), np.float32)
        true = collection.images[row].permute(1, 2, 0).squeeze(2).numpy().astype(np.float32)
        # JPEG mixes neighbours: of noise only the mean is left.
        assert abs(found - true).max() < 1 if channels == 1 else abs(found - true).mean() < 60


def test_no_name_can_end_the_script_or_the_title():
    evil = "</script><script>alert(1)</script>@data@"
    files = tuple(f"{evil}{row}.png" for row in range(30))
    text = page(some_collection(names=(evil, "b"), files=files), some_codes(), evil, 30, 48)
    assert evil not in text
    assert "<title>&lt;/script&gt;" in text
    assert text.count('id="data"') == 1
    assert content_of(text)["names"][3] == files[3]


def test_a_sample_says_so():
    text = page(some_collection(), some_codes(), "t", 60_000, 48)
    assert "A sample of 30 of 60,000 images" in text


def test_explore_writes_one_file_of_a_sample(acn, checkpoint, trained):
    root = f"data.root={trained / 'photos'}"
    status, out, err = acn("explore", checkpoint, root, "points=60", "k=3", "projection=pca")
    assert status == 0, err
    path = Path(out.strip())
    assert path.name == "explorer.html"
    data = content_of(path.read_text("utf-8"))
    assert len(data["x"]) == 60
    assert data["k"] == 3
    assert not [name for name in Path().rglob("*") if "partial" in name.name]
    again = acn("explore", checkpoint, root, "points=60", f"out={path}")
    assert again[0] == 2


def test_without_a_browser_it_says_where_the_file_is(acn, checkpoint, trained, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    words = ["points=20", "out=a.html", "open=true", "projection=pca",
             f"data.root={trained / 'photos'}"]  # fmt: skip
    status, _, err = acn("explore", checkpoint, *words)
    assert status == 2
    assert err == "acn: open: there is no browser here. Open a.html in a browser elsewhere.\n"
    assert Path("a.html").is_file()


@pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium and chromedriver here")
class TestBrowser:
    """What a person does with it. Names are resolved to nothing, and each request is looked at."""

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, trained, tmp_path_factory):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        acn = ACN.load(trained / "runs/folder/mine/checkpoints/best.ckpt",
                       [f"data.root={trained / 'photos'}"])  # fmt: skip
        collection = collect(acn, None)
        coded = embed(acn.module, collection, 5)
        file = tmp_path_factory.mktemp("page") / "explorer.html"
        file.write_text(page(collection, coded, "photos", 135, 48), "utf-8")
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for word in (
            "headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1200,800",
            "use-angle=swiftshader", "enable-unsafe-swiftshader",
            "host-resolver-rules=MAP * ~NOTFOUND",
        ):  # fmt: skip
            options.add_argument(f"--{word}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            driver.get(file.as_uri())
            wait(driver, "return document.body.dataset.ready")
            yield driver, collection, coded
        finally:
            driver.quit()

    def test_all_points_are_drawn_and_nothing_is_asked_for(self, opened):
        driver, collection, _ = opened
        ready = driver.execute_script("return document.body.dataset.ready")
        assert ready in ("scattergl", "scatter")
        counts = driver.execute_script("return map.data.map((trace) => trace.x.length)")
        assert counts[:3] == torch.bincount(collection.labels).tolist()
        assert drawn_pixels(driver) > 500
        sent = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        urls = [
            one["params"]["request"]["url"]
            for one in sent
            if one["method"] == "Network.requestWillBeSent"
        ]
        assert urls
        assert all(url.startswith(("file:", "blob:", "data:")) for url in urls)
        assert not driver.get_log("browser")

    def test_a_click_shows_the_image_and_its_nearest(self, opened):
        driver, collection, coded = opened
        row = outermost(coded.places)
        content = content_of(driver.page_source)
        click(driver, row)
        wait(driver, f"return document.querySelector('#chosen figure')?.dataset.row === '{row}'")
        near = "[...document.querySelectorAll('#neighbours figure')]"
        shown = driver.execute_script(f"return {near}.map((one) => +one.dataset.row)")
        assert shown == coded.neighbours[row].tolist()
        assert shown == coded.searched.search(
            coded.codes[[row]], exclude=torch.tensor([row]), k=5
        ).squeeze(0).tolist()  # fmt: skip
        words = driver.execute_script(f"return {near}.map((one) => one.textContent)")
        names = names_of(collection)
        for one, text, far in zip(shown, words, coded.distances[row].tolist(), strict=True):
            name, distance = text.split("at ")
            assert name == names[one]
            assert float(distance) == pytest.approx(far, rel=6e-3)
        labels = driver.execute_script(
            f"return {near}.map((one) => one.querySelector('[role=img]').ariaLabel)"
        )
        assert labels == [f"{names[one]}, {content['names'][one]}" for one in shown]
        driver.execute_script("document.querySelector('#neighbours button').focus()")
        driver.switch_to.active_element.send_keys("\ue007")  # Enter
        chosen = driver.execute_script(
            "return +document.querySelector('#chosen figure').dataset.row"
        )
        assert chosen == shown[0]
        assert driver.switch_to.active_element.tag_name == "button"
        assert driver.find_element("id", "chosen").get_attribute("aria-live") == "polite"

    def test_a_narrow_screen_has_the_panel_below_the_map(self, opened):
        driver, _, _ = opened
        boxes = (
            "['#map', 'aside'].map((one) => document.querySelector(one).getBoundingClientRect())"
        )
        try:
            for width, below in ((500, "true"), (1200, "false")):
                driver.set_window_size(width, 800)
                wait(
                    driver,
                    f"const [map, panel] = {boxes};"
                    f"return (panel.top >= map.bottom && map.width === panel.width) === {below}"
                    " && document.body.scrollWidth <= innerWidth",
                )
        finally:
            driver.set_window_size(1200, 800)

    def test_pointing_shows_the_image(self, opened):
        driver, _, coded = opened
        row = outermost(coded.places)
        click(driver, row, press=False)
        wait(driver, "return hint.style.display === 'block'")
        assert driver.execute_script("return hint.querySelector('.picture') !== null")

    def test_labels_can_be_hidden(self, opened):
        driver, _, _ = opened
        many = drawn_pixels(driver)
        driver.find_element("id", "none").click()
        wait(driver, "return map.data.slice(0, 3).every((trace) => trace.visible === false)")
        assert drawn_pixels(driver) < many / 4
        driver.find_element("css selector", "#labels input").click()
        visible = driver.execute_script("return map.data.slice(0, 3).map((trace) => trace.visible)")
        assert visible == [True, False, False]
        driver.find_element("id", "all").click()
        wait(driver, "return map.data.slice(0, 3).every((trace) => trace.visible === true)")


def wait(driver, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 30).until(lambda it: it.execute_script(condition))


def outermost(places):
    """The point farthest to one side: no other lies on top of it."""
    return int(places[:, 0].argmax())


def click(driver, row, press=True):
    from selenium.webdriver.common.action_chains import ActionChains

    where = driver.execute_script(
        "const {xaxis, yaxis} = map._fullLayout, box = map.getBoundingClientRect();"
        "return [box.left + xaxis._offset + xaxis.l2p(data.x[arguments[0]]),"
        "        box.top + yaxis._offset + yaxis.l2p(data.y[arguments[0]])]",
        row,
    )
    actions = ActionChains(driver)
    actions.w3c_actions.pointer_action.move_to_location(1, 1)
    actions.w3c_actions.pointer_action.move_to_location(*map(round, where))
    actions.w3c_actions.pointer_action.pause(0.5)
    if press:
        actions.w3c_actions.pointer_action.click()
    actions.perform()


def drawn_pixels(driver):
    """Coloured pixels of the map."""
    png = driver.find_element("id", "map").screenshot_as_png
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return int((np.ptp(pixels, axis=2) > 60).sum())
