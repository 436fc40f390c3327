"""A report in a real browser: it shows, on a screen and a phone, and asks nobody for anything."""

import struct
import zlib

import pytest

from cluster.records import find_run
from cluster.report_figures import make_report
from cluster.report_page import report_page
from shards.schema import ReceiptStatus
from tests.support.browser import browser
from tests.support.receipts import receipt
from tests.support.report_world import ReportWorld

DESKTOP, PHONE = 1280, 390
COLOURS_MIN = 12  # of a picture with text, charts and bars; an empty page has one or two
OVERLAPS = """(() => {
  const found = [];
  for (const group of document.querySelectorAll('.scale, .times, .tile, tr')) {
    const boxes = [...group.querySelectorAll('span, td, th, .name, .value, .more')]
      .filter(one => one.getClientRects().length && one.textContent)
      .map(one => [one.textContent, one.getBoundingClientRect()]);
    boxes.forEach(([a, x], i) => boxes.slice(i + 1).forEach(([b, y]) => {
      const wide = Math.min(x.right, y.right) - Math.max(x.left, y.left);
      const high = Math.min(x.bottom, y.bottom) - Math.max(x.top, y.top);
      if (wide > 0.5 && high > 0.5) found.push(a + ' / ' + b);
    }));
  }
  return found;
})()"""
OUTSIDE = """[...document.querySelectorAll('span, p, h1, h2, td.path, li')]
  .filter(one => !one.closest('.wide') && one.getClientRects().length)
  .filter(one => one.getBoundingClientRect().right > window.innerWidth + 0.5
              || one.getBoundingClientRect().left < -0.5)
  .map(one => one.textContent)"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Yield the page of a run with everything in it, and that of one that saved nothing."""
    made = []
    for name, fill in (("full", _fill), ("empty", lambda world: None)):
        folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch, ReportWorld(folder, patch, shards=4) as world:
            world.open_run(targets=3)
            fill(world)
            world.end_run()
            report = make_report(world.settings, find_run(world.settings, str(world.run)))
        made.append(folder / "report.html")
        made[-1].write_text(report_page(report))
    return made


def _fill(world):
    world.walk(0, 2.0, 1_234_567, frontier=[0, 1, 2], size_bytes=5 << 50)
    for target in range(3):
        world.walk(target, 5.0 + target, 98_765_432, directories=9_999, errors=target)
    for shard in range(4):
        world.join(shard, 1_234_567 + shard, note="incremental on JobId 1, 2, 3")
    for step in range(40):
        world.now += 30
        for shard in range(4):
            size = (1 << 40) * (1 + step % 7) * (1 + shard)
            world.receive(
                1_234_567 + shard,
                [
                    receipt(b"project%d/run%d/out" % (shard, step), file_index=1, sent_bytes=size),
                    receipt(b"x/" + b"long-name-" * 20 + b"/y", ReceiptStatus.CHANGED, 2),
                    receipt(b"y/" + b"w" * 250, ReceiptStatus.UNREADABLE, error=13),
                    receipt(b"<img src=http://127.0.0.1:9/x>", ReceiptStatus.VANISHED, error=2),
                ],
            )
    for shard in range(4):
        world.finish(shard, 1_234_567 + shard)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


def colours(png):
    """Return how many colours a picture has, and its width."""
    width, height, depth, kind = struct.unpack_from(">IIBB", png, 16)
    assert (depth, kind) in ((8, 2), (8, 6)), "8 bits, RGB or RGBA"
    data, place = b"", 8
    while place < len(png):
        length, name = struct.unpack_from(">I4s", png, place)
        if name == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += 12 + length
    pixel = 3 if kind == 2 else 4
    rows = zlib.decompress(data)
    stride = 1 + width * pixel
    found = set()
    for row in range(0, height, 7):  # filtered values tell an empty picture from a full one too
        line = rows[row * stride + 1 : (row + 1) * stride]
        found |= {line[n : n + pixel] for n in range(0, len(line), pixel)}
    return len(found), width


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("which", [0, 1], ids=["full", "empty"])
def test_a_report_shows_and_asks_nobody(pages, page, which, width, dark):
    complaints, requests = len(page.complaints()), len(page.requested())
    page.open(pages[which], width, dark=dark)
    assert page.evaluate("document.querySelector('h1').textContent").startswith("home, run")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERLAPS) == []
    assert page.evaluate(OUTSIDE) == []
    shades, shot_width = colours(page.screenshot())
    assert (shades >= COLOURS_MIN, shot_width) == (True, width), shades
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 384) == dark, background
    assert page.complaints()[complaints:] == []
    assert page.requested()[requests:] == [pages[which].as_uri()]


def test_a_report_has_no_script_and_the_browser_would_run_none(pages, page, tmp_path):
    assert "<script" not in pages[0].read_text()
    poisoned = tmp_path / "poisoned.html"
    poison = "<script>document.title = 'ran'</script><img src='http://127.0.0.1:9/x.png'></main>"
    poisoned.write_text(pages[0].read_text().replace("</main>", poison))
    complaints = len(page.complaints())
    page.open(poisoned, DESKTOP)
    assert page.evaluate("document.title") == "Backup of home, run 1"
    assert len(page.complaints()) > complaints  # so the test above would have seen it


def test_a_report_can_be_printed(pages, page):
    page.open(pages[0], DESKTOP)
    paper = page.printed()
    assert paper.startswith(b"%PDF-")
    assert len(paper) > 20_000
