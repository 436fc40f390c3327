"""A real headless Chromium, driven through a pipe: no port, no driver program.

Covers: Debian's chromium-headless-shell (an installed one, else unpacked into the cache folder),
opening a file, what it looks like, what it said on the console, what it asked the network for.
Does not cover: any other browser.
"""

import base64
import fcntl
import json
import os
import platform
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

from bacula_bridge import debian
from bacula_bridge.programs import default_cache

INSTALLED = ("chromium-headless-shell", "chromium")
PACKAGES = ("chromium-headless-shell", "fonts-dejavu-core", "fontconfig-config")
FONTS_FILE = "fonts.conf"
SYSTEM_FONTS = "/usr/share/fonts"  # what this machine has is not unpacked again
ANSWER_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
CLOSED_PROXY = "http://127.0.0.1:9"  # whatever the browser asks for on its own goes nowhere


def browser_command():
    """Return the browser's program and environment; the first call may download 100 MB."""
    for name in INSTALLED:
        if path := shutil.which(name):
            return path, {}
    root = _private_root()
    triplet = debian.architecture()[1]
    folders = (f"usr/lib/{triplet}", f"usr/lib/{triplet}/pulseaudio", f"lib/{triplet}")
    libraries = [root / folder for folder in folders]
    program = root / "usr/lib/chromium/chromium-headless-shell"
    if not program.exists():
        program = next(root.glob("usr/**/chromium-headless-shell"))
    return str(program), {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "FONTCONFIG_FILE": str(root / FONTS_FILE),
    }


def _private_root():
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    root = default_cache() / f"chromium-{codename}"
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(root.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test workers may ask at once
        if not root.is_dir():
            _provide(root.with_suffix(".partial"), root, codename)
    return root


def _provide(partial, root, codename):
    """Unpack the browser and what of its needs this machine does not have."""
    shutil.rmtree(partial, ignore_errors=True)
    scratch, unpacked = partial / "scratch", partial / "root"
    scratch.mkdir(parents=True)
    unpacked.mkdir()
    debian.require_tools()
    configuration = debian.prepare(scratch, debian.configured_mirror(), debian.archive_keyring())
    sources = scratch / "apt" / "sources.list"
    sources.write_text(sources.read_text().replace(f" {debian.SUITE} ", f" {codename} "))
    shutil.copy("/var/lib/dpkg/status", scratch / "apt" / "status")
    debian.run_apt(configuration, ["update"], scratch, "the package lists")
    arguments = ["install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES]
    debian.run_apt(configuration, arguments, scratch, "Chromium")
    for archive in sorted((scratch / "apt" / "cache" / "archives").glob("*.deb")):
        debian.unpack(archive, unpacked)
    fonts = "".join(f"<dir>{folder}</dir>" for folder in (root / "usr/share/fonts", SYSTEM_FONTS))
    (unpacked / FONTS_FILE).write_text(f"<fontconfig>{fonts}</fontconfig>\n")
    unpacked.rename(root)
    shutil.rmtree(partial)


class Page:
    """One page, and everything that it did."""

    def __init__(self, call, events):
        self._call = call
        self._events = events

    def open(self, path, width, height=900, *, dark=False):
        """Load a file at a width; return when it has been painted."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", {"features": [scheme]})
        loaded = len(self.events("Page.loadEventFired"))
        self._call("Page.navigate", {"url": path.absolute().as_uri()})
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while len(self.events("Page.loadEventFired")) == loaded:
            assert time.monotonic() < deadline, "the page did not load"
            self.evaluate("1")

    def evaluate(self, script):
        answer = self._call("Runtime.evaluate", {"expression": script, "returnByValue": True})
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def events(self, *methods):
        return [event["params"] for event in self._events if event["method"] in methods]

    def complaints(self):
        """Return all that the console got."""
        return self.events("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")

    def requested(self):
        """Return the addresses that were asked for."""
        return [event["request"]["url"] for event in self.events("Network.requestWillBeSent")]

    def screenshot(self):
        """Return the whole page as a PNG."""
        height = self.evaluate("document.documentElement.scrollHeight")
        width = self.evaluate("window.innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self._call(
            "Page.captureScreenshot",
            {"format": "png", "clip": clip, "captureBeyondViewport": True},
        )
        return base64.b64decode(shot["data"])

    def printed(self):
        """Return the page on paper, as a PDF."""
        return base64.b64decode(self._call("Page.printToPDF", {"printBackground": False})["data"])


@contextmanager
def browser(folder):
    """Yield a Page of a browser of its own; folder takes its profile."""
    program, others = browser_command()
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    inner = [os.dup(to_read), os.dup(from_write)]  # above 4, so that 3 and 4 are free to be set
    arguments = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
        *(f"--user-data-dir={folder / 'profile'}", "--no-first-run", "--disable-dev-shm-usage"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--proxy-server={CLOSED_PROXY}", "--hide-scrollbars", "about:blank"),
    ]
    script = f'exec "$0" "$@" 3<&{inner[0]} 4>&{inner[1]}'
    with open(folder / "browser.log", "wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", script, program, *arguments],
            pass_fds=inner,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **others, "HOME": str(folder)},
        )
    for descriptor in (to_read, from_write, *inner):
        os.close(descriptor)
    try:
        yield _attach(_Pipe(to_write, from_read))
    finally:
        os.close(to_write)
        os.close(from_read)
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Pipe:
    """The DevTools protocol: JSON messages that end with NUL."""

    def __init__(self, to_write, from_read):
        self._to, self._from = to_write, from_read
        self._data = b""
        self._number = 0
        self.events = []
        self.session = None

    def call(self, method, parameters=None):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters or {}}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            answer = self._read(deadline)
            if "method" in answer:
                self.events.append(answer)
            elif answer["id"] == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _read(self, deadline):
        while b"\0" not in self._data:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._from], [], [], left)[0], "the browser does not answer"
            data = os.read(self._from, 1 << 16)
            assert data, "the browser has ended: see browser.log"
            self._data += data
        message, _, self._data = self._data.partition(b"\0")
        return json.loads(message)


def _attach(pipe):
    target = pipe.call("Target.createTarget", {"url": "about:blank"})["targetId"]
    attached = pipe.call("Target.attachToTarget", {"targetId": target, "flatten": True})
    pipe.session = attached["sessionId"]
    for domain in ("Page", "Network", "Log", "Runtime"):
        pipe.call(f"{domain}.enable")
    return Page(pipe.call, pipe.events)
