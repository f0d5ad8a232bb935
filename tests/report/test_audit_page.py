"""The page of an audit: every figure of the record, nothing from elsewhere; two audits side by side."""

import json
import re
from functools import cache
from html import unescape
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from disintegrate import Capabilities, LocalExplainer, Verdict, audit
from disintegrate.audit import provenance, record_of, what_stops
from disintegrate.paper.networks import build
from disintegrate.report import compare, render_audit, render_comparison
from disintegrate.report.audit_page import stop_rows, stopping_sentence
from disintegrate.report.findings import number
from tests.audit.test_audit import Unknown, network, questions

LINKS = re.compile(r"(?:src|href|xlink:href|data|poster|action)\s*=\s*\"([^\"]*)\"|url\(([^)]*)\)|@import")
# Shown as whole percentages, and with so many decimals.
SHARES, DECIMALS = ("share_recovered", "top_overlap"), {"bits": 1, "queries_by_differences": 0}


@cache
def audited() -> str:
    """A record with all its parts, as JSON."""
    model, (x, targets) = network(), questions()
    allowed = Capabilities("riemann_right", 1, 100, baseline=False, dtype="float32")
    found = audit(Unknown(LocalExplainer(model, allowed)), x, targets, model=model, examples=3)
    assert found.capabilities is not None
    stops = what_stops(allowed, x[:3], targets[:3], model=model)
    record = {
        "target": "kserve+http://127.0.0.1:8080/v1/models/net",
        **found.record(),
        "what_stops_it": [stop.record() for stop in stops],
        "run": provenance(["audit", "net", "--seed", "0"], "net", x, "0123456789abcdef"),
    }
    return json.dumps(record)


def small_record(**more: Any) -> dict[str, Any]:
    return {**json.loads(audited()), **more}


class Text(HTMLParser):
    """The words of a page, its tables' cells and pictures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.silent = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.silent += tag in ("style", "svg", "head")

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in ("style", "svg", "head")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def marked(record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The record with another number in each place, and how the page must show each."""
    found, wanted = json.loads(json.dumps(record)), {}
    count = 0

    def walk(place: Any, path: str) -> Any:
        nonlocal count
        if isinstance(place, dict):
            return {name: walk(value, f"{path}.{name}") for name, value in place.items()}
        if isinstance(place, list):
            return [walk(value, f"{path}.{index}") for index, value in enumerate(place)]
        if isinstance(place, bool) or not isinstance(place, int | float):
            return place
        if re.search(
            r"\.(format|shape\w*|atoms|input|explanation|recovered|true)\b", path.replace("s.explanation", "")
        ):
            return place
        count += 1
        name = path.rpartition(".")[2]
        if name in SHARES:
            value: float = (count % 99 + 1) / 100
            wanted[path] = f"{100 * value:.0f} %"
        elif name in DECIMALS:
            value = 3000 + count + 0.25
            wanted[path] = f"{value:.{DECIMALS[name]}f}"
        elif isinstance(place, float):
            value = 0.1 + count / 1000
            wanted[path] = number(value)
        else:
            value = 1000 + count
            wanted[path] = str(value)
        return value

    return walk(found, ""), wanted


def test_every_figure_of_the_record_stands_on_the_page() -> None:
    choice = {"tried": [{"rule": "midpoint", "steps": 5, "distance": 0.5}], "queries": 7}
    record, wanted = marked(small_record(choice=choice, moved_by=0.5))
    record["queries"]["choice"], wanted[".queries.choice"] = 99_991, "99991"
    assert len(wanted) > 140
    text = Text(render_audit(record_of(record))).text
    missing = {path: shown for path, shown in wanted.items() if not re.search(rf"(?<![\d.]){re.escape(shown)}", text)}
    assert missing == {}


def test_every_word_of_the_record_stands_on_the_page() -> None:
    record = small_record(notes=["What a reader must know."])
    text = Text(render_audit(record_of(record))).text.lower()
    words = [
        record["target"], record["check"], record["weakness"]["id"], record["plan"]["way"], record["plan"]["exactness"],
        record["run"]["command"], record["run"]["date"], record["run"]["inputs"]["sha256"], "0123456789abcdef",
        *(f"{name} {version}" for name, version in record["versions"].items()),
        *record["notes"], *(stop["change"] for stop in record["what_stops_it"]),
        *(entry["evidence"] for entry in record["probe"]["findings"].values()), *record["probe"]["findings"],
    ]  # fmt: skip
    assert [word for word in words if " ".join(word.split()).lower() not in text] == []
    assert record["sentence"].split(": ", 1)[1].lower() in text


@pytest.fixture(scope="module")
def digits_page() -> str:
    """The page of 100 images of MNIST's size, and their record read back."""
    generator, model = np.random.default_rng(0), build("TwoLayerNet")
    x, targets = generator.normal(size=(100, 1, 28, 28)).astype(np.float32), generator.integers(0, 10, 100)
    x[:, :, :4] = 0
    allowed = Capabilities("captum_gausslegendre", 50, 50, baseline=False, dtype="float32")
    found = audit(LocalExplainer(model, allowed), x, targets, model=model, examples=6)
    return render_audit(record_of(json.loads(json.dumps(found.record()))))


def test_the_page_is_whole_by_itself_and_small(digits_page: str) -> None:
    assert len(digits_page.encode()) < 2_000_000
    found = [next(filter(None, match.groups()), "@import") for match in LINKS.finditer(digits_page)]
    elsewhere = [link for link in found if not link.startswith(("#", "data:image/png;base64,"))]
    assert elsewhere == ["https://atlas.mitre.org/techniques/AML.T0024.002"]
    assert digits_page.count("http") == 1
    assert "<script" not in digits_page
    assert "<link" not in digits_page


