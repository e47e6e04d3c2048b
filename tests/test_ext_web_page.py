"""The page that classifies in the browser: the file, and its behaviour in Chromium."""

import base64
import hashlib
import io
import json
import re
import zlib
from contextlib import contextmanager
from html.parser import HTMLParser

import browser
import numpy as np
import pytest

import npsoftmax as nps
from npsoftmax import SoftmaxRegression
from npsoftmax.errors import InputError, OutputError, ShapeError
from npsoftmax.ext import web_page
from npsoftmax.features import Patches, RandomFourier
from npsoftmax.novelty import ClassMeans

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>alert(2)",
    "{{script}} \\u003c & \" ' \u202e \u2028",
]


class Page(HTMLParser):
    """A saved page: the elements with their attributes, and the text in style and script."""

    def __init__(self, model, path):
        super().__init__()
        web_page.save(model, path)
        self.elements, self.blocks = [], []
        self.feed(path.read_bytes().decode())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] in ("style", "script") and data.strip():
            self.blocks.append((*self.elements[-1], data))

    def policy(self):
        content = next(a["content"] for t, a in self.elements if a.get("http-equiv"))
        return dict((rule.strip() + " ").split(" ", 1) for rule in content.split(";"))

    def model(self):
        return json.loads(next(text for _, a, text in self.blocks if a.get("id") == "model"))


@pytest.fixture
def model():
    """Return a model that tells images bright at left and right from ones bright at both ends."""
    model = SoftmaxRegression(784, 3, classes=["wide", "tall", "neither"], sigma=0)
    model.pixel_scale, model.framing = 1 / 255, "bounding-box"
    weights = np.zeros((3, 28, 28))
    weights[0, :, :4] = weights[0, :, -4:] = 0.05
    weights[1, :4] = weights[1, -4:] = 0.05
    model.W[:] = weights.reshape(3, 784)
    model.b[2] = 0.5
    return model


