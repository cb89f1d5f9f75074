"""The page in a browser: joints dragged by mouse and finger and moved by keys, pictures chosen and dropped, poses
taken, undone and saved, at the widths of a phone and of a screen."""

import base64
import io
import json
import re
import time
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from mscgan.pose import FLIP, JOINTS
from mscgan.trained import Trained
from mscgan.web import studio
from tests.web_factory import ask, photograph, served, two_people, write_studio

WRIST = JOINTS.index("left wrist")
SECOND = "document.querySelector('#results img').src"  # the picture of the last stage


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A run with people, and an estimator that finds two in whatever picture but a black one."""
    return write_studio(
        tmp_path_factory.mktemp("web"), estimator=lambda pixels: two_people(pixels) if pixels.any() else []
    )


@pytest.fixture(scope="module")
def address(opened):
    with served(opened) as address:
        yield address


@pytest.fixture
def open_page(browser):
    """Opens the page and waits for its first picture. At the end nothing was complained of, or asked elsewhere."""
    contexts, complaints, requests = [], [], []

    def opener(address, picture=True, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        tab = context.new_page()
        # The browser itself notes each refusal; those are what some tests are about.
        tab.on("console", lambda message: "Failed to load resource" in message.text or complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(address)
        tab.wait_for_selector("body[data-ready]")
        if picture:
            tab.wait_for_selector("#results img")
        return tab

    yield opener
    for context in contexts:
        context.close()
    assert complaints == []
    kinds = {urlsplit(url).scheme if url.startswith(("data:", "blob:")) else urlsplit(url).hostname for url in requests}
    assert kinds <= {"127.0.0.1", "data", "blob"}


def joint(tab, number):
    """The middle of a joint in pixels of the window, or None where it is missing."""
    box = tab.locator(f"[data-joint='{number}']")
    box = box.bounding_box() if box.count() else None
    return box and (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def pose(tab) -> np.ndarray:
    return np.array(tab.evaluate("pose"))


def new_picture(tab, change) -> None:
    """Does `change`, and waits until the picture is another one than that of what was before."""
    before = settled(tab)
    change()
    tab.wait_for_function(f"(before) => {SECOND} !== before", arg=before)


def settled(tab) -> str:
    """The picture, once nothing is asked for any more."""
    tab.wait_for_function("() => !asking && !timer")
    return tab.evaluate(SECOND)


def drag(tab, number, dx, dy):
    x, y = joint(tab, number)
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + dx / 2, y + dy / 2)
    tab.mouse.move(x + dx, y + dy)
    tab.mouse.up()


def choose(tab, button: str):
    """A photograph, by the browser's own dialog."""
    with tab.expect_file_chooser() as chooser:
        tab.click(button)
    chooser.value.set_files({"name": "me.png", "mimeType": "image/png", "buffer": photograph()})


def drop(tab, data: bytes, name: str, kind: str, at: str = "body"):
    tab.evaluate(
        """([data, name, type, at]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, { type }));
            const options = { dataTransfer, bubbles: true, cancelable: true };
            for (const step of ["dragover", "drop"])
                document.querySelector(at).dispatchEvent(new DragEvent(step, options));
        }""",
        [base64.b64encode(data).decode(), name, kind, at],
    )


def test_a_wrist_that_is_dragged_changes_the_picture_while_it_moves_and_goes_where_the_mouse_went(address, open_page):
    tab = open_page(address)
    tab.click("#standing")
    settled(tab)
    x, y = joint(tab, WRIST)
    tab.mouse.move(x, y)
    tab.mouse.down()
    new_picture(tab, lambda: tab.mouse.move(x - 40, y - 60))  # the button is still down
    held = tab.evaluate(SECOND)
    tab.mouse.move(x + 30, y + 20)
    tab.mouse.up()
    assert np.allclose(joint(tab, WRIST), (x + 30, y + 20), atol=1)
    assert settled(tab) != held
    assert tab.inner_text("#which").startswith("left wrist: ")
    assert re.fullmatch(r"stage II after \d+ ms, here after \d+ ms", tab.inner_text("#time"))


