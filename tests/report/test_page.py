import json
import re
import subprocess
from collections import Counter
from dataclasses import replace
from html import escape, unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import CHROMIUM, HEADLESS
from synthetic_results import BUDGET, curve, write_arms, write_run
from synthetic_testtime import METHODS, natural, write_natural, write_testtime

from ablate.report.__main__ import main
from ablate.report.assemble import assemble
from ablate.report.controls import control
from ablate.report.drawing import PALETTE, apart, short
from ablate.report.figures import figures
from ablate.report.loading import load
from ablate.report.page import to_html

ENDS = {
    "guess_check": 0.5,
    "process_rewards": 0.5,
    "mcts": 0.44,
    "learn_to_correct": 0.56,
    "essay": 0.56,
    "full_minus_search": 0.55,
    "full_minus_correct": 0.45,
    "full_minus_process": 0.52,
    "full": 0.5,
    "process_shuffled": 0.42,
    "correct_resampled": 0.55,
    "correct_always": 0.55,
    "rejection_sft": 0.4,
    "my_own_idea": 0.6,
    "score": 0.4,
}
FIGURES = [
    "accuracy",
    "combinations",
    "longer",
    "effects",
    "budgets",
    "budgets-essay",
    "accounts",
    "factorial",
    "simple",
    "interactions",
    "placebos",
    "replicates",
    "controls-process",
    "controls-correct",
    "floors",
    "compute",
    "length",
    "truncated",
    "behaviour",
    "train-time",
    "test-time",
    "methods-1",
    "methods-2",
    "train-test",
    "length-pooled",
    "length-within",
    "length-cap",
    "ladder",
    "ladder-curves",
    "difficulty",
    "apart",
]
VOID = {"meta", "br", "img", "link", "input", "hr"}
HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """The page's tags, attributes and text; raises where a tag is not closed in its turn."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text = [], Counter(), [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]} at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)

    def values(self, *names):
        return [value for name, value in self.attributes if name in names]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything that a report can show."""
    root = tmp_path_factory.mktemp("results") / "everything"
    write_arms(root, ENDS, range(3), wobble=0.003)
    longer = (0.0, 0.0625, 0.125, 0.25, 0.5, 1.0)
    for seed in range(3):
        naive = {"strategy.credit.scorer": "oracle", "strategy.credit.form": "difference"}
        write_run(root, "process_naive", seed, curve(0.2), **naive)
        for scorer, end in (("oracle", 0.6), ("learned", 0.45), ("judge", 0.4)):
            quality = {"scorer": {"calibration": 0.05, "error": 0.1}}
            name, settings = f"process_{scorer}", {"strategy.credit.scorer": scorer}
            write_run(root, name, seed, curve(end), summary=quality, **settings)
        write_run(root, "guess_check", seed, curve(0.5, shares=longer), 4 * BUDGET, longer)
        write_run(root, "guess_check", seed, curve(0.5), sampling_seed=7)
        for k, arm in enumerate(("guess_check", "mcts")):
            run = f"{arm}-s{seed}-{seed}-{BUDGET:g}"
            few = [*METHODS[:5], *METHODS[9:]] if k == 0 else METHODS[:3]
            write_testtime(root, run, seed, shift=0.05 * k, cost=1 + 0.3 * k, methods=few)
            write_natural(root, run, natural(seed, draw=k))
    control = write_arms(
        root.parent / "chain", {"guess_check": 0.3, "process_rewards": 0.6}, range(3), scored=True
    )
    assert main([str(control)]) == main([str(root), f"control={control}"]) == 0
    return root


@pytest.fixture(scope="module")
def html(folder):
    return (folder / "report.html").read_text()


def test_every_figure_is_on_the_page_and_beside_it(folder, html):
    assert sorted(re.findall(r'<figure id="figure-([^"]*)"', html)) == sorted(FIGURES)
    for name in FIGURES:
        svg = (folder / "figures" / f"{name}.svg").read_text()
        assert "<text" in svg and "var(" not in svg  # text is text; a file stands without the page's style
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for arm in (*ENDS, "process_naive"):
        assert f'<th scope="row">{arm}</th>' in html
    compute = html[html.index('id="figure-compute"') : html.index('id="length"')]
    assert "update" in compute and all(f">{short(arm)}</text>" in compute for arm in ENDS)


