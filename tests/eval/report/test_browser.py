"""Reports in a real browser. Without one the tests skip, unless GRAPHUNLEARN_BROWSER is "required"."""

import json
import os
import shutil
from urllib.parse import urlsplit

import pytest
import torch
from made import attack, both, membership, references, verdict

from graphunlearn.eval.report.writing import write_report

WIDTHS = (1280, 390)
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
LOADED = "return !window.before && document.readyState === 'complete' && location.href === arguments[0]"
LONG = "a-method-with-a-name-that-is-much-longer-than-anybody-would-ever-want-to-type-in-a-terminal"


def missing():
    """Return what the tests lack, or nothing."""
    lacks = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    try:
        import selenium  # noqa: F401
    except ImportError:
        lacks.append("selenium")
    return f"no {', '.join(lacks)}" if lacks else None


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if lack := missing():
        if os.environ.get("GRAPHUNLEARN_BROWSER") == "required":
            pytest.fail(f"GRAPHUNLEARN_BROWSER is 'required', but there is {lack}")
        pytest.skip(f"a browser is needed: {lack}")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def entry(value):
    return {"value": value, "original": 0.4, "retrain_mean": 0.2, "retrain_sd": 0.01, "z": 1.0, "gap_closed": 0.9}


def method(name, unit="p", value=0.56):
    sessions = unit == "log p"
    attacks = {
        "fold_in": attack(-0.05, -0.04, -0.06, left=False),
        "lira": membership(value),
        "rmia": membership(value),
        ("transition" if sessions else "edge_recovery_forgotten"): attack(value),
        ("click" if sessions else "edge_recovery_kept"): attack(value),
        "before_and_after": None if name == "original" else both(0.9, None if sessions else 0.9),
    }
    metrics = ("log_p_forgotten", "hit_u@10", "u_score") if sessions else ("membership_auroc", "mi_bf", "mi_ng")
    utility = {f"{kind}@{k}": 0.25 for k in (20, 10, 5) for kind in ("recall", "ndcg", "mrr")}
    if not sessions:
        utility |= {"recall@20_affected": 0.25, "recall@20_unaffected": 0.25}
    return {
        "name": name, "seconds": 1.25, "seconds_sd": 0.25, "cpu_seconds": 1.0, "speedup_vs_retrain": 1234.5,
        "peak_memory_mb": 100.0, "utility": utility, "utility_sd": dict.fromkeys(utility, 0.0125),
        "utility_on_own_lists": utility if name == "original" else None,
        "forgetting": {metric: entry(0.2) for metric in metrics} | {"ks_statistic": entry(0.2) | {"p_value": 0.25}},
        "distance_to_retrain": {"test": 0.1, "forget": 0.1, "noise_floor_test": 0.1, "noise_floor_forget": 0.1},
        "attacks": attacks, "klom": {"models": 3, "retrained": 5, "forget": 1.0, "retain": 0.5},
        "topk_overlap": {"unaffected": 0.6, "retrain_unaffected": 0.7}, "target": {"exposure@20": entry(0.2)},
        "verdict": verdict("like"), "log": {"text": "x" * 400},
    }  # fmt: skip


def report_of(kind):
    unit = "log p" if kind == "sessions" else "p"
    names = {"long": [LONG], "many": [f"method-{n}" for n in range(24)]}.get(kind, ["ifru"])
    return {
        "date": "2026-11-28T08:15:07+00:00", "dataset": {"name": "shop", "train": 1000}, "distance_unit": unit,
        "model": {"name": "lightgcn", "settings": "s" * 300}, "scenario": "users",
        "request": {"level": "click" if unit == "log p" else "user", "size": 20},
        "methods": [method(name, unit) for name in ("original", "retrain", *names, "unlink", "unlink-redraw")],
        "references": references(sick=(1,)), "retrain_pass_rate": 1.0, "notes": ["n" * 300], "left_out": {"rows": 3},
        "command": "graphunlearn bench users --methods " + " ".join(names),
    }  # fmt: skip