def test_the_newest_pose_wins_also_where_the_networks_are_slower_than_the_mouse(address, open_page, monkeypatch):
    tab = open_page(address)
    tab.click("#standing")
    settled(tab)
    images = Trained.images
    monkeypatch.setattr(Trained, "images", lambda *inputs: time.sleep(0.5) or images(*inputs))
    x, y = joint(tab, WRIST)
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x - 20, y - 20)
    tab.wait_for_function("() => asking")
    for step in range(30):  # while the first is on its way
        tab.mouse.move(x - 3 * (step % 20), y - 5 * step)
    tab.mouse.up()
    shown = settled(tab)
    wanted = {"image": tab.evaluate("source.image").split(",")[1], "keypoints": tab.evaluate("pose")}
    _, made = ask(address, "images", json.dumps(wanted).encode())
    assert shown == made["images"][-1]["image"]


def test_undo_and_redo_go_through_every_kind_of_change(address, open_page):
    tab = open_page(address)
    poses = [pose(tab)]
    assert tab.is_disabled("#undo") and tab.is_disabled("#redo")
    drag(tab, WRIST, -60, -40)
    poses.append(pose(tab))
    for button in ("#mirror", "#remove", "#standing"):
        tab.click(button)
        poses.append(pose(tab))
    assert all((a != b).any() for a, b in zip(poses, poses[1:], strict=False))
    for expected in poses[-2::-1]:
        tab.click("#undo")
        assert (pose(tab) == expected).all()
    assert tab.is_disabled("#undo")
    for expected in poses[1:3]:
        tab.keyboard.press("Control+Shift+z")
        assert (pose(tab) == expected).all()
    tab.keyboard.press("Control+z")
    assert (pose(tab) == poses[1]).all()
    drag(tab, WRIST, 20, 20)
    assert tab.is_disabled("#redo")


def test_mirror_swaps_left_and_right_joints(address, open_page):
    tab = open_page(address)
    tab.click("#standing")
    drag(tab, WRIST, 50, -80)
    before = pose(tab)
    tab.click("#mirror")
    assert np.allclose(pose(tab), np.where(before == -1, -1, before * [-1, 1] + [31, 0])[list(FLIP)], atol=0.006)
    new_picture(tab, lambda: tab.click("#mirror"))
    assert np.allclose(pose(tab), before, atol=0.006)


def test_a_joint_is_deleted_and_comes_back_where_it_was(address, open_page):
    tab = open_page(address)
    tab.click("#standing")
    before = pose(tab)
    tab.mouse.click(*joint(tab, WRIST))
    new_picture(tab, lambda: tab.click("text=Delete joint"))
    assert (pose(tab)[WRIST] == -1).all() and joint(tab, WRIST) is None
    new_picture(tab, lambda: tab.click("#joints >> text=left wrist: bring back"))
    assert (pose(tab) == before).all()
    tab.click("text=Delete joint")
    tab.click("text=Bring back")
    assert (pose(tab) == before).all()


def test_a_pose_without_joints_is_said_to_be_none(address, open_page):
    tab = open_page(address)
    tab.focus("#editor")
    for _ in range(18):
        tab.keyboard.press("PageDown")
        if joint(tab, tab.evaluate("chosen")):
            tab.keyboard.press("Delete")
    tab.wait_for_selector("#error:not([hidden])")
    assert "a pose without any joint is none" in tab.inner_text("#error").lower()
    tab.keyboard.press("Control+z")
    tab.wait_for_selector("#error", state="hidden")


def test_the_keyboard_alone_chooses_a_joint_moves_it_and_takes_it_away(address, open_page):
    tab = open_page(address)
    tab.click("#standing")
    before = pose(tab)
    tab.focus("#editor")
    while "left wrist" not in tab.inner_text("#which"):
        tab.keyboard.press("PageDown")
    new_picture(tab, lambda: [tab.keyboard.press(key) for key in ("ArrowRight", "ArrowRight", "Shift+ArrowUp")])
    assert np.allclose(pose(tab)[WRIST] - before[WRIST], [1, -2.5], atol=0.011)
    tab.focus("#editor")
    tab.keyboard.press("Control+z")  # the presses that follow each other at once are one change
    assert (pose(tab) == before).all()
    tab.focus("#editor")
    tab.keyboard.press("Delete")
    assert joint(tab, WRIST) is None
    for _ in range(20):
        tab.keyboard.press("PageUp")  # round and round: never out of the 18
    assert tab.inner_text("#which").split(":")[0] in JOINTS