def unpacked(text):
    return zlib.decompress(base64.b64decode(text), -zlib.MAX_WBITS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "page.html"


def test_a_page_for_ten_classes_stays_under_96_kB(path):
    web_page.save(with_means(0.5, num_outputs=10), path)
    assert 60_000 < path.stat().st_size < 96_000


def test_the_same_model_gives_the_same_bytes(model, path):
    web_page.save(model, path)
    first = path.read_bytes()
    web_page.save(model, path)
    assert path.read_bytes() == first and b"\r" not in first


def test_only_the_style_and_script_of_the_page_are_allowed(model, path):
    page = Page(model, path)
    hashes = {
        tag: "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for tag, attributes, text in page.blocks
        if attributes.get("type") != "application/json"
    }
    policy = page.policy()
    assert policy.pop("script-src").strip() == hashes["script"]
    assert policy.pop("style-src").strip() == hashes["style"]
    assert {name: value.strip() for name, value in policy.items()} == {
        "default-src": "'none'",
        "img-src": "blob: data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
    }


def test_the_page_has_no_outside_links_and_no_inline_code(model, path):
    for tag, attributes in Page(model, path).elements:
        assert attributes.get("href", "data:").startswith("data:"), tag
        assert "src" not in attributes and "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
    text = path.read_text("utf-8")
    assert not [word for word in ("http:", "https:", "@import", "url(", "eval(") if word in text]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_numbers_are_those_of_the_model(dtype, path):
    model = SoftmaxRegression(784, 3, classes=HOSTILE, dtype=dtype, pixel_scale=1 / 255)
    model.temperature, model.pixel_scale = 2.0, 1 / 100
    means = np.linspace(0, 2.55, 784 * 3).reshape(784, 3)
    model.class_means = ClassMeans(means, [1.5, 2.0, 0.0])
    numbers = Page(model, path).model()
    theta = np.frombuffer(unpacked(numbers["theta"]), "<f4").reshape(784, 3).T
    np.testing.assert_array_equal(theta, (model.W / 2).astype(np.float32))
    np.testing.assert_array_equal(numbers["biases"], (model.theta[:, -1] / 2).astype(np.float32))
    levels = np.frombuffer(unpacked(numbers["means"]), np.uint8).reshape(3, 784).T
    np.testing.assert_allclose(levels / 100, means, atol=0.5 / 100 + 1e-6)
    assert numbers["radii"] == [1.5, 2.0, 0.0] and numbers["pixelScale"] == 1 / 100


def test_class_names_cannot_end_their_element(path):
    page = Page(SoftmaxRegression(784, 3, classes=HOSTILE, pixel_scale=1 / 255), path)
    assert page.model()["classes"] == HOSTILE
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert b"<img src=x" not in path.read_bytes()


def with_weights(value):
    model = SoftmaxRegression(784, 2, dtype=np.float64, pixel_scale=1 / 255)
    model.W[0, 0] = value
    return model


def with_means(value, num_outputs=2):
    model = SoftmaxRegression(784, num_outputs, pixel_scale=1 / 255)
    model.class_means = ClassMeans(np.full((784, num_outputs), value), np.ones(num_outputs))
    return model


def with_cosines():
    cosines = RandomFourier.fit(np.eye(784, 3), 5)
    return SoftmaxRegression(784, 2, pixel_scale=1 / 255, features=cosines)


def with_patches(X, side, filters=64, mirror=True, framing="bounding-box", num_outputs=10):
    """Return a model of random weights on features that are learned from the images."""
    features = Patches.fit(X, (side, side), filters=filters, size=6 * side // 28, mirror=mirror)
    model = SoftmaxRegression(
        side * side, num_outputs, sigma=2, pixel_scale=1 / 255, framing=framing, features=features
    )
    model.fit_class_means(X, np.arange(X.shape[1]) % num_outputs)
    return model


@pytest.mark.parametrize(("side", "framing"), [(28, "bounding-box"), (48, "square")])
def test_a_page_with_features_stays_under_100_kB(rng, side, framing, path):
    X = rng.integers(0, 256, (side * side, 100), dtype=np.uint8)
    model = with_patches(X, side, framing=framing)
    assert model.num_features == 1600
    web_page.save(model, path)
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (SoftmaxRegression(4, 2), ShapeError, "expected 784 inputs.*got 4 with .* to ONNX"),
        (SoftmaxRegression(784, 2), InputError, "expected one with a pixel scale.*to ONNX"),
        (
            SoftmaxRegression(784, 600, pixel_scale=1 / 255),
            InputError,
            "page of at most 2,097,152 bytes, got 2,",
        ),
        (
            SoftmaxRegression(784, 2, classes=["a" * 2**21, "b"], pixel_scale=1 / 255),
            InputError,
            "got 2,1",
        ),
        (with_weights(np.nan), InputError, "theta / temperature: expected finite"),
        (with_weights(1e300), InputError, "fit float32"),
        (with_means(-0.1), InputError, "grey levels 0 to 255, got -26 to -26"),
        (with_means(1.2), InputError, "got 306 to 306"),
        (with_cosines(), InputError, "expected none or those of Patches.*to ONNX instead"),
    ],
)
def test_refused_models_leave_no_file(model, error, message, path):
    with pytest.raises(error, match=message):
        web_page.save(model, path)
    assert not path.exists()


