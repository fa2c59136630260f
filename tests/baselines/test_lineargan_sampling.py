"""LinearGAN's semantic-conditional sampling: the layout of a known latent is found, by the published steps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from baselines.known import THREE, KnownGenerator, true_extractor

from sisug.baselines.lineargan import LinearExtractor, sample
from sisug.common.seeding import fixed_latents
from sisug.errors import ConfigError, DataError
from sisug.generators import load_generator

GENERATOR = KnownGenerator()
EXTRACTOR = true_extractor(GENERATOR)


@pytest.fixture(scope="module")
def known() -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and their masks, each with all three classes."""
    z = torch.tensor([[0.3, -0.4, 0, 0, 0, 0], [-0.5, 0.2, 1, 0, 0, 0], [0.1, 0.6, 0, 1, 0, 0]])
    return z, EXTRACTOR.segment(GENERATOR, GENERATOR.map(z))


@pytest.fixture(scope="module")
def tiny(tiny_generator_file) -> tuple:
    """A StyleGAN2 with random weights and an extractor of its features."""
    generator = load_generator(tiny_generator_file)
    extractor = LinearExtractor([8, 8, 8, 6, 6], THREE, generator.fingerprint)
    with torch.no_grad():
        extractor.weight.normal_(generator=torch.Generator().manual_seed(1))
    return generator, extractor.requires_grad_(False)


def test_layout_of_known_latents_is_found(known):
    z, masks = known
    found = sample(GENERATOR, EXTRACTOR, masks, [0, 1], draws=30)
    assert found.start_match.mean() < 0.93
    assert found.match.min() > 0.95
    assert bool((found.match > found.start_match).all())
    # The edges are where the known latents have them, to a pixel; the other numbers are free.
    edges = GENERATOR.map(found.z)[:, 0, :2]
    expected = GENERATOR.map(z)[:, 0, :2].repeat_interleave(2, dim=0)
    assert (edges - expected).abs().max() < 0.125
    assert (found.z[0] - found.z[1]).norm() > 1, "each seed has its own look"


def test_search_begins_at_the_best_of_the_seeds_draws(known):
    _, masks = known
    found = sample(GENERATOR, EXTRACTOR, masks, [3, 7], draws=20, steps=0, batch=3)
    row = 0
    for mask in masks:
        for seed in (3, 7):
            z = fixed_latents(torch.arange(20), 6, seed=seed, purpose="lineargan draws")
            shares = [
                float((EXTRACTOR.segment(GENERATOR, GENERATOR.map(each[None])) == mask).float().mean()) for each in z
            ]
            assert torch.equal(found.z[row], z[shares.index(max(shares))])
            assert float(found.match[row]) == float(found.start_match[row]) == pytest.approx(max(shares))
            row += 1
    assert len(found.z) == row


