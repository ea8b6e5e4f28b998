"""Every image comes back, at the cost that the model states; nothing else is accepted."""

import functools
import io
import math
import operator
import zlib
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from acn_lightning.compression.ans import TOTAL, Stack, Stacks, from_words, to_words
from acn_lightning.compression.bound import bound, nats_per_image
from acn_lightning.compression.codec import key_of
from acn_lightning.compression.container import from_bytes, read_names, to_bytes
from acn_lightning.compression.files import Options, compress_images, decompress_images
from acn_lightning.compression.latents import COARSE, FINE, ExactPrior, Mixture, Posterior
from acn_lightning.compression.model import fingerprint
from acn_lightning.compression.orders import Multiset, Schedule, lanes_of, schedule_for
from acn_lightning.compression.others import pictures
from acn_lightning.compression.pixels import channels_of
from acn_lightning.compression.symbols import (
    Binary,
    Weighted,
    pop_numbers,
    push,
    push_numbers,
)
from acn_lightning.config.compose import compose, experiments
from acn_lightning.evaluation.costs import order_nats
from acn_lightning.experiment.build import DataSpec, build_module
from acn_lightning.inference.pictures import as_picture
from acn_lightning.inference.trained_model import TrainedACN
from acn_lightning.networks.exact import exactly, settle
from acn_lightning.networks.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    LogisticMixtureLikelihood,
)
from acn_lightning.networks.priors import MixturePrior
from acn_lightning.utils.errors import UsageError
from tests.conftest import QUICK

ORDERS = ("keep", "free", "tour")


# ---------------------------------------------------------------- the entropy coder


def bits_on(stack):
    return 32 * len(stack.bulk) + stack.head.bit_length()


