import math

import pytest
import torch

from mscgan.losses import as_fake, as_real, mean, meaning

LOGITS = [3.0, -1.0, 0.5]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_terms_are_the_batchs_mean_binary_cross_entropies():
    logits = torch.tensor(LOGITS)
    real = sum(-math.log(sigmoid(logit)) for logit in LOGITS) / 3
    fake = sum(-math.log(1 - sigmoid(logit)) for logit in LOGITS) / 3
    assert as_real(logits).item() == pytest.approx(real, rel=1e-5)
    assert as_fake(logits).item() == pytest.approx(fake, rel=1e-5)


def test_a_generator_learns_most_where_D_is_sure_that_its_image_is_fake():
    """d/dl of -log sigmoid(l) is sigmoid(l) - 1."""
    logits = torch.tensor(LOGITS, requires_grad=True)
    as_real(logits).backward()
    assert logits.grad.tolist() == pytest.approx([(sigmoid(logit) - 1) / 3 for logit in LOGITS], rel=1e-4)


@pytest.mark.parametrize("term", [as_real, as_fake])
def test_certain_logits_in_low_precision_give_finite_losses(term):
    found = term(torch.tensor([80.0, -80.0], dtype=torch.bfloat16))
    assert found.item() == pytest.approx(40.0) and found.dtype == torch.float32


def test_micro_batches_count_alike():
    first = {"L1": torch.tensor(1.0), "bg": torch.tensor(5.0)}
    second = {"L1": torch.tensor(2.0), "bg": torch.tensor(8.0)}
    assert {name: value.item() for name, value in mean([first, second]).items()} == {"L1": 1.5, "bg": 6.5}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bg_1", "mean |y1 - y| M_p"),
        ("D3_fake", "-log(1 - D3(x, y_hat))"),
        ("G_D2", "-log D2(x, y_hat)"),
        ("G_D", "-log D(y_hat)"),
        ("perceptual", ""),
    ],
)
def test_a_term_of_the_log_says_what_it_is(name, said):
    assert meaning(name) == said
