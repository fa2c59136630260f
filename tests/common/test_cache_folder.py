"""The cache folder: the environment's, else the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from sisug.common.cache_folder import cache_folder


def test_environment_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("SISUG_CACHE", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"


@pytest.mark.parametrize("value", [None, ""])
def test_default_is_in_the_home_folder(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("SISUG_CACHE", raising=False)
    else:
        monkeypatch.setenv("SISUG_CACHE", value)
    assert cache_folder() == Path.home() / ".cache" / "sisug"
