"""The page in a real browser: what it shows is what `Show` gives."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image
from srt_plugins.adapters import describe

from srt_plugins import Settings
from srt_plugins.scenes import render
from srt_plugins.visualize.images import read_image
from srt_plugins.visualize.show import Look, Show
from tests.demo.conftest import BACKBONE, LONGEST, SEGMENTOR

# Gradio's own, of how it uses pandas.
pytestmark = pytest.mark.filterwarnings("ignore::Warning:gradio")


@pytest.fixture
def picture(tmp_path):
    """An image of odd sizes in a file."""
    image = render(7, 3, (101, 150)).image
    path = tmp_path / "street.png"
    Image.fromarray(image).save(path)
    return image, path


def expected(subject, image, look):
    """Pictures by name; of similarity there are two."""
    found: dict = {}
    for name, panel in Show(subject, look)(image).panels:
        found.setdefault(name, []).append(panel.picture)
    return found


def test_pictures_are_those_of_show_and_the_slider_moves(demo, looked, picture):
    image, path = picture
    demo.choose_model("vit_scenes")
    demo.upload(path)
    assert demo.says("street.png") == "street.png: 101 x 150 pixels."
    demo.views("number", count=2)
    demo.hint("2 views per image")
    demo.tab("Features")
    said = demo.run()
    want = expected(looked(SEGMENTOR), image, Look(Settings(views=2)))
    changed = np.any(want["before"][0] != want["after"][0])
    assert "2 views" in said and ("changed 0.0%" not in said) == changed
    for name in ("tokens", "srt", "dispersion"):
        np.testing.assert_array_equal(demo.picture(name), want[name][0])
    pair = demo.page.locator("#features_slider img")
    first, second = (demo.fetched(pair.nth(i).get_attribute("src")) for i in (0, 1))
    shown = {first.tobytes(), second.tobytes()}
    assert shown == {want[name][0].tobytes() for name in ("tokens", "srt")}
    handle = demo.page.locator("#features_slider .inner").first
    before = handle.bounding_box()
    demo.page.mouse.move(before["x"] + 5, before["y"] + before["height"] / 2)
    demo.page.mouse.down()
    demo.page.mouse.move(before["x"] + 105, before["y"] + before["height"] / 2, steps=3)
    demo.page.mouse.up()
    assert handle.bounding_box()["x"] == pytest.approx(before["x"] + 100, abs=12)
    demo.tab("Predictions")
    for name in ("before", "after", "changed"):
        np.testing.assert_array_equal(demo.picture(name), want[name][0])
    assert "road" in demo.page.locator("#legend").inner_text()
    cost = demo.page.locator("#cost").inner_text().split()
    assert cost[cost.index("forwards") + 1 :][:2] == ["1", "2"]
    demo.tab("Use these settings")
    assert "attach(model, views=2)" in demo.page.locator("#lines").inner_text()


def test_a_click_shows_similarity_to_that_point(demo, looked, picture):
    image, path = picture
    demo.choose_model("vit_scenes")
    demo.upload(path)
    demo.says("street.png")
    demo.views("number", count=2)
    demo.tab("Similarity")
    target = demo.page.locator("#target img")
    target.wait_for()
    box = target.bounding_box()
    scale = min(1, box["width"] / 150, box["height"] / 101)  # small pictures are not enlarged
    left, top = ((box[k] - n * scale) / 2 for k, n in (("width", 150), ("height", 101)))
    point = (80, 60)
    target.click(position={"x": left + 60.5 * scale, "y": top + 80.5 * scale})
    assert demo.says("Similarity") == "Similarity to the feature at row 80, column 60."
    look = Look(Settings(views=2), point=point, panels=["similarity"])
    want = expected(looked(SEGMENTOR), image, look)["similarity"]
    for name, panel in zip(("similar_plain", "similar_srt"), want):
        np.testing.assert_array_equal(demo.picture(name), panel)


def test_another_model_has_other_layers_and_the_grid_is_that_of_the_level(demo, looked, picture):
    image, path = picture
    demo.choose_model("vit_scenes")
    demo.upload(path)
    demo.says("street.png")
    segmentor = demo.layers()
    demo.choose_model("timm/test_vit2")
    backbone = demo.layers()
    assert len(segmentor) != len(backbone) == 1 + 8
    demo.tab("Predictions")
    demo.page.get_by_text("test_vit2 is a backbone alone").wait_for()
    assert demo.page.locator("#before").count() == 0
    demo.choose_layer("block 3")
    demo.views("grid", level=1)
    demo.hint("9 views per image")
    demo.tab("Features")
    demo.run()
    want = expected(looked(BACKBONE), image, Look(Settings(level=1), layer=3))
    for name in ("tokens", "srt", "dispersion"):
        np.testing.assert_array_equal(demo.picture(name), want[name][0])


def test_mistakes_are_one_line_and_the_page_goes_on(demo, tmp_path):
    bad = tmp_path / "broken.png"
    bad.write_bytes(b"no image at all")
    demo.upload(bad)
    said = demo.says("broken.png")
    assert said.startswith("Expected an image, got broken.png") and "\n" not in said
    demo.page.click("#run")
    demo.says("Give an image first")
    demo.views("grid", level=99)  # the field goes back to the most that there is
    demo.views("number", count=0)
    demo.hint("at least 1")
    # As phones and printers write them: CMYK, turned, and larger than asked for.
    large = tmp_path / "large.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(render(7, 4, (200, 400)).image).convert("CMYK").save(large, exif=exif)
    demo.upload(large)
    assert "400 x 200 pixels, made smaller to 256 x 128" in demo.says("large.jpg")
    assert demo.picture("image").shape == (LONGEST, LONGEST // 2, 3)
    assert read_image(large).shape == (400, 200, 3)
    demo.views("phases", level=1, per_axis=3)
    demo.page.click("#run")
    assert "Expected 1 to 2 phases" in demo.says("phases per axis")
    demo.views("phases", level=1, per_axis=2)
    assert demo.run().endswith(": 4 views.")


def test_smoothing_is_shown_without_views_too(demo, looked, picture):
    image, path = picture
    demo.choose_model("timm/test_vit2")
    demo.upload(path)
    demo.says("street.png")
    demo.views("number", count=2)
    demo.page.locator("#smooth").get_by_label("3", exact=True).click()
    demo.tab("Features")
    try:
        demo.run()
        want = expected(looked(BACKBONE), image, Look(Settings(views=2, smooth=3)))
        for name in ("tokens", "one", "srt"):
            np.testing.assert_array_equal(demo.picture(name), want[name][0])
    finally:
        demo.page.locator("#smooth").get_by_label("none").click()
    demo.run()
    assert not demo.page.locator("#one").is_visible()


def test_stop_ends_a_run_and_the_next_one_works(demo, models, picture):
    demo.choose_model("vit_scenes")
    demo.upload(picture[1])
    demo.says("street.png")
    demo.views("grid", level=8)
    demo.hint("289 views")
    demo.tab("Features")
    # A slow model, so that a slow browser is in time.
    backbone = models.get(0).backbone
    block = backbone.get_submodule(describe(backbone).blocks[0])
    slow = block.register_forward_pre_hook(lambda *_: time.sleep(0.1))
    try:
        demo.page.click("#run")
        demo.page.locator("#tokens img").wait_for()
        # At once: a click would wait until nothing on the page moves.
        demo.page.locator("#stop").dispatch_event("click")
        demo.says("Stopped.")
    finally:
        slow.remove()
    assert demo.page.locator("#after img").count() == 0
    demo.views("number", count=2)
    assert ": 2 views." in demo.run()


def test_a_scene_can_be_chosen(demo):
    demo.page.locator("#scenes button").nth(2).click()
    demo.says("Scene 3: 200 x 312 pixels.")
    demo.tab("Similarity")
    np.testing.assert_array_equal(demo.picture("image"), demo.picture("target"))


def test_nothing_beyond_this_machine_was_contacted(demo, server):
    assert demo.hosts == {"127.0.0.1"}
    assert not demo.refused and not demo.failed
    names = {place[0] if isinstance(place, tuple) else place for _, place in server[1]}
    assert names and names <= {"127.0.0.1", "localhost", b"127.0.0.1", b"localhost", None}, names
