"""Every lesson in a real browser: run to the bottom, each control at both ends, no traceback.

One JupyterLab, started by ``make lab`` itself on copies of the lessons of its own, and one
headless Chromium. ``make test-browser`` installs what is needed and runs this.
"""

import ast
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
FIRST = "00_start_here"
SHOTS = ROOT / ".screenshots"

START_S, OPEN_S, RUN_S, REDRAW_S = 120, 60, 180, 20
WIDTH, HEIGHT, TALLEST = 1400, 1000, 15_000

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# One server, one browser ---------------------------------------------------------------------


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """``make lab`` on a copy of the lessons of its own: the URL that it printed, and the folder."""
    own = tmp_path_factory.mktemp("lab")
    work = ROOT / f"work-browser-{os.getpid()}"
    settings = own / "settings"
    tracker = settings / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    # All cells in the page, not only those that are in view.
    tracker.write_text('{"windowingMode": "none"}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--no-browser", "--ip", "127.0.0.1", "--port", port, "--ServerApp.port_retries=0"]
    flags += ["--LabApp.expose_app_in_browser=True"]
    # Nothing of the outer make, and of this user's JupyterLab, but the data folder.
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"}
    environment = {name: v for name, v in os.environ.items() if name not in outer} | {
        "JUPYTER_CONFIG_DIR": str(own / "config"),
        "JUPYTER_DATA_DIR": str(own / "data"),
        "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
        "IPYTHONDIR": str(own / "ipython"),
        "PYTHONUNBUFFERED": "1",
    }
    log = own / "make-lab.log"
    with open(log, "w") as f:
        server = subprocess.Popen(
            ["make", "lab", f"WORK={work.name}", f"LAB_ARGS={' '.join(map(str, flags))}"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=f,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Server(_printed_url(server, log), work, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(20)
        shutil.rmtree(work, ignore_errors=True)


def _printed_url(server, log):
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        found = re.search(r"http://127\.0\.0\.1:\d+/\S*token=\w+", log.read_text())
        if found:
            return found[0]
        assert server.poll() is None, f"make lab ended:\n{log.read_text()}"
        time.sleep(0.2)
    raise AssertionError(f"make lab printed no URL in {START_S} s:\n{log.read_text()}")


class Server:
    def __init__(self, url, work, log):
        self.url, self.work, self.log = url, work, log
        parts = urlsplit(url)
        self.base, self.path, self.query = f"http://{parts.netloc}", parts.path, parts.query

    def address(self, name):
        """The URL of a notebook, in a JupyterLab workspace of its own."""
        path = quote(f"{self.work.name}/{name}.ipynb")
        return f"{self.base}/lab/workspaces/{quote(name)}/tree/{path}?{self.query}"

    def add(self, name, *cells):
        """A notebook of the tests' own; returns its name."""
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, self.work / f"{name}.ipynb")
        return name


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="make test-browser installs it")
    names = ["chromium", "chromium-browser", "google-chrome"]
    executable = next(filter(None, map(shutil.which, names)), None)
    assert executable, "expected chromium, found none: run make test-browser"
    SHOTS.mkdir(exist_ok=True)
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_notebook(lab, chromium):
    """Opens a notebook in a page of its own; closes page and kernel at the end."""
    opened = []

    def open_(name, address=None):
        context = chromium.new_context(viewport={"width": WIDTH, "height": HEIGHT})
        notebook = Notebook(context.new_page(), name, lab)
        opened.append((context, notebook))
        notebook.open(address or lab.address(name))
        return notebook

    yield open_
    for context, notebook in opened:
        notebook.end_kernel()
        context.close()


# A notebook in the page ----------------------------------------------------------------------

# The current notebook's session; the kernel's errors are kept, those of widget callbacks too,
# which JupyterLab would only put in its log.
CONNECT = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  const session = panel.context.sessionContext;
  await panel.context.ready; await panel.revealed; await session.ready;
  window.qm9lab = {panel, session, errors: []};
  const listen = kernel => kernel && kernel.anyMessage.connect((_, {msg, direction}) => {
    const type = msg.header.msg_type;
    if (direction === 'recv' && msg.channel === 'iopub' && type === 'error')
      window.qm9lab.errors.push(`${msg.content.ename}: ${msg.content.evalue}`);
    if (direction === 'recv' && type === 'stream' && /Traceback/.test(msg.content.text))
      window.qm9lab.errors.push(msg.content.text);
  });
  listen(session.session.kernel);
}"""
READY = """() => {
  const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
  const session = panel && panel.context && panel.context.sessionContext;
  return !!(session && session.session && session.session.kernel
    && panel.content.widgets && panel.content.widgets.length
    && document.querySelector('.jp-NotebookPanel .jp-Cell'));
}"""
IDLE = """() => {
  const kernel = window.qm9lab.session.session.kernel;
  return kernel.status === 'idle' && !kernel.hasPendingInput
    && ![...document.querySelectorAll('.jp-InputPrompt')].some(e => e.textContent.includes('*'));
}"""
LOST_WIDGET = "Loading widget|Error (displaying|creating) widget|model not found"
LOADED = """() => ![...document.querySelectorAll('.jp-OutputArea-output')]
  .some(e => e.textContent.includes('Loading widget'))"""
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
RUN_ONE = """async index => {
  window.qm9lab.panel.content.activeCellIndex = index;
  await window.jupyterapp.commands.execute('notebook:run-cell');
}"""
# Python's word on an expression, in the notebook's kernel.
ASK = """async expression => {
  const ask = {code: '', user_expressions: {answer: expression}, store_history: false};
  const reply = await window.qm9lab.session.session.kernel.requestExecute(ask).done;
  const answer = reply.content.user_expressions.answer;
  if (answer.status !== 'ok') throw new Error(`${answer.ename}: ${answer.evalue}`);
  return answer.data['text/plain'];
}"""
# What a viewer sees of a widget: the bytes of its pictures, or, where it has none, its HTML.
PICTURES = """async output => {
  const images = [...output.querySelectorAll('img')];
  const html = [...output.querySelectorAll('.widget-html-content')].map(e => e.innerHTML);
  const drawn = [...output.querySelectorAll('canvas')].map(e => e.toDataURL());
  const read = async image => {
    const bytes = await (await fetch(image.src)).arrayBuffer();
    return [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))].join();
  };
  if (images.length || drawn.length)
    return JSON.stringify([...await Promise.all(images.map(read)), ...drawn]);
  return html.length ? JSON.stringify(html) : null;
}"""

CONTROLS = ", ".join(f".jupyter-widgets {e}" for e in (".noUi-handle", "input", "select", "button"))
CONTROLS += ", button.jupyter-widgets"
TOGGLE = "button.widget-toggle-button:not(.widget-toggle-buttons *)"
BUTTON = "button.widget-button:not(.widget-toggle-button):not(.widget-toggle-buttons *)"


class Notebook:
    """A notebook that is open in a page, and what went wrong there."""

    def __init__(self, page, name, lab):
        self.page, self.name, self.lab = page, name, lab
        self.left_the_machine = []
        page.route(lambda url: not url.startswith(lab.base) and _is_web(url), self._refuse)
        page.on("websocket", lambda socket: self._note(socket.url))
        page.set_default_timeout(60_000)

    def _refuse(self, route):
        self.left_the_machine.append(route.request.url)
        route.abort()

    def _note(self, url):
        if urlsplit(url).netloc != urlsplit(self.lab.base).netloc:
            self.left_the_machine.append(url)

    def open(self, address):
        self.page.goto(address)
        try:
            self.page.wait_for_function(READY, timeout=OPEN_S * 1000)
        except Exception as error:
            self.page.screenshot(path=SHOTS / f"{self.name}-not-open.png")
            dialogs = self.page.locator(".jp-Dialog").all_inner_texts()
            raise AssertionError(
                f"{self.name} did not open in {OPEN_S} s (dialogs: {dialogs}; what was seen: "
                f"{SHOTS.name}/{self.name}-not-open.png; JupyterLab's log: {self.lab.log})"
            ) from error
        self.page.evaluate(CONNECT)
        self.wait_until_idle()

    def wait_until_idle(self, timeout_s=RUN_S):
        self.page.wait_for_function(IDLE, timeout=timeout_s * 1000)

    def run_all(self):
        self.page.evaluate(RUN_ALL)
        self.wait_until_idle()

    def ask(self, expression):
        """The value of an expression in the notebook's kernel: a literal, such as a list."""
        return ast.literal_eval(self.page.evaluate(ASK, expression))

    def end_kernel(self):
        # The page may be gone or may never have had a kernel; the server's end takes the rest.
        with contextlib.suppress(Exception):
            self.page.evaluate("() => window.qm9lab.session.shutdown()")

    def problems(self):
        """What must not be on the page of a notebook that ran."""
        page = self.page
        with contextlib.suppress(Exception):  # a widget may come late; one that does not is named
            page.wait_for_function(LOADED, timeout=10_000)
        for message in page.evaluate("() => window.qm9lab.errors"):
            yield f"the kernel raised {message}"
        # JupyterLab shows the error of a cell as what was written to standard error.
        for text in page.locator("[data-mime-type='application/vnd.jupyter.stderr']").all():
            if "Traceback" in text.inner_text():
                yield f"a traceback on the page: {text.inner_text()[:300]}"
        lost = page.locator(".jp-OutputArea-output", has_text=re.compile(LOST_WIDGET))
        for output in lost.all():
            yield f"a widget that is not there: {output.inner_text()[:300]}"
        for prompt in page.locator(".jp-CodeCell .jp-InputPrompt").all():
            if not re.fullmatch(r"\[\d+\]:", prompt.inner_text().strip()):
                yield f"a code cell without a number: {prompt.inner_text()!r}"
        for image in page.locator(".jp-MarkdownCell img").all():
            if not image.evaluate("async e => { await e.decode().catch(() => 0); "
                                  "return e.complete && e.naturalWidth > 0; }"):  # fmt: skip
                yield f"a picture that did not load: {image.get_attribute('src')}"
        for url in self.left_the_machine:
            yield f"a request left the machine: {url}"

    def screenshot(self):
        """The whole notebook: JupyterLab scrolls inside the page, so make the page that tall."""
        notebook = self.page.locator(".jp-NotebookPanel-notebook .jp-WindowedPanel-outer")
        height = notebook.first.evaluate("e => e.scrollHeight")
        self.page.set_viewport_size({"width": WIDTH, "height": min(height + 200, TALLEST)})
        notebook.first.evaluate("e => { e.scrollTop = 0; }")
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=SHOTS / f"{self.name}.png")
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})

    # Controls

    def widgets(self):
        """Index of each cell whose output is a live widget with a control."""
        count = self.page.locator(".jp-Cell").count()
        return [i for i in range(count) if self.output(i).locator(CONTROLS).count()]

    def output(self, cell):
        return self.page.locator(".jp-Cell").nth(cell).locator(".jp-Cell-outputArea")

    def controls(self, cell):
        """Each control of a cell's widget: what it is, and the two ends as things to do."""
        output = self.output(cell)
        for n in range(output.locator(".noUi-handle").count()):
            yield f"slider{n}", *_slider(output, n)
        for n in range(output.locator("select").count()):
            yield f"dropdown{n}", *_dropdown(output, n)
        for n in range(output.locator("input[type=number]").count()):
            yield f"number{n}", *_number(output, n)
        for n in range(output.locator(".widget-toggle-buttons").count()):
            yield f"choice{n}", *_ends(output, f".widget-toggle-buttons >> nth={n} >> button")
        for n in range(output.locator(".widget-radio-box").count()):
            yield f"radio{n}", *_ends(output, f".widget-radio-box >> nth={n} >> input")
        for n in range(output.locator("input[type=checkbox]").count()):
            yield f"checkbox{n}", *_twice(output, "input[type=checkbox]", n)
        for n in range(output.locator(TOGGLE).count()):
            yield f"toggle{n}", *_twice(output, TOGGLE, n)

    def unknown_controls(self, cell):
        """Controls that no line of ``controls`` moves, so that none goes untested."""
        known = (".widget-toggle-buttons button, button.widget-toggle-button, button.widget-button"
                 ", .jupyter-button, .widget-radio-box input, .widget-readout")  # fmt: skip
        return (
            self.output(cell)
            .locator(
                "xpath=.//*[self::input or self::textarea]"
                "[not(@type='number' or @type='checkbox' or @type='radio')]"
            )
            .count()
            + self.output(cell).locator(f"button:not({known})").count()
        )

    def rerun(self, cell):
        """A fresh widget, as the cell makes it."""
        self.page.evaluate(RUN_ONE, cell)
        self.wait_until_idle()
        self.output(cell).locator(CONTROLS).first.wait_for()
        self.settled(cell)

    def picture(self, cell):
        return self.output(cell).evaluate(PICTURES)

    def settled(self, cell, other_than=None):
        """The picture when it has stopped changing; waits for one ``other_than`` that given.

        None if it stays that one for ``REDRAW_S``.
        """
        deadline_s, before, since_s = time.monotonic() + REDRAW_S, object(), time.monotonic()
        while time.monotonic() < deadline_s:
            now = self.picture(cell)
            if now != before:
                before, since_s = now, time.monotonic()
            quiet = time.monotonic() - since_s > 0.5 and self.page.evaluate(IDLE)
            if quiet and now is not None and now != other_than:
                return now
            self.page.wait_for_timeout(50)
        return None

    def move_all(self, cell):
        """Each control of the cell to both ends: the picture must differ between them."""
        names = [name for name, *_ in self.controls(cell)]
        if n := self.unknown_controls(cell):
            yield f"cell {cell}: {n} controls that this test does not know how to move"
        for at, name in enumerate(names):
            self.rerun(cell)
            _, low, high = list(self.controls(cell))[at]
            yield from self._both_ends(cell, name, low, high)
        yield from self._buttons(cell)

    def _both_ends(self, cell, name, low, high):
        pictures = []
        for end, move in (("low", low), ("high", high)):
            move()
            picture = self.settled(cell, other_than=pictures[0] if pictures else None)
            pictures.append(picture)
            self._shot(cell, f"{name}-{end}")
            if picture is None:
                what = "no picture" if end == "low" else "the same picture at both ends"
                yield f"cell {cell}, {name}: expected another picture, found {what}"
                return

    def _buttons(self, cell):
        """Plain buttons, in two rounds (a reset changes nothing at first)."""
        buttons = self.output(cell).locator(BUTTON)
        idle = set(range(buttons.count()))
        if idle:
            self.rerun(cell)
        for _ in range(2):
            for n in range(buttons.count()):
                before = self.settled(cell)
                buttons.nth(n).click()
                if self.settled(cell, other_than=before) is not None:
                    idle.discard(n)
                self._shot(cell, f"button{n}")
        for n in idle:
            yield f"cell {cell}, button{n}: expected another picture, found the same"

    def _shot(self, cell, what):
        self.output(cell).screenshot(path=SHOTS / f"{self.name}-cell{cell:02d}-{what}.png")


