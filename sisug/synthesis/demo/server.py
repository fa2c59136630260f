"""The web side of the demo: addresses, limits, and errors as sentences; what they do stands in `studio`."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sisug.errors import CheckpointError, ConfigError, DataError, SisugError
from sisug.synthesis.demo.studio import Studio, Wish, zipped
from sisug.synthesis.demo.uploads import MOST_BYTES, too_large

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")

MOST_AT_ONCE = 8
"""Requests that are worked at; others wait."""

MOST_SECONDS = 60
"""For the bytes of one request to arrive."""

PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def application(studio: Studio, host: str = "127.0.0.1") -> ASGIApp:
    """The server's code, for uvicorn and for tests.

    Args:
        studio: that does the work.
        host: that it is bound to; on a loopback address, requests for other names are refused.
    """
    pages = [Route(path, partial(_page, *page)) for path, page in PAGE.items()]
    work: dict[str, Callable[[Wish, bytes], Any]] = {
        "describe": lambda wish, _: studio.describe(wish.family, wish.kind),
        "image": studio.image,
        "like": lambda wish, _: studio.like(wish),
        "sample": lambda wish, _: studio.sample(wish),
        "photo": studio.upload_photo,
        "drawing": studio.upload_drawing,
        "picture": studio.upload_picture,
        "tile": lambda wish, _: studio.tile(wish),
        "download-image": lambda wish, canvas: next(iter(studio.download(wish, canvas).items())),
        "download-drawing": lambda wish, canvas: list(studio.download(wish, canvas).items())[1],
        "download-record": lambda wish, canvas: list(studio.download(wish, canvas).items())[-1],
        "download-all": lambda wish, canvas: ("sisug.zip", zipped(studio.download(wish, canvas))),
    }
    limiter: list[CapacityLimiter] = []  # made in the event loop that it belongs to

    def answer(name: str) -> Callable[[Request], Awaitable[Response]]:
        return partial(serve, work[name])

    async def serve(function: Callable[[Wish, bytes], Any], request: Request) -> Response:
        try:
            wish = wish_of(dict(request.query_params))
            body = await _body(request)
            if not limiter:
                limiter.append(CapacityLimiter(MOST_AT_ONCE))
            result = await to_thread.run_sync(function, wish, body, limiter=limiter[0])
        except SisugError as error:
            return _refusal(error)
        except (ClientDisconnect, TimeoutError):
            return Response(status_code=408)
        except Exception:
            logger.exception("the demo could not answer")
            return _refusal(SisugError("that did not work", "of an error in sisug", "the terminal says more"), 500)
        if isinstance(result, tuple):
            name, content = result
            return Response(content, headers={"content-disposition": f'attachment; filename="{name}"'})
        return Response(result) if isinstance(result, bytes) else JSONResponse(result)

    async def about(request: Request) -> Response:
        return JSONResponse(studio.about())

    routes = [*pages, Route("/about", about), *(Route(f"/{name}", answer(name), methods=["POST"]) for name in work)]
    return Guard(Starlette(routes=routes), host)


def wish_of(query: dict[str, str]) -> Wish:
    """What a request asks for.

    Args:
        query: texts by name.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return Wish(
            family=query["model"],
            kind=query["kind"],
            style=_seed_or_name(query.get("style", "0")),
            truncation=round(float(query.get("truncation", "0.7")), 3),
            mix=int(query["mix"]) if query.get("mix") else None,
            like=_seed_or_name(query.get("like", "0")),
        )
    except (KeyError, ValueError, OverflowError) as error:
        raise ConfigError("this request", "the page sends no such thing", "load the page again") from error


def _seed_or_name(text: str) -> int | str:
    if re.fullmatch(r"\d{1,18}", text, flags=re.ASCII):
        return int(text)
    if re.fullmatch(r"[\w-]{22}", text, flags=re.ASCII):
        return text
    raise ValueError(text[:40])


class Guard:
    """What every request passes: no other web page may ask in a visitor's name, and no answer runs foreign code.

    Args:
        inner: answers.
        host: see `application`.
    """

    def __init__(self, inner: ASGIApp, host: str) -> None:
        self.inner, self.local = inner, host in LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        foreign = origin is not None and urlsplit(origin).netloc != host
        if foreign or (self.local and urlsplit(f"//{host}").hostname not in LOOPBACK):
            await Response("This page answers to itself only.", 403)(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"], *((name.encode(), value.encode()) for name, value in HEADERS.items())
                ]  # fmt: skip
            await send(message)

        await self.inner(scope, receive, with_headers)


async def _page(name: str, kind: str, request: Request) -> Response:
    return Response(files(__package__).joinpath("page", name).read_bytes(), media_type=kind)


async def _body(request: Request) -> bytes:
    """The bytes of a request; never more than one upload may have."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > MOST_BYTES:
        raise too_large(int(announced))
    parts, size = [], 0
    async with asyncio.timeout(MOST_SECONDS):
        async for part in request.stream():
            size += len(part)
            if size > MOST_BYTES:
                raise too_large()
            parts.append(part)
    return b"".join(parts)


def _refusal(error: SisugError, status: int = 400) -> Response:
    if not isinstance(error, DataError | ConfigError) and status == 400:
        # Its text names files of this machine, which are for who started the demo.
        logger.error("%s", error)
        cause = "a file of it is missing or damaged" if isinstance(error, CheckpointError) else "it cannot be used here"
        error = SisugError("this model cannot be loaded", cause, "choose another; the terminal says more")
    texts = [without_paths(text).rstrip(". ") for text in (error.state, error.cause, error.remedy)]
    return JSONResponse({"error": dict(zip(("state", "cause", "remedy"), texts, strict=True))}, status)


def without_paths(text: str) -> str:
    """A text with the names of files in the place of their paths.

    Args:
        text: for the page.
    """
    return re.sub(r"(?:[A-Za-z]:)?(?:[/\\][^\s/\\:'\"]+)+[/\\]([^\s/\\:'\"]+)", r"\1", text)
