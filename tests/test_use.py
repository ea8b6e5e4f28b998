"""A trained model in Python: codes and neighbours of any images."""

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

import acn_lightning
from acn_lightning import ACN, TrainedACN
from acn_lightning.checkpoint import read_checkpoint
from acn_lightning.data.binarise import binarise_alike
from acn_lightning.experiment.restore import from_checkpoint
from acn_lightning.inference.embedding import encode
from acn_lightning.inference.inputs import read_given, with_first_axis
from acn_lightning.utils import names as names_module
from acn_lightning.utils.errors import UsageError
from acn_lightning.utils.names import joined, parted


@pytest.fixture
def loaded(checkpoint):
    return ACN.load(checkpoint)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (9, 12, 12), dtype=np.uint8)


def test_codes_are_the_posteriors_means_whatever_form_images_come_in(loaded, images):
    with torch.no_grad():
        expected = loaded.module(torch.from_numpy(images)[:, None] / 255).mean.numpy()
    assert isinstance(loaded.encode(images), np.ndarray)
    forms = [
        images,
        images[..., None],
        images / np.float32(255),
        images.astype(np.float64) / 255,
        torch.from_numpy(images),
        torch.from_numpy(images)[:, None] / 255,
    ]
    for form in forms:
        codes = loaded.encode(form, batch_size=4)
        assert type(codes) is type(form)
        assert codes.shape == (9, 4)
        assert str(codes.dtype).endswith("float32")
        np.testing.assert_allclose(codes, expected, rtol=1e-4, atol=1e-5)


def test_colours_and_other_sizes_are_converted_and_it_is_said(loaded, images):
    big = np.asarray([Image.fromarray(image).resize((24, 24), 0) for image in images])
    colour = np.repeat(big[..., None], 3, axis=3)
    with pytest.warns(UserWarning, match="Images of 3 x 24 x 24 .* converted to 1 x 12 x 12"):
        converted = loaded.encode(colour)
    with pytest.warns(UserWarning, match="converted to"):
        first = loaded.encode(torch.from_numpy(colour).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(converted, first.numpy())
    wide = np.zeros((1, 12, 36), np.uint8)
    wide[:, :, 12:24] = images[0]  # what is left when the sides are cut off
    with pytest.warns(UserWarning, match="converted to"):
        np.testing.assert_allclose(loaded.encode(wide), loaded.encode(images[:1]), rtol=1e-5)


def test_one_image_is_one_image_in_whatever_form(loaded, images):
    expected = loaded.encode(images[:1])
    assert expected.shape == (1, 4)
    picture = Image.fromarray(images[0])
    picture.save("one.png")
    Image.merge("RGB", [picture] * 3).save("colour.png")
    colour = np.repeat(images[0][..., None], 3, axis=2)
    for one in (
        images[0], images[0][..., None], images[0][None], torch.from_numpy(images[0]),
        picture, picture.convert("RGBA"), Image.open("one.png"), "one.png", Path("one.png"),
        "colour.png", [picture], ["one.png"], (Path("one.png"),), [images[0]],
        [torch.from_numpy(images[0])],
    ):  # fmt: skip
        codes = loaded.encode(one)
        assert type(codes) is (torch.Tensor if torch.is_tensor(one) else np.ndarray)
        np.testing.assert_array_equal(codes, expected, str(type(one)))
    with pytest.warns(UserWarning, match="3 x 12 x 12 .* converted to 1 x 12 x 12"):
        np.testing.assert_array_equal(loaded.encode(colour), expected)
    mixed = loaded.encode([picture, "one.png", images[0], Image.new("L", (50, 70))])
    np.testing.assert_allclose(mixed[:3], np.repeat(expected, 3, axis=0), rtol=1e-4, atol=1e-5)
    assert loaded.encode([]).shape == (0, 4)


@pytest.mark.parametrize(
    ("model", "given", "count"),
    [
        ((1, 12, 12), (3, 12, 12), 3), ((1, 12, 12), (12, 12, 3), 1), ((1, 12, 12), (5, 12, 12), 5),
        ((1, 12, 12), (1, 12, 12), 1), ((1, 12, 12), (50, 70, 3), 1), ((1, 12, 12), (50, 70, 1), 1),
        ((1, 12, 12), (9, 50, 70), 9), ((3, 16, 20), (3, 16, 20), 1), ((3, 16, 20), (16, 20, 3), 1),
        ((3, 16, 20), (7, 16, 20), 7), ((3, 16, 20), (16, 20), 1), ((3, 16, 20), (3, 20, 16), 0),
        ((3, 3, 3), (3, 3, 3), 1), ((1, 12, 12), (12, 12, 4), 0), ((1, 12, 4), (6, 12, 4), 6),
    ],
)  # fmt: skip
def test_three_axes_are_read_by_the_models_shape(model, given, count):
    array = np.zeros(given, np.uint8)
    if count:
        assert len(with_first_axis(array, model)) == count
        return
    with pytest.raises(UsageError, match=r"could be one|seem to be transparent"):
        with_first_axis(array, model)


def test_files_go_through_the_door_of_the_training_images(loaded, images):
    loaded.config = loaded.config | {"data": loaded.config["data"] | {"background": "black"}}
    loaded.known = {"bits": 12}
    clear = Image.new("LA", (12, 12), (255, 0))
    deep = Image.fromarray(np.full((12, 12), 1023, np.uint16))
    clear.save("clear.png")
    deep.save("deep.png")
    black, grey = np.zeros((12, 12), np.uint8), np.full((12, 12), 1023 * 255 // 4095, np.uint8)
    for given in (["clear.png", "deep.png"], [clear, deep], [Image.open("clear.png"), "deep.png"]):
        np.testing.assert_array_equal(loaded.encode(given), loaded.encode(np.stack([black, grey])))
    bright = Image.fromarray(np.full((12, 12), 5000, np.uint16))
    with pytest.raises(UsageError, match=r"image 1 cannot be read.*12 bits hold 4,095 at most"):
        loaded.encode([clear, bright])


def test_folders_and_data_sets_are_their_images_in_order(loaded):
    images = np.random.default_rng(0).integers(0, 255, (4, 12, 12), np.uint8)
    for name, image in zip(("b/2", "a", "b/1", "c"), images, strict=True):
        Path(f"some/{name}.png").parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(f"some/{name}.png")
    expected = loaded.encode(images)
    np.testing.assert_array_equal(loaded.encode("some"), expected[[1, 3, 2, 0]])
    np.testing.assert_array_equal(loaded.encode(["some/b", "some/a.png"]), expected[[2, 0, 1]])
    floats = torch.from_numpy(images)[:, None] / 255
    np.testing.assert_array_equal(loaded.encode(TensorDataset(floats, torch.zeros(4))), expected)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("none.png", "there is no image none.png"),
        (".", "no images"),
        (5, "image 0 is of type int, not an array"),
        (None, "image 0 is of type NoneType"),
        ([[1, 2]], "image 0: images have shape"),
        ([np.zeros((2, 12, 12), np.uint8)], r"image 0 of the list has .* which is 2 images"),
    ],
)
def test_what_is_no_image_is_refused(loaded, wrong, words):
    with pytest.raises(UsageError, match=words):
        read_given(wrong, loaded.image_shape, loaded.form)


