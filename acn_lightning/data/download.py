"""Downloads published data sets from their publishers if the folder lacks them."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from acn_lightning.utils.errors import UsageError

STALL_SECONDS = 30
"""Gives up on a publisher that sends nothing for this long."""


class Published(NamedTuple):
    """Addresses that hold the same files, tried in turn; the files' MD5 sums; and names of which
    any one makes the download unnecessary if it exists.

    The sums are MD5 because that is what publishers give (CIFAR-10's page, Fashion-MNIST's README,
    torchvision's list for MNIST). They detect damage, not malice.
    """

    addresses: tuple[str, ...]
    files: dict[str, str]
    instead: tuple[str, ...] = ()


def download(published: Published, root: Path) -> None:
    """Downloads what `root` lacks. A file appears whole and checked, or not at all.

    Raises:
        UsageError: no address sent a file with the right sum in time.
    """
    if not missing(published, root):
        return
    from acn_lightning.utils.locks import acquire, make_lock

    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    lock = make_lock(root / ".download.lock")
    try:
        # The processes of a distributed run start together: one downloads, the others find them.
        acquire(lock)
        for name in missing(published, root):
            urls = [address + name for address in published.addresses]
            fetch(urls, published.files[name], root / name)
    finally:
        lock.release()
        # If another process still waits for the lock, a file is at worst downloaded twice.
        Path(lock.lock_file).unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):  # no longer empty
                folder.rmdir()


def missing(published: Published, root: Path) -> list[str]:
    """Files that exist neither as published nor unpacked."""
    if any((root / name).exists() for name in published.instead):
        return []
    return [
        name
        for name in published.files
        if not (root / name).is_file() and not (root / name.removesuffix(".gz")).is_file()
    ]


def fetch(urls: list[str], md5: str, path: Path, stall_seconds: float = STALL_SECONDS) -> None:
    """Downloads to `path` from the first of `urls` that sends the right content.

    Raises:
        UsageError: none does.
    """
    import pooch

    # Users get one line from us instead of pooch's log and tracebacks.
    pooch.get_logger().setLevel("ERROR")
    reasons = []
    for url in urls:
        downloader = pooch.HTTPDownloader(timeout=stall_seconds, progressbar=True)
        try:
            pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, downloader=downloader)
        except ValueError:  # what pooch raises for a wrong sum
            reasons.append(f"{url}: not the published content")
        except OSError as error:  # what requests raises; the class names say more than the messages
            status = getattr(getattr(error, "response", None), "status_code", None)
            what = f"HTTP status {status}" if status else type(error).__name__
            reasons.append(f"{url}: {what}")
        else:
            return
    raise UsageError(
        f"data.download: could not fetch {path.name}: {'; '.join(reasons)}. Put the files into "
        f"data.root by hand, or try again."
    )
