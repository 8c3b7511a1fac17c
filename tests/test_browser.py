"""Every lesson in a real browser: run to the bottom, each control at both ends, no traceback.

One JupyterLab, started by ``make lab`` itself on copies of the lessons of its own, and one
headless Chromium. ``make test-browser`` installs what is needed and runs this.
"""

import ast
import contextlib
import mmap
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("[0-9w]*.ipynb"))
FIRST = "00_start_here"
SHOTS = ROOT / ".screenshots"

START_S, OPEN_S, RUN_S, REDRAW_S = 300, 180, 400, 30  # generous: the machine may be busy
PAGE = mmap.PAGESIZE
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
BUTTON = "button.widget-button:not(.widget-toggle-button):not(.widget-toggle-buttons *)"
KNOWN_BUTTONS = ".widget-toggle-buttons button, button.widget-button:not(.widget-toggle-button)"


class Notebook:
    """A notebook that is open in a page, and what went wrong there."""

    def __init__(self, page, name, lab):
        self.page, self.name, self.lab = page, name, lab
        self.left_the_machine = []
        page.route(lambda url: not url.startswith(lab.base) and _is_web(url), self._refuse)
        page.on("websocket", lambda socket: self._note(socket.url))
        page.set_default_timeout(OPEN_S * 1000)

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

    def still_missed(self, expected, timeout_s=REDRAW_S):
        """Beginnings of problems that are not found, however long one looks."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            found = list(self.problems())
            missed = [what for what in expected if not any(p.startswith(what) for p in found)]
            if not missed or time.monotonic() > deadline_s:
                return missed
            self.page.wait_for_timeout(200)

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
        """Index of each cell whose output is a live widget with a control.

        The live page map has tests of its own, below.
        """
        count = self.page.locator(".jp-Cell").count()
        found = [i for i in range(count) if self.output(i).locator(CONTROLS).count()]
        return [i for i in found if not self.output(i).locator(".qm9-page-map").count()]

    def output(self, cell):
        return self.page.locator(".jp-Cell").nth(cell).locator(".jp-Cell-outputArea")

    def controls(self, cell):
        """Each control of a cell's widget: its name, and the two ends as things to do."""
        output = self.output(cell)
        for n, handle in enumerate(output.locator(".noUi-handle").all()):
            yield f"slider{n}", partial(handle.press, "Home"), partial(handle.press, "End")
        for n, menu in enumerate(output.locator("select").all()):
            last = menu.locator("option").count() - 1
            ends = [partial(menu.select_option, index=index) for index in (0, last)]
            yield f"dropdown{n}", *ends
        for n, choice in enumerate(output.locator(".widget-toggle-buttons").all()):
            buttons = choice.locator("button")
            yield f"choice{n}", buttons.first.click, buttons.last.click

    def unknown_controls(self, cell):
        """Controls that ``controls`` and ``BUTTON`` do not know, so that none goes untested."""
        output = self.output(cell)
        n_inputs = output.locator("xpath=.//*[self::input or self::textarea]").count()
        return n_inputs + output.locator(f"button:not({KNOWN_BUTTONS})").count()

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

    def change(self, cell, act):
        """Do something that must change the picture."""
        before = self.settled(cell)
        act()
        assert self.settled(cell, other_than=before) is not None

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