def test_an_unwritable_page(model, tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        web_page.save(model, tmp_path)


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return np.dot([0.2126, 0.7152, 0.0722], linear)


def contrast(one, other):
    """Return the contrast ratio of the Web Content Accessibility Guidelines, 1 to 21."""
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def test_colours_are_distinct_in_both_themes(model, path):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    web_page.save(model, path)
    themes = re.findall(r":root \{(.*?)\}", path.read_text("utf-8"), re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--([\w-]+): (#\w{6});", theme))
        for front, back, least in (
            *(("ink", back, 4.5) for back in ("paper", "card")),
            *(("quiet", back, 4.5) for back in ("paper", "card")),
            ("on-accent", "accent", 4.5),
            ("caution", "caution-paper", 4.5),
            *(("accent", back, 3) for back in ("card", "track")),
        ):
            assert contrast(colours[front], colours[back]) >= least, (front, back)


# In Chromium.


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as started:
        yield started


@pytest.fixture
def opened(chromium, path):
    """Return a function that opens a model's page; after the test, no page may have a problem."""
    visits = []

    def visit(model, **context):
        web_page.save(model, path)
        visits.append(browser.Visit(chromium, path, **context))
        return visits[-1]

    yield visit
    problems = [problem for each in visits for problem in each.problems()]
    for each in visits:
        each.close()
    assert problems == []


@pytest.fixture
def visit(model, opened):
    """Return the opened page of the model of three classes."""
    return opened(model)


@pytest.fixture
def Image():
    return pytest.importorskip("PIL.Image")


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bar(Image, box):
    image = Image.new("L", (60, 60), "white")
    image.paste("black", box)
    return encoded(image)


@pytest.fixture
def wide(Image):
    return bar(Image, (10, 25, 50, 35))


@pytest.fixture
def tall(Image):
    return bar(Image, (25, 10, 35, 50))


def predict_in_python(model, data, folder):
    """Return the prediction of `scripts/predict.py` for the bytes of a file."""
    from npsoftmax.commands import predict

    file = folder / "photo"
    file.write_bytes(data)
    return predict.classify(model, str(file))


def assert_same(visit, expected, levels=2, per_cent=0.06):
    """Compare the page with Python, except for the order of the guesses."""
    off = np.abs(np.array(visit.pixels()) - expected.photo.pixels[:, 0].astype(int)).max()
    assert off <= levels
    assert visit.warnings() == expected.warnings
    shares = [100 * share for _, share in expected.guesses]
    np.testing.assert_allclose(visit.shares(), shares, atol=per_cent)


def test_fifty_photos_are_classified_as_in_python(fashion_model, fashion_mnist, opened, tmp_path):
    photo_set = pytest.importorskip("photo_set")
    visit = opened(fashion_model)
    conditions = list(photo_set.CONDITIONS.values())
    first = order = 0
    for i in range(50):
        data = photo_set.photo(fashion_mnist.X_test[:, i], i, conditions[i % len(conditions)])
        expected = predict_in_python(fashion_model, data, tmp_path)
        visit.choose(data, "photo.jpg", "image/jpeg")
        names = [name for name, _ in expected.guesses]
        first += visit.guesses()[0] == names[0]
        order += visit.guesses() == names
        assert_same(visit, expected)
    assert first == 50 and order >= 48


@pytest.mark.parametrize("mirror", [False, True])
def test_features_of_patches_are_those_of_python(mirror, fashion_mnist, opened, tmp_path):
    photo_set = pytest.importorskip("photo_set")
    X, y = fashion_mnist.X_train[:, :2000], fashion_mnist.y_train[:2000]
    model = with_patches(X, 28, filters=16, mirror=mirror)
    nps.fit(model, X, y, l2=1e-4)
    model.fit_class_means(X, y)
    visit, same = opened(model), 0
    conditions = list(photo_set.CONDITIONS.values())
    for i in range(50):
        data = photo_set.photo(fashion_mnist.X_test[:, i], i, conditions[i % len(conditions)])
        expected = predict_in_python(model, data, tmp_path)
        visit.choose(data, "photo.jpg", "image/jpeg")
        same += visit.guesses()[0] == expected.guesses[0][0]
        assert_same(visit, expected, levels=0, per_cent=1)
    assert same == 50


def test_photographs_in_a_square_of_another_side(opened, Image, rng, tmp_path):
    X = rng.integers(0, 256, (48 * 48, 60), dtype=np.uint8)
    model = with_patches(X, 48, filters=16, framing="square", num_outputs=3)
    model.class_means = None  # its distances are rounded
    visit = opened(model)
    for height, width in ((200, 150), (48, 48), (20, 31), (3, 300), (700, 900)):
        cloth = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        data = encoded(Image.fromarray(cloth))
        expected = predict_in_python(model, data, tmp_path)
        assert_same(visit.choose(data), expected, levels=0, per_cent=1)
    note = visit.page.locator(".note").text_content()
    assert note.startswith("48") and note.endswith("48 grey pixels: the whole picture.")


@pytest.mark.parametrize("framing", ["bounding-box", "centre-of-mass"])
def test_an_uneven_background_and_a_cut_out_give_the_pixels_of_python(
    framing, model, opened, Image, rng, tmp_path
):
    model.framing = framing
    visit = opened(model)
    for height, width in ((180, 140), (300, 640), (33, 50), (8, 200), (1, 1)):
        scene = rng.integers(90, 200, (height, width, 3), dtype=np.uint8)
        item = slice(height // 4, 3 * height // 4), slice(width // 3, 3 * width // 4)
        scene[item] = np.array([130, 20, 0]) + rng.integers(0, 120, scene[item].shape)
        image = Image.fromarray(scene)
        alpha = np.zeros((height, width), np.uint8)
        alpha[item] = rng.integers(100, 256, alpha[item].shape)
        clear = image.copy()
        clear.putalpha(Image.fromarray(alpha))
        for each in (image, image.convert("L"), clear):
            data = encoded(each)
            assert_same(visit.choose(data), predict_in_python(model, data, tmp_path), levels=0)


def test_kinds_of_files_are_read_as_in_python(model, visit, Image, rng, tmp_path):
    grey = np.full((90, 120), 215, np.uint8) - rng.integers(0, 4, (90, 120), dtype=np.uint8)
    grey[30:60, 20:100] = 60
    grey[20:40, 50:60] = 90
    image = Image.fromarray(np.dstack([grey, grey * 0.9, grey * 0.8]).astype(np.uint8))
    clear = image.copy()
    clear.putalpha(Image.fromarray(np.uint8(240) - grey))
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    small = Image.fromarray(255 - grey[::3, ::4][:28, :28])
    black = Image.new("P", image.size)
    palette = image.quantize(16)
    striped = np.full((64, 64), 130, np.uint8)
    striped[12:52, 12:52] = np.resize(np.repeat([115, 140, 165, 190], 2), 40)
    striped[28:36, 28:36] = 30
    files = {
        "striped cloth that does not become blank paper": encoded(Image.fromarray(striped)),
        "transparent": encoded(clear),
        "palette": encoded(palette),
        "palette, transparent": encoded(palette, transparency=0),
        "turned": encoded(image, "JPEG", exif=turned),
        "CMYK": encoded(image.convert("CMYK"), "JPEG"),
        "16 bits": encoded(deep),
        "animated": encoded(palette, "GIF", save_all=True, append_images=[black], duration=50),
        "tiny": encoded(small),
        "1 bit": encoded(image.convert("1")),
        "WebP": encoded(image, "WEBP"),
        "colour profile": encoded(image, "JPEG", icc_profile=profile_of_swapped_colours()),
        "larger than a tile": encoded(image.resize((2200, 2100)), compress_level=1),
    }
    for name, data in files.items():
        expected = predict_in_python(model, data, tmp_path)
        assert expected.guesses and expected.photo.pixels.any(), name
        assert_same(visit.choose(data, name, ""), expected)


@pytest.mark.parametrize("framing", ["centre-of-mass", "whole", None])
def test_the_framing_of_the_model_is_followed_as_in_python(
    framing, model, opened, Image, rng, tmp_path
):
    model.framing = framing
    visit = opened(model)
    seven = np.zeros((40, 30), np.uint8)
    seven[4:9, 4:26] = seven[4:36, 19:26] = 200
    heavy = np.full((30, 60), 255, np.uint8)  # at the left
    heavy[5:25, 5:55] = 230
    heavy[5:25, 5:15] = 0
    noise = rng.integers(0, 256, (28, 28), dtype=np.uint8)
    large = seven.repeat(20, axis=0)
    for picture in (seven, 255 - seven, seven[:10], large, heavy, heavy[:, ::-1], noise, noise[:5]):
        data = encoded(Image.fromarray(picture))
        expected = predict_in_python(model, data, tmp_path)
        assert_same(visit.choose(data), expected, levels=0)
    if framing == "whole":
        data = encoded(Image.fromarray(noise))
        assert visit.choose(data).pixels() == noise.ravel().tolist()
        assert "the whole picture" in visit.page.locator(".note").text_content()
    hint = visit.page.locator("#hint").text_content()
    assert hint.startswith("Draw here and fill it in," if framing is None else "Draw here,or")


def profile_of_swapped_colours():
    """Return an ICC profile that would swap red and blue if it were applied."""
    cms = pytest.importorskip("PIL.ImageCms")
    profile = bytearray(cms.ImageCmsProfile(cms.createProfile("sRGB")).tobytes())
    red, blue = profile.find(b"rXYZ"), profile.find(b"bXYZ")
    profile[red], profile[blue] = b"br"
    return bytes(profile)


def test_warnings_are_those_of_python(model, opened, Image, wide, tmp_path):
    mean = np.zeros((784, 3))
    model.class_means = ClassMeans(mean, [0, 10, 20])
    visit = opened(model)
    pale = Image.new("L", (60, 60), 200)
    pale.paste(180, (10, 25, 50, 35))
    speckled = Image.effect_noise((60, 60), 90)
    for data, beginnings in {
        wide: [],
        encoded(Image.new("L", (60, 60), "white")): ["blank"],
        encoded(pale): ["low in contrast: 20 of 255"],
        encoded(speckled): ["no item found: the background is uneven"],
        encoded(Image.new("RGBA", (60, 60))): ["blank"],
    }.items():
        expected = predict_in_python(model, data, tmp_path)
        assert_same(visit.choose(data), expected)
        for text, beginning in zip(expected.warnings, beginnings, strict=True):
            assert text.startswith(beginning)
    model.class_means = ClassMeans(mean, [0, 10, 13])
    expected = predict_in_python(model, wide, tmp_path)
    assert expected.warnings[0].startswith("unlike the training data")
    assert_same(opened(model).choose(wide), expected)
    model.evidence_limit, model.temperature = 100.0, 30.0
    expected = predict_in_python(model, wide, tmp_path)
    beginnings = [
        "unlike",
        "no class fits well: the evidence is ",
        "the two best guesses are close",
    ]
    for text, beginning in zip(expected.warnings, beginnings, strict=True):
        assert text.startswith(beginning)
    assert_same(opened(model).choose(wide), expected)


def test_temperature_and_scale_are_applied(model, opened, wide, tmp_path):
    model.temperature, model.pixel_scale = 3.0, 1 / 100
    expected = predict_in_python(model, wide, tmp_path)
    assert 0.34 < expected.guesses[0][1] < 0.999
    assert_same(opened(model).choose(wide), expected)


def test_equal_classes_stay_in_their_order(opened, wide):
    visit = opened(SoftmaxRegression(784, 15, sigma=0, pixel_scale=1 / 255))
    assert visit.choose(wide).guesses() == ["0", "1", "2"]
    assert visit.shares() == [6.7] * 3
    listed = visit.page.locator("#classes").text_content()
    assert listed == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …"


def test_bad_files_have_an_error_and_the_page_continues(visit, Image, wide):
    whole = encoded(Image.effect_noise((60, 60), 50))
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:9/"/></svg>'
    bomb = encoded(Image.new("1", (10_000, 9_000)))
    for data, kind, message in [
        (b"", "image/png", "This file is empty"),
        (b"hello", "image/png", "cannot read the file as a picture. Save it as JPEG or PNG"),
        (whole[: len(whole) // 2], "image/png", "cannot read the file"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "image/heic", "cannot read the file"),
        (svg, "image/svg+xml", "cannot read the file"),
        (bomb, "image/png", "more than 89 million pixels"),
    ]:
        assert visit.choose(wide).guesses()[0] == "wide"
        visit.choose(data, "file", kind)
        (warning,) = visit.warnings()
        assert message in warning and visit.guesses() == [] and not any(visit.pixels())
        assert visit.page.locator("#photo").is_hidden()
    visit.page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(100 * 2 ** 20 + 1)], "huge.png"));
          document.body.dispatchEvent(
            new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
        }"""
    )
    assert visit.settled().warnings() == ["This file has more than 100 MiB. Scale it down."]
    assert visit.choose(wide).guesses()[0] == "wide"


def test_paste_and_drop(visit, wide, tall):
    assert visit.bring("paste", [(wide, "image/png")]).guesses()[0] == "wide"
    assert visit.bring("drop", [(tall, "image/png"), (wide, "image/png")]).guesses()[0] == "tall"
    for event, word in (("paste", "pasted"), ("drop", "dropped")):
        visit.bring(event, [])
        assert visit.warnings() == [f"What was {word} holds no picture. Choose a file instead."]
    # Otherwise the browser would leave the page and open the dropped file.
    options = "{ dataTransfer: new DataTransfer(), bubbles: true, cancelable: true }"
    for event in ("dragover", "drop"):
        made = f"new DragEvent('{event}', {options})"
        assert not visit.page.evaluate(f"document.body.dispatchEvent({made})")


@contextmanager
def slow_decoding(page, data):
    """Choose a picture whose decoding ends at the end of the block."""
    page.evaluate(
        """() => {
          const decode = createImageBitmap;
          window.begun = new Promise((tell) => {
            window.createImageBitmap = (...given) => {
              window.createImageBitmap = decode;
              const allowed = new Promise((allow) => { window.allow = allow; });
              tell();
              window.done = allowed.then(() => decode(...given));
              return window.done;
            };
          });
        }"""
    )
    picture = {"name": "late.png", "mimeType": "image/png", "buffer": data}
    page.locator("#file").set_input_files(picture)
    page.evaluate("begun")
    yield
    page.evaluate(
        """async () => {
          allow();
          await done.catch(() => {});
          await new Promise((then) => setTimeout(then));
        }"""
    )


def test_the_last_picture_wins_however_long_the_first_takes(visit, wide, tall):
    with slow_decoding(visit.page, wide):
        assert visit.page.locator("#answer").get_attribute("aria-busy") == "true"
    assert visit.settled().guesses()[0] == "wide"
    with slow_decoding(visit.page, wide):
        visit.choose(tall)
    assert visit.guesses()[0] == "tall"
    with slow_decoding(visit.page, wide):
        visit.page.locator("#clear").click()
    assert visit.guesses() == [] and visit.page.locator("#photo").is_hidden()
    with slow_decoding(visit.page, wide):
        stroke(visit, (140, 40), (140, 240))
    visit.page.mouse.up()
    assert visit.settled().guesses()[0] == "tall"
    with slow_decoding(visit.page, wide):
        visit.choose(b"no picture")
    assert visit.guesses() == [] and "cannot read" in visit.warnings()[0]
    with slow_decoding(visit.page, b"no picture"):
        visit.choose(tall)
    assert visit.guesses()[0] == "tall" and visit.warnings() == []


def stroke(visit, *points):
    """Draw with the mouse from point to point of the 280x280 sheet, leaving the button down."""
    box = visit.page.locator("#drawing").bounding_box()
    scale = box["width"] / 280
    for i, (x, y) in enumerate(points):
        visit.page.mouse.move(box["x"] + x * scale, box["y"] + y * scale, steps=3)
        if i == 0:
            visit.page.mouse.down()


def test_drawing(visit):
    answer = visit.page.locator("#answer")
    assert answer.text_content() == "Nothing yet."
    stroke(visit, (40, 140), (240, 140))
    visit.page.locator("#answer li").first.wait_for()
    assert visit.guesses()[0] == "wide" and answer.get_attribute("aria-busy") == "true"
    visit.page.mouse.up()
    assert visit.settled().guesses()[0] == "wide"
    visit.page.locator("#clear").click()
    assert answer.text_content() == "Nothing yet." and not any(visit.pixels())
    stroke(visit, (140, 40), (140, 240))
    visit.page.mouse.up()
    visit.page.locator("#answer li").first.wait_for()
    assert visit.settled().guesses()[0] == "tall"


def test_a_touch_makes_a_dot_as_wide_as_the_brush(visit):
    visit.page.locator("#brush").fill("40")
    stroke(visit, (140, 140))
    visit.page.mouse.up()
    line = visit.page.evaluate(
        """() => Array.from(document.querySelector("#drawing").getContext("2d")
          .getImageData(0, 140, 280, 1).data)"""
    )
    assert 38 <= sum(level < 128 for level in line[::4]) <= 42


def test_everything_but_drawing_works_by_keyboard(visit, wide, tmp_path):
    page = visit.page
    # Early, because listening takes a moment to reach the browser.
    page.on("filechooser", lambda chooser: None)
    focused = "() => document.activeElement.id"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "file"
    outline = "() => getComputedStyle(document.activeElement.parentElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    (tmp_path / "wide.png").write_bytes(wide)
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(tmp_path / "wide.png")
    assert visit.settled().guesses()[0] == "wide"
    assert page.locator("#photo").get_attribute("alt") == "Your picture, wide.png"
    assert page.locator("#file").input_value() == ""  # the same file may be chosen again
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "clear"
    page.keyboard.press("Space")
    assert visit.guesses() == []
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "brush"
    page.keyboard.press("ArrowRight")
    assert page.locator("#brush").input_value() == "25"
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement === document.body")


def heard(visit):
    """Return roles and names that the browser gives to a screen reader, and its live regions."""
    session = visit.context.new_cdp_session(visit.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    nodes = [node for node in nodes if not node["ignored"]]
    live = [
        node["role"]["value"]
        for node in nodes
        for detail in node["properties"]
        if detail["name"] == "live" and detail["value"]["value"] == "polite"
    ]
    return {
        (node["role"]["value"], node["name"]["value"]) for node in nodes if "name" in node
    }, live


def test_the_accessibility_tree(visit, wide):
    at_first, live = heard(visit)
    assert live == ["status"]
    assert at_first >= {
        ("RootWebArea", "What does the model see?"),
        ("heading", "What does the model see?"),
        *(("StaticText", name) for name in ("wide", "tall", "neither")),
        ("region", "Your picture"),
        ("image", "To draw on with a mouse, finger or pen. With a keyboard, choose a picture."),
        ("button", "Choose a picture"),
        ("button", "Clear"),
        ("slider", "Brush"),
        ("region", "It sees"),
        ("image", "28 by 28 pixels, 0 of them not black"),
        ("region", "It says"),
        ("StaticText", "Nothing yet."),
    }
    visit.choose(wide, "wide.png")
    later, live = heard(visit)
    assert live == ["status"]
    assert later - at_first >= {
        ("image", "Your picture, wide.png"),
        ("image", "28 by 28 pixels, 196 of them not black"),
        ("list", ""),
        ("StaticText", f"{visit.shares()[0]} %"),
    }
    assert ("slider", "Brush") not in later
    assert visit.page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_phone(opened, wide, scheme):
    model = SoftmaxRegression(784, 3, classes=["w" * 300, "coat of arms", "b"], pixel_scale=1 / 255)
    visit = opened(model, viewport={"width": 320, "height": 640}, color_scheme=scheme)
    visit.choose(wide)
    page = visit.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.locator("#seen").bounding_box()["width"] == 4 * 28
    page.locator("#clear").click()
    for target in page.locator("label:visible, button, #brush").all():
        assert target.bounding_box()["height"] >= 44
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) > 384) == (scheme == "light")


def rectangle(visit, selector):
    box = visit.page.locator(selector).bounding_box()
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


@pytest.mark.parametrize("letters", [16, pytest.param(32, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    ("width", "height"),
    [
        *((320, 568), (568, 320), (375, 667), (667, 375), (844, 390), (768, 1024), (1024, 768)),
        *((640, 400), (320, 256)),  # a desktop at 200 % and at 400 %
    ],
)
def test_drawing_and_guesses_fit_the_screen_together(opened, wide, width, height, letters):
    visit = opened(
        SoftmaxRegression(784, 3, classes=["Pullover", "Coat", "Bag"], pixel_scale=1 / 255),
        viewport={"width": width, "height": height},
    )
    sizes = {"fontSizes": {"standard": letters}}
    visit.context.new_cdp_session(visit.page).send("Page.setFontSizes", sizes)
    visit.choose(wide)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    left, top, right, bottom = rectangle(visit, "#stage")
    assert 80 < bottom - top <= 0.8 * height and right - left == pytest.approx(bottom - top)
    assert left >= 16 and right <= width - 16  # room to scroll by
    guess = visit.page.locator(".guesses li").nth(2 if letters == 16 else 0).bounding_box()
    assert guess["y"] + guess["height"] - top <= height


@pytest.fixture
def touched(opened, model):
    """Return a page on a phone, and a function that moves fingers along lines on it."""
    visit = opened(model, viewport={"width": 667, "height": 375}, has_touch=True, is_mobile=True)
    session = visit.context.new_cdp_session(visit.page)

    def touch(*lines, end="touchEnd"):
        for step in range(11):
            points = [
                {"id": i, "x": x0 + (x1 - x0) * step / 10, "y": y0 + (y1 - y0) * step / 10}
                for i, (x0, y0, x1, y1) in enumerate(lines)
            ]
            kind = "touchMove" if step else "touchStart"
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        session.send("Input.dispatchTouchEvent", {"type": end, "touchPoints": []})
        visit.page.evaluate("new Promise((then) => setTimeout(then, 300))")  # scrolling goes on
        return visit.page.evaluate("scrollY")

    visit.page.locator("#drawing").scroll_into_view_if_needed()
    return visit, touch


def ink(visit):
    """Return the number of dark pixels of the drawing."""
    return visit.page.evaluate(
        """() => document.querySelector("#drawing").getContext("2d")
          .getImageData(0, 0, 280, 280).data.filter((level) => level < 128).length / 3"""
    )


def test_a_finger_draws_on_the_drawing_and_scrolls_beside_it(touched):
    visit, touch = touched
    left, top, right, bottom = rectangle(visit, "#drawing")
    before = visit.page.evaluate("scrollY")
    assert touch((left + 50, bottom - 50, left + 50, top + 50)) == before
    assert (drawn := ink(visit)) > 1000 and visit.settled().guesses()
    after = touch((right + 8, top + 150, right + 8, top + 20))
    assert after > before and ink(visit) == drawn
    assert touch((left - 16, top + 20, left - 16, top + 100)) < after and ink(visit) == drawn


@pytest.mark.parametrize("is_empty", [True, False])
def test_two_fingers_scroll_and_zoom_and_leave_the_drawing_as_it_was(touched, is_empty):
    visit, touch = touched
    left, top, right, bottom = rectangle(visit, "#drawing")
    x, y = (left + right) / 2, (top + bottom) / 2
    if not is_empty:
        touch((x, y, x, y + 50))
    drawn, guesses = ink(visit), visit.settled().guesses()
    assert bool(drawn) == bool(guesses) == (not is_empty)
    touch((x - 20, y, x - 90, y), (x + 20, y, x + 90, y))
    assert visit.page.evaluate("visualViewport.scale") > 1.2
    assert ink(visit) == drawn and visit.settled().guesses() == guesses
    assert visit.page.locator("#hint").is_visible() == is_empty


def test_a_palm_beside_the_pen_does_not_draw(opened, model):
    visit = opened(model, has_touch=True)
    session = visit.context.new_cdp_session(visit.page)
    left, top, _, _ = rectangle(visit, "#drawing")

    def pen(kind, x, y):
        where = {"type": kind, "x": left + x, "y": top + y, "pointerType": "pen"}
        button = {"button": "left", "buttons": 1, "clickCount": 1}
        session.send("Input.dispatchMouseEvent", where | button)

    def palm(kind, *points):
        points = [{"x": left + x, "y": top + y} for x, y in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    pen("mousePressed", 40, 40)
    pen("mouseMoved", 40, 60)
    palm("touchStart", (200, 200))
    palm("touchMove", (200, 240))
    pen("mouseMoved", 40, 80)
    palm("touchEnd")
    pen("mouseMoved", 40, 100)
    pen("mouseReleased", 40, 100)
    visit.page.locator("#answer li").first.wait_for()
    assert 24 * 60 < ink(visit.settled()) < 24 * 90


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_replaced_colours_and_paper(opened, model, scheme, wide):
    visit = opened(model, color_scheme=scheme, forced_colors="active")
    style = "(name) => getComputedStyle(document.querySelector(name))"
    assert visit.page.evaluate(f"({style})('#hint').color") == "rgb(86, 93, 102)"  # on white
    assert visit.page.evaluate(f"({style})('#stage').outlineStyle") == "solid"
    visit.choose(wide).page.emulate_media(media="print", forced_colors="none")
    assert visit.page.evaluate(f"({style})('body').color") == "rgb(27, 31, 36)"
    assert visit.page.evaluate(f"({style})('.bar').printColorAdjust") == "exact"
    assert visit.page.locator("#clear").is_hidden()


def test_without_javascript_there_is_one_sentence(chromium, model, path):
    web_page.save(model, path)
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("body").inner_text().split("\n\n")[1:] == [
        "This page needs JavaScript. Please allow it here."
    ]
    context.close()


def test_names_in_any_direction_of_writing_stay_apart(opened):
    names = ["قميص", "\u202eevil", "coat"]
    visit = opened(SoftmaxRegression(784, 3, classes=names, sigma=0, pixel_scale=1 / 255))
    listed = visit.page.locator("#classes .name")
    assert listed.all_text_contents() == names
    places = [listed.nth(i).bounding_box()["x"] for i in range(3)]
    assert places == sorted(places)


def test_hostile_class_names_are_shown_as_text(opened, wide):
    visit = opened(SoftmaxRegression(784, 3, classes=HOSTILE, sigma=0, pixel_scale=1 / 255))
    dialogs = []
    visit.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    assert visit.choose(wide).guesses() == HOSTILE
    assert visit.page.locator("#classes").text_content() == ", ".join(HOSTILE)
    assert dialogs == [] and visit.page.locator("img").count() == 1


@pytest.mark.parametrize(
    ("attempt", "refusal"),
    [
        ("fetch('http://127.0.0.1:9/')", "connect-src"),
        ("new Image().src = 'http://127.0.0.1:9/'", "img-src"),
        ("import('data:text/javascript,0')", "script-src"),
        ("document.body.innerHTML = '<p>'", "trusted-types"),
        ("document.body.setAttribute('style', 'color: red')", "style-src"),
    ],
)
def test_the_browser_refuses_other_requests_and_code(chromium, model, path, attempt, refusal):
    web_page.save(model, path)
    visit = browser.Visit(chromium, path)
    assert visit.problems() == []
    visit.page.evaluate(
        f"""async () => {{
          const told = new Promise((tell) => {{
            document.addEventListener("securitypolicyviolation", tell);
            setTimeout(tell, 5000);
          }});
          try {{ await ({attempt}); }} catch {{ }}
          await told;
        }}"""
    )
    assert any(refusal in problem for problem in visit.problems())
    visit.close()