def test_search_follows_the_published_formula(tiny):
    """One search at a time, written out: Adam on z, with torch's own cross-entropy and resizing."""
    generator, extractor = tiny
    mask = torch.randint(3, (1, 16, 16), generator=torch.Generator().manual_seed(0))
    begin = sample(generator, extractor, mask, [5], draws=1, steps=0).z
    found = sample(generator, extractor, mask, [5], draws=1, steps=12)
    weights = torch.split(extractor.weight, [8, 8, 8, 6, 6], dim=1)
    captured: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda module, given, out: captured.append(out))
        for name, module in generator.named_modules()
        if name.endswith((".conv0", ".conv1"))
    ]
    z = begin.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.01)
    for _ in range(12):
        captured.clear()
        generator(z)
        logits = sum(
            F.interpolate(torch.einsum("kc,bchw->bkhw", w, each), (16, 16), mode="bilinear")
            for w, each in zip(weights, captured, strict=True)
        )
        loss = F.cross_entropy(logits, mask) + 1e-3 * ((z - begin) ** 2).sum() + 1e-3 * (z**2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(found.z, z.detach(), rtol=1e-3, atol=1e-3)
    assert (z - begin).abs().min() > 0.02, "every number moved by more than the tolerance"


def test_images_are_those_of_the_latents(tiny):
    generator, extractor = tiny
    masks = torch.randint(3, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    found = sample(generator, extractor, masks, [0, 1, 2], draws=4, steps=3, batch=4)
    assert found.images.shape == (6, 3, 16, 16)
    assert found.ws.shape == (6, generator.num_ws, generator.w_dim)
    torch.testing.assert_close(found.images, generator(found.z).clamp(-1, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.ws, generator.map(found.z))
    matches = (extractor.segment(generator, found.ws) == masks.repeat_interleave(3, dim=0)).float().mean(dim=(1, 2))
    torch.testing.assert_close(found.match, matches)
    assert not found.images.requires_grad
    assert not found.z.requires_grad


def test_rows_do_not_depend_on_their_company(known):
    _, masks = known
    together = sample(GENERATOR, EXTRACTOR, masks, [0, 1], draws=8, batch=5)
    for row, (number, seed) in enumerate((m, s) for m in range(3) for s in (0, 1)):
        alone = sample(GENERATOR, EXTRACTOR, masks[number : number + 1], [seed], draws=8, batch=1)
        torch.testing.assert_close(together.z[row], alone.z[0], rtol=1e-4, atol=1e-5)


def test_sampling_is_reproducible_whatever_the_caller_switched(tiny):
    generator, extractor = tiny
    masks = torch.randint(3, (1, 16, 16), generator=torch.Generator().manual_seed(0))
    state = torch.random.get_rng_state()
    first = sample(generator, extractor, masks, [0], draws=4, steps=5)
    assert torch.equal(torch.random.get_rng_state(), state), "the global stream is left alone"
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        again = sample(generator, extractor, masks.clone(), [0], draws=4, steps=5)
    assert torch.equal(first.images, again.images)
    assert first.images.dtype == torch.float32
    assert not torch.equal(first.z, sample(generator, extractor, masks, [1], draws=4, steps=5).z)


def test_ignored_pixels_are_free(known):
    """The lower half is not asked for: any edge below it matches, and the same search with other classes there too."""
    _, masks = known
    hidden = masks[:1].clone()
    hidden[:, 8:] = THREE.ignore
    found = sample(GENERATOR, EXTRACTOR, hidden, [0], draws=30)
    seen = EXTRACTOR.segment(GENERATOR, found.ws)
    assert float(found.match[0]) == float((seen == hidden)[:, :8].float().mean())
    assert float(found.match[0]) > 0.96
    assert not torch.equal(found.z, sample(GENERATOR, EXTRACTOR, masks[:1], [0], draws=30).z)


def test_targets_of_another_size(known):
    z, _ = known
    masks = EXTRACTOR.segment(GENERATOR, GENERATOR.map(z), 8)
    found = sample(GENERATOR, EXTRACTOR, masks, [0], draws=30)
    assert found.images.shape[-1] == 16
    assert found.match.min() > 0.95


def test_weights_hold_the_latents_back(known):
    _, masks = known
    begin = sample(GENERATOR, EXTRACTOR, masks, [0], draws=8, steps=0).z
    free, held, small = (
        sample(GENERATOR, EXTRACTOR, masks, [0], draws=8, stay_weight=stay, norm_weight=norm).z
        for stay, norm in ((0.0, 0.0), (100.0, 0.0), (0.0, 100.0))
    )
    assert (held - begin).norm() < 0.3 * (free - begin).norm()
    assert small.norm() < free.norm() - 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: masks[:0], "at least one square mask"),
        (lambda masks: masks[:, :8], "as high as wide"),
        (lambda masks: masks + 1, r"a mask has the values \[3\]"),
        (lambda masks: torch.cat([masks, torch.full_like(masks[:1], 255)]), r"target masks \[3\] have no labelled"),
    ],
)
def test_bad_targets_are_refused(known, change, message):
    _, masks = known
    with pytest.raises(DataError, match=message):
        sample(GENERATOR, EXTRACTOR, change(masks), [0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 0}, "draws 0"),
        ({"steps": -1}, "steps -1"),
        ({"learning_rate": 0.0}, "learning_rate 0"),
        ({"stay_weight": -1.0}, "stay_weight -1"),
        ({"batch": 0}, "batch 0"),
    ],
)
def test_numbers_out_of_range_are_refused(known, settings, message):
    _, masks = known
    with pytest.raises(ConfigError, match=message):
        sample(GENERATOR, EXTRACTOR, masks, [0], **settings)


def test_no_seeds_and_another_generator_are_refused(known, tiny):
    _, masks = known
    with pytest.raises(ConfigError, match="give at least one seed"):
        sample(GENERATOR, EXTRACTOR, masks, [])
    with pytest.raises(DataError, match="was trained for the generator"):
        sample(tiny[0], EXTRACTOR, masks, [0])