def _is_web(url):
    return urlsplit(url).scheme in ("http", "https", "ws", "wss")


def _slider(output, n):
    handle = output.locator(".noUi-handle").nth(n)
    return lambda: handle.press("Home"), lambda: handle.press("End")


def _dropdown(output, n):
    select = output.locator("select").nth(n)
    last = select.locator("option").count() - 1
    return lambda: select.select_option(index=0), lambda: select.select_option(index=last)


def _number(output, n):
    box = output.locator("input[type=number]").nth(n)

    def put(value):
        box.fill(value)
        box.press("Enter")

    low, high = box.get_attribute("min") or "0", box.get_attribute("max") or "1"
    return lambda: put(low), lambda: put(high)


def _ends(output, css):
    choices = output.locator(css)
    return lambda: choices.first.click(), lambda: choices.last.click()


def _twice(output, css, n):
    control = output.locator(css).nth(n)
    return control.click, control.click


# The lessons ---------------------------------------------------------------------------------


def test_there_are_lessons():
    assert LESSONS, "notebooks/ holds no lesson (NN_name.ipynb): nothing here is checked"


def test_the_printed_url_leads_to_the_first_lesson(lab, open_notebook):
    assert lab.path == f"/lab/tree/{lab.work.name}/{FIRST}.ipynb"
    notebook = open_notebook(FIRST, lab.url)
    title = notebook.page.evaluate("() => window.qm9lab.panel.context.path")
    assert title == f"{lab.work.name}/{FIRST}.ipynb"
    assert not notebook.page.locator(".jp-Dialog").count(), "a dialog stands before the lesson"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_lesson_in_the_browser(path, open_notebook):
    notebook = open_notebook(path.stem)
    notebook.run_all()
    found = list(notebook.problems())
    notebook.screenshot()
    for cell in notebook.widgets():
        found += notebook.move_all(cell)
    found += [problem for problem in notebook.problems() if problem not in found]
    assert not found, "\n".join([f"{path.name}:", *found])