def test_the_page_is_whole_and_refers_to_nothing_outside_itself(html):
    page = Page(html)
    assert not page.tags.keys() & {"script", "link", "img", "iframe", "object", "embed", "base", "image"}
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = page.values("href", "xlink:href", "src", "data", "action")
    assert links and all(link[0] == "#" and link[1:] in ids for link in links)
    assert all(name in ids for name in re.findall(r"url\(#([^)]*)\)", html))
    assert "@import" not in html and re.search(r"url\((?!#)", html) is None and "http" not in html
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    used = set(re.findall(r"var\(--([\w]+)\)", html))
    assert used <= PALETTE.keys()  # every variable is defined
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    fixed = re.findall(r"(?:fill|stroke): #\w+(?!\w|; stroke-opacity: 0\")", drawn)
    assert not fixed, "colours that dark mode cannot change"


def test_the_order_is_question_verdict_design_then_what_they_rest_on(html):
    sections = re.findall(r'<section id="(\w+)"', html)
    assert sections == [
        *("design", "accuracy", "essay", "effects", "budgets", "factorial", "controls", "compute"),
        *(
            "length",
            "natural",
            "testtime",
            "traintest",
            "ladder",
            "difficulty",
            "accounts",
            "apart",
            "numbers",
            "notes",
            "reproduce",
        ),
    ]
    start = html.index("Search on top of guess + check: harmful.")
    assert html.index("Is it needed?") < start < html.index('id="design"')
    ranked = html[html.index('id="figure-accuracy"') : html.index('id="figure-combinations"')]
    assert "mcts" in ranked and "score" not in ranked and "process_naive" not in ranked


def test_text_from_files_is_escaped(folder, tmp_path):
    report = assemble(load(folder), 0.02, [control(folder.parent / "chain")])
    command = """python -m ablate 'note="&<>"' x=$y$ z=$\\frac{1}$"""
    arms = [replace(arm, name=HOSTILE, settings={HOSTILE: HOSTILE}) for arm in report.arms[:1]]
    arms += [replace(arm, name="$\\frac$ </text> #1f2933") for arm in report.arms[1:2]]
    arms += [replace(arm, name="<text>--></text><b>") for arm in report.arms[2:3]]
    claim = replace(report.claims[0], title=HOSTILE, on='"><b onclick="x', caveats=("<i>caveat",))
    tested = report.testtime[0]
    searched = tested.arms[0]
    curves = (*searched.curves[:-1], replace(searched.curves[-1], method="<s>$", label="<b>m</b>"))
    hostile = replace(
        report,
        experiment=f'"></title>{HOSTILE}',
        arms=(*arms, *report.arms[3:]),
        claims=(claim, *report.claims[1:]),
        notes=("<b>note</b>",),
        left_out=(("a<b", "</section>"),),
        task={"_target_": "x.<y>", "key": "</dd>"},
        provenance={"<cpu>": {"A & B": 2}},
        commands=(command,),
        metric="<u>right</u> at 1",
        controls=(replace(report.controls[0], experiment="<s>", metric="</li>"), *report.controls[1:]),
        length=(replace(report.length[0], arm="</figcaption><b>"), *report.length[1:]),
        testtime=(replace(tested, arms=(replace(searched, arm="<b>$x", curves=curves), *tested.arms[1:])),),
        ladder=(replace(report.ladder[0], arm="</td><q>", quality={"<q>": 1.0}), *report.ladder[1:]),
    )
    page = Page(to_html(hostile, figures(hostile, tmp_path)))
    plain = Page(to_html(report, []))
    assert page.tags["script"] == page.tags["i"] == 0 and page.tags["title"] == 1
    assert page.tags["b"] == plain.tags["b"] and "onclick" not in dict(page.attributes)
    text = "".join(page.text)
    for known in (HOSTILE, "$\\frac$ </text> #1f2933", "<i>caveat", "<b>note</b>"):
        assert known in text
    for known in ("a<b: </section>", "<y>: key </dd>", "A & B", "(2 runs)", "<u>right</u> at 1", command):
        assert known in text
    svg = (tmp_path / "accuracy.svg").read_text()
    assert HOSTILE not in svg and HOSTILE in unescape(svg)


