import numpy as np
import pytest
import torch

from mscgan import losses


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    y_hat, y = rng.uniform(-1, 1, (2, 4, 3, 8, 6))
    mask = (rng.random((4, 1, 8, 6)) < 0.4).astype(float)
    return y_hat, y, mask


@pytest.fixture
def logits():
    rng = np.random.default_rng(1)
    return [rng.normal(0, 3, 4) for _ in range(3)], [rng.normal(0, 3, 4) for _ in range(3)]


def tensors(*arrays):
    return [torch.tensor(array, dtype=torch.float32) for array in arrays]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_stage_I_is_equation_1(batch):
    y1, y, mask = batch
    total, terms = losses.stage_I(*tensors(y1, y, mask), lambda_bg_1=2.5)
    L1, bg = np.abs(y - y1).mean(), np.abs((y - y1) * mask).mean()
    assert terms.keys() == {"L1_1", "bg_1"}
    assert terms["L1_1"].item() == pytest.approx(L1, rel=1e-5)
    assert terms["bg_1"].item() == pytest.approx(bg, rel=1e-5)
    assert total.item() == pytest.approx(L1 + 2.5 * bg, rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_discriminator_minimises_the_negative_of_equation_3(logits, count):
    real, fake = (group[:count] for group in logits)
    weights = [0.2, 0.5, 0.3][:count]
    total, terms = losses.discriminator(tensors(*real), tensors(*fake), weights)
    value = sum(w * np.mean(np.log(sigmoid(r)) + np.log(1 - sigmoid(f))) for w, r, f in zip(weights, real, fake))
    assert total.item() == pytest.approx(-value, rel=1e-5)
    assert terms["D1_real"].item() == pytest.approx(-np.log(sigmoid(real[0])).mean(), rel=1e-5)
    assert terms["D1_fake"].item() == pytest.approx(-np.log(1 - sigmoid(fake[0])).mean(), rel=1e-5)
    assert len(terms) == 2 * count


def test_stage_II_is_equation_4_with_the_non_saturating_loss(batch, logits):
    y_hat, y, mask = batch
    fake = logits[1][:2]
    total, terms = losses.stage_II(*tensors(y_hat, y, mask), tensors(*fake), [0.7, 0.3], lambda_L1_2=10, lambda_bg_2=4)
    L1, bg = np.abs(y - y_hat).mean(), np.abs((y - y_hat) * mask).mean()
    adversarial = [-np.log(sigmoid(f)).mean() for f in fake]
    assert terms.keys() == {"L1_2", "bg_2", "G_D1", "G_D2"}
    assert terms["G_D2"].item() == pytest.approx(adversarial[1], rel=1e-5)
    expected = 0.7 * adversarial[0] + 0.3 * adversarial[1] + 10 * L1 + 4 * bg
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_gradients_flow_to_images_and_logits_but_not_through_the_terms(batch, logits):
    y_hat, y, mask = tensors(*batch)
    fake = [f.requires_grad_() for f in tensors(*logits[1][:2])]
    y_hat.requires_grad_()
    total, terms = losses.stage_II(y_hat, y, mask, fake, losses.equal_shares(2), 10.0, 10.0)
    total.backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in (y_hat, *fake))
    assert not any(term.requires_grad for term in terms.values())
    # d/dl of -log sigmoid(l) is sigmoid(l) - 1: strongest where D is sure that the picture is fake
    assert fake[0].grad.numpy() == pytest.approx((sigmoid(logits[1][0]) - 1) / 4 / 2, rel=1e-4)


def test_certain_logits_in_low_precision_give_finite_losses():
    certain = [torch.tensor([80.0, -80.0], dtype=torch.bfloat16)]
    total, _ = losses.discriminator(certain, certain, [1.0])
    assert total.item() == pytest.approx(80.0) and total.dtype == torch.float32


def test_equal_shares_sum_to_one():
    assert losses.equal_shares(2) == [0.5, 0.5]
    assert sum(losses.equal_shares(3)) == pytest.approx(1)


def test_a_missing_discriminator_is_noticed():
    with pytest.raises(ValueError, match="zip"):
        losses.discriminator([torch.zeros(2)] * 2, [torch.zeros(2)] * 2, [1.0])