# The harness itself: what it must find, and what it must let pass --------------------------------

SETUP = """import ipywidgets, zlib, struct
from ipywidgets import *

def png(level):
    row = lambda: b"\\0" + bytes([level % 256]) * 40
    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
    head = struct.pack(">IIBBBBB", 40, 20, 8, 0, 0, 0, 0)
    data = zlib.compress(b"".join(row() for _ in range(20)))
    start = b"\\x89PNG\\r\\n\\x1a\\n"
    return start + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")

def view(control, draw, name="value"):
    picture = Image(value=png(1 if name == "click" else draw(control)))
    def redraw(_=None):
        picture.value = png(draw(control))
    control.on_click(redraw) if name == "click" else control.observe(redraw, name)
    return VBox([control, picture])
"""
LIVE = [
    "view(IntSlider(min=0, max=130830, value=7), lambda c: c.value)",
    "view(IntSlider(min=0, max=9, continuous_update=False), lambda c: c.value)",
    "view(IntRangeSlider(min=0, max=100, value=(5, 95)), lambda c: sum(c.value))",
    "view(FloatSlider(min=0, max=1), lambda c: int(c.value * 9))",
    "view(SelectionSlider(options=['a', 'b']), lambda c: ord(c.value))",
    "view(Dropdown(options=['a', 'b', 'c']), lambda c: ord(c.value))",
    "view(BoundedIntText(min=3, max=9, value=5), lambda c: c.value)",
    "view(ToggleButtons(options=['a', 'b', 'c']), lambda c: ord(c.value))",
    "view(RadioButtons(options=['a', 'b']), lambda c: ord(c.value))",
    "view(Checkbox(), lambda c: c.value)",
    "view(ToggleButton(), lambda c: c.value)",
    "n = 1\nview(Button(description='next'), lambda c: globals().update(n=n + 1) or n, 'click')",
]
DEAD = [
    "view(IntSlider(min=0, max=9), lambda c: 3)",
    "view(IntSlider(min=0, max=9), lambda c: c.value % 9)",
    "view(Dropdown(options=['a', 'b']), lambda c: 3)",
    "view(ToggleButtons(options=['a', 'b']), lambda c: 3)",
    "view(Button(), lambda c: 1, 'click')",
    "view(Text(), lambda c: len(c.value))",
]