def test_damaged_images_are_refused_in_a_line(loaded):
    Image.effect_noise((99, 99), 50).save("half.png")
    Path("half.png").write_bytes(Path("half.png").read_bytes()[:3000])
    for given in ("half.png", [Image.open("half.png")]):
        with pytest.raises(UsageError, match=r"half.png cannot be read"):
            loaded.encode(given)


def test_files_and_classes_of_neighbours_are_those_of_the_rows(loaded, trained):
    files = sorted((trained / "photos").rglob("*.png"))
    found = loaded.neighbours(files[:4], k=2)
    assert found.files.shape == found.classes.shape == (4, 2)
    for row, label, name, file in zip(
        found.rows.flat, found.labels.flat, found.classes.flat, found.files.flat, strict=True
    ):
        assert name == loaded.classes[label] == Path(file).parent.name
        assert loaded.files[row] == file
        assert (trained / "photos" / file).is_file()
    rows, distances, labels = found
    assert (rows is found.rows, distances is found.distances, labels is found.labels) == (True,) * 3
    loaded.bank.labels[:] = -1
    assert set(loaded.neighbours(files[:4], k=2).classes.flat) == {""}


def test_the_names_are_of_the_images_in_their_rows(checkpoint, trained):
    root = f"data.root={trained / 'photos'}"
    _, data, _ = from_checkpoint(read_checkpoint(checkpoint), [root], bank=True)
    files = ACN.load(checkpoint).files
    assert len(files) == len(data.stored_images)
    for row in (0, 50, len(files) - 1):
        pixels = np.asarray(Image.open(trained / "photos" / files[row]))
        assert np.array_equal(data.stored_images[row, 0], pixels)


