"""References: what a person would write without this framework, simple but not needlessly slow."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from statistics import mean
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from acn_lightning import objective
from acn_lightning.callbacks import measure
from acn_lightning.data.subsets import stratified
from acn_lightning.evaluation import classifiers
from acn_lightning.evaluation.classifiers import Labelled
from acn_lightning.module import ACN
from acn_lightning.networks.convolutions import Conv3x3, UpsamplingConv3x3
from acn_lightning.networks.decoders import ConvDecoder, Decoder, PixelCNNDecoder
from acn_lightning.networks.distributions import unit_normal
from acn_lightning.networks.likelihoods import LogisticMixtureLikelihood
from acn_lightning.networks.logistic_mixture import LogisticMixturePixels
from acn_lightning.networks.pixelcnn.distribution import AutoregressiveImages
from acn_lightning.networks.pixelcnn.network import GatedActivation
from acn_lightning.networks.priors import CodeMixture
from acn_lightning.networks.shapes import Shape
from acn_lightning.retrieval.faiss_backend import import_faiss

# ---------------------------------------------------------------- training


class BareLoop:
    """Copies of an ACN's networks, and its loss in a plain PyTorch loop: no Lightning, no bank, no
    neighbours. The caller supplies the neighbours' codes.

    Args:
        module: the ACN whose networks to copy.
        precision: context that sets the networks' precision.
    """

    def __init__(
        self, module: ACN, precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        self.networks = nn.ModuleList(
            deepcopy(part) for part in (module.encoder, module.shape, module.prior, module.decoder)
        )
        self.precision, self.rate_weight = precision, module.rate_weight
        self.optimizer = torch.optim.Adam(
            self.networks.parameters(), lr=module.optimizer.learning_rate
        )

    def step(self, image: Tensor, code: Tensor) -> None:
        """Takes one step of the optimiser."""
        with self.precision():
            loss = self.loss(image, code)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def loss(self, image: Tensor, code: Tensor) -> Tensor:
        """Returns weighted rate + distortion, averaged over the batch, plus the shape's penalty."""
        encoder, shape, prior, decoder = self.networks
        posterior = unit_normal(cast(Shape, shape).of_batch(encoder(image).mean))
        z = posterior.rsample()
        rate = objective.rate(posterior, prior(code), z).mean()
        cost = self.rate_weight * rate + self.distortion(cast(Decoder, decoder), z, image).mean()
        return cost + cast(Shape, shape).penalty(posterior.mean)

    def distortion(self, decoder: Decoder, z: Tensor, image: Tensor) -> Tensor:
        """Returns -log r(x|z) of each image."""
        return objective.distortion(decoder(z), image)


class EarlierFolder(BareLoop):
    """The step of `folder` when it had a convolutional decoder, before it was made faster:
    PyTorch's own convolutions and upsampling, the mixture of logistics by its formula with
    autograd's gradient, Adam without its fused kernel, eager, in float32 and contiguous.

    Args:
        module: `folder`'s with a convolutional decoder, whose weights it copies.
        mixtures: logistics per pixel; `folder` had ten. If the module has another number, the last
            layer's weights are random.
    """

    def __init__(self, module: ACN, mixtures: int = 10) -> None:
        super().__init__(module)
        self.networks = nn.ModuleList(plainly(part) for part in self.networks)
        decoder = cast(ConvDecoder, self.networks[3])
        channels = decoder.image_shape[0]
        if mixtures != cast(LogisticMixtureLikelihood, decoder.likelihood).mixtures:
            decoder.likelihood = LogisticMixtureLikelihood(channels, mixtures=mixtures)
            inputs = decoder.output.in_channels
            decoder.output = nn.Conv2d(inputs, decoder.likelihood.per_pixel, 3, padding=1)
        self.optimizer = torch.optim.Adam(
            self.networks.parameters(), lr=module.optimizer.learning_rate
        )

    def distortion(self, decoder: Decoder, z: Tensor, image: Tensor) -> Tensor:
        return -cast(LogisticMixturePixels, decoder(z)).plain_log_prob(image)


def plainly(network: nn.Module) -> nn.Module:
    """Returns a contiguous copy with the same weights in PyTorch's own layers."""
    copy = deepcopy(network)
    for parent in list(copy.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.ReLU):
                setattr(parent, name, nn.ReLU())
            if isinstance(layer, Conv3x3 | UpsamplingConv3x3):
                own = nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1, bias=False)
                own.load_state_dict(layer.state_dict())
                doubled = isinstance(layer, UpsamplingConv3x3)
                steps = nn.Sequential(nn.Upsample(scale_factor=2), own) if doubled else own
                setattr(parent, name, steps)
            if isinstance(layer, GatedActivation):
                setattr(parent, name, PlainGate())
    return copy.to(memory_format=torch.contiguous_format)


def decoder_cost(decoder: PixelCNNDecoder, z: Tensor, image: Tensor) -> Tensor:
    """Returns the batch mean of -log r(x|z), in the memory format of weights and image."""
    features = decoder.condition(z) if decoder.condition is not None else None
    parameters = decoder.network(image, features)
    return -decoder.likelihood(parameters).log_prob(image).mean()


class PlainGate(nn.Module):
    """The gated activation with autograd's gradient."""

    def forward(self, both: Tensor) -> Tensor:
        a, b = both.chunk(2, dim=1)
        return torch.tanh(a) * torch.sigmoid(b)


# ---------------------------------------------------------------- sampling


