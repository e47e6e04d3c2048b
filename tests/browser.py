"""A real browser for tests of a page: Debian's Chromium, driven by Playwright."""

import base64
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = "/usr/bin/chromium"
# Without a display, a sandbox, and requests of the browser itself.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Runs in the page before its script: records what the Content-Security-Policy refuses.
NOTE_VIOLATIONS = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) =>
  refused.push(`${event.violatedDirective} refused ${event.blockedURI}`));
"""


@contextmanager
def chromium():
    """Yield the browser; skip the tests where it or Playwright is not installed."""
    reason = "needs a real browser: pip install '.[test-all]', and Debian's chromium"
    sync_api = pytest.importorskip("playwright.sync_api", reason=reason)
    if not shutil.which(CHROMIUM):
        pytest.skip(reason)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A page opened from a file: what it shows, and its problems."""

    def __init__(self, browser, path, **context):
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.messages, self.requests = [], []
        self.page.on("console", self._record_message)
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.add_init_script(NOTE_VIOLATIONS)
        self.page.goto(path.as_uri())
        self.settled()  # the script unpacks its numbers first

    def _record_message(self, message):
        if message.type in ("error", "warning"):
            self.messages.append(message.text)

    def problems(self):
        """Return console errors and warnings, refusals, and requests to anything but the page."""
        local = (self.page.url, "blob:", "data:")
        outside = [url for url in self.requests if not url.startswith(local)]
        return self.messages + outside + self.page.evaluate("window.refused")

    def close(self):
        self.context.close()

    def settled(self):
        """Wait until the page shows its answer."""
        # Not wait_for_function: it evaluates text in the page, which the page's policy forbids.
        self.page.locator("#answer[aria-busy=false]").wait_for(state="attached")
        return self

    def choose(self, data, name="photo.png", kind="image/png"):
        """Give the page a file, like the button."""
        file = {"name": name, "mimeType": kind, "buffer": data}
        self.page.locator("#file").set_input_files(file)
        return self.settled()

    def bring(self, event, files):
        """Paste or drop ``files``, pairs of bytes and media type, with a made-up event."""
        self.page.evaluate(
            """([type, files]) => {
              const transfer = new DataTransfer();
              for (const [text, kind] of files) {
                const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
                transfer.items.add(new File([bytes], "picture", { type: kind }));
              }
              const made = type === "paste"
                ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
                : new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true });
              document.body.dispatchEvent(made);
            }""",
            [event, [(base64.b64encode(data).decode(), kind) for data, kind in files]],
        )
        return self.settled()

    def guesses(self):
        """Return the names shown, best first."""
        return self.page.locator("#answer .name").all_text_contents()

    def shares(self):
        """Return the probabilities shown, in per cent."""
        texts = self.page.locator("#answer .share").all_text_contents()
        return [float(text.removesuffix("%")) for text in texts]

    def warnings(self):
        """Return the warnings and errors shown."""
        return self.page.locator("#answer .warning").all_text_contents()

    def pixels(self):
        """Return the grey levels that the page shows."""
        return self.page.evaluate(
            """() => {
              const { width, height } = document.querySelector("#seen");
              const { data } = document.querySelector("#seen").getContext("2d")
                .getImageData(0, 0, width, height);
              return Array.from({ length: width * height }, (_, i) => data[4 * i]);
            }"""
        )
