"""Takes a screenshot of a page in headless Chromium. In an explorer it can first click a point.

    python docs/make_screenshot.py PAGE.html OUT.png [WIDTHxHEIGHT] [POINT]

Needs `chromium` and `chromedriver`. The picture is reduced to few colours to keep the file small.
"""

import io
import shutil
import sys
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains

WHERE = """
const {xaxis, yaxis} = map._fullLayout, box = map.getBoundingClientRect();
return [box.left + xaxis._offset + xaxis.l2p(data.x[arguments[0]]),
        box.top + yaxis._offset + yaxis.l2p(data.y[arguments[0]])]
"""


def main(page: str, out: str, size: str = "1280x860", point: str = "") -> None:
    """Opens the page, waits until it is drawn, and writes the screenshot."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for word in (
        "headless=new", "no-sandbox", "hide-scrollbars", "use-angle=swiftshader",
        "enable-unsafe-swiftshader", f"window-size={size.replace('x', ',')}",
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    service = Service(shutil.which("chromedriver") or "")
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.get(Path(page).resolve().as_uri())
        time.sleep(5)
        if point:
            pointer = ActionChains(driver)
            where = map(round, driver.execute_script(WHERE, int(point)))
            pointer.w3c_actions.pointer_action.move_to_location(*where)
            pointer.w3c_actions.pointer_action.pause(0.5)
            pointer.w3c_actions.pointer_action.click()
            pointer.perform()
            time.sleep(1)
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    finally:
        driver.quit()
    picture.quantize(96).save(out, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
