"""The pages of a visual Turing test in headless Chromium, as subjects use them."""

import http.server
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storage.answers import AnswerBook, open_answers

PHONE = {"viewport": {"width": 375, "height": 667}, "has_touch": True, "is_mobile": True}
Serve = Callable[[AnswerBook], str]
OpenPage = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """Open the test in a browser profile of its own; what the page complains of is an error."""
    contexts, complaints = [], []

    def open_in(url: str, **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield open_in
    for context in contexts:
        context.close()
    assert complaints == []


def _begin(page: Any, code: str) -> None:
    page.fill("#code", code)
    page.keyboard.press("Enter")
    page.wait_for_selector("#trial", state="visible")


def _wait_until_seen(page: Any) -> None:
    """Wait until the image has been there long enough for an answer to count."""
    page.wait_for_selector("#real[aria-disabled=false]")


def _count(page: Any) -> str:
    return str(page.inner_text("#count"))


def _wait_for_count(page: Any, count: str) -> None:
    page.locator("#count", has_text=count).wait_for()


def _answer(page: Any, press: Callable[[], None]) -> None:
    """Answer one image, and wait for what follows."""
    if page.is_visible("#rest"):
        page.click("#continue")
    _wait_until_seen(page)
    before = _count(page)
    press()
    page.locator("#count").filter(has_not_text=before).wait_for()


def test_whole_session_by_keyboard(book: AnswerBook, serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(book))
    page.wait_for_selector("#code:focus")
    page.keyboard.type("Ann")
    page.keyboard.press("Enter")
    page.wait_for_selector("#trial", state="visible")
    keys = ["f", "J", "ArrowLeft", "ArrowRight"]
    for number in range(12):
        if page.is_visible("#rest"):
            page.keyboard.press("Enter")
        _answer(page, lambda number=number: page.keyboard.press(keys[number % 4]))
    page.wait_for_selector("#done", state="visible")
    assert "of 10 right" in page.inner_text("#scores")
    rows = book.answers()
    assert [row.said_made for row in rows] == [0, 1] * 6
    assert all(200 <= row.reaction_ms < 20_000 and row.times_shown == 1 for row in rows)


def test_whole_session_by_touch_at_phone_width(
    book: AnswerBook, serve: Serve, open_page: OpenPage
) -> None:
    page = open_page(serve(book), **PHONE)
    page.fill("#code", "Ann")
    page.tap("#begin button")
    page.wait_for_selector("#trial", state="visible")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    for number in range(12):
        if page.is_visible("#rest"):
            page.tap("#continue")
        _answer(page, lambda number=number: page.tap("#made" if number % 2 else "#real"))
    page.wait_for_selector("#done", state="visible")
    assert [row.said_made for row in book.answers()] == [0, 1] * 6


def test_what_can_be_touched_is_large_enough(
    book: AnswerBook, serve: Serve, open_page: OpenPage
) -> None:
    page = open_page(serve(book), **PHONE)
    _begin(page, "Ann")
    for name in ("#real", "#made", "#pause"):
        box = page.locator(name).bounding_box()
        assert min(box["width"], box["height"]) >= 44


def test_text_stands_out_from_what_is_behind_it(
    book: AnswerBook, serve: Serve, open_page: OpenPage
) -> None:
    page = open_page(serve(book))
    lowest = page.evaluate(
        """() => {
          const channel = (c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
          const light = (rgb) => [.2126, .7152, .0722].reduce(
            (sum, weight, i) => sum + weight * channel(rgb[i] / 255), 0);
          const parse = (text) => text.match(/[\\d.]+/g).map(Number);
          const behind = (node) => {
            for (; node; node = node.parentElement) {
              const color = parse(getComputedStyle(node).backgroundColor);
              if (color.length === 3 || color[3] === 1) return color;
            }
          };
          for (const node of document.querySelectorAll("[hidden]")) node.hidden = false;
          const ratios = [...document.querySelectorAll("body *")]
            .filter((node) => [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim()))
            .map((node) => {
              const [a, b] = [parse(getComputedStyle(node).color), behind(node)].map(light);
              return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
            });
          return Math.min(...ratios);
        }"""
    )
    assert lowest >= 4.5  # WCAG AA


def test_image_is_drawn_as_it_is_and_enlarged_by_whole_pixels(
    book: AnswerBook, serve: Serve, open_page: OpenPage
) -> None:
    page = open_page(serve(book), **PHONE, device_scale_factor=1.5)
    _begin(page, "Ann")
    drawn, width_css = page.evaluate(
        """() => {
          const canvas = document.getElementById("image");
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const grey = [...pixels.data].filter((_, i) => i % 4 === 0);
          return [grey, canvas.getBoundingClientRect().width];
        }"""
    )
    shown = [image for image in book.images() if image.pixels.ravel().tolist() == drawn]
    assert len(shown) == 1
    factor = width_css * 1.5 / book.study.width
    assert factor >= 5
    assert factor == pytest.approx(round(factor), abs=1e-3)


def test_alternative_text_and_announcement_do_not_tell_the_kind(
    book: AnswerBook, serve: Serve, open_page: OpenPage
) -> None:
    page = open_page(serve(book))
    _begin(page, "Ann")
    assert page.get_attribute("#image", "aria-label") == "Image 1, to be judged by eye"
    assert page.inner_text("#said") == "Image 1 of 12"


def test_reload_goes_on_where_it_was(book: AnswerBook, serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(book))
    _begin(page, "Ann")
    for _ in range(3):
        _answer(page, lambda: page.keyboard.press("f"))
    image = page.evaluate("document.getElementById('image').toDataURL()")
    page.reload()
    page.wait_for_selector("#trial", state="visible")
    assert _count(page) == "3 of 12"
    assert page.evaluate("document.getElementById('image').toDataURL()") == image


def test_browser_that_died_goes_on_where_it_was(
    book: AnswerBook, serve: Serve, open_page: OpenPage
) -> None:
    page = open_page(serve(book))
    _begin(page, "Ann")
    _answer(page, lambda: page.keyboard.press("f"))
    kept = page.context.storage_state()  # what a browser has on its disk
    page.context.close()
    again = open_page(page.url, storage_state=kept)
    again.wait_for_selector("#trial", state="visible")
    assert _count(again) == "1 of 12"


def test_break_hides_the_image_and_stops_the_clock(
    book: AnswerBook, serve: Serve, open_page: OpenPage
) -> None:
    page = open_page(serve(book))
    _begin(page, "Ann")
    _wait_until_seen(page)
    page.keyboard.press("b")
    assert not page.is_visible("#image")
    stopped = page.evaluate("clock.read()")
    page.keyboard.press("f")  # no image, no answer
    assert page.evaluate("clock.read()") == stopped
    page.keyboard.press("Enter")
    page.wait_for_selector("#trial", state="visible")
    assert _count(page) == "0 of 12"


def test_two_tabs_of_a_session_answer_each_image_once(
    book: AnswerBook, serve: Serve, open_page: OpenPage
) -> None:
    first = open_page(serve(book))
    _begin(first, "Ann")
    second = first.context.new_page()
    second.goto(first.url)
    second.wait_for_selector("#trial", state="visible")
    _answer(first, lambda: first.keyboard.press("f"))
    _answer(second, lambda: second.keyboard.press("j"))
    assert _count(second) == "1 of 12"
    assert [row.said_made for row in book.answers()] == [0]


def test_two_subjects_in_parallel_do_not_mix(
    book: AnswerBook, serve: Serve, open_page: OpenPage
) -> None:
    url = serve(book)
    ann, bob = open_page(url), open_page(url, **PHONE)
    _begin(ann, "Ann")
    _begin(bob, "Bob")
    for _ in range(4):
        _answer(ann, lambda: ann.keyboard.press("f"))
        _answer(bob, lambda: bob.tap("#made"))
    assert (_count(ann), _count(bob)) == ("4 of 12", "4 of 12")
    assert {(row.code, row.said_made) for row in book.answers()} == {("Ann", 0), ("Bob", 1)}


def test_name_that_is_taken_is_said_on_the_page(
    book: AnswerBook, serve: Serve, open_page: OpenPage
) -> None:
    url = serve(book)
    _begin(open_page(url), "Ann")
    other = open_page(url)
    other.fill("#code", "Ann")
    other.keyboard.press("Enter")
    other.wait_for_selector("#trouble", state="visible")
    assert "“Ann” has taken part already" in other.inner_text("#trouble")


def test_killed_server_loses_no_answer(
    eyes: dict[str, str], tmp_path: Path, open_page: OpenPage, server_process: Any
) -> None:
    results = tmp_path / "answers.sqlite"
    words = ["--real", eyes["real"], "--refined", eyes["refined"], "--trials", "10"]
    server = server_process(*words, "--results", str(results))
    page = open_page(server.url)
    _begin(page, "Ann")
    for _ in range(4):
        _answer(page, lambda: page.keyboard.press("f"))
    server.stop(signal.SIGKILL)
    with closing(open_answers(results)) as book:
        assert len(book.answers()) == 4
    _wait_until_seen(page)
    page.keyboard.press("j")  # nobody there: the page keeps the answer
    page.wait_for_selector("#trouble", state="visible")
    server.start()
    _wait_for_count(page, "5 of 10")
    assert not page.is_visible("#trouble")
    for _ in range(5):
        _answer(page, lambda: page.keyboard.press("f"))
    page.wait_for_selector("#done", state="visible")
    code, out = server.stop(signal.SIGINT)
    assert (code, "10 answers of 1 subjects" in out) == (0, True)
    with closing(open_answers(results)) as book:
        assert [row.said_made for row in book.answers()] == [0] * 4 + [1] + [0] * 5


class _EvilPage(http.server.BaseHTTPRequestHandler):
    """Somebody else's page that frames the test, and posts to it in all ways that there are."""

    def do_GET(self) -> None:
        target = self.path.removeprefix("/?")
        # The browser sends the form and the first request; the others it does not let through.
        page = f"""<!doctype html><output></output><iframe id="framed" src="{target}/"></iframe>
          <iframe name="out"></iframe>
          <form id="form" target="out" method="post" action="{target}/api/answers"
            enctype="text/plain"><input name='{{"said":"real","x":"' value='"}}'></form>
          <script>
            document.getElementById("form").submit();
            const options = {{ method: "POST", credentials: "include", body: "{{}}" }};
            Promise.allSettled([
              fetch("{target}/api/answers", {{ ...options, mode: "no-cors" }}),
              fetch("{target}/api/answers", {{ ...options,
                headers: {{ "Content-Type": "application/json" }} }}),
              fetch("{target}/api/session", {{ credentials: "include" }}),
            ]).then((all) => {{
              document.querySelector("output").textContent = all.map((one) => one.status).join(" ");
            }});
          </script>""".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_words: Any) -> None:
        """Say nothing."""


def test_page_of_another_site_can_neither_frame_nor_post(
    book: AnswerBook, serve: Serve, open_page: OpenPage
) -> None:
    url = serve(book)
    subject = open_page(url)
    _begin(subject, "Ann")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _EvilPage) as evil:
        threading.Thread(target=evil.serve_forever).start()
        page = subject.context.new_page()
        page.goto(f"http://localhost:{evil.server_port}/?{url}")
        page.wait_for_selector("output:not(:empty)")
        assert page.inner_text("output") == "rejected rejected rejected"
        assert page.frames[1].url.startswith("chrome-error:")
        evil.shutdown()
    assert book.answers() == []