def plots_of(report):
    p = torch.linspace(0.05, 0.95, 60)
    names = [m["name"] for m in report["methods"]]
    if report["distance_unit"] == "log p":
        steps = [{"step": n, "weights": {"unlearn": 0.5, "retain": 0.5}, "remaining": 9 - n} for n in range(9)]
        log = {"steps": steps, "log_p": {"before": [-3.0], "after": [-5.0], "target": [-5.1]}}
        return {"scores": dict.fromkeys(names, -5 * p), "logs": {names[2]: log}}
    return {
        "scores": dict.fromkeys(names, p),
        "moved_by_hop": {name: {0: p, 1: p / 2} for name in names},
        "damping": {"damping": [0.1, 1.0], "rho": [0.5, 1.0], "residual": [2.0, 1.0], "chosen": 1.0},
    }


@pytest.fixture(scope="module", params=["users", "sessions", "long", "many"])
def page(request, tmp_path_factory):
    report = report_of(request.param)
    return write_report(report, tmp_path_factory.mktemp(request.param), plots_of(report))[1]


@pytest.fixture(params=WIDTHS)
def opened(browser, page, request):
    """The browser with the page at one width, fully loaded, and a log that holds nothing from before."""
    from selenium.webdriver.support.ui import WebDriverWait

    size = {"width": request.param, "height": 900, "deviceScaleFactor": 1, "mobile": request.param < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.execute_script("window.before = true")
    browser.get(page.as_uri())
    # The driver can return while a large page is still being parsed.
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(LOADED, page.as_uri()))
    return browser


def test_no_error_and_no_request_leaves_the_file(opened, page):
    assert opened.get_log("browser") == []
    events = [json.loads(event["message"])["message"] for event in opened.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data"}
    assert [url for url in asked if url.startswith("file")] == [page.as_uri()]


def test_the_page_does_not_scroll_sideways(opened):
    wide, seen = opened.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= seen


def test_no_table_is_clipped(opened):
    """Every table and figure lies in a box that scrolls, and the box lies within the page; no text sticks out."""
    found = opened.execute_script("""
        const seen = document.documentElement.clientWidth;
        return [...document.querySelectorAll('table, figure svg')].map(e => {
            const box = e.closest('.scroll'), edge = box.getBoundingClientRect();
            return [getComputedStyle(box).overflowX, edge.left >= 0 && edge.right <= seen + 0.5,
                    e.getBoundingClientRect().width <= box.scrollWidth + 0.5];
        });
    """)
    assert len(found) >= 12
    assert all(entry == ["auto", True, True] for entry in found)
    outside = opened.execute_script("""
        const seen = document.documentElement.clientWidth;
        return [...document.querySelectorAll('h1, h2, h3, p, li, dt, dd, pre, summary')]
            .filter(e => e.getBoundingClientRect().right > seen + 0.5).map(e => e.textContent.slice(0, 60));
    """)
    assert outside == []


def test_every_figure_has_alternative_text(opened):
    found = opened.execute_script("""
        return [...document.querySelectorAll('figure')].map(e => {
            const images = [...e.querySelectorAll('svg[role=img]')];
            return [images.length, ...images.map(i => i.getAttribute('aria-label').length > 20)];
        });
    """)
    assert len(found) >= 4
    assert all(entry == [1, True] for entry in found)


def test_headings_are_in_order_and_the_language_is_set(opened):
    levels = opened.execute_script("return [...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
    assert levels[0] == 1 == levels.count(1)
    assert all(after <= before + 1 for before, after in zip(levels, [*levels[1:], 1]))
    assert opened.execute_script("return document.documentElement.lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_page(opened, scheme):
    """The contrast of ordinary and of muted text is at least 4.5 in both schemes."""
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    ratios = opened.execute_script("""
        const light = c => c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
        const page = light(getComputedStyle(document.body).backgroundColor);
        return [...document.querySelectorAll('p, td, th, .chip, .hint, figcaption')].map(e => {
            const ink = light(getComputedStyle(e).color);
            return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
        });
    """)
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert min(ratios) >= 4.5
