"""The report as one HTML file: what is in it, and that what runs say stays text."""

import base64
import hashlib
import json
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hsw.report import cli
from tests.analysis.studies import HOSTILE, leave_hostile
from tests.runs import ROOT, call, patience, wait_for
from tests.test_report import leave_run

VOID = {"meta", "input", "img", "br", "hr", "link"}


class Page(HTMLParser):
    """Its elements with attributes, the text in each kind of element, and what was not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    @property
    def words(self):
        """What a reader sees."""
        return "\n".join(text for tag, texts in self.texts.items() if tag not in ("script", "style") for text in texts)

    @property
    def data(self):
        return json.loads(next(text for text in self.texts["script"] if text.startswith("{")))


def page_of(*arguments):
    result = call(*map(str, arguments), "--format", "html", "--reps", "50", "--no-curves", main=cli)
    assert result.code == 0, result.err
    return Path(result.out.split(".html: ")[0] + ".html").read_text()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = leave_hostile(tmp_path_factory.mktemp("hostile") / "<b>study</b>")
    return page_of(folder, "--unfinished", "--metric", "return")


def test_text_of_runs_is_text_wherever_it_stands(hostile):
    page = Page(hostile)
    assert not page.open
    assert {tag for tag, _ in page.elements} & {"b", "iframe", "object", "link", "base"} == set()
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert sum(tag == "script" for tag, _ in page.elements) == 3
    for text in HOSTILE[:4]:
        assert text.replace("\u2028", " ").replace("\u2029", " ") in page.words
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("href", "src")
    ]
    assert all(value.startswith(("#", "data:", "./")) for value in addresses), addresses
    assert not set("\x1b\x07\u202e\u2028\u2029\x00") & set(hostile)
    names = {name for run in page.data["runs"].values() for name in run["metrics"]}
    assert {f"learn/{HOSTILE[1]}", "__proto__", "constructor"} <= names


def test_the_policy_names_what_runs_and_allows_no_other(hostile):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', hostile)
    policy = policy.replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", hostile, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", hostile, re.DOTALL)
    for kind, texts in (("script-src", scripts), ("style-src", styles)):
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert re.search(rf"{kind} ([^;]+);", policy)[1].split() == [f"'sha256-{one}'" for one in hashes]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r'\sstyle="', hostile)


def test_what_ran_and_what_did_not_stands_there(tmp_path):
    for seed in (1, 2):
        leave_run(tmp_path / "study" / f"a-{seed}", seed, 100.0 * seed)
        leave_run(tmp_path / "study" / f"b-{seed}", seed, 150.0, algorithm__lr=0.5)
    failed = leave_run(tmp_path / "study" / "failed", 3)
    (failed / "status.json").write_text('{"status": "failed", "error": "no more disk"}')
    (failed / "train.log").write_text("[x][hsw][INFO] - fine\n[x][hsw][ERROR] - first\n" + "later\n" * 9999)
    (tmp_path / "study" / "a-1" / "verified.json").write_text('{"verified": true, "segments": [{"saved": "f00d"}]}')
    page = Page(page_of(tmp_path / "study", "--threshold", 120))
    words = page.words
    for text in ("no more disk", "[x][hsw][ERROR] - first", "a-1", "python -m hsw.train 'x=1 2'", "abc", "lr=0.5"):
        assert text in words, text
    assert 'segments[0].saved: "f00d"' in words
    for text in ("optimality gap to 120.0", "probability of improvement", "[100.0, 200.0]", "\\begin{tabular}"):
        assert text in words, text
    assert "resume=" in words  # of the run that failed
    assert "group,seeds,mean,mean low,mean high" in words
    heads = "".join(page.texts["h3"])
    assert all(name in heads for name in ("Failures", "Scores", "Learning curves", "What differs", "What ran"))
    (chart, *_) = page.data["charts"].values()
    assert [group["label"] for group in chart["groups"]] == ["lr=0.001", "lr=0.5"]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, a in page.elements for name, value in a.items() if name == "href" and value[0] == "#"}
    assert targets <= set(ids)


def test_studies_are_compared_in_one_table_of_environments_and_algorithms(tmp_path):
    scores = {("one", "A-v0"): 10.0, ("two", "B-v0"): 20.0}
    for (study, env), score in scores.items():
        for algorithm in ("PPO", "DAAC"):
            for seed in (1, 2):
                value = score + (algorithm == "DAAC")
                leave_run(tmp_path / study / f"{algorithm}-{seed}", seed, value, algorithm, env, algorithm__lr=study)
    words = Page(page_of(tmp_path / "one", tmp_path / "two", "--out", tmp_path / "both.html")).words
    table = words[words.index("environment,algorithm=") :]
    head, first, second = table.splitlines()[:3]
    assert head.startswith("environment,algorithm=DAAC,algorithm=DAAC low,algorithm=DAAC high,algorithm=PPO,")
    assert first == "A-v0,11.0,11.0,11.0,10.0,10.0,10.0"
    assert second == "B-v0,21.0,21.0,21.0,20.0,20.0,20.0"


def test_runs_without_anything_to_show_are_shown(tmp_path):
    (leave_run(tmp_path / "a") / "metrics.jsonl").unlink()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.lock").touch()
    (leave_run(tmp_path / "c") / "config.yaml").write_text("{")
    (tmp_path / "c" / "verified.json").write_text("{")
    words = Page(page_of(tmp_path)).words
    assert "missing" in words
    assert "damaged" in words
    assert "verified.json cannot be read" in words


def test_no_link_is_followed_and_no_secret_told(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "4f5e6d7c8b9aZZ")
    (tmp_path / "elsewhere").write_text("[ERROR] of another\n")
    (tmp_path / "other.mp4").write_bytes(b"other")
    run = leave_run(tmp_path / "study" / "a", algorithm__lr="x 4f5e6d7c8b9aZZ")
    (run / "train.log").symlink_to(tmp_path / "elsewhere")
    (run / "step-1.mp4").symlink_to(tmp_path / "other.mp4")
    (run / "verified.json").symlink_to(tmp_path / "elsewhere")
    text = page_of(tmp_path / "study")
    assert "of another" not in text
    assert base64.b64encode(b"other").decode() not in text
    assert "4f5e6d7c8b9aZZ" not in text
    assert "[removed]" in text


def test_the_newest_video_is_within_and_a_large_one_is_linked_to(tmp_path):
    run = leave_run(tmp_path / "study" / "a b")
    (run / "videos").mkdir()
    (run / "videos" / "1.mp4").write_bytes(b"\1" * 2_000_000)
    page = Page(page_of(tmp_path / "study", "--out", tmp_path / "out" / "x.html"))
    assert ("a", {"href": "./../study/a%20b/videos/1.mp4"}) in page.elements
    (run / "step-2.mp4").write_bytes(b"small")
    page = Page(page_of(tmp_path / "study"))
    (video,) = (attributes for tag, attributes in page.elements if tag == "video")
    assert video["src"] == "data:video/mp4;base64," + base64.b64encode(b"small").decode()


def test_the_page_goes_where_it_is_told_to(tmp_path, monkeypatch):
    run = leave_run(tmp_path / "study" / "a")
    common = (str(tmp_path / "study"), "--format", "html", "--reps", "2", "--no-curves")
    assert call(*common, main=cli).code == 0
    assert (tmp_path / "study" / "report.html").is_file()
    assert call(*common, "--out", str(tmp_path / "out"), main=cli).code == 0
    assert (tmp_path / "out" / "report.html").is_file()
    assert call(*common[:1], "--reps", "2", "--no-curves", "--out", str(tmp_path / "x.html"), main=cli).code == 0
    assert "<!doctype html>" in (tmp_path / "x.html").read_text()
    assert call(*common, "--out", str(tmp_path / "x.csv"), main=cli).refused(2, "x.csv", "--format csv, not html")
    assert call(*common[:1], "--watch", main=cli).refused(2, "--watch", "--format html")
    assert call(*common, "--watch", "0", main=cli).refused(2, "--watch=0", "0.1")
    assert call(*common, "--out", str(run / "config.yaml" / "x.html"), main=cli).refused(6, "cannot write")


def test_watching_writes_the_page_again_until_it_is_interrupted(tmp_path):
    (tmp_path / "study").mkdir()
    command = [sys.executable, "-m", "hsw.report", str(tmp_path / "study"), "--format", "html", "--watch", "0.1"]
    process = subprocess.Popen(
        [*command, "--reps", "2", "--no-curves"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # in the background it is ignored
    )
    try:
        page = tmp_path / "study" / "report.html"
        leave_run(tmp_path / "study" / "a", 1)
        wait_for(lambda: page.exists() and "data-reload" in page.read_text(), patience(60))
        later = leave_run(tmp_path / "later", 2)
        (later / "metrics.jsonl").write_text('{"step": 500, "time": 9.0, "eval/return_mean": 7.5}\n')
        later.rename(tmp_path / "study" / "second-run")
        wait_for(lambda: "second-run" in page.read_text(), patience(60))
        assert "1 of 2 runs did not end and count as last evaluated" in page.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not re.search(r"<input[^>]*data-reload", page.read_text())
    finally:
        process.kill()
        process.communicate()


def test_the_trials_of_a_tuned_study_have_a_section(tmp_path):
    leave_run(tmp_path / "a")
    assert "Tuning" not in Page(page_of(tmp_path)).texts["h3"]
    (tmp_path / "trials.csv").write_text("trial,lr,score,why\n0,1e-3,0.5,<b>\n1,,,=1+1\ntorn,\n")
    page = Page(page_of(tmp_path))
    assert "Tuning" in page.texts["h3"]
    assert "trial,lr,score,why\n0,0.001,0.5,<b>\n1,,,'=1+1\n" in page.words


def test_the_extra_is_named_where_it_is_missing(tmp_path, monkeypatch):
    leave_run(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = call(str(tmp_path), "--format", "html", "--reps", "2", main=cli)
    assert result.refused(2, "extra report", "pip install 'hsw[report]'")


# On the terminal.


def test_on_a_terminal_a_line_tells_what_differs_and_the_rest_is_there_on_request(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # where no path is broken into lines
    for number in range(3):
        keys = {f"algorithm__key_{n}": number for n in range(30)}
        leave_run(tmp_path / f"run-{number}", 1, 100.0 + number, env="[bold]x\x1b[2J", **keys)
    common = (str(tmp_path), "--no-curves", "--reps", "20")
    text = call(*common, "--format", "text", main=cli).out
    (line,) = (line for line in text.splitlines() if line.startswith("Differ in"))
    assert line == (
        "Differ in algorithm.key_0 (0, 1, 2), algorithm.key_1 (0, 1, 2), algorithm.key_10 (0, 1, 2); "
        "30 keys in all, which --keys lists"
    )
    assert "more keys" not in text
    assert "[bold]x" in text
    assert "\x1b" not in text
    assert re.search(r"key_0=2\s+1\s+102.0 \(one seed\)", text)
    every = call(*common, "--format", "text", "--keys", main=cli).out
    assert re.search(r"algorithm.key_29\s+0\s+1\s+2", every)
    assert "algorithm.key_29" not in text
    markdown = call(*common, main=cli).out
    assert "30 keys in all, which --keys lists" in markdown
    assert "`algorithm.key_29` (0, 1, 2)" in call(*common, "--keys", main=cli).out
