"""Tests of the cache of real statistics: used when it fits, said and made again when it does not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from metrics.feature_rows import Pool, pictures
from torch import Tensor, nn

from sisug.errors import DataError
from sisug.metrics import (
    FrechetDistance,
    KernelDistance,
    ManifoldScores,
    RealismScores,
    fill_real_side,
    fingerprint_files,
)

PROTOCOL = {"split": "test", "count": 20}


def never() -> Iterator[Tensor]:
    pytest.fail("the real images were read")
    yield


def value(metric: nn.Module) -> object:
    metric.update(pictures(20, 1) * 0.5, real=False)
    result = metric.compute()
    return tuple(map(float, result)) if isinstance(result, tuple) else float(result)


@pytest.mark.parametrize("kind", [FrechetDistance, KernelDistance, ManifoldScores, RealismScores])
def test_the_second_time_no_image_is_read(tmp_path: Path, kind: type[nn.Module]) -> None:
    batches = pictures(20, 0).split(6)
    first, second, plain = kind(Pool()), kind(Pool()), kind(Pool())
    counts = [
        fill_real_side(first, batches, data="abc", protocol=PROTOCOL, folder=tmp_path),
        fill_real_side(second, never(), data="abc", protocol=PROTOCOL, folder=tmp_path),
        fill_real_side(plain, batches, data="abc", protocol=PROTOCOL, folder=None),
    ]
    assert counts == [20, 20, 20]
    assert value(first) == value(second) == value(plain)
    assert len(list(tmp_path.iterdir())) == 1


def test_kernel_and_manifold_share_a_file(tmp_path: Path) -> None:
    fill_real_side(KernelDistance(Pool()), [pictures(20, 0)], data="abc", protocol=PROTOCOL, folder=tmp_path)
    fill_real_side(ManifoldScores(Pool()), never(), data="abc", protocol=PROTOCOL, folder=tmp_path)


class Wider(Pool):
    """Another extractor of the same name."""


@pytest.mark.parametrize(
    ("data", "protocol", "extractor"),
    [("other", PROTOCOL, Pool()), ("abc", PROTOCOL | {"count": 10}, Pool()), ("abc", PROTOCOL, Wider())],
)
def test_other_data_protocol_or_weights_are_computed(
    tmp_path: Path, data: str, protocol: dict[str, str | int], extractor: nn.Module
) -> None:
    fill_real_side(FrechetDistance(Pool()), [pictures(20, 0)], data="abc", protocol=PROTOCOL, folder=tmp_path)
    metric = FrechetDistance(extractor)
    assert fill_real_side(metric, [pictures(8, 3)], data=data, protocol=protocol, folder=tmp_path) == 8
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_of_other_data_under_this_name_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill_real_side(FrechetDistance(Pool()), [pictures(20, 0)], data="abc", protocol=PROTOCOL, folder=tmp_path / "a")
    fill_real_side(FrechetDistance(Pool()), [pictures(8, 3)], data="other", protocol=PROTOCOL, folder=tmp_path / "b")
    wanted, other = (next((tmp_path / name).iterdir()) for name in "ab")
    wanted.write_bytes(other.read_bytes())
    with caplog.at_level(logging.WARNING):
        metric = FrechetDistance(Pool())
        assert fill_real_side(metric, [pictures(20, 0)], data="abc", protocol=PROTOCOL, folder=tmp_path / "a") == 20
    assert "holds statistics of another data than asked for: it is not used" in caplog.text
    fill_real_side(FrechetDistance(Pool()), never(), data="abc", protocol=PROTOCOL, folder=tmp_path / "a")


def test_a_damaged_file_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill_real_side(FrechetDistance(Pool()), [pictures(20, 0)], data="abc", protocol=PROTOCOL, folder=tmp_path)
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        fill_real_side(FrechetDistance(Pool()), [pictures(20, 0)], data="abc", protocol=PROTOCOL, folder=tmp_path)
    assert "cannot be read" in caplog.text
    fill_real_side(FrechetDistance(Pool()), never(), data="abc", protocol=PROTOCOL, folder=tmp_path)


def test_where_no_file_can_be_written_the_numbers_are_still_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cache"
    with caplog.at_level(logging.WARNING):
        metric = FrechetDistance(Pool())
        assert fill_real_side(metric, [pictures(20, 0)], data="abc", protocol=PROTOCOL, folder=folder) == 20
    assert "are not kept" in caplog.text


def test_an_earlier_real_side_does_not_leak_in(tmp_path: Path) -> None:
    metric = FrechetDistance(Pool(), keep_real=True)
    metric.update(pictures(9, 5), real=True)
    assert fill_real_side(metric, [pictures(20, 0)], data="abc", protocol=PROTOCOL, folder=tmp_path) == 20
    assert fill_real_side(metric, never(), data="abc", protocol=PROTOCOL, folder=tmp_path) == 20
    assert metric.real_samples == 20


def test_no_image_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no real image"):
        fill_real_side(RealismScores(Pool()), [], data="abc", protocol=PROTOCOL, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_fingerprint_of_files_follows_names_and_contents(tmp_path: Path) -> None:
    a, b = tmp_path / "a.png", tmp_path / "sub" / "b.png"
    b.parent.mkdir()
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    first = fingerprint_files([a, b], tmp_path)
    assert fingerprint_files([b, a], tmp_path) == first
    b.write_bytes(b"3")
    assert fingerprint_files([a, b], tmp_path) != first
    b.write_bytes(b"2")
    assert fingerprint_files([a, b.rename(b.with_name("c.png"))], tmp_path) != first
    with pytest.raises(DataError, match="cannot be read"):
        fingerprint_files([tmp_path / "none.png"], tmp_path)