def tables_of(seed, count, size):
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 1 << 12, (count, size)) ** 2
    edges = np.cumsum(counts * (TOTAL - size) // counts.sum(1, keepdims=True) + 1, 1)
    edges[:, -1] = TOTAL
    return np.concatenate([np.zeros((count, 1), int), edges], 1), generator


def test_a_stack_is_constrictions_byte_by_byte():
    stream = pytest.importorskip("constriction").stream
    tables, generator = tables_of(0, 500, 7)
    symbols = generator.integers(0, 7, 500)
    ours, theirs = Stack(), stream.stack.AnsCoder()
    for symbol, table in zip(symbols.tolist(), tables.tolist(), strict=True):
        ours.push(table[symbol], table[symbol + 1] - table[symbol])
        chances = np.diff(table) / TOTAL
        model = stream.model.Categorical(chances, perfect=True)
        theirs.encode_reverse(np.array([symbol], np.int32), model)
    assert ours.words == theirs.get_compressed().tolist()
    assert from_words(to_words(ours.words)) == ours.words


@pytest.mark.parametrize("seed", range(4))
def test_what_is_pushed_is_popped_and_what_is_popped_can_be_pushed_back(seed):
    tables, generator = tables_of(seed, 300, 9)
    symbols, rows = generator.integers(0, 9, 300).tolist(), tables.tolist()
    stack = Stack(generator.integers(1, 1 << 32, 20).tolist())
    before = stack.words
    lows = [row[symbol] for row, symbol in zip(rows, symbols, strict=True)]
    ends = [row[symbol + 1] for row, symbol in zip(rows, symbols, strict=True)]
    stack.push_all(lows, [end - low for low, end in zip(lows, ends, strict=True)])
    again = Stack(stack.words)
    assert again.pop_all(rows) == symbols
    assert again.words == before
    drawn = again.pop_all(rows)  # more than it holds
    assert Stack().pop_all(rows) == [0] * 300
    lows = [row[symbol] for row, symbol in zip(rows, drawn, strict=False)]
    ends = [row[symbol + 1] for row, symbol in zip(rows, drawn, strict=False)]
    again.push_all(lows, [end - low for low, end in zip(lows, ends, strict=True)])
    assert again.words == before


def test_a_stack_costs_the_information_pushed():
    tables, generator = tables_of(5, 5000, 6)
    symbols = [generator.choice(6, p=np.diff(row) / TOTAL) for row in tables]
    stack, bits = Stack(), 0.0
    for symbol, row in zip(symbols, tables.tolist(), strict=True):
        stack.push(row[symbol], row[symbol + 1] - row[symbol])
        bits -= math.log2((row[symbol + 1] - row[symbol]) / TOTAL)
    assert (
        bits <= bits_on(stack) <= bits + TOTAL.bit_length()
    )  # which an empty stack's first one takes


# ---------------------------------------------------------------- variables


def random_stack(seed=0, words=4000):
    return Stack(np.random.default_rng(seed).integers(1, 1 << 32, words).tolist())


def check_variables(variables, count, size):
    """They can be pushed and popped, and all values together have probability one."""
    chances = torch.zeros(count, size, dtype=torch.float64)
    for symbol in range(size):
        stages = variables.intervals(torch.full((count,), symbol))
        chances[:, symbol] = math.prod(stage.frequency / TOTAL for stage in stages)
        assert all(bool((stage.frequency > 0).all()) for stage in stages)
    torch.testing.assert_close(chances.sum(1), torch.ones(count, dtype=torch.float64))
    symbols = torch.randint(size, (count,))
    stacks = Stacks([random_stack()])
    before = stacks.each[0].words
    push(stacks, variables, symbols)
    assert torch.equal(variables.pop(stacks), symbols)
    assert stacks.each[0].words == before
    return chances


def test_one_stage():
    ones = torch.tensor([0.0, 1e-9, 0.25, 0.5, 1.0], dtype=torch.float64)
    found = check_variables(Binary(ones), 5, 2)[:, 1]
    torch.testing.assert_close(found, ones.clamp(1 / TOTAL, 1 - 1 / TOTAL), atol=1e-7, rtol=0)
    weights = torch.randint(1, 1 << 20, (7, 40))
    found = check_variables(Weighted(weights), 7, 40)
    torch.testing.assert_close(
        found, weights / weights.sum(1, keepdim=True).double(), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("grid", [FINE, COARSE])
def test_a_mixture_on_a_grid_is_the_normals_probabilities(grid):
    weights = torch.tensor([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    means = torch.tensor([[-3.0, 2.0], [0.5, 9.0], [500.0, -500.0]], dtype=torch.float64)
    scales = torch.tensor([[1.0, 2.5], [1.25, 1.0], [1.0, 1.0]], dtype=torch.float64)
    found = check_variables(Mixture(weights, means, scales).on(grid), 3, grid.radix**2)
    edges = (torch.arange(grid.radix**2 + 1) - grid.middle - 0.5) * grid.step
    below = torch.special.ndtr((edges[:, None, None] - means) / scales)
    below[0], below[-1] = 0, 1
    expected = (below.diff(dim=0) * weights).sum(2).T
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=0)  # the table's step is 2^-13
    z = grid.value(torch.arange(grid.radix**2))
    assert torch.equal(grid.nearest(z), torch.arange(grid.radix**2))


PIXELS = [
    (BernoulliLikelihood(3), 2),
    (CategoricalLikelihood(2), 256),
    (LogisticMixtureLikelihood(1, mixtures=3), 256),
    (LogisticMixtureLikelihood(3, mixtures=2), 256),
]


@pytest.mark.parametrize(("likelihood", "levels"), PIXELS)
def test_a_pixel_costs_what_the_likelihood_says(likelihood, levels):
    """Channel by channel, against the float likelihood's probability of whole pixels."""
    for table in likelihood.parameters():
        nn.init.normal_(table)
    parameters = settle(torch.randn(20, likelihood.per_pixel, dtype=torch.float64) * 1.5)
    channels = {2: 3, 256: getattr(likelihood, "channels", None)}[levels]
    channels = channels or likelihood.parts[1]
    values = torch.randint(levels, (20, channels))
    channel = channels_of(exactly(likelihood), parameters)
    nats = torch.zeros(20, dtype=torch.float64)
    for number, own in enumerate(values.unbind(1)):
        variables = channel(number, values.unbind(1)[:number])
        chances = check_variables(variables, 20, levels)
        nats -= chances.gather(1, own[:, None])[:, 0].log()
    image = values[:, :, None, None] / (levels - 1)
    expected = -likelihood(parameters.float()[:, :, None, None]).log_prob(image)
    seen = expected < 12 * channels  # rarer values cost less here: at least one count of 2^24
    assert seen.sum() > 10
    torch.testing.assert_close(nats[seen], expected[seen].double(), atol=0.02, rtol=0.002)
    assert (nats[~seen] < expected[~seen] + 1).all()


def test_the_posterior_is_a_normal_around_the_code():
    posterior, stacks = Posterior(), Stacks([random_stack(words=40_000)])
    before = stacks.each[0].words
    codes = settle(torch.randn(2000, 4, dtype=torch.float64) * 3)
    z = posterior.pop(stacks, codes)
    apart = FINE.value(z) - codes
    assert abs(float(apart.mean())) < 0.04
    assert abs(float(apart.std()) - 1) < 0.04
    posterior.push(stacks, codes, z)
    assert stacks.each[0].words == before
    assert torch.equal(posterior.pop(Stacks([Stack()]), codes), FINE.nearest(codes))  # the nearest
    with pytest.raises(IndexError):
        posterior.push(stacks, codes, z + 200)


@pytest.mark.parametrize("channels", [1, 3])
def test_other_compressors_of_pictures_lose_nothing(channels):
    """Nor of black and white in each channel, which is not black and white."""
    pixels = np.random.default_rng(0).integers(0, 2, (9, 9, channels)).astype(np.uint8) * 255
    picture = as_picture(pixels)
    for name, code in pictures(binary=True).items():
        back = Image.open(io.BytesIO(code(picture))).convert(picture.mode)
        assert np.array_equal(np.asarray(back), np.asarray(picture)), name


@pytest.mark.parametrize("total", [1, 2, 100, 4096, 4097, 100_000])
def test_numbers_cost_their_logarithm(total):
    numbers = torch.randint(total, (300,))
    numbers[:2] = torch.tensor([0, total - 1])
    stacks = Stacks([Stack(), Stack()])
    push_numbers(stacks, numbers, total)
    bits = sum(bits_on(stack) for stack in stacks.each)
    pages = -(-total // 4096)
    assert bits <= 300 * math.log2(total + pages - 1) + 48
    assert torch.equal(pop_numbers(stacks, 300, total), numbers)
    assert not any(stacks.each)


def test_candidates_are_the_nearest_stored_codes():
    codes = settle(torch.randn(300, 3, dtype=torch.float64))
    codes[50:80] = codes[20]  # as near as each other
    prior = ExactPrior(exactly(MixturePrior(3, width=8)), codes, 40)
    z = FINE.value(FINE.nearest(torch.cat([codes[:10], codes[20:21]])))
    found = prior.candidates(z)
    far = (z[:, None] - codes).square().sum(2)
    for row, own in zip(far, found, strict=True):
        best = sorted(range(300), key=lambda one: (round(float(row[one]), 6), one))[:40]
        assert len(set(own.tolist()) & set(best)) >= 39
        assert own.tolist() == sorted(own.tolist())
    assert set(found[-1].tolist()) >= {20, *range(50, 80)}


def test_weights_of_candidates_are_the_priors_densities():
    torch.manual_seed(3)
    prior = MixturePrior(5, width=16, mixtures=3)
    nn.init.normal_(prior.output.weight, std=0.3)
    codes = settle(torch.randn(200, 5, dtype=torch.float64))
    found = ExactPrior(exactly(prior), codes, 30)
    z = torch.randn(4, 5).mul(8).round() / 8
    rows = found.candidates(z.double())
    weights = found.posterior(z.double(), rows).double()
    with torch.no_grad():
        expected = prior(codes[rows].float()).log_prob(z[:, None]).softmax(1)
    torch.testing.assert_close(
        weights / weights.sum(1, keepdim=True), expected.double(), atol=0.02, rtol=0
    )


# ---------------------------------------------------------------- orders


def test_a_schedule_covers_all_images_and_shrinks():
    for images, growth, lanes in product((1, 2, 3, 50, 1000), (1, 10, 40, 255), (1, 7, 1024)):
        sizes = Schedule(growth, lanes).sizes(images)
        assert sum(sizes) == images
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] == 1  # the sender's first step has no bits
        assert max(sizes) <= lanes
        chains = lanes_of(sizes)
        assert sorted(functools.reduce(operator.iadd, chains, [])) == list(range(images))
        assert len(chains) == sizes[0]
    assert schedule_for(100, 50, 8).growth == 20


def test_a_set_gives_the_bits_of_its_order_back():
    images = [bytes([number % 90]) for number in range(100)]  # ten of them twice
    stack = random_stack()
    before = bits_on(stack)
    left = Multiset(images)
    drawn = [left.pop(stack) for _ in images]
    assert sorted(drawn) == sorted(images)
    taken = math.lgamma(101) / math.log(2) - 10
    assert abs(before - bits_on(stack) - taken) < 2
    found = Multiset()
    for image in reversed(drawn):
        found.push(stack, image)
    assert stack.words == random_stack().words


# ---------------------------------------------------------------- models


def model(name="digits", *overrides, bank=40, image_shape=(1, 4, 3)):
    """An untrained model with opinions of its own."""
    torch.manual_seed(0)
    quick = [word for word in QUICK if "prior" not in word or "pixelvae" not in name]
    config = compose(name, [*quick, "neighbours.k=1", *overrides])
    binary = config["data"]["binarisation"] != "none"
    about = DataSpec(
        image_shape, ("a",), torch.zeros(bank, dtype=torch.long), torch.arange(bank), binary
    )
    module = build_module(config, about)
    for part in (module.prior, module.decoder):
        for weight in part.parameters():
            nn.init.normal_(weight, std=0.15)
    return TrainedACN(module)


def some_images(count, shape, binary, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)
    images[count // 2 :] = images[: count - count // 2].clone()  # equal ones
    return images // 128 * 255 if binary else images


def in_order(images, order):
    return images.tolist() if order == "keep" else sorted(map(key_of, images))


PIXELCNN = ("model.decoder.kind=pixelcnn", "model.decoder.layers=2")
BERNOULLI = ("model.likelihood.kind=bernoulli", "data.binarisation=static")
MIXTURE = ("model.likelihood.kind=logistic_mixture", "model.likelihood.mixtures=2")
KINDS = {
    "categorical": ("digits", ()),
    "bernoulli": ("digits", BERNOULLI),
    "sphere": ("digits", (*BERNOULLI, "model.shape.kind=sphere")),
    "free codes": ("digits", (*BERNOULLI, "model.shape.kind=free")),
    "standard normal": ("digits+pixelvae", (*BERNOULLI, *PIXELCNN)),
    "pixelcnn": ("digits", (*BERNOULLI, *PIXELCNN)),
    "pixelcnn, grey": ("digits", (*MIXTURE, *PIXELCNN)),
    "vector": ("digits", (*BERNOULLI, *PIXELCNN, "model.decoder.conditioning=vector")),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_images_come_back(kind, order):
    name, overrides = KINDS[kind]
    acn = model(name, *overrides)
    for count, block in ((1, None), (2, None), (11, 8)):
        images = some_images(count, acn.image_shape, acn.module.decoder.likelihood.binary)
        container = compress_images(acn, images, Options(order, block, nearest=16))
        again = decompress_images(acn, from_bytes(to_bytes(container), "x"), "x")
        assert in_order(again, order) == in_order(images, order)


@pytest.mark.parametrize("order", ORDERS)
def test_colour_images_come_back(order):
    acn = model("digits", *MIXTURE, *PIXELCNN, image_shape=(3, 3, 2))
    images = some_images(9, acn.image_shape, binary=False)
    container = compress_images(acn, images, Options(order))
    assert in_order(decompress_images(acn, container, "x"), order) == in_order(images, order)


@pytest.mark.parametrize("name", experiments())
def test_images_of_every_experiment_come_back(name):
    config = compose(name)
    small = ["model.decoder.layers=2", "model.decoder.map_channels=8"]
    pixelcnn = config["model"]["decoder"]["kind"] == "pixelcnn"
    channels = 1 if name in ("digits", "mnist", "fashion_mnist") else 3
    acn = model(name, *small[: 2 * pixelcnn], image_shape=(channels, 3, 4))
    images = some_images(3, acn.image_shape, acn.module.decoder.likelihood.binary)
    container = compress_images(acn, images, Options())
    assert torch.equal(decompress_images(acn, container, "x"), images)


def test_more_images_than_stored_codes_and_one_stored_code():
    for bank in (1, 3):
        acn = model("digits", *BERNOULLI, bank=max(bank, 2))
        acn.module.bank.rows = acn.module.bank.rows[:bank]
        images = some_images(30, acn.image_shape, binary=True)
        container = compress_images(acn, images, Options())
        assert torch.equal(decompress_images(acn, container, "x"), images)


@pytest.mark.parametrize("order", ORDERS)
def test_a_file_takes_what_the_bound_says(order):
    """The coder against the float networks and sampled codes."""
    acn = model("digits", *BERNOULLI, *PIXELCNN, bank=200, image_shape=(1, 6, 5))
    images = some_images(300, acn.image_shape, binary=True)
    images[:150] = torch.randint(2, (150, *acn.image_shape), dtype=torch.uint8) * 255
    options = Options(order, 300, nearest=200)
    container = compress_images(acn, images, options)
    stated = nats_per_image(1, 300) ** -1 * bound(acn.module, images, options)
    assert (
        -0.01 * stated < container.payload - stated < 0.01 * stated + 12
    )  # of a file's first image


def test_a_set_is_smaller_than_a_sequence_by_its_order():
    acn = model("digits", *BERNOULLI, bank=200, image_shape=(1, 6, 5))
    images = torch.randint(2, (600, *acn.image_shape), dtype=torch.uint8) * 255
    sizes = {
        order: nats_per_image(compress_images(acn, images, Options(order, 600)).payload, 600)
        for order in ("keep", "free")
    }
    assert sizes["keep"] - sizes["free"] == pytest.approx(order_nats(images), abs=0.2)


def test_only_the_blocks_of_wanted_images_are_decoded():
    acn = model("digits", *BERNOULLI)
    images = some_images(50, acn.image_shape, binary=True)
    container = compress_images(acn, images, Options(block=10))
    seen = []
    found = decompress_images(acn, container, "x", [41, 3, 49], seen.append)
    assert torch.equal(found, images[[41, 3, 49]])
    assert sum(seen) == 20


def test_the_receivers_batches_need_not_be_the_senders():
    """Blocks that were coded together are decoded alone."""
    acn = model("digits", *BERNOULLI, *PIXELCNN)
    images = some_images(24, acn.image_shape, binary=True)
    container = compress_images(acn, images, Options(block=6))
    for number in range(0, 24, 6):
        assert torch.equal(decompress_images(acn, container, "x", [number])[0], images[number])


# ---------------------------------------------------------------- wrong files


@pytest.fixture(scope="module")
def compressed():
    acn = model("digits", *BERNOULLI)
    images = some_images(20, acn.image_shape, binary=True)
    return (
        acn,
        images,
        to_bytes(compress_images(acn, images, Options(block=8), [f"{n}.png" for n in range(20)])),
    )


def test_two_hundred_damaged_files_are_refused(compressed):
    acn, images, content = compressed
    generator = np.random.default_rng(0)
    assert torch.equal(decompress_images(acn, from_bytes(content, "x"), "x"), images)
    for number in range(200):
        damaged = bytearray(content)
        place = int(generator.integers(len(content)))
        match number % 4:
            case 0:
                damaged[place] ^= 1 << int(generator.integers(8))
            case 1:
                del damaged[place:]
            case 2:
                damaged[place:place] = generator.bytes(3)
            case 3:
                other = int(generator.integers(len(content)))
                damaged[place : place + 8] = content[other : other + 8]
        if bytes(damaged) == content:
            continue
        with pytest.raises(
            UsageError, match=r"^x (is truncated|is damaged|is not a file|has version)"
        ):
            from_bytes(bytes(damaged), "x")


def test_a_wrong_payload_with_a_right_digest_is_refused_too(compressed):
    """Whoever writes such a file on purpose gets no wrong image out of it."""
    acn, _images, content = compressed
    container = from_bytes(content, "x")
    generator = np.random.default_rng(1)
    for number in range(8):
        first, *others = container.blocks
        words = bytearray(first.content)
        words[number * 7 % len(words)] ^= 1 << int(generator.integers(8))
        wrong = container._replace(blocks=(first._replace(content=bytes(words)), *others))
        with pytest.raises(UsageError, match="x is damaged"):
            decompress_images(acn, from_bytes(to_bytes(wrong), "x"), "x")
    one, two, last = container.blocks
    swapped = container._replace(blocks=(one._replace(content=two.content), two, last))
    with pytest.raises(UsageError, match="x is damaged"):
        decompress_images(acn, swapped, "x")


@pytest.mark.parametrize(
    "change",
    [
        {"count": 0}, {"count": 25}, {"block": 0}, {"block": 10}, {"block": 1 << 21}, {"growth": 0},
        {"lanes": 0}, {"lanes": 2000}, {"image_shape": (0, 4, 3)}, {"names": ("a.png",)},
        {"nearest": 0},
    ],
)  # fmt: skip
def test_a_header_that_makes_no_sense_is_refused(compressed, change):
    container = from_bytes(compressed[2], "x")._replace(**change)
    with pytest.raises(UsageError, match="x is not valid"):
        from_bytes(to_bytes(container), "x")


@pytest.mark.parametrize(
    "name",
    ["../a.png", "/a.png", "a/../../b.png", "a\\b.png", "c:a.png", "a\nb", "", ".", "a" * 2000],
)
def test_names_stay_within_the_folder(compressed, name):
    acn, images, content = compressed
    container = from_bytes(content, "x")
    names = (name, *container.names[1:])
    with pytest.raises(UsageError, match="x is not valid"):
        from_bytes(to_bytes(container._replace(names=names)), "x")
    with pytest.raises(UsageError, match="this name cannot be stored"):
        compress_images(acn, images, Options(), names)


@pytest.mark.parametrize("twice", [("a.png", "a.png"), ("a.jpg", "a.jpg.png")])
def test_two_images_do_not_become_one_file(compressed, twice):
    acn, images, content = compressed
    container = from_bytes(content, "x")
    names = (*twice, *container.names[2:])
    with pytest.raises(UsageError, match="x is not valid"):
        from_bytes(to_bytes(container._replace(names=names)), "x")
    with pytest.raises(UsageError, match="Two images would have the same name"):
        compress_images(acn, images, Options(), names)


def test_names_of_all_scripts_come_back(compressed):
    acn, images, content = compressed
    some = ("Bild\u202f1.png", "絵\u3000二.png", "é/ß.JPG")
    names = (*some, *from_bytes(content, "x").names[3:])
    assert from_bytes(to_bytes(compress_images(acn, images, Options(), names)), "x").names == names


def test_a_file_that_claims_too_much_is_refused_at_once(compressed):
    container = from_bytes(compressed[2], "x")
    many = container._replace(
        count=1 << 30, block=1 << 20, names=(), blocks=container.blocks[:1] * 1024
    )
    with pytest.raises(UsageError, match="x is not valid"):
        from_bytes(to_bytes(many), "x")
    bomb = zlib.compress(b"a\n" * (1 << 27), 9)
    with pytest.raises(UsageError, match="x is not valid"):
        read_names(bomb, 100, "x")


def test_numbers_that_are_not_finite_are_named():
    acn = model("digits", *BERNOULLI)
    acn.module.bank.codes[3, 1] = float("nan")
    images = some_images(2, acn.image_shape, binary=True)
    with pytest.raises(UsageError, match="codes holds numbers that are not finite"):
        compress_images(acn, images, Options())


def test_another_model_and_another_environment_are_named(compressed):
    acn, _, content = compressed
    container = from_bytes(content, "x")
    other = model("digits", *BERNOULLI)
    with torch.no_grad():
        other.module.decoder.output.bias += 1e-3
    own, theirs = (fingerprint(one.module, one.image_shape).hex() for one in (acn, other))
    with pytest.raises(
        UsageError, match=f"another checkpoint: its model is {own[:12]}, .*{theirs[:12]}"
    ):
        decompress_images(other, container, "x")
    with pytest.raises(UsageError, match="cannot be read here"):
        decompress_images(acn, container._replace(probe=bytes(8)), "x")
    longer = model("digits", *BERNOULLI, bank=41)
    with pytest.raises(UsageError, match="another checkpoint"):
        decompress_images(longer, container, "x")


def test_a_part_of_ones_own_cannot_compress_but_an_encoder_can(monkeypatch):
    acn = model("digits", *BERNOULLI)
    images = some_images(12, acn.image_shape, binary=True)

    class Mine(type(acn.module.encoder)):
        pass

    acn.module.encoder.__class__ = Mine
    with pytest.raises(
        UsageError, match=r"Mine with WhiteShape has no exact form.*arithmetic=float"
    ):
        compress_images(acn, images, Options())
    container = compress_images(acn, images, Options(arithmetic="float"))
    assert torch.equal(decompress_images(acn, container, "x"), images)
    acn.module.decoder.__class__ = type("Own", (type(acn.module.decoder),), {})
    with pytest.raises(UsageError, match=r"model\.decoder\.kind: Own cannot be used to compress"):
        compress_images(acn, images, Options(arithmetic="float"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options("sorted"), "order: 'sorted' is not one of keep, free, tour"),
        (Options(arithmetic="half"), "arithmetic: 'half' is not one of exact, float"),
        (Options(block=0), "block: 0 is not from 1 to"),
        (Options(block=1 << 21), "block: 2097152 is not from 1 to"),
        (Options(nearest=0), "evaluation.unconditional_codes: 0 is not from 1 to 65,536"),
        (Options(nearest=1 << 20), "unconditional_codes: 1048576 is not from 1 to 65,536"),
    ],
)
def test_wrong_options(compressed, options, message):
    acn, images, _ = compressed
    with pytest.raises(UsageError, match=message):
        compress_images(acn, images, options)