# The lessons ---------------------------------------------------------------------------------


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
    if path.stem in OF_A_LESSON:
        (cell,) = notebook.widgets()
        notebook.rerun(cell)
        OF_A_LESSON[path.stem](notebook, cell)
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
    "view(Dropdown(options=['a', 'b', 'c']), lambda c: ord(c.value))",
    "view(ToggleButtons(options=['a', 'b', 'c']), lambda c: ord(c.value))",
    "n = 1\nview(Button(description='next'), lambda c: globals().update(n=n + 1) or n, 'click')",
]
DEAD = [
    "view(IntSlider(min=0, max=9), lambda c: 3)",
    "view(IntSlider(min=0, max=9), lambda c: c.value % 9)",
    "view(Dropdown(options=['a', 'b']), lambda c: 3)",
    "view(ToggleButtons(options=['a', 'b']), lambda c: 3)",
    "view(Button(), lambda c: 1, 'click')",
    "view(Text(), lambda c: len(c.value))",
    "view(Checkbox(), lambda c: c.value)",
    "view(ToggleButton(), lambda c: c.value)",
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
    missed = notebook.still_missed(BAD_PAGE)
    assert not missed, list(notebook.problems())


def test_harness_hears_an_error_in_a_control(lab, open_notebook):
    notebook = open_notebook(lab.add("callback", *_cells(
        "view(IntSlider(min=0, max=9), lambda c: c.value if c.value < 9 else 1 / 0)")))  # fmt: skip
    notebook.run_all()
    assert not list(notebook.problems())
    notebook.page.locator(".noUi-handle").press("End")
    assert not notebook.still_missed(["the kernel raised ZeroDivisionError"])


# The live page map: what is drawn is what the kernel says -----------------------------------------

# The notebook's own instruments, which share no code with the package: mincore(2) and pagemap.
PAGES = """import ctypes, mmap, os, time
from pathlib import Path
import numpy as np
from qm9lab import measure, qm9
from qm9lab.course import folders
from qm9lab.lessons.lesson_06 import pages
from qm9lab.lessons.lesson_06.widget import PageMap

path = folders.lesson_folder() / "pages.dat"
path.write_bytes(os.urandom(N_PAGES * mmap.PAGESIZE - 100))
starts = list(range(0, path.stat().st_size, 1000))

def map_file(path):
    with open(path, "r+b") as f:
        return mmap.mmap(f.fileno(), 0)

def kernel_says():
    n, page = session.n_pages, mmap.PAGESIZE
    at = np.frombuffer(session.mm, np.uint8).__array_interface__["data"][0]
    with open("/proc/self/pagemap", "rb") as f:
        f.seek(at // page * 8)
        entries = np.frombuffer(f.read(n * 8), np.uint64)
    vector = np.zeros(n, np.uint8)
    assert not ctypes.CDLL(None).mincore(
        ctypes.c_void_p(at), ctypes.c_size_t(n * page), ctypes.c_void_p(vector.ctypes.data))
    mapped = entries >> np.uint64(63) == 1
    return [np.where(mapped, 2, vector & 1).astype(np.uint8).tobytes(), session.steps[-1].name,
            measure.cache_state(path).n_dirty]

def seconds_to_show():
    start = time.perf_counter()
    page_map._hear(page_map, {"act": "look"}, [])
    return time.perf_counter() - start
"""
PAGES_VIEW = """session = pages.Session(path, map_file, starts)
page_map = PageMap(session)
page_map"""
# Each page's square, by the colours in it: 0 on disk, 1 cached, 2 mapped; and whether a bar is on
# its middle row. Colours are those of plots.MEANINGS, as #RRGGBB.
DRAWN = """(root, looks) => {
  const canvas = root.querySelector('canvas.qm9-pages'), width = canvas.width;
  const { data } = canvas.getContext('2d').getImageData(0, 0, width, canvas.height);
  const colours = new Uint32Array(data.buffer), columns = Number(root.dataset.columns);
  const known = new Map([...looks, '#FFFFFF', '#222222'].map((look, at) => {
    const [r, g, b] = [1, 3, 5].map(k => parseInt(look.slice(k, k + 2), 16));
    return [(255 << 24 | b << 16 | g << 8 | r) >>> 0, at];
  }));
  const cell = width / columns, middle = (cell > 4 ? cell - 1 : cell) >> 1;
  const kinds = [];
  let dirty = 0;
  for (let page = 0; page < Number(root.dataset.pages); page++) {
    const at = Math.floor(page / columns) * cell * width + page % columns * cell;
    let kind = -1;
    for (let y = 0; y < cell; y++)
      for (let x = 0; x < cell; x++) {
        const found = known.get(colours[at + y * width + x]);
        if (found === undefined) throw new Error(`a colour without a meaning on page ${page}`);
        if (found < looks.length) kind = Math.max(kind, found);
      }
    kinds.push(kind);
    dirty += known.get(colours[at + middle * width + middle]) >= looks.length;
  }
  return {kinds, dirty, step: Number(root.dataset.step), drawMs: Number(canvas.dataset.drawMs)};
}"""


class LivePageMap:
    """The page map in a notebook's page, driven as a learner or a screen reader does."""

    def __init__(self, notebook):
        self.notebook, self.page = notebook, notebook.page
        self.root = self.page.locator(".qm9-page-map")
        self.root.wait_for()
        self.canvas = self.root.get_by_role("application")

    def drawn(self):
        from qm9lab.course import plots

        looks = [look.color.upper() for look in plots.MEANINGS.values()]
        return self.root.evaluate(DRAWN, looks)

    def do(self, act, name):
        """Do one thing; the map must then be what the kernel says. Returns what is drawn."""
        steps = int(self.root.get_attribute("data-step"))
        act()
        self.root.and_(self.page.locator(f"[data-step='{steps + 1}']")).wait_for(timeout=10_000)
        words = self.root.get_by_role("status").inner_text()
        for _ in range(50):  # readahead and write-back go on by themselves: look until they rest
            drawn = self.drawn()
            kinds, done, n_dirty = self.notebook.ask("kernel_says()")
            if drawn["kinds"] == list(kinds) and drawn["dirty"] == n_dirty:
                break
            step = self.root.get_attribute("data-step")
            self.root.get_by_role("button", name="look again").click()
            self.root.and_(self.page.locator(f"[data-step='{int(step) + 1}']")).wait_for()
        assert drawn["kinds"] == list(kinds) and drawn["dirty"] == n_dirty
        assert done in (name, "look again") and words
        return {**drawn, "words": words}

    def button(self, name, done=None):
        button = self.root.get_by_role("button", name=name, exact=True)
        return self.do(button.click, done or name)

    def press(self, key, name=None):
        """A key on the map; with ``name`` it is an act."""
        if name is None:
            return self.canvas.press(key)
        return self.do(lambda: self.canvas.press(key), name)


@pytest.fixture
def live_page_map(lab, open_notebook):
    def open_(name, n_pages):
        source = PAGES.replace("N_PAGES", str(n_pages))
        notebook = open_notebook(lab.add(name, new_code_cell(source), new_code_cell(PAGES_VIEW)))
        notebook.run_all()
        return LivePageMap(notebook)

    return open_


def mapped_by(drawn):
    return {page for page, kind in enumerate(drawn["kinds"]) if kind == 2}


def test_page_map_by_mouse_is_what_the_kernel_says(live_page_map):
    live = live_page_map("page_map_mouse", 600)
    assert not any(live.button("make cold")["kinds"])
    columns, box = int(live.root.get_attribute("data-columns")), live.canvas.bounding_box()
    cell = box["width"] / columns
    live.canvas.hover(position={"x": 3.5 * cell, "y": 2.5 * cell})
    page = 2 * columns + 3
    first, last = page * PAGE // 1000, (page * PAGE + PAGE - 1) // 1000
    words = f"Page {page}, file offset {page * PAGE:,}, molecules {first} to {last}, on disk only"
    assert live.root.get_by_text(words, exact=True).count() == 1
    at = {"x": 3.5 * cell, "y": 2.5 * cell}
    drawn = live.do(lambda: live.canvas.click(position=at), f"read page {page}")
    assert page in mapped_by(drawn) and "1 major fault" in drawn["words"]
    live.root.get_by_label("touch to").select_option("write")
    drawn = live.do(lambda: live.canvas.click(position=at), f"write to page {page}")
    assert drawn["dirty"] >= 1
    assert live.button("flush")["dirty"] == 0
    live.root.get_by_label("touch to").select_option("read")
    assert len(mapped_by(live.button("scan", "read every page"))) == 600
    assert "mapped is not evicted" in live.button("make cold")["words"]
    assert not mapped_by(live.button("drop the map"))
    assert not any(live.button("make cold")["kinds"])
    for name in ("RANDOM", "SEQUENTIAL", "NORMAL"):
        assert not any(live.button(name, f"madvise {name}")["kinds"])
        pressed = live.root.get_by_role("button", name=name, pressed=True)
        assert pressed.count() == live.root.get_by_role("button", pressed=True).count() == 1
    assert any(live.button("WILLNEED", "madvise WILLNEED")["kinds"])
    assert len(mapped_by(live.button("POPULATE_READ", "madvise POPULATE_READ"))) == 600
    assert set(live.button("DONTNEED", "madvise DONTNEED")["kinds"]) == {1}
    assert not list(live.notebook.problems())


def test_page_map_by_keyboard_is_what_the_kernel_says(live_page_map):
    live = live_page_map("page_map_keys", 600)
    columns = int(live.root.get_attribute("data-columns"))
    live.button("make cold")
    live.button("RANDOM", "madvise RANDOM")
    live.canvas.focus()
    assert live.canvas.evaluate("e => e === document.activeElement")
    for key in ["ArrowDown"] * 2 + ["ArrowRight"] * 5 + ["ArrowLeft", "ArrowUp"]:
        live.press(key)
    page = columns + 4
    assert mapped_by(live.press("Enter", f"read page {page}")) == {page}
    live.press("End")
    assert mapped_by(live.press(" ", "read page 599")) == {page, 599}
    live.press("Home")
    assert live.press("w", "write to page 0")["dirty"] == 1
    live.press("PageDown")
    assert 10 * columns in mapped_by(live.press("r", f"read page {10 * columns}"))
    # Past either end the cursor stays on the map; and the notebook heard none of these keys.
    live.press("End")
    live.press("ArrowDown")
    live.press("Home")
    live.press("ArrowUp")
    assert live.root.get_by_text("Page 0, file offset 0", exact=False).first.is_visible()
    assert live.notebook.page.locator(".jp-Cell").count() == 2
    # The sliders at both ends, by their labels, and the buttons beside them by the keyboard.
    for label, button, last in (("page", "touch page", 599), ("molecule", "touch molecule", None)):
        slider = live.root.get_by_role("slider", name=label, exact=True)
        last = int(slider.get_attribute("max")) if last is None else last
        for key, number in (("End", last), ("Home", 0)):
            slider.press(key)
            touch = live.root.get_by_role("button", name=button, exact=True)
            name = f"read {label} {number:,}"
            assert name.capitalize() in live.do(lambda: touch.press("Enter"), name)["words"]  # noqa: B023
    access = live.root.get_by_label("touch to")
    for choice, verb in (("write", "write to"), ("read", "read")):
        access.select_option(choice)
        live.press("Enter", f"{verb} page 0")
    assert not list(live.notebook.problems())


def test_page_map_reads_well_to_a_screen_reader(live_page_map):
    live = live_page_map("page_map_reader", 600)
    name = live.canvas.get_attribute("aria-label")
    assert name == "Page map of pages.dat, 600 pages"
    keys = live.canvas.get_attribute("aria-describedby")
    assert "Enter touches" in live.root.locator(f"#{keys}").inner_text()
    live.canvas.focus()
    live.canvas.press("ArrowRight")
    spoken = live.root.locator("[aria-live=polite]")
    words = f"Page 1, file offset {PAGE:,}, molecules {PAGE // 1000} to {(2 * PAGE - 1) // 1000}"
    assert spoken.inner_text().startswith(words)
    assert re.search("on disk only|in the page cache|mapped in this process", spoken.inner_text())
    slider = live.root.get_by_role("slider", name="page", exact=True)
    assert slider.get_attribute("aria-valuetext") == spoken.inner_text()
    assert live.root.get_by_role("group", name="madvise: now").get_by_role("button").count() == 3
    assert live.root.get_by_role("list", name="Pages by state").get_by_role("listitem").count() == 4
    live.press("Enter", "read page 1")
    assert live.root.get_by_role("status").inner_text().startswith("Read page 1: ")
    table = live.root.get_by_role("table", name=re.compile("The last acts"))
    assert table.get_by_role("columnheader").all_inner_texts()[1:3] == ["major", "minor"]
    assert table.get_by_role("rowheader").first.inner_text() in ("read page 1", "look again")
    # Every control can be reached by Tab and has a name.
    nameless = live.root.evaluate("""root => [...root.querySelectorAll('button, input, select')]
      .filter(e => e.tabIndex < 0 || !(e.textContent.trim() || (e.labels && e.labels.length)))
      .map(e => e.outerHTML)""")
    assert not nameless


@pytest.mark.timing
def test_page_map_of_128_mib_is_drawn_in_time(live_page_map):
    live = live_page_map("page_map_big", 32_768)
    live.button("make cold")
    live.canvas.focus()
    for key in ("PageDown", "PageDown", "ArrowRight"):
        live.press(key)
    page = 20 * int(live.root.get_attribute("data-columns")) + 1
    drawn = live.press("w", f"write to page {page:,}")
    by_python_ms = live.notebook.ask("1000 * min(seconds_to_show() for _ in range(5))")
    assert drawn["drawMs"] + by_python_ms < 200, (drawn["drawMs"], by_python_ms)


# The mmap call explorer: what it says is what the kernel says -------------------------------------

# The same call made in the notebook's own kernel, without a touch, by code that is not qm9lab's.
CALL = """import ctypes, errno, mmap, os
from qm9lab import qm9
from qm9lab.course import folders
from qm9lab.lessons.lesson_03 import calls
from qm9lab.lessons.lesson_03 import pictures as parameters
from qm9lab.lessons.lesson_03.widget import CallExplorer

folder = folders.lesson_folder()
(folder / "file").write_bytes(bytes(mmap.PAGESIZE * 5 // 2))
(folder / "none").touch()
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]

def kernel_says(length, prot, flags, name, mode, offset):
    fd = os.open(folder / name, mode) if name else 10**6
    start = libc.mmap(None, length, prot, flags, fd, offset)
    name and os.close(fd)
    if start == ctypes.c_void_p(-1).value:
        return [errno.errorcode[ctypes.get_errno()], "", 0]
    line = [r.split() for r in open("/proc/self/maps") if r.startswith(f"{start:x}-")][0]
    first, last = (int(word, 16) for word in line[0].split("-"))
    libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(last - first))
    return ["", line[1], (last - first) // mmap.PAGESIZE]

def show_call(**six):
    outcome = calls.make(folder, calls.Choice(**six))
    return parameters.call(outcome), outcome.sentence
"""
CALL_VIEW = "CallExplorer(show_call)"


class Explorer:
    """The call explorer in a page: six menus by their labels, and the sentence below them."""

    def __init__(self, notebook):
        self.notebook, self.page = notebook, notebook.page
        self.root = notebook.output(1)
        self.sentence = self.root.get_by_role("status")
        self.sentence.wait_for()

    def menu(self, name):
        return self.root.get_by_label(name, exact=True)

    def after(self, act):
        """The sentence after ``act``, which must change the picture."""
        self.notebook.change(1, act)
        return self.sentence.inner_text()

    def choose(self, name, value):
        return self.after(lambda: self.menu(name).select_option(value))

    def press(self, name, *keys):
        def move():
            self.menu(name).focus()
            for key in keys:
                self.page.keyboard.press(key)

        return self.after(move)

    def agrees(self, words, length, prot, flags, name, mode, offset):
        call = f"kernel_says({length}, {prot}, {flags}, {name!r}, {mode}, {offset})"
        error, perms, n_pages = self.notebook.ask(call)
        expected = f"{error}, " if error else f"{n_pages} page{'s' * (n_pages > 1)}, {perms} "
        assert words.startswith(expected), (words, expected)
        return words


def test_the_call_explorer_says_what_the_kernel_says(lab, open_notebook):
    notebook = open_notebook(lab.add("calls", new_code_cell(CALL), new_code_cell(CALL_VIEW)))
    notebook.run_all()
    explorer = Explorer(notebook)
    read, write = "os.O_RDONLY", "os.O_RDWR"
    both, size = 3, PAGE * 5 // 2
    explorer.agrees(explorer.sentence.inner_text(), size, 1, 1, "file", read, 0)
    # With the mouse.
    words = explorer.choose("prot", "PROT_READ|PROT_WRITE")
    assert words.endswith("Change prot or flags or fd.")
    explorer.agrees(words, size, both, 1, "file", read, 0)
    words = explorer.choose("fd", "r+b")
    explorer.agrees(words, size, both, 1, "file", write, 0)
    assert "The first byte: reads 'a', a write reaches the file." in words
    assert "The last byte: reads 0, a write does not reach the file." in words
    words = explorer.choose("length", "file size + a page")
    explorer.agrees(words, size + PAGE, both, 1, "file", write, 0)
    assert "1 page past the end of the file" in words and "SIGBUS" in words
    # Menus, a long sentence and the picture fit into what JupyterLab leaves of a small screen.
    for width, height in ((1366, 768), (1280, 720)):
        explorer.page.set_viewport_size({"width": width, "height": height})
        assert explorer.root.bounding_box()["height"] <= 560
    explorer.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    # With the keyboard: the next entry, the last one, the first one, and by its first letters.
    words = explorer.press("flags", "ArrowDown")
    explorer.agrees(words, size + PAGE, both, 2, "file", write, 0)
    assert explorer.menu("flags").input_value() == "MAP_PRIVATE" and "private" in words
    words = explorer.press("offset", "h")
    explorer.agrees(words, size + PAGE, both, 2, "file", write, PAGE // 2)
    assert words.startswith("EINVAL") and words.endswith("Change offset.")
    words = explorer.press("length", "End")
    explorer.agrees(words, 2**60, both, 2, "file", write, PAGE // 2)
    words = explorer.press("fd", "End")
    explorer.agrees(words, 2**60, both, 2, "", read, PAGE // 2)
    # Accesses that kill were made in a child process: this kernel still answers.
    assert notebook.ask("1 + 1") == 2 and not list(notebook.problems())


# The widget of lesson 08, by keyboard, in the lesson itself --------------------------------------


def layout_explorer(notebook, cell):
    """Its pages are those of a count value by value."""
    output, n = notebook.output(cell), len(range(0, 130_831, 512))
    asked = {
        "one molecule": ([100], None),
        "one property of all": (range(n), [7]),
        "100 neighbours": (range(100, 200), None),
    }

    def expected(layout, question, n_fields):
        molecules, fields = asked[question]
        values = ((i, j) for i in molecules for j in fields or range(n_fields))
        places = (i * n_fields + j if layout == "rows" else j * n + i for i, j in values)
        n_touched, n_pages = len({4 * at // PAGE for at in places}), -(-4 * n * n_fields // PAGE)
        words = f"{layout}, {question}, {n_fields} fields: {n_touched} of {n_pages} pages"
        return f"{words}; the kernel says the same"

    now = {"layout": "rows", "question": "one molecule", "n_fields": 19}
    output.get_by_text(expected(**now), exact=True).wait_for()
    for control, value, key in (
        ("n_fields", 1280, "Enter"),
        ("layout", "columns", " "),
        ("question", "100 neighbours", "Enter"),
        ("layout", "rows", "Enter"),
        ("question", "one property of all", " "),
        ("n_fields", 128, "Enter"),
    ):
        button = output.get_by_role("button", name=str(value), exact=True)
        notebook.change(cell, partial(button.press, key))
        now[control] = value
        output.get_by_text(expected(**now), exact=True).wait_for(timeout=REDRAW_S * 1000)


OF_A_LESSON = {
    "08_random_access": layout_explorer,
}