def test_names_are_one_text_up_to_a_limit(monkeypatch):
    assert parted(joined(("d/a.png", "e/b\n.png"), Path("d"))) == ("a.png", "e/b\n.png")
    assert parted(joined(("/home/me/x/a.png", "/home/me/y/b.png"))) == ("x/a.png", "y/b.png")
    assert parted(joined(("/home/me/a.png",))) == ("a.png",)
    assert parted(joined(("photos/a.png", "photos/b.png"))) == ("photos/a.png", "photos/b.png")
    assert joined(()) == ""
    assert parted("") == parted(None) == ()
    monkeypatch.setattr(names_module, "MOST", 10)
    assert joined(("12345", "6789")) == "12345\x006789"
    assert joined(("12345", "67890")) == ""


@pytest.mark.parametrize("names", [5, "a", "a\0b", ["a"] * 150, None])
def test_names_of_a_stranger_are_checked(checkpoint, names):
    content = torch.load(checkpoint, weights_only=True)
    assert content["ImageData"]["names"].count("\0") + 1 == len(content["code_bank"]["codes"])
    content["ImageData"]["names"] = names
    torch.save(content, "theirs.ckpt")
    with pytest.raises(UsageError, match=r"its names of images are no text|it names . of its"):
        acn_lightning.load("theirs.ckpt")
    del content["ImageData"]["names"]  # as before they were stored
    torch.save(content, "older.ckpt")
    assert acn_lightning.load("older.ckpt").neighbours(np.zeros((12, 12), np.uint8)).files is None


