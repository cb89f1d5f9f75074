"""The page as a whole: one file that asks for nothing, in which all that comes from a run is text; and as a browser
shows it, at the widths of a phone and of a screen."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser

import pytest

from mscgan.errors import UserError
from mscgan.report.__main__ import main
from tests.report_factory import score, write_curve, write_scores
from tests.run_factory import write_run

HOSTILE = """<script>document.title="taken"</script>"><img src=x onerror=alert(1)>'&{{ 7 * 7 }}$x$"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of the same shards: one whole, with a text of HTML wherever a run has text; one without scores."""
    folder = tmp_path_factory.mktemp("report")
    run = write_run(folder, 4, 3)
    other = folder / "a<b>&other-with-a-name-that-goes-on-and-on-for-longer-than-a-phone-is-wide"
    shutil.copytree(run, other)
    write_curve(run)
    found = write_scores(run, version=HOSTILE, protocols={HOSTILE: HOSTILE}, left_out={HOSTILE: HOSTILE},
                         audit={HOSTILE: [HOSTILE]})  # fmt: skip
    many = {f"{name}-{HOSTILE}": score(0.5, 0.4, 0.6) for name in "abcdefghijkl"}
    scores = {method: values | many for method, values in found["scores"].items()}
    write_scores(run, **{key: found[key] for key in ("version", "protocols", "left_out", "audit")}, scores=scores)
    launch = run / "launch-20260101-000000-aaaaaa"
    launch.mkdir()
    works = [{"run": str(run), "arguments": ["<i>"]}]
    (launch / "launch.json").write_text(json.dumps({"kind": "train", "commit": "<b>commit</b>", "works": works}))
    return [run, other]


@pytest.fixture(scope="module")
def page(runs):
    """The path of the page on both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["report", *map(str, runs)])
        main()
    return runs[0] / "report.html"


class Elements(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_nothing_in_the_page_comes_from_elsewhere(page):
    elements = Elements(page.read_text())
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in elements.found}
    for tag, attributes in elements.found:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#").startswith("#")
    (policy,) = [meta["content"] for meta in elements.of("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert not re.search(r"url\(|@import", page.read_text())


def test_what_comes_from_a_run_is_text(page):
    elements = Elements(page.read_text())
    assert elements.text.count(HOSTILE) >= 6
    assert "<b>commit</b>" in elements.text and "python '<i>'" in elements.text
    assert not elements.of("b") and not elements.of("i")


def test_every_picture_says_what_it_is_and_every_link_and_table_has_its_place(page):
    elements = Elements(page.read_text())
    pictures = elements.of("img")
    assert len(pictures) > 50 and all(len(picture["alt"]) > 10 for picture in pictures)
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in elements.of("a")} == set(ids)
    assert len(elements.of("table")) == len(elements.of("caption"))
    assert all("scope" in head for head in elements.of("th"))
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_a_run_without_scores_says_how_to_get_them_and_one_without_curve_why(page, runs):
    text = " ".join(Elements(page.read_text()).text.split())
    assert f"{runs[1].name} has not been scored; run: python -m mscgan.evaluate --run '{runs[1]}'" in text
    assert f"{runs[1].name}: {runs[1] / 'metrics.jsonl'} is not there" in text


def test_the_same_runs_give_the_same_page_whose_path_is_printed(page, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report", *map(str, runs), "--out", str(tmp_path / "new" / "page.html")])
    main()
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'new' / 'page.html'}\n" and re.fullmatch(r"\d\.\d MB\n", printed.err)
    assert (tmp_path / "new" / "page.html").read_bytes() == page.read_bytes()
    assert page.stat().st_size < 2e6


@pytest.mark.parametrize(("schema", "out", "said"), [(1, "page.html", "schema 1"), (2, "", "is a folder")])
def test_a_refusal_leaves_no_page(tmp_path, monkeypatch, schema, out, said):
    run = write_run(tmp_path, 2, 2)
    write_scores(run, schema=schema)
    monkeypatch.setattr(sys, "argv", ["report", str(run), "--out", str(tmp_path / out)])
    with pytest.raises(UserError, match=said):
        main()
    assert not list(tmp_path.rglob("*.html*"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280], ids=["phone", "screen"])
def test_a_browser_lays_out_every_picture_without_a_request_and_without_sideways_scroll(page, browser, width, scheme):
    tab = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
    requests, complaints = [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: complaints.append(dialog.message))
    tab.goto(page.as_uri(), wait_until="networkidle")
    assert [url for url in requests if not url.startswith("data:image/")] == [page.as_uri()]
    assert complaints == [] and tab.title().endswith("MsCGAN")
    pictures = tab.evaluate("""() => [...document.images].map(image => {
        const box = image.getBoundingClientRect();
        return [image.alt, image.naturalWidth, image.naturalHeight, box.width, box.height];
    })""")
    assert len(pictures) > 50
    assert [picture for picture in pictures if min(picture[1:]) < 20] == []
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    right = "Math.max(...[...document.querySelectorAll('section > *, dd')].map(e => e.getBoundingClientRect().right))"
    assert tab.evaluate(right) <= width
    wide = tab.evaluate("[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth).length")
    assert wide >= (2 if width == 360 else 1)  # they scroll in their own place
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 3 * 60) == (scheme == "dark")