def test_what_was_not_run_is_left_out(tmp_path):
    for arm in ("guess_check", "mcts"):
        write_run(tmp_path, arm, 0, curve(0.5))
    assert main([str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text()
    Page(html)
    sections = re.findall(r'<section id="(\w+)"', html)
    assert not {"factorial", "ladder", "apart", "essay", "natural", "testtime", "longer"} & set(sections)
    assert "Sensitivity to search not shown" in html
    assert "one seed, no bands" in html and "nothing tells how far another seed would be off" in html
    write_run(tmp_path / "alone", "guess_check", 0, curve(0.5))
    assert main([str(tmp_path / "alone")]) == 0
    html = (tmp_path / "alone" / "report.html").read_text()
    assert "No verdict: no suspect ran" in html and 'id="effects"' not in html


def test_an_effects_slope_is_the_line_through_its_values(folder, html):
    claims = json.loads((folder / "verdict.json").read_text())["claims"]
    where = r"do not cross between 0\.25x and 1x the budget"
    assert len(re.findall(where, html)) == sum(not claim["crossings"] for claim in claims) > 0
    for claim in claims:
        shares, effects = zip(*claim["by_budget"], strict=True)
        values = [effect["estimate"]["value"] for effect in effects]
        slope = np.polyfit(np.log2(shares), values, 1)[0]
        assert claim["slope"]["estimate"]["value"] == pytest.approx(slope)
        assert claim["slope"]["interval"][0] < slope < claim["slope"]["interval"][1]


def test_names_keep_their_distance_and_stay_in_view():
    assert apart([1.0, 1.0, 5.0], 1.0, 0.0, 10.0) == [0.5, 1.5, 5.0]
    assert apart([9.9, 9.8, 0.0], 1.0, 0.0, 10.0) == [10.0, 9.0, 0.0]
    assert apart([], 1.0, 0.0, 1.0) == []
    assert short("a\n b" + "c" * 40) == "a b" + "c" * 22 + "…"


# What a reader would see at once: the page wider than the window, text out of its figure or upon other text
MEASURE = """<script>
const bad = [], scrolled = document.documentElement.scrollWidth;
let count = 0;
for (const svg of document.querySelectorAll("figure svg")) {
  const name = svg.parentElement.id, frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  count += texts.length;
  texts.forEach(([a, r], i) => {
    if (r.left < frame.left - 1 || r.right > frame.right + 1 || r.top < frame.top - 1 ||
        r.bottom > frame.bottom + 1) bad.push(`${name}: ${a} is cut off`);
    for (const [b, s] of texts.slice(i + 1)) {
      const x = Math.min(r.right, s.right) - Math.max(r.left, s.left);
      const y = Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top);
      if (x > 1 && y > 0.35 * Math.min(r.height, s.height)) bad.push(`${name}: ${a} lies on ${b}`);
    }
  });
}
document.body.textContent = "";
parent.document.title = JSON.stringify({width: innerWidth, page: scrolled, bad, count,
  back: getComputedStyle(document.documentElement).backgroundColor});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium installed")
@pytest.mark.parametrize("width, dark", [(1280, False), (390, True), (390, False)])
def test_nothing_is_cut_off_or_on_top_of_each_other(html, tmp_path, width, dark):
    # in a frame, because windows have a least width
    page = escape(html.replace("</body>", f"{MEASURE}</body>"))
    frame = f'<iframe style="border:0; width:{width}px; height:900px" srcdoc="{page}"></iframe>'
    (tmp_path / "page.html").write_text(f'<html style="color-scheme:light dark"><body>{frame}</body></html>')
    done = subprocess.run(
        [
            CHROMIUM,
            *HEADLESS,
            "--dump-dom",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--window-size=1400,1000",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert found, done.stderr
    seen = json.loads(unescape(found[1]))
    assert seen["bad"] == [] and seen["count"] > 200
    assert seen["page"] <= seen["width"] == width
    red = int(re.findall(r"\d+", seen["back"])[0])
    assert red < 60 if dark else red > 240
