"""The latent dynamics of DreamerV3: distributions by hand, gradients, the block-diagonal core."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.dreamerv3.nets import EPS, BlockLinear, rms_silu
from baselines.dreamerv3.rssm import RSSM, State, categorical_kl, forget, kl_losses, mixed_probs, sample_latent
from m3po.kit.seeding import initialised_from

T, B, A, E = 5, 3, 2, 6
SIZES = {"deter": 16, "hidden": 4, "stoch": 3, "classes": 5, "blocks": 4}


@pytest.fixture
def rssm() -> RSSM:
    with initialised_from(0):
        return RSSM(E, A, **SIZES, unimix=0.01)


def random_state(batch: int = B) -> State:
    generator = torch.Generator().manual_seed(1)
    deter = torch.rand(batch, SIZES["deter"], generator=generator) * 2 - 1
    stoch = torch.rand(batch, SIZES["stoch"], SIZES["classes"], generator=generator)
    return State(deter, stoch)


def test_shapes(rssm: RSSM) -> None:
    first = torch.zeros(T, B, dtype=torch.bool)
    action, token = torch.zeros(T, B, A), torch.zeros(T, B, E)
    states, post = rssm.observe_sequence(rssm.initial(B), action, token, first, torch.rand(T, B, 3))
    assert states.deter.shape == (T, B, 16)
    assert states.stoch.shape == post.shape == (T, B, 3, 5)
    assert rssm.prior(states.deter).shape == (T, B, 3, 5)
    start = State(states.deter[0], states.stoch[0])
    imagined = rssm.imagine(start, torch.zeros(B, A), torch.rand(B, 3), rssm.cut())
    assert imagined.deter.shape == (B, 16)
    assert imagined.stoch.shape == (B, 3, 5)


def test_unimix_keeps_every_class_possible() -> None:
    probs = mixed_probs(torch.tensor([1000.0, 0.0, 0.0, 0.0]), unimix=0.01)
    # softmax gives (1, 0, 0, 0); 1 % of the uniform 1/4 is added to 99 % of it.
    expected = torch.tensor([0.99 + 0.0025, 0.0025, 0.0025, 0.0025])
    torch.testing.assert_close(probs, expected)


def test_without_unimix_it_is_softmax() -> None:
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed_probs(logits, 0.0), torch.softmax(logits, -1))


def test_sampling_inverts_the_cumulative_distribution() -> None:
    probs = torch.tensor([0.2, 0.5, 0.3]).expand(5, 3)
    # Cumulative: 0.2, 0.7, 1.0.
    noise = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.9999999])
    assert sample_latent(probs, noise).argmax(-1).tolist() == [0, 0, 1, 1, 2]


def test_the_mode_needs_no_noise() -> None:
    assert sample_latent(torch.tensor([[0.2, 0.5, 0.3]]), None).tolist() == [[0.0, 1.0, 0.0]]


def test_gradients_pass_straight_through_the_sample() -> None:
    logits = torch.tensor([[0.1, 0.7, -0.4]], requires_grad=True)
    weights = torch.tensor([2.0, -1.0, 3.0])
    sample = sample_latent(mixed_probs(logits, 0.0), torch.tensor([0.5]))
    assert sorted(sample[0].tolist()) == [0.0, 0.0, 1.0]
    (straight,) = torch.autograd.grad((sample * weights).sum(), logits)
    # Backward as if the probabilities themselves had been passed on.
    (expected,) = torch.autograd.grad((torch.softmax(logits, -1) * weights).sum(), logits)
    torch.testing.assert_close(straight, expected)


def test_kl_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5], [0.9, 0.1]]), torch.tensor([[0.25, 0.75], [0.9, 0.1]])
    # Only the first latent differs: 0.5 ln(0.5/0.25) + 0.5 ln(0.5/0.75).
    assert categorical_kl(p, q).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


def test_the_kl_of_what_is_all_but_certain_is_finite() -> None:
    logits = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]], requires_grad=True)
    losses = kl_losses(mixed_probs(logits, 1e-6), mixed_probs(logits.flip(-1), 1e-6), free_nats=1.0)
    # Each of two latents: (1 − 5e-7 − 5e-7) ln((1 − 5e-7) / 5e-7).
    assert losses[0].item() == pytest.approx(2 * math.log(2e6), rel=1e-4)
    (gradient,) = torch.autograd.grad(losses[0] + losses[1], logits)
    assert gradient.isfinite().all()


def test_each_kl_loss_teaches_one_side() -> None:
    post_logits = torch.tensor([[3.0, 0.0], [0.0, 2.0]], requires_grad=True)
    prior_logits = torch.tensor([[0.0, 3.0], [2.0, 0.0]], requires_grad=True)
    dyn, rep = kl_losses(mixed_probs(post_logits, 0.0), mixed_probs(prior_logits, 0.0), free_nats=1.0)
    assert dyn.item() == pytest.approx(rep.item())
    (to_prior,) = torch.autograd.grad(dyn, prior_logits, retain_graph=True)
    assert to_prior.abs().sum() > 0
    assert torch.autograd.grad(dyn, post_logits, retain_graph=True, allow_unused=True) == (None,)
    (to_post,) = torch.autograd.grad(rep, post_logits, retain_graph=True)
    assert to_post.abs().sum() > 0
    assert torch.autograd.grad(rep, prior_logits, allow_unused=True) == (None,)


def test_below_the_free_nats_nothing_is_learned() -> None:
    # KL((0.5, 0.5) ‖ softmax(0.2, 0)) is about 0.005 nats, far below 1.
    logits = torch.tensor([[0.2, 0.0]], requires_grad=True)
    dyn, rep = kl_losses(torch.tensor([[0.5, 0.5]]), mixed_probs(logits, 0.0), free_nats=1.0)
    assert dyn.item() == rep.item() == 1.0
    (gradient,) = torch.autograd.grad(dyn, logits)
    assert gradient.abs().sum() == 0


def test_normalising_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 2, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    for scale_shape in ((6,), (2, 6)):
        scale = torch.rand(scale_shape, generator=generator, dtype=torch.float64, requires_grad=True)
        y = rms_silu(x, scale)
        torch.testing.assert_close(y, F.silu(F.rms_norm(x, (6,), eps=EPS) * scale))
        with torch.no_grad():
            torch.testing.assert_close(rms_silu(x, scale), y)
        assert torch.autograd.gradcheck(rms_silu, (x, scale))


def dense_of(layer: BlockLinear) -> Tensor:
    """The full weight matrix ``[inputs, outputs]`` with zeros outside the blocks."""
    return torch.block_diag(*layer.weight.detach().unbind(1))


def test_block_linear_is_a_masked_dense_layer() -> None:
    layer = BlockLinear(12, 8, blocks=4)
    with torch.no_grad():
        layer.bias.normal_()
    x = torch.randn(B, 12, generator=torch.Generator().manual_seed(0))
    expected = x @ dense_of(layer) + layer.bias
    torch.testing.assert_close(layer(x.view(B, 4, 3)).reshape(B, 8), expected)


def test_core_equals_a_dense_gru_with_masked_blocks(rssm: RSSM) -> None:
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in rssm.parameters():
            # Biases and scales too, which all begin as zeros and ones.
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    state, action = random_state(), torch.tensor([[0.5, -3.0]]).expand(B, A)

    def normed(x: Tensor, scale: Tensor) -> Tensor:
        return F.silu(F.rms_norm(x, x.shape[-1:], scale, EPS))

    inputs = torch.cat(
        [
            normed(rssm.from_deter(state.deter), rssm.deter_scale),
            normed(rssm.from_stoch(state.stoch.flatten(-2)), rssm.stoch_scale),
            rssm.from_action(torch.tensor([[0.5, -1.0]]).expand(B, A)),
        ],
        dim=-1,
    )
    # Each of the 4 blocks sees its 4 of the 16 deterministic entries and all 3 · 4 inputs.
    seen = torch.cat([torch.cat([group, inputs], -1) for group in state.deter.chunk(4, -1)], -1)
    mixed = rssm.mix_norm(seen @ dense_of(rssm.mix) + rssm.mix.bias)
    gates = (mixed @ dense_of(rssm.gates) + rssm.gates.bias).view(B, 4, 3, 4)
    reset, candidate, update = (gates[:, :, i].reshape(B, 16) for i in range(3))
    update = torch.sigmoid(update - 1)
    expected = update * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - update) * state.deter
    torch.testing.assert_close(rssm.core(state, rssm.drive(action), rssm.cut()), expected)


def test_the_posterior_sees_deter_and_token(rssm: RSSM) -> None:
    state, token = random_state(), torch.randn(B, E, generator=torch.Generator().manual_seed(7))
    driven = rssm.drive(torch.zeros(B, A))
    after, probs = rssm.observe(state, driven, rssm.look(token), None, rssm.cut())
    logits = rssm.post_logits(rssm.post_input(torch.cat([after.deter, token], dim=-1)))
    torch.testing.assert_close(probs, mixed_probs(logits.view(B, 3, 5), 0.01))


def test_forgetting_is_per_environment() -> None:
    state = forget(random_state(), torch.tensor([True, False, False]))
    assert state.deter[0].abs().sum() == state.stoch[0].abs().sum() == 0
    torch.testing.assert_close(state.deter[1:], random_state().deter[1:])


def test_a_sequence_forgets_where_an_episode_begins(rssm: RSSM) -> None:
    generator = torch.Generator().manual_seed(2)
    action, token = torch.zeros(T, B, A), torch.randn(T, B, E, generator=generator)
    noise, first = torch.rand(T, B, 3, generator=generator), torch.zeros(T, B, dtype=torch.bool)
    first[2] = True
    whole, _ = rssm.observe_sequence(random_state(), action, token, first, noise)
    rest, _ = rssm.observe_sequence(rssm.initial(B), action[2:], token[2:], first[2:], noise[2:])
    torch.testing.assert_close(whole.deter[2:], rest.deter)
