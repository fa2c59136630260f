"""Masks beyond the generator's own: what may change in them, and what may not."""

from __future__ import annotations

import torch
from mapper.mappers import THREE

from sisug.labels.label_sets import AVATARS
from sisug.mapper.free_form import a_class_of, delete, forget, free_form, moved, paste


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def halves(batch: int = 8, size: int = 32) -> torch.Tensor:
    """Left class on the left, right on the right, the rest in a strip below."""
    mask = (torch.arange(size) >= size // 2).long().expand(size, size).clone()
    mask[3 * size // 4 :] = 2
    return mask.expand(batch, size, size).clone()


def test_left_stays_left_when_a_mask_is_mirrored() -> None:
    out = moved(halves(32), THREE, stream())
    columns = torch.arange(32).float()
    for mask in out:
        left, right = (columns[torch.where(mask == number)[1]].mean() for number in (0, 1))
        assert left < right


def test_moved_masks_differ_and_have_no_new_values() -> None:
    masks = halves()
    out = moved(masks, THREE, stream())
    assert set(out.unique().tolist()) <= {0, 1, 2}
    assert len({tuple(mask.flatten().tolist()) for mask in out}) == len(out)
    assert 0.5 < float((out == masks).float().mean()) < 1


def test_paste_takes_one_class_of_the_other_mask_as_it_lies_there() -> None:
    masks, others = torch.full((64, 8, 8), 2), halves(64, 8)
    out = paste(masks, others, THREE, stream())
    changed = (out != masks).flatten(1).any(dim=1)
    assert 0.1 < float(changed.float().mean()) < 0.5, "a third of the classes changes nothing here: it is the same"
    for mask, other in zip(out[changed], others[changed], strict=True):
        (number,) = set(mask.unique().tolist()) - {2}
        assert torch.equal(mask == number, other == number)


def test_delete_leaves_a_hole_or_what_lies_around_it() -> None:
    masks = halves(128)
    out = delete(masks, THREE, stream())
    holes = others = 0
    for before, after in zip(masks, out, strict=True):
        gone = set(before.unique().tolist()) - set(after.unique().tolist())
        assert len(gone) <= 1
        for number in gone:
            (filled,) = after[before == number].unique().tolist()
            holes += filled == 255
            others += filled != 255
    assert holes > 4
    assert others > 4


def test_forget_opens_whole_classes_of_some_masks_and_changes_nothing_else() -> None:
    masks = halves(400)
    masks[:, 0, 0] = 255
    out = forget(masks, THREE, stream())
    changed = (out != masks).flatten(1).any(dim=1)
    assert 0.15 < float(changed.float().mean()) < 0.3
    assert bool(((out == masks) | (out == 255)).all())
    for before, after in zip(masks[changed], out[changed], strict=True):
        gone = before[after != before].unique().tolist()
        assert all(bool((after[before == number] == 255).all()) for number in gone), "all of a class, or none"


def test_every_class_is_chosen_as_often_whatever_its_size() -> None:
    mask = torch.zeros(3000, 8, 8, dtype=torch.int64)
    mask[:, 0, 0] = 1
    chosen = a_class_of(mask, THREE, stream())
    assert set(chosen.tolist()) == {0, 1}
    assert abs(float((chosen == 1).float().mean()) - 0.5) < 0.05
    assert a_class_of(torch.full((1, 4, 4), 255), THREE, stream()).tolist() == [255]


def test_the_same_stream_gives_the_same_masks_and_the_input_stays() -> None:
    masks = torch.randint(0, 11, (4, 64, 64))
    kept = masks.clone()
    a, b, c = (
        free_form(masks, AVATARS, stream()),
        free_form(masks, AVATARS, stream()),
        free_form(masks, AVATARS, stream(1)),
    )
    assert torch.equal(masks, kept)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