@pytest.mark.parametrize("bits", [None, 12])
def test_16_bits_are_scaled_alike_however_they_are_given(checkpoint, bits):
    """The model's training images had 8."""
    values = np.arange(144, dtype=np.uint16).reshape(12, 12) * 28
    Image.fromarray(values).save("d.png")
    Image.fromarray(values * 16).save("e.png")
    loaded = acn_lightning.load(checkpoint, [f"data.bits={bits}"] if bits else [])
    expected = loaded.encode((values.astype(int) * 255 // (2 ** (bits or 16) - 1)).astype(np.uint8))
    forms = ["d.png"], [Image.open("d.png")]
    if not bits:  # with 12, e.png is too bright
        forms += ["d.png", "e.png"], ["d.png", Image.open("e.png")]
    for given in ("d.png", Image.open("d.png"), *forms):
        assert np.allclose(loaded.encode(given)[:1], expected, atol=1e-6)


def test_decoded_images_are_the_decoders_means(loaded, images):
    with torch.no_grad():
        codes = loaded.module(torch.from_numpy(images)[:, None] / 255).mean
        expected = (loaded.module.decoder(codes).mean * 255).round().byte()[:, 0].numpy()
    found = loaded.reconstruct(images, batch_size=4)
    assert (found.shape, found.dtype) == ((9, 12, 12), np.uint8)
    assert np.abs(found.astype(int) - expected).max() <= 1  # in batches of another size
    steps = loaded.interpolate(images[0], images[1], steps=5)
    ends = loaded.reconstruct(images[:2])
    assert steps.shape == (5, 12, 12)
    assert np.abs(steps[[0, -1]].astype(int) - ends).max() <= 1
    middle = loaded.decode((codes[:1] + codes[1:2]) / 2)
    assert np.abs(steps[2].astype(int) - middle[0]).max() <= 1
    assert loaded.decode(np.zeros((0, 4), np.float32)).shape == (0, 12, 12)
    for call, said in [
        (lambda: loaded.interpolate(images, images[0]), "a: these are 9 images, not one"),
        (lambda: loaded.interpolate(images[0], images[0], steps=1), "steps: 1 is not from 2"),
        (lambda: loaded.decode(np.zeros((2, 3), np.float32)), r"not floats of shape \(N, 4\)"),
    ]:
        with pytest.raises(UsageError, match=said):
            call()


def test_a_notebook_shows_what_it_is(loaded, images):
    loaded.config = loaded.config | {"experiment": "<script>x</script>"}
    before = torch.get_rng_state()
    page = loaded._repr_html_()
    assert torch.equal(torch.get_rng_state(), before)
    assert page == loaded._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;x" in page
    (encoded,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).width > 12 * 12


def test_the_page_about_a_trained_model_runs(capsys):
    page = (Path(__file__).parents[1] / "docs/model.md").read_text("utf-8")
    block, _ = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    exec(block, {})
    shown = capsys.readouterr().out.splitlines()[-4:]
    assert shown == re.findall(r"^print.*# .*?(\(\d.*\))$", block, re.M)


def test_the_nearest_are_those_of_all_distances(loaded, images):
    found = loaded.neighbours(images, k=7)
    codes, bank = loaded.encode(images), loaded.bank
    for i, code in enumerate(codes):
        distances = np.linalg.norm(bank.codes[bank.rows].numpy() - code, axis=1)
        nearest = bank.rows.numpy()[np.argsort(distances)[:7]]
        assert found.rows[i].tolist() == nearest.tolist()
        np.testing.assert_allclose(found.distances[i], np.sort(distances)[:7], rtol=1e-4)
        assert found.labels[i].tolist() == bank.labels[nearest].tolist()
    as_tensors = loaded.neighbours(torch.from_numpy(images))
    assert as_tensors.rows.shape == (9, 5)  # the config's K
    assert torch.equal(as_tensors.distances, torch.from_numpy(found.distances[:, :5]))


def test_the_images_it_was_trained_on_are_not_needed(trained, tmp_path, loaded, images):
    shutil.copytree(trained / "runs", tmp_path / "elsewhere")
    path = tmp_path / "elsewhere/folder/mine/checkpoints/best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["acn_config"]["data"]["root"] = "gone"
    del checkpoint["hyper_parameters"]["classes"]  # as before they were noted
    torch.save(checkpoint, path)
    other = ACN.load(path, ["neighbours.k=2"])
    assert np.array_equal(other.encode(images), loaded.encode(images))
    assert other.neighbours(images).rows.shape == (9, 2)
    assert other.classes == ("0", "1", "2")
    assert loaded.classes == ("digit 0", "digit 1", "digit 2")


def test_samples_are_images_of_the_models_form(loaded):
    torch.manual_seed(3)
    modes = []
    loaded.module.train()  # as one is that was made by hand
    note = lambda part, _: modes.append(part.training)  # noqa: E731
    hook = loaded.module.decoder.register_forward_pre_hook(note)
    drawn = loaded.sample(5)
    assert modes == [False]
    assert loaded.module.decoder.training
    loaded.module.eval()
    hook.remove()
    assert drawn.shape == (5, 12, 12)
    assert drawn.dtype == np.uint8
    torch.manual_seed(3)
    with torch.no_grad():
        bank = loaded.bank
        marginal = loaded.module.prior.marginal(bank.codes[bank.rows], nearest=1)
        expected = loaded.module.decoder(marginal.sample((5,))).mean
    np.testing.assert_array_equal(drawn, (expected[:, 0] * 255).round().byte().numpy())
    with pytest.raises(UsageError, match="count: 0"):
        loaded.sample(0)


@pytest.mark.parametrize(("batch_size", "sizes"), [(256, [256, 44]), (130, [130, 130, 40])])
def test_no_more_samples_are_decoded_at_once_than_a_batch(loaded, batch_size, sizes):
    seen = []
    loaded.module.decoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    more = {} if batch_size == 256 else {"batch_size": batch_size}
    assert loaded.sample(300, **more).shape == (300, 12, 12)
    assert seen == sizes


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_nothing_is_refused(loaded, images, size):
    codes = np.zeros((2, 4), np.float32)
    for call in (
        lambda: loaded.encode(images, batch_size=size),
        lambda: loaded.neighbours(images, batch_size=size),
        lambda: loaded.reconstruct(images, batch_size=size),
        lambda: loaded.interpolate(images[0], images[1], batch_size=size),
        lambda: loaded.decode(codes, batch_size=size),
        lambda: loaded.sample(2, batch_size=size),
    ):
        with pytest.raises(UsageError, match=rf"batch_size: {size} is not from 1 to"):
            call()


def test_a_trained_model_says_what_it_is(loaded, checkpoint):
    weights = sum(one.numel() for one in loaded.module.parameters())
    assert repr(loaded).splitlines() == [
        "TrainedACN(folder)",
        "  images: 1 x 12 x 12, 3 classes",
        f"  codes: 4 numbers each, {len(loaded.bank.rows)} stored",
        f"  networks: encoder conv, prior mixture, decoder conv; {weights:,} weights",
        f"  read from: {checkpoint}",
    ]
    assert loaded.to("cpu") is loaded


def test_load_and_the_name_that_it_had_before(checkpoint):
    assert ACN.load is acn_lightning.load
    assert isinstance(acn_lightning.load(checkpoint), TrainedACN)


def test_the_stored_codes_are_of_the_training_images(checkpoint, trained):
    loaded = ACN.load(checkpoint)
    root = f"data.root={trained / 'photos'}"
    _, data, module = from_checkpoint(read_checkpoint(checkpoint), [root], bank=True)
    assert torch.equal(loaded.bank.codes, module.bank.codes)
    anew = encode(loaded.module, data.fixed_set.images)
    assert np.array_equal(anew, loaded.encode(data.fixed_set.images))
    loaded.bank.codes = anew
    loaded.bank.rebuild(loaded.index)
    nearest = loaded.neighbours(data.fixed_set.images[data.rows], k=1)
    assert torch.equal(nearest.rows[:, 0], data.rows)
    assert nearest.distances.max() < 1e-4


@pytest.mark.parametrize("how", ["none", "threshold", "static", "dynamic"])
def test_what_becomes_of_an_image_hangs_on_it_alone(how):
    images = torch.randint(0, 256, (2000, 1, 3, 4), dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = 0, 255
    binary = binarise_alike(images, how, seed=3)
    order = torch.randperm(len(images))
    assert torch.equal(binarise_alike(images[order], how, seed=3), binary[order])
    if how == "none":
        assert torch.equal(binary, images)
    else:
        assert set(binary.unique().tolist()) == {0, 255}
        assert not binary[:, 0, 0, 0].any()
        assert binary[:, 0, 0, 1].all()
        assert abs(float((binary > 0).float().mean()) - 0.5) < 0.02


def test_encoding_leaves_the_module_as_it_was(loaded, images):
    loaded.module.train()
    loaded.module.prior.eval()
    codes = loaded.encode(torch.from_numpy(images))
    assert loaded.module.encoder.training
    assert not loaded.module.prior.training
    assert not codes.requires_grad


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((12,), np.uint8), r"shape \(12,\), not"),
        (np.zeros((12, 12, 4), np.uint8), "seem to be transparent: give Image.fromarray"),
        (np.zeros((3, 20, 20), np.uint8), r"give \(1, 3, 20, 20\) for one, \(3, 1, 20, 20\) for"),
        (np.zeros((2, 12, 12, 4), np.uint8), "C = 1 or 3"),
        (np.zeros((2, 12, 12), np.int64), "int64: give uint8"),
        (np.full((2, 12, 12), 255.0), "between 0 and 1; these go from 255 to 255"),
        (np.full((2, 12, 12), np.nan), "between 0 and 1"),
    ],
)
def test_other_arrays_are_refused(loaded, wrong, words):
    with pytest.raises(UsageError, match=words):
        loaded.encode(wrong)


