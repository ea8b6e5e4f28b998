"""What codes are worth: classifiers on them."""

from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import one_hot


def knn_vote(labels: Int[Tensor, "batch k"], classes: int) -> Int[Tensor, " batch"]:
    """The class that most of the K nearest neighbours have.

    Args:
        labels: of each query's neighbours, nearest first, 0 to `classes` - 1.
        classes: how many there are.

    Returns:
        A class for each query. Among equally frequent ones that of the nearest neighbour.

    Example:
        >>> import torch
        >>> knn_vote(torch.tensor([[0, 2, 2], [1, 0, 2]]), classes=3)
        tensor([2, 1])
    """
    votes = one_hot(labels, classes)
    most = votes.sum(dim=1).gather(1, labels)  # votes for each neighbour's own class
    # argmax takes the first of equals, which is the nearest.
    return labels.gather(1, most.argmax(dim=1, keepdim=True)).squeeze(1)
