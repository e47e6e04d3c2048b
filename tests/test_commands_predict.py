"""The command that classifies photos."""

import json
import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

pytest.importorskip("PIL")

from photo_set import photo
from PIL import Image
from running import SCRIPTS, one_line, run_here, run_process

from npsoftmax import SoftmaxRegression
from npsoftmax.commands import predict
from npsoftmax.conformal import SetRule
from npsoftmax.errors import CorruptFileError, InputError, ShapeError
from npsoftmax.ext import advice, photos

SCRIPT = SCRIPTS / "predict.py"
ROOT = SCRIPT.parents[1]


command = partial(run_here, SCRIPT, ".")


def call(*arguments):
    """Call the command in this process; return its exit code where it ends by itself."""
    try:
        with patch("sys.argv", [str(SCRIPT)]):
            predict.predict(predict.parser().parse_args([str(a) for a in arguments]))
    except SystemExit as end:
        return end.code
    return 0


def saved_model(classes=("Hat", "Left shoe", "Bag"), num_inputs=784, framing="bounding-box"):
    """A model that finds the middle columns of an image to be a hat."""
    model = SoftmaxRegression(
        num_inputs, len(classes), sigma=0, classes=classes, pixel_scale=1 / 255, framing=framing
    )
    if num_inputs == 784:
        model.W[0] = np.tile(np.arange(28) == 14, 28) / 7
        model.b[1:, 0] = np.linspace(2, 1, len(classes) - 1)
    model.save("model.npz")
    return model


@pytest.fixture
def model():
    """The model of a working folder that holds an upright bar on a table, too."""
    bar("bar.png")
    return saved_model()


def bar(name, item=20):
    image = Image.new("L", (60, 40), 220)
    image.paste(item, (20, 10, 30, 30))
    image.save(name)