def test_bytes_from_0_to_1_are_refused_and_black_ones_are_not(loaded, images):
    masks = (images > 100).astype(np.uint8)
    told = r"images are uint8 and go from 0 to 1 only.*\(images \* 255\), floats .* or bool"
    for wrong in (masks, masks[0], torch.from_numpy(masks), list(masks), TensorDataset(
        torch.from_numpy(masks)), [Image.fromarray(images[0]), masks[0]]):  # fmt: skip
        with pytest.raises(UsageError, match=told):
            loaded.encode(wrong)
    expected = loaded.encode(masks * 255)
    for right in (masks == 1, masks.astype(float), list(masks == 1)):
        np.testing.assert_array_equal(loaded.encode(right), expected)
    for dark in (masks * 0, list(masks * 0), np.full((9, 12, 12), 1 / 255)):
        assert len(loaded.encode(dark)) == 9
    assert len(loaded.encode([masks[0], images[1]])) == 2  # one of a list may be almost black


def test_no_images_have_no_codes(loaded):
    assert loaded.encode(np.zeros((0, 12, 12), np.uint8)).shape == (0, 4)


@pytest.mark.parametrize("k", [0, -1])
def test_less_than_one_neighbour_is_refused(loaded, images, k):
    with pytest.raises(UsageError, match=f"k: {k} is below 1"):
        loaded.neighbours(images, k=k)


def test_more_neighbours_than_codes_are_refused(loaded, images):
    with pytest.raises(UsageError, match="Cannot find 500 neighbours of a code"):
        loaded.neighbours(images, k=500)


def test_a_module_put_together_by_hand_says_what_to_do(loaded, images):
    parts = loaded.module
    bare = ACN(parts.encoder, parts.shape, parts.prior, parts.decoder, parts.bank, parts.index, 3)
    with pytest.raises(UsageError, match=r"acn\(images\)\.mean"):
        TrainedACN(bare)