def _cells(*sources):
    return [new_code_cell(source) for source in (SETUP, *sources)]


def test_harness_passes_each_kind_of_control_that_works(lab, open_notebook):
    notebook = open_notebook(lab.add("live", *_cells(*LIVE)))
    notebook.run_all()
    assert notebook.widgets() == list(range(1, len(LIVE) + 1))
    assert [p for cell in notebook.widgets() for p in notebook.move_all(cell)] == []
    assert list(notebook.problems()) == []


def test_harness_finds_each_kind_of_control_that_does_nothing(lab, open_notebook, monkeypatch):
    monkeypatch.setattr("test_browser.REDRAW_S", 2)
    notebook = open_notebook(lab.add("dead", *_cells(*DEAD)))
    notebook.run_all()
    found = [list(notebook.move_all(cell)) for cell in range(1, len(DEAD) + 1)]
    assert [len(problems) for problems in found] == [1] * len(DEAD), found


BAD_PAGE = {
    "a picture that did not load": new_markdown_cell("![gone](../figures/none.svg)"),
    "a request left the machine": new_markdown_cell("![far](http://192.0.2.1/x.png)"),
    "a traceback on the page": new_code_cell("print('Traceback', file=__import__('sys').stderr)"),
    "a widget that is not there": new_code_cell(
        "from IPython.display import display\n"
        "display({'application/vnd.jupyter.widget-view+json': {'model_id': 'x', "
        "'version_major': 2, 'version_minor': 0}, 'text/plain': 'x'}, raw=True)"
    ),
    "the kernel raised ZeroDivisionError": new_code_cell("1 / 0"),
    "a code cell without a number": new_code_cell("'not run, after an error'"),
}


def test_harness_finds_what_must_not_be_on_a_page(lab, open_notebook):
    notebook = open_notebook(lab.add("bad", *BAD_PAGE.values()))
    notebook.run_all()
    notebook.page.wait_for_timeout(500)
    found = list(notebook.problems())
    missed = [what for what in BAD_PAGE if not any(problem.startswith(what) for problem in found)]
    assert not missed, found


def test_harness_hears_an_error_in_a_control(lab, open_notebook):
    notebook = open_notebook(lab.add("callback", *_cells(
        "view(IntSlider(min=0, max=9), lambda c: c.value if c.value < 9 else 1 / 0)")))  # fmt: skip
    notebook.run_all()
    assert not list(notebook.problems())
    notebook.page.locator(".noUi-handle").press("End")
    notebook.page.wait_for_timeout(1000)
    assert any("ZeroDivisionError" in problem for problem in notebook.problems())