def test_the_page_is_told_to_those_who_cannot_see_it(digits_page: str) -> None:
    page = Text(digits_page)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 24
    assert all((attributes["alt"] or "").strip() for attributes in pictures)
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) == 4
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in drawings)
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th")
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    assert ("html", {"lang": "en"}) in page.tags
    assert "Grey coordinates were not observed." in page.text
    for nonsense in ("None", "nan", "inf ", "{{", "{%"):
        assert nonsense not in page.text


def test_drawings_follow_the_colours_of_the_page(digits_page: str) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", digits_page, re.DOTALL)
    drawings = "".join(re.findall(r"<svg.*?</svg>", digits_page, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}", drawings)) <= {"#ffffff", "#000000"}
    used = set(re.findall(r"var\((--[\w-]+)\)", digits_page))
    for block in (style[: style.index("@media")], style[style.index("@media") :]):
        named = set(re.findall(r"(--[\w-]+):", block))
        assert used - {"--mark"} <= named


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_words_can_be_read_in_light_and_in_dark(digits_page: str) -> None:
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in digits_page.split("@media screen")
    )
    for colours in (light, dark):
        for name in ("ink", "soft", "leaks", "partly", "not-shown", "blue", "orange"):
            for ground in ("paper", "shade"):
                low, high = sorted((luminance(colours[name]), luminance(colours[ground])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


def test_what_is_not_known_is_not_shown() -> None:
    bare = small_record(plan=None, service=None, probe=None, check=None, examples=[], what_stops_it=[], run=None,
                        target=None, verdict="not shown", sentence="Not shown: no plan is known.")  # fmt: skip
    page = Text(render_audit(record_of(bare))).text
    assert "No plan is known for this service, so no gradient was recovered or held against anything." in page
    assert "no proof that there is none" in page
    assert "None" not in page


def test_words_from_an_endpoint_are_no_markup() -> None:
    page = render_audit(record_of(small_record(target="kserve+http://h/<script>alert(1)</script>")))
    assert "<script" not in page
    assert "<script>alert(1)</script>" in unescape(page)


def test_a_change_is_told_for_what_it_does() -> None:
    stops = record_of(small_record()).what_stops_it
    rows = {row.stop.change: row for row in stop_rows(stops)}
    assert rows["as it is"].outcome == ""
    assert (
        rows["pin the baseline" if "pin the baseline" in rows else "explain probabilities"].outcome
        == "does not stop it"
    )
    frozen = rows["freeze the steps at 50"]
    formulas = rows["as it is"].stop.paper_formula, frozen.stop.paper_formula
    assert formulas[0] is not None
    assert formulas[1] is not None
    assert not formulas[0].stopped_alone
    assert (frozen.outcome == "stops only the paper's formulas") is formulas[1].stopped_alone
    # one that stops all, by the record
    sealed = stops[1].model_copy(update={"verdict": Verdict.NOT_SHOWN, "change": "answer nothing"})
    told = stopping_sentence(stop_rows((stops[0], sealed, *stops[2:])))
    assert told.startswith(f"Of {len(stops) - 1} changes that were tried, 1 stops every plan known: answer nothing.")


def test_two_audits_side_by_side() -> None:
    first = small_record()
    second = {**first, "verdict": "not shown", "median_distance": 0.777, "seed": 5, "target": "the other"}
    second["what_stops_it"] = [{**stop, "median_distance": 0.5} for stop in first["what_stops_it"][:2]]
    found = compare(record_of(first), record_of(second))
    assert found.sentence.startswith("The first: leaks; the second: not shown. Median distance ")
    rows = {row.name: row for row in found.rows}
    assert {name for name, row in rows.items() if row.changed} == {"verdict", "median distance", "seed"}
    assert (rows["median distance"].first, rows["median distance"].second) == (
        number(first["median_distance"]),
        "0.777",
    )
    assert [row.second for row in found.stops[2:]] == [""] * (len(first["what_stops_it"]) - 2)
    assert found.cautions == ()
    page = render_comparison(found)
    text = Text(page).text
    for row in (*found.rows, *found.stops):
        assert row.name in text
        assert row.first in text
    assert digits_free(page)
    assert json.loads(json.dumps(found.record()))["rows"][0] == {
        "name": "verdict", "first": "leaks", "second": "not shown", "changed": True,
    }  # fmt: skip


def digits_free(page: str) -> bool:
    """Whether nothing is fetched from elsewhere."""
    found = [next(filter(None, match.groups()), "@import") for match in LINKS.finditer(page)]
    return all(link.startswith(("#", "data:")) for link in found)


def test_audits_that_are_hard_to_compare_are_told_so() -> None:
    first = small_record()
    other = {**first, "check": "something else", "inputs": first["inputs"][:-1]}
    run = first["run"]
    other["run"] = {
        **run,
        "inputs": {**run["inputs"], "sha256": "ff"},
        "model": {"weights_sha256": "ee", "file_sha256": None},
    }
    assert len(compare(record_of(first), record_of(other)).cautions) == 4


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_only_behind_a_softmax_is_far_weight_said_to_count_for_nothing(output: str) -> None:
    record = small_record()
    record["service"]["output"] = output
    near = Text(render_audit(record_of(record))).text
    assert "logarithmic" not in near
    record["plan"]["atoms"] = [[1.0, 1.0], [900.0, 0.5], [1000.0, -0.5]]
    far = Text(render_audit(record_of(record))).text
    assert "The axes are logarithmic far out" in far
    assert ("a softmax is saturated" in far) is (output == "probabilities")
