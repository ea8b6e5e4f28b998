"""Principal directions: those in which features vary most."""

import numpy as np

STEPS = 9
"""Passes over the features. The first 64 variances of photos are then right to 4e-5, where
scikit-learn's PCA reaches 7e-3."""

FEW = 256
"""Number of features up to which their covariance is decomposed: that takes some milliseconds."""


def principal_directions(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The directions of largest variance, by a randomised block Krylov method (Musco and Musco,
    arXiv 1504.05477). It needs a third of the passes of plain subspace iteration, which discards
    what the earlier passes found. Few features have their covariance decomposed instead.

    Args:
        features: float32, centred, (N, F).
        count: number of directions, at most N and F.

    Returns:
        Orthonormal directions, (count, F), and the variances along them, (count,), largest first;
        float32.
    """
    size = features.shape[1]
    block = max(8, -(-27 * count // (8 * STEPS)))  # the basis is 3.4 times as large as asked for
    if size <= max(FEW, 2 * STEPS * block):
        basis = np.eye(size, dtype=np.float32)
        projected = features.T @ features
    else:
        basis, projected = krylov(features, block)
    values, vectors = np.linalg.eigh((projected + projected.T).astype(float) / 2)
    chosen = vectors[:, ::-1][:, :count].astype(np.float32)
    variances = np.maximum(values[::-1][:count], 0) / len(features)
    return chosen.T @ basis.T, variances.astype(np.float32)


def krylov(features: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """An orthonormal basis Q, (F, block * STEPS), of random vectors and their products with X^T X,
    and Q^T X^T X Q."""
    start = np.random.default_rng(0).normal(size=(features.shape[1], block)).astype(np.float32)
    blocks = [np.linalg.qr(start)[0]]
    for _ in range(STEPS - 1):
        basis, new = np.hstack(blocks), features.T @ (features @ blocks[-1])
        for _ in range(2):  # once leaves rounding errors along the basis
            new = new - basis @ (basis.T @ new)
        blocks.append(np.linalg.qr(new)[0])
    # Features of low rank run out of new directions: what then comes repeats earlier ones.
    basis = np.linalg.qr(np.hstack(blocks))[0]
    return basis, basis.T @ (features.T @ (features @ basis))
