"""The Inception Score of a set of images, from their logits (mscgan/metrics/inception.py).

The published number is the mean over 10 contiguous splits in file order. A split scores its own images against their
own mean, so the number depends on the order: people that follow each other make a split of few kinds of images. The
order of our pair table is fixed, and the score under no order at all stands beside it.
"""

import numpy as np
from scipy.special import log_softmax, xlogy

from mscgan.errors import UserError

# Measured on sets of people of about 16 images each: the scores of single orders spread by 3.3 % of the score at 60
# images, 1.3 % at 300, .5 % at 1,200 and .07 % at 12,000. With so many orders their mean is right to .1 % of the score
# everywhere, far less than an interval over people; and it takes seconds at 12,000 images.
FEWEST_ORDERS = 50
ROWS = 100_000  # that all orders together have at least
AT_ONCE = 10  # orders: their splits' shares of 12,000 images are 10 MB


def inception_score(logits: np.ndarray, splits: int = 10) -> float:
    """The mean over contiguous splits of exp(mean KL(p(y|x) || p(y))), p(y) being the split's mean; 1 is the worst.

    logits: (N, classes), in the order of the images. Split i has rows i * N // splits to (i + 1) * N // splits, as in
    OpenAI's code (Salimans et al. 2016, openai/improved-gan inception_score/model.py). In float64.

    Raises:
        UserError: fewer images than splits, or logits that are not finite.
    """
    p, negative_entropy = _probabilities(logits, splits)
    return float(_scores(p, negative_entropy, np.arange(len(p))[None], splits).mean())


def inception_score_any_order(logits: np.ndarray, seed: int = 0, splits: int = 10) -> float:
    """The Inception Score as `inception_score`, averaged over random orders of the images, drawn by `seed`: at least
    FEWEST_ORDERS, and more of few images.

    Raises:
        UserError: as `inception_score`.
    """
    p, negative_entropy = _probabilities(logits, splits)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(max(FEWEST_ORDERS, ROWS // len(p)) // AT_ONCE):
        orders = np.stack([rng.permutation(len(p)) for _ in range(AT_ONCE)])
        means.append(_scores(p, negative_entropy, orders, splits).mean())
    return float(np.mean(means))


def _probabilities(logits: np.ndarray, splits: int) -> tuple[np.ndarray, np.ndarray]:
    """p(y|x), (N, classes), and the sum of p log p of each image, (N,), both float64."""
    if logits.ndim != 2 or len(logits) < splits:
        raise UserError(f"logits are {logits.shape}; expected (N, classes) of at least {splits} images, one a split")
    if not np.isfinite(logits).all():
        raise UserError("an image's logits are not finite; look for damaged images or weights")
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    p = np.exp(log_p)
    return p, (p * log_p).sum(1)


def _scores(p: np.ndarray, negative_entropy: np.ndarray, orders: np.ndarray, splits: int) -> np.ndarray:
    """(orders, splits): each split's score, in each of the orders, (orders, N).

    mean KL(p(y|x) || q) = mean of sum p log p, less sum q log q, since q is the mean of p: so one product of matrices
    gives q for all splits of all orders.
    """
    count = len(p)
    bounds = np.arange(splits + 1) * count // splits
    split_of = np.repeat(np.arange(splits), np.diff(bounds))
    share = np.zeros((len(orders), splits, count))
    share[np.arange(len(orders))[:, None], split_of[None], orders] = (1 / np.diff(bounds))[split_of]
    q = share @ p
    return np.exp(share @ negative_entropy - xlogy(q, q).sum(2))