def test_a_finger_drags_a_joint_on_a_phone_and_scrolls_the_page_beside_them(address, open_page):
    tab = open_page(address, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    tab.click("#standing")
    tab.locator("#editor").scroll_into_view_if_needed()
    x, y = joint(tab, WRIST)
    fingers = tab.context.new_cdp_session(tab)

    def swipe(x, y, dx, dy):
        fingers.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        for step in (0.25, 0.5, 0.75, 1):
            point = {"x": x + step * dx, "y": y + step * dy}
            fingers.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    scrolled = tab.evaluate("scrollY")
    new_picture(tab, lambda: swipe(x + 8, y + 6, -30, -40))  # beside the joint, which moves as far as the finger does
    assert tab.evaluate("scrollY") == scrolled
    assert np.allclose(joint(tab, WRIST), (x - 30, y - 40), atol=1.5)
    box = tab.locator("#editor").bounding_box()
    swipe(box["x"] + 5, box["y"] + 5, 0, -60)  # a corner without joints
    tab.wait_for_function("(before) => scrollY > before + 20", arg=scrolled)


def test_a_picture_that_is_dropped_is_the_person_in_the_pose_found_in_it(address, open_page):
    tab = open_page(address)
    before = pose(tab)
    new_picture(tab, lambda: drop(tab, photograph(), "me.png", "image/png"))
    assert (pose(tab) != before).any()
    assert tab.locator("#which-person option").all_inner_texts() == ["1 of 2", "2 of 2"]
    one = pose(tab)
    new_picture(tab, lambda: tab.select_option("#which-person", "1"))
    assert np.allclose(pose(tab), one, atol=0.5)  # of the same shape, so in its own frame at the same place


def test_a_picture_that_is_chosen_keeps_the_pose_where_that_was_asked_for(address, open_page):
    tab = open_page(address)
    before = pose(tab)
    tab.check("#keep")
    new_picture(tab, lambda: choose(tab, "#choose-person"))
    assert (pose(tab) == before).all()
    new_picture(tab, lambda: tab.click("#own"))
    assert (pose(tab) != before).any()


def test_the_pose_of_a_second_picture_is_taken_and_shown_on_it_and_the_person_stays(address, open_page):
    tab = open_page(address)
    source = tab.evaluate("source.image")
    new_picture(tab, lambda: choose(tab, "#choose-pose"))
    assert tab.evaluate("source.image") == source
    assert tab.is_checked("[value=other]")
    shown = tab.get_attribute("#editor image", "href")
    assert shown == tab.evaluate("other.shown") and shown.startswith("data:image/jpeg")
    for behind, there in (("nothing", 0), ("person", 1), ("other", 1)):
        tab.check(f"[value={behind}]")
        assert tab.locator("#editor image").count() == there


def test_someone_of_the_data_is_the_person_or_the_pose(address, open_page, opened):
    tab = open_page(address)
    tab.click("#crowd-person")
    assert tab.locator("#crowd img").count() == 6 and tab.is_hidden("#more")
    name = tab.get_attribute("#crowd button:nth-child(2) img", "alt")
    new_picture(tab, lambda: tab.click("#crowd button:nth-child(2)"))
    expected = opened.shards.keypoints[opened.shards.names.index(name)]
    assert np.allclose(pose(tab), expected, atol=0.006)
    tab.click("#crowd-pose")
    name = tab.get_attribute("#crowd button:nth-child(3) img", "alt")
    new_picture(tab, lambda: tab.click("#crowd button:nth-child(3)"))
    assert np.allclose(pose(tab), opened.shards.keypoints[opened.shards.names.index(name)], atol=0.006)


@pytest.mark.parametrize("at", ["body", "[data-as=pose]"])
def test_a_broken_file_that_is_dropped_gets_a_sentence_and_nothing_is_lost(address, open_page, at):
    tab = open_page(address)
    before, image = pose(tab), settled(tab)
    drop(tab, photograph()[:3000], "<img src=x onerror=alert(1)>.png", "image/png", at)
    tab.wait_for_selector("#error:not([hidden])")
    said = tab.inner_text("#error span")
    assert said.startswith("The picture cannot be decoded") and said.endswith(".")
    assert (pose(tab) == before).all() and settled(tab) == image
    new_picture(tab, lambda: drag(tab, WRIST, 20, -30))
    assert tab.is_visible("#error")  # another thing went well, not this
    new_picture(tab, lambda: drop(tab, photograph(), "me.png", "image/png"))
    assert tab.is_hidden("#error")


def test_a_picture_in_which_nobody_is_found_says_so_and_the_pose_stays(address, open_page):
    tab = open_page(address)
    before = pose(tab)
    black = io.BytesIO()
    Image.new("RGB", (300, 300)).save(black, "PNG")
    new_picture(tab, lambda: drop(tab, black.getvalue(), "night.png", "image/png"))
    assert "Nobody was found in this picture" in tab.inner_text("#note")
    assert (pose(tab) == before).all()


def test_a_file_beyond_the_limit_is_not_even_sent(opened, open_page, monkeypatch):
    monkeypatch.setattr(studio, "MOST_PHOTO", 1 << 20)
    with served(opened) as address:
        tab = open_page(address)
        sent = []
        tab.on("request", lambda request: sent.append(urlsplit(request.url).path))
        drop(tab, b"\0" * ((1 << 20) + 1), "large.png", "image/png")
        tab.wait_for_selector("#error:not([hidden])")
        assert "larger than 1 MB" in tab.inner_text("#error") and "/photo" not in sent


def test_a_pose_as_json_is_taken_from_the_text_from_a_file_and_from_what_is_pasted_and_saved(address, open_page):
    tab = open_page(address)
    wanted = studio._standing(64, 32)
    wanted[WRIST] = [28, 5]
    large = json.dumps({"keypoints": [[2 * x + 0.5, 2 * y + 0.5] for x, y in wanted], "width": 64, "height": 128})
    tab.click("#json summary")
    tab.fill("#text", large)
    new_picture(tab, lambda: tab.click("#use"))
    assert np.allclose(pose(tab), wanted, atol=0.011)
    tab.click("#undo")
    new_picture(tab, lambda: drop(tab, large.encode(), "pose.json", "application/json"))
    assert np.allclose(pose(tab), wanted, atol=0.011)
    tab.click("#undo")
    new_picture(tab, lambda: tab.evaluate(
        """text => {
            const clipboardData = new DataTransfer();
            clipboardData.setData("text", text);
            document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }""", large))  # fmt: skip
    assert np.allclose(pose(tab), wanted, atol=0.011)
    with tab.expect_download() as download:
        tab.click("#save")
    assert download.value.suggested_filename == "pose.json"
    saved = json.loads(download.value.path().read_text())
    assert saved == {"keypoints": pose(tab).tolist(), "width": 32, "height": 64}
    tab.fill("#text", "[[1, 2]]")
    tab.click("#use")
    tab.wait_for_selector("#error:not([hidden])")
    assert "1 keypoints" in tab.inner_text("#error")


def test_the_picture_is_saved_as_a_png_of_the_models_size(address, open_page):
    tab = open_page(address)
    settled(tab)
    with tab.expect_download() as download:
        tab.click("#results a >> nth=0")
    assert download.value.suggested_filename == "run-stage-II.png"
    with Image.open(download.value.path()) as picture:
        assert (picture.format, picture.size) == ("PNG", (32, 64))


def test_without_an_estimator_the_page_says_how_to_bring_it_and_the_joints_go_by_hand(opened, open_page):
    why = "no movenet here; bring it with: python -m mscgan.weights fetch movenet"
    with served(replace(opened, estimator=None, no_estimator=why, shards=None, no_shards="gone")) as address:
        tab = open_page(address, picture=False)
        assert why in tab.inner_text("#no-estimator")
        assert tab.inner_text("#no-estimator code") == "python -m mscgan.weights fetch movenet"
        assert tab.is_hidden("#crowd-person") and tab.is_visible("text=Choose a person, and the picture")
        drop(tab, photograph(), "me.png", "image/png")
        tab.wait_for_selector("#results img")
        new_picture(tab, lambda: drag(tab, WRIST, 30, -60))


def test_a_picture_is_cropped_by_hand_and_its_pose_goes_with_it(address, open_page):
    tab = open_page(address)
    drop(tab, photograph(), "me.png", "image/png")
    tab.wait_for_function("() => source.file")
    before, frame = pose(tab), tab.evaluate("source.image")
    tab.click("#crop")
    box = tab.locator("#editor").bounding_box()
    tab.mouse.move(box["x"] + 100, box["y"] + 100)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 100 + box["width"] / 8, box["y"] + 100 - box["height"] / 16)
    tab.mouse.up()
    tab.wait_for_function("(before) => source.image !== before", arg=frame)
    assert np.allclose(tab.evaluate("pose") - before, [4, -4], atol=0.05)  # an eighth of 32, a sixteenth of 64
    tab.focus("#editor")
    for key in ("+", "+", "-", "ArrowLeft", "Enter"):
        tab.keyboard.press(key)
    assert tab.is_visible("#pose-tools") and tab.is_hidden("#crop-tools")
    settled(tab)
    tab.click("#crop")
    tab.click("#crop-person")
    tab.wait_for_function("() => source.box.every((side, i) => Math.abs(side - source.own[i]) < 0.01)")
    tab.click("#crop-done")
    tab.click("#own")
    assert np.allclose(pose(tab), before, atol=0.02)


