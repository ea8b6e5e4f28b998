"""Published data sets, fetched from their publishers where the folder lacks them."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from acn_lightning.data.sources.cifar10 import ARCHIVES, FOLDERS
from acn_lightning.utils.errors import UsageError

STALL_SECONDS = 30
"""A publisher that sends nothing for so long is given up."""


class Published(NamedTuple):
    """Addresses that hold the same files, tried in turn, and the files' MD5 sums; what makes all
    of them needless where it is there."""

    addresses: tuple[str, ...]
    files: dict[str, str]
    instead: tuple[str, ...] = ()


# The sums are the ones that the publishers' files are known by (CIFAR-10's page, Fashion-MNIST's
# README, torchvision's list for MNIST). MD5 is what was published; it finds damage, not malice.
PUBLISHED = {
    "mnist": Published(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": Published(
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "cifar10": Published(
        ("https://www.cs.toronto.edu/~kriz/",),
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},  # is read as it is
        (*FOLDERS, *ARCHIVES, "data_batch_1.bin", "data_batch_1"),
    ),
}


def download(published: Published, root: Path) -> None:
    """Fetches into `root` what is not there yet. A file appears whole and checked, or not at all.

    Raises:
        UsageError: no address gave a file with the right sum in time.
    """
    if not missing(published, root):
        return
    from filelock import FileLock

    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    lock = root / ".download.lock"
    try:
        # The processes of a distributed run start side by side: one fetches, the others find it.
        with FileLock(lock):
            for name in missing(published, root):
                urls = [address + name for address in published.addresses]
                fetch(urls, published.files[name], root / name)
    finally:
        # Should another process still wait for it, the worst is a file that is fetched twice.
        lock.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):  # something came to it
                folder.rmdir()


def missing(published: Published, root: Path) -> list[str]:
    """Files that are there neither as published nor unpacked."""
    if any((root / name).exists() for name in published.instead):
        return []
    return [
        name
        for name in published.files
        if not (root / name).is_file() and not (root / name.removesuffix(".gz")).is_file()
    ]


def fetch(urls: list[str], md5: str, path: Path, stall_seconds: float = STALL_SECONDS) -> None:
    """Downloads the first of `urls` that answers with the right content to `path`.

    Raises:
        UsageError: none did.
    """
    import pooch

    # Its own lines and the library's tracebacks are for programmers: ours is one line.
    pooch.get_logger().setLevel("ERROR")
    reasons = []
    for url in urls:
        downloader = pooch.HTTPDownloader(timeout=stall_seconds, progressbar=True)
        try:
            pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, downloader=downloader)
        except ValueError:  # pooch's answer to a wrong sum
            reasons.append(f"{url}: not the published content")
        except OSError as error:  # what requests raises; their names say more than their texts
            status = getattr(getattr(error, "response", None), "status_code", None)
            what = f"HTTP status {status}" if status else type(error).__name__
            reasons.append(f"{url}: {what}")
        else:
            return
    raise UsageError(
        f"data.download: could not fetch {path.name}: {'; '.join(reasons)}. Put the files into "
        f"data.root by hand, or try again."
    )