@torch.no_grad()
def sample_by_full_passes(images: AutoregressiveImages) -> Tensor:
    """Draws pixels in raster order, each with a pass of the network over the whole image."""
    drawn = torch.zeros(*images.batch_shape, *images.event_shape, device=device_of(images.network))
    height, width = drawn.shape[2:]
    for i in range(height):
        for j in range(width):
            parameters = images.network(drawn, images.features)[:, :, i : i + 1, j : j + 1]
            drawn[:, :, i, j] = images.likelihood(parameters).sample()[:, :, 0, 0]
    return drawn


def device_of(network: nn.Module) -> torch.device:
    """Returns the device of the network's weights."""
    return next(network.parameters()).device


# ---------------------------------------------------------------- data


class PerImage(Dataset[tuple[int, Tensor, int]]):
    """A map-style data set as in PyTorch's tutorials: an image, its transform, its label."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.numpy(), labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[int, Tensor, int]:
        return i, to_tensor(Image.fromarray(self.images[i, 0])), self.labels[i]


def to_tensor(image: Image.Image) -> Tensor:
    """Converts a grey PIL image to floats in [0, 1], (1, H, W), like torchvision's `to_tensor`."""
    return torch.from_numpy(np.array(image))[None].float().div(255)


def per_image_loader(images: Tensor, labels: Tensor, batch_size: int) -> Iterable[list[Tensor]]:
    """Returns batches of (index, image, label): two workers, PyTorch's own collation."""
    return DataLoader(PerImage(images, labels), batch_size, shuffle=True, num_workers=2)


# ---------------------------------------------------------------- search


def flat_search(codes: Tensor, k: int) -> Tensor:
    """Searches exactly with bare FAISS: the K nearest of each code, itself included, (N, K)."""
    found: Tensor = flat_index(codes).search(codes, k)[1]
    return found


def flat_index(codes: Tensor) -> Any:
    """Returns FAISS's exact index, on the device of the codes."""
    faiss = import_faiss()
    index = faiss.IndexFlatL2(codes.shape[1])
    if codes.is_cuda:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), codes.device.index, index)
    index.add(codes)
    return index


def sklearn_search(codes: Tensor, k: int) -> Tensor:
    """Does the same with scikit-learn's defaults."""
    array = codes.cpu().numpy()
    return torch.from_numpy(NearestNeighbors(n_neighbors=k).fit(array).kneighbors(array)[1])


def cdist_search(codes: Tensor, k: int, at_once: int = 1000) -> Tensor:
    """Does the same with torch, one block of the distance matrix at a time."""
    blocks = (torch.cdist(some, codes) for some in codes.split(at_once))
    return torch.cat([block.topk(k, largest=False).indices for block in blocks])


@torch.no_grad()
def encode_and_search(module: ACN, images: Tensor, k: int, batch_size: int = 256) -> Tensor:
    """Encodes images, bytes, and finds the K others with the nearest codes, and itself."""
    batches = [module(some.float() / 255).mean for some in images.split(batch_size)]
    return flat_search(torch.cat(batches), k + 1)


# ---------------------------------------------------------------- the test phase


@contextmanager
def earlier_test_phase() -> Iterator[None]:
    """Replaces three parts of a test by what they first were, within the `with` block."""
    with (
        patch.object(classifiers, "linear_accuracies", sklearn_accuracies),
        patch.object(measure, "principal_components", sklearn_components),
        patch.object(CodeMixture, "log_prob", marginal_log_prob),
    ):
        yield


def sklearn_accuracies(train: Labelled, test: Labelled, classes: int) -> dict[str, Any]:
    """Does what `classifiers.linear_accuracies` does, each fit from the beginning."""
    labels = torch.from_numpy(train.labels)
    found: dict[str, Any] = {"linear": sklearn_accuracy(train, test, slice(None))}
    for count in classifiers.LABELS:
        found[f"labels_{count}"] = None
        if classes <= count <= len(labels):
            draws = [
                sklearn_accuracy(train, test, stratified(labels, count, seed).numpy())
                for seed in range(classifiers.DRAWS)
            ]
            found[f"labels_{count}"] = {"mean": mean(draws), "spread": max(draws) - min(draws)}
    return found


def sklearn_accuracy(train: Labelled, test: Labelled, chosen: np.ndarray | slice) -> float:
    """The accuracy of scikit-learn's classifier, learnt from the chosen images."""
    scaler = StandardScaler().fit(train.features.astype(np.float32))
    model = LogisticRegression(max_iter=1000)
    model.fit(scaler.transform(train.features[chosen].astype(np.float32)), train.labels[chosen])
    return float(model.score(scaler.transform(test.features.astype(np.float32)), test.labels))


def sklearn_components(
    train: Labelled, test: Labelled, components: int
) -> tuple[Labelled, Labelled]:
    """Does what `classifiers.principal_components` does."""
    basis = PCA(min(components, *train.features.shape), random_state=0)
    basis.fit(train.features.astype(np.float32))
    reduced = [basis.transform(one.features.astype(np.float32)) for one in (train, test)]
    return Labelled(reduced[0], train.labels), Labelled(reduced[1], test.labels)


@torch.no_grad()
def marginal_log_prob(marginal: CodeMixture, value: Tensor) -> Tensor:
    """Does what `CodeMixture.log_prob` does, with a distribution of torch's for each z and code."""
    described = marginal.prior.describe(marginal.codes)
    found = []
    for z in value.flatten(0, -2).split(16):
        rows = torch.cdist(z, marginal.codes).topk(marginal.nearest, largest=False).indices
        terms = marginal.prior.distribution(described[rows]).log_prob(z[:, None])
        found.append(torch.logsumexp(terms, dim=1) - math.log(len(marginal.codes)))
    return torch.cat(found).reshape(value.shape[:-1])