def test_two_fingers_crop_a_picture(address, open_page):
    tab = open_page(address, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    drop(tab, photograph(), "me.png", "image/png")
    tab.wait_for_function("() => source.file")
    tab.click("#crop")
    tab.locator("#editor").scroll_into_view_if_needed()
    box = tab.locator("#editor").bounding_box()
    x, y, before = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, tab.evaluate("crop.box")
    session = tab.context.new_cdp_session(tab)
    for kind, apart in (("touchStart", 20), ("touchMove", 25), ("touchMove", 30), ("touchMove", 40), ("touchEnd", 0)):
        points = [{"x": x, "y": y - apart, "id": 0}, {"x": x, "y": y + apart, "id": 1}] if apart else []
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    after = tab.evaluate("crop.box")
    assert (before[2] - before[0]) / (after[2] - after[0]) == pytest.approx(2, rel=0.15)
    assert sum(before[::2]) == pytest.approx(sum(after[::2]), abs=0.1 * (before[2] - before[0]))


def test_a_server_that_has_ended_is_said_and_what_was_done_is_kept(opened, open_page):
    with served(opened) as address:
        tab = open_page(address)
    drag(tab, WRIST, 20, -30)
    tab.wait_for_selector("#error:not([hidden])")
    assert tab.inner_text("#error span") == (
        "The server does not answer; is the command that serves this page still running?"
    )
    tab.click("#error button")
    assert tab.is_hidden("#error") and len(pose(tab)) == 18


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280], ids=["phone", "screen"])
def test_the_page_fits_a_phone_and_a_screen_in_light_and_dark(address, open_page, width, scheme):
    tab = open_page(address, viewport={"width": width, "height": 800}, color_scheme=scheme)
    drop(tab, photograph(), "me.png", "image/png")
    tab.wait_for_selector("#several:not([hidden])")
    tab.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    out = """() => [...document.querySelectorAll("main *")].filter((e) => e.getClientRects().length)
        .filter((e) => !e.closest("svg") && e.getBoundingClientRect().right > innerWidth).map((e) => e.outerHTML)"""
    assert tab.evaluate(out) == []
    small = """() => [...document.querySelectorAll("button, a, select, summary, label.check")]
        .filter((e) => e.offsetParent && e.getBoundingClientRect().height < 24).map((e) => e.outerHTML)"""
    assert tab.evaluate(small) == []
    # The pose and the picture are seen together, so that one is seen to follow the other.
    tab.locator("#editor").scroll_into_view_if_needed()
    assert tab.locator("#results img >> nth=0").evaluate("e => e.getBoundingClientRect().top") < 700
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 3 * 60) == (scheme == "dark")


def test_every_control_has_a_name(address, open_page):
    tab = open_page(address)
    nameless = """() => [...document.querySelectorAll("button, a, select, input, textarea, svg[tabindex], img")]
        .filter((e) => !e.closest("dialog, [hidden]") && e.type !== "file")
        .filter((e) => !(e.textContent.trim() || e.alt || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)"""
    assert tab.evaluate(nameless) == []