def know_the_bar(model):
    """Give the model a class of bars of all brightnesses."""
    pixels = photos.read("bar.png").pixels
    model.fit_class_means(np.hstack([pixels, pixels, pixels // 2, 0 * pixels]), [0] * 4)
    model.save("model.npz")


# --- The output ---


def test_the_likeliest_classes_are_printed_as_in_the_colab_demo(model):
    process = command("model.npz", "bar.png")
    assert process.returncode == 0 and process.stderr == ""
    title, *lines = process.stdout.splitlines()
    assert title == "bar.png" and lines[0].startswith("1) Hat       : 0.")
    (guesses,) = model.top_k(photos.read("bar.png").pixels)
    assert lines == [f"{i}) {name:10}: {p:.3f}" for i, (name, p) in enumerate(guesses, 1)]
    saved_model(["yes", "no"])
    assert len(command("model.npz", "bar.png").stdout.splitlines()) == 3


def test_a_blank_image_has_no_percentages(model, capsys):
    Image.new("RGB", (50, 50), "beige").save("table.png")
    assert call("model.npz", "table.png", "bar.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "table.png",
        "doubtful  blank: nothing stands out from the background",
        "bar.png",
    ]


def test_an_image_unlike_the_training_data_is_doubtful(model, capsys):
    rng = np.random.default_rng(0)
    model.fit_class_means(rng.integers(0, 99, (784, 60), np.uint8), np.arange(60) % 3)
    model.save("model.npz")
    call("model.npz", "bar.png")
    doubt = capsys.readouterr().out.splitlines()[4]
    novelty = model.novelty(photos.read("bar.png").pixels)[0]
    assert novelty > 1 and doubt.startswith(f"doubtful  unlike the training data: {novelty:.2f}")
    know_the_bar(model)
    call("model.npz", "bar.png")
    assert "doubtful" not in capsys.readouterr().out


def test_little_evidence_is_a_doubt_and_so_are_two_close_guesses(model, capsys):
    know_the_bar(model)
    pixels = photos.read("bar.png").pixels
    (evidence,) = model.evidence(pixels)
    model.evidence_limit = evidence + 1
    model.save("model.npz")
    call("model.npz", "bar.png")
    expected = f"no class fits well: the evidence is {evidence:.1f}, doubt begins at"
    assert f"doubtful  {expected} {evidence + 1:.1f}\n" in capsys.readouterr().out
    model.evidence_limit = evidence - 0.1
    model.save("model.npz")
    call("model.npz", "bar.png")
    assert "doubtful" not in capsys.readouterr().out
    model.b[1] = (model.W[:1] @ (pixels / 255) + model.b[0] - 0.1).item()
    model.save("model.npz")
    (image,) = json.loads(command("model.npz", "bar.png", "--json").stdout)["images"]
    (first, second) = [guess["probability"] for guess in image["guesses"][:2]]
    close = f"the two best guesses are close: Hat {first:.2f} and Left shoe {second:.2f}"
    assert image["doubts"][-1] == close


def test_a_prediction_is_the_mean_over_the_framings(model, monkeypatch):
    read, other = photos.read, np.random.default_rng(0).integers(0, 256, (784, 2), np.uint8)

    def with_framings(*arguments):
        photo = read(*arguments)
        return replace(photo, pixels=np.hstack([photo.pixels, other]))

    monkeypatch.setattr(photos, "read", with_framings)
    model.fit_class_means(other, [0, 0])
    result = predict.classify(model, "bar.png")
    expected = model(with_framings("bar.png").pixels).mean(axis=1)
    assert dict(result.guesses) == pytest.approx(dict(zip(model.classes, expected, strict=True)))
    assert result.novelty == model.novelty(other).min() and result.photo.pixels.shape == (784, 3)
    predict.draw([result], "shown.png")


def test_the_set_of_a_photo_is_printed(model, monkeypatch, capsys):
    call("model.npz", "bar.png")
    assert "set " not in capsys.readouterr().out
    model.set_rule = SetRule("aps", 0.9, (1e-9,))
    model.save("model.npz")
    call("model.npz", "bar.png")
    assert capsys.readouterr().out.splitlines()[4] == "set       Hat, Left shoe, Bag"
    model.set_rule = SetRule("lac", 0.9, (1.0,))
    model.save("model.npz")
    call("model.npz", "bar.png", "--json")
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert image["set"] == []
    call("model.npz", "bar.png")
    assert "\nset       no class\n" in capsys.readouterr().out


def test_the_set_of_several_framings_has_the_classes_of_each(model, monkeypatch):
    read = photos.read

    def with_a_black_framing(*arguments):
        photo = read(*arguments)
        return replace(photo, pixels=np.hstack([photo.pixels, 0 * photo.pixels]))

    monkeypatch.setattr(photos, "read", with_a_black_framing)
    model.set_rule = SetRule("aps", 0.9, (1.0,))  # the most likely class alone
    assert predict.classify(model, "bar.png").set == ["Hat", "Left shoe"]


def test_json_has_everything(model):
    Image.new("RGB", (50, 50), "beige").save("table.png")
    bar("pale.png", item=200)
    process = command("model.npz", "bar.png", "table.png", "missing.png", "pale.png", "--json")
    assert process.returncode == CorruptFileError.exit_code == 4
    report = json.loads(process.stdout)
    assert report["model"] == "model.npz"
    good, blank, missing, pale = report["images"]
    (guesses,) = model.top_k(photos.read("bar.png").pixels)
    assert good == {
        "file": "bar.png",
        "guesses": [{"class": name, "probability": p} for name, p in guesses],
        "novelty": None,
        "doubts": [],
    }
    assert blank["guesses"] == [] and blank["doubts"][0].startswith("blank")
    assert missing["file"] == "missing.png" and missing["error"].startswith("cannot read")
    assert pale["doubts"][0].startswith("low in contrast")
    know_the_bar(model)
    (image,) = json.loads(command("model.npz", "bar.png", "--json").stdout)["images"]
    assert image["novelty"] == pytest.approx(model.novelty(photos.read("bar.png").pixels)[0])


def test_quiet_prints_nothing_but_errors_and_debug_where_they_arose(model, capsys):
    assert call("model.npz", "bar.png", "missing.png", "--quiet") == 4
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert call("model.npz", "missing.png", "--debug") == 4
    err = capsys.readouterr().err
    assert "Traceback" in err and err.splitlines()[-1].startswith("predict.py: error: cannot read")


def test_names_of_files_and_classes_cannot_write_to_the_terminal(capsys):
    saved_model(["\x1b[2Jclear", "two\nlines", "Bag"])
    bar("a\x1b[31m\nb.png")
    assert call("model.npz", "a\x1b[31m\nb.png", "no\x1b[0m.png") == 4
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert len(out.splitlines()) == 4 and len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["two words.png", "ünï.png", "-", "-x.png", "--json"])
def test_unusual_names(name, model, capsys):
    bar("bar.png")
    os.rename("bar.png", name)
    assert call("model.npz", "--", name, name) == 0
    assert capsys.readouterr().out.splitlines()[::4] == [name, name]


# --- Framings ---


@pytest.mark.parametrize("framing", ["bounding-box", "centre-of-mass", "whole"])
def test_the_framing_of_the_model_is_followed(framing, capsys):
    model = saved_model(framing=framing)
    bar("bar.png")
    assert call("model.npz", "bar.png", "--json") == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    (guesses,) = model.top_k(photos.read("bar.png", framing).pixels)
    assert [(guess["class"], guess["probability"]) for guess in image["guesses"]] == guesses
    assert image["doubts"] == []


def test_an_unknown_framing_is_a_doubt(capsys):
    saved_model(framing=None)
    bar("bar.png")
    assert call("model.npz", "bar.png") == 0
    assert "doubtful  unknown framing: the model does not say" in capsys.readouterr().out


def test_a_model_of_whole_pictures_may_have_any_square_of_inputs(rng, capsys):
    model = SoftmaxRegression(64, 2, pixel_scale=1 / 255, framing="whole", seed=1)
    model.save("model.npz")
    levels = rng.integers(0, 256, 64, dtype=np.uint8)
    Image.fromarray(levels.reshape(8, 8)).save("own.png")
    assert call("model.npz", "own.png", "--json") == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert image["guesses"][0]["probability"] == model(levels[:, None]).max()


# --- Folders ---


def test_a_folder_stands_for_the_images_in_it(model, capsys):
    os.makedirs("my photos/more.png")
    for name in ("b 2.PNG", "a.png", ".hidden.png"):
        bar(f"my photos/{name}")
    Path("my photos/notes.txt").write_text("not an image")
    Path("my photos/IMG_1.HEIC").write_text("damaged")
    assert call("model.npz", "bar.png", "my photos/") == 4
    out, err = capsys.readouterr()
    assert out.splitlines()[::4] == ["bar.png", "my photos/a.png", "my photos/b 2.PNG"]
    assert err.startswith("predict.py: error: 'my photos/IMG_1.HEIC': expected an image")


def test_a_folder_without_images_is_an_error_and_the_others_are_classified(model, capsys):
    os.mkdir("empty")
    os.makedirs("nested/photos")
    bar("nested/photos/bar.png")
    Path("nested/notes.txt").touch()
    assert call("model.npz", "empty", "nested", "bar.png") == 4
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert "empty: expected a folder with images, such as photo.jpg, got none among its 0" in first
    assert "nested: expected" in second and "its 2 entries; name the images, or the" in second
    assert out.startswith("bar.png\n")


# --- Errors ---


def test_each_bad_image_gets_an_error_line_and_the_others_are_classified(model):
    os.mkfifo("pipe.png")
    os.mkdir("folder.png")
    Path("empty.png").touch()
    Path("text.png").write_text("not an image")
    whole = Path("bar.png").read_bytes()
    Path("cut.png").write_bytes(whole[: len(whole) // 2])
    bad = ["pipe.png", "folder.png", "empty.png", "text.png", "cut.png", "missing.png"]
    process = command("model.npz", *bad, "bar.png", "text.png")
    assert process.returncode == 4
    lines = process.stderr.splitlines()
    assert len(lines) == len(bad) + 1
    for name, line in zip([*bad, "text.png"], lines, strict=True):
        assert line.startswith("predict.py: error: ") and name in line
    assert process.stdout.splitlines()[0] == "bar.png"


def test_a_model_that_is_not_of_square_images_is_refused(model):
    message = "expected a model of 784 inputs, 28x28 pixels, or one of square images"
    for num_inputs, framing in ((64, "bounding-box"), (64, None), (63, "whole")):
        saved_model(num_inputs=num_inputs, framing=framing)
        with pytest.raises(ShapeError, match=f"model.npz: {message}.*got one of {num_inputs}"):
            call("model.npz", "bar.png")


def test_a_model_without_a_pixel_scale_is_refused(model):
    model.pixel_scale = None
    model.save("model.npz")
    with pytest.raises(InputError, match=r"with a pixel scale, .*set model.pixel_scale = 1/255"):
        call("model.npz", "bar.png")


@pytest.mark.parametrize(("name", "code"), [("missing.npz", 2), ("bar.png", 4)])
def test_without_a_model_nothing_is_predicted(name, code, model):
    one_line(command(name, "bar.png"), code)


@pytest.mark.parametrize(
    ("package", "extra", "flags"),
    [("PIL", "image", []), ("matplotlib", "plot", ["--show", "out.png"])],
)
def test_a_missing_package_is_named_with_what_installs_it(package, extra, flags, model):
    Path("blocked").mkdir()
    Path(f"blocked/{package}.py").write_text(f"raise ModuleNotFoundError('No module {package}')")
    process = run_process(SCRIPT, ".", "model.npz", "bar.png", *flags, PYTHONPATH="blocked")
    line = one_line(process, 2)
    assert package in line and line.endswith(advice(extra))


def test_a_model_may_be_named_by_its_run_folder(model):
    Path("run").mkdir()
    Path("model.npz").rename("run/model.npz")
    assert command("run", "bar.png").returncode == 0


# --- The picture ---


def test_show_draws_a_row_for_each_photo(model, capsys):
    pytest.importorskip("matplotlib")
    assert call("model.npz", "missing.png", "--show", "out.png") == 4
    assert not Path("out.png").exists()
    strange = "$日本$" + "x" * 100 + ".png"  # no formula, no such letters in the font, too long
    Image.new("RGB", (50, 50), "beige").save(strange)
    assert call("model.npz", "bar.png", strange, "missing.png", "--show", "out.png") == 4
    with Image.open("out.png") as picture:
        assert picture.format == "PNG"
        width, height = picture.size
    assert call("model.npz", "bar.png", "--show", "out.png") == 0
    with Image.open("out.png") as picture:
        assert picture.size == (width, height // 2)


def test_the_picture_shows_the_photo_what_the_model_sees_and_the_guesses(model, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    bar("pale.png", item=200)
    call("model.npz", "pale.png", "--show", "out.png", "--quiet")
    left, middle, _, right = drawn[0].axes
    seen = photos.read("pale.png")
    assert (left.images[0].get_array() == np.asarray(seen.image)).all()
    assert (middle.images[0].get_array() == seen.pixels.reshape(28, 28)).all()
    assert [label.get_text() for label in right.get_yticklabels()] == ["Hat", "Left shoe", "Bag"]
    assert left.get_title() == "pale.png" and "low in contrast" in right.get_title(loc="left")


def test_the_picture_is_the_same_whatever_the_user_set(model, strange_matplotlib):
    call("model.npz", "bar.png", "--show", "usual.png", "--quiet")
    with strange_matplotlib():
        call("model.npz", "bar.png", "--show", "strange.png", "--quiet")
    assert Path("usual.png").read_bytes() == Path("strange.png").read_bytes()


@pytest.mark.parametrize("name", ["bar.png", "link.png"])
def test_show_replaces_no_photo(name, model):
    pytest.importorskip("matplotlib")
    os.symlink("bar.png", "link.png")
    before = Path(name).read_bytes()
    with pytest.raises(InputError, match=f"--show: expected a new file .*, got {name}; name"):
        call("model.npz", "bar.png", "--show", name)
    assert Path(name).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "beginning"), [("a.png", b"\x89PNG"), ("b.c.PDF", b"%PDF"), ("d.svg", b"<?xml")]
)
def test_show_writes_what_the_ending_says_and_replaces_it(name, beginning, model):
    pytest.importorskip("matplotlib")
    assert call("model.npz", "bar.png", "--show", name) == 0
    first = Path(name).read_bytes()
    assert first.startswith(beginning)
    assert call("model.npz", "bar.png", "bar.png", "--show", name) == 0
    assert Path(name).read_bytes() != first


@pytest.mark.parametrize("name", ["out.jpg", "out.gif", "out"])
def test_show_names_the_pictures_that_it_can_write(name, model):
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match=r"ends in \.png, .*, got out.*; name it out\.png"):
        call("model.npz", "bar.png", "--show", name)
    assert not Path(name).exists()


def test_show_says_how_many_of_many_photos_it_draws(model, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(predict, "MAX_DRAWN", 2)
    assert call("model.npz", *["bar.png"] * 3, "--show", "out.png", "--quiet") == 0
    assert "--show: drew the first 2 of 3 photos" in capsys.readouterr().err
    with Image.open("out.png") as picture:
        assert picture.size[1] == 440


# --- On real items ---


@pytest.mark.exhaustive
@pytest.mark.usefixtures("fashion_mnist")
def test_the_photographs_of_the_readme_are_named_by_its_commands(tmp_path):
    section = (ROOT / "README.md").read_text().partition("## Classify your own photos")[2]
    commands = re.search(r"```\n(.*?)```", section, re.DOTALL)[1]
    for folder in ("docs", "scripts"):
        os.symlink(ROOT / folder, tmp_path / folder)
    out = ""
    for script, flags in re.findall(r"python (\S+) (.*?)(?: +&& | +#|\n)", commands):
        process = run_here(tmp_path / script, tmp_path, *flags.split())
        assert process.returncode == 0, process.stderr
        out += process.stdout
    first = re.findall(r"photos/(\w+)\.jpg\n1\) (\w+)", out)
    named = {"dress": "Dress", "pullover": "Pullover", "shoes": "Coat", "trousers": "Trouser"}
    assert dict(first) == named
    shoes, trousers = (out.partition(name)[2] for name in ("shoes.jpg", "trousers.jpg"))
    assert "doubtful  no class fits well" in shoes and "doubtful" not in trousers
    assert (tmp_path / "runs/first/model.html").exists()


def test_a_photo_of_a_real_boot(fashion_model, fashion_mnist, capsys):
    fashion_model.save("fashion.npz")
    Path("boot.jpg").write_bytes(photo(fashion_mnist.X_test[:, 0], seed=0))
    assert call("fashion.npz", "boot.jpg") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("1) Ankle boot  : 0.") and len(lines) == 4
