"""`sisug demo` (synthesis): a page in the browser to draw on, whose picture follows each stroke."""

from __future__ import annotations

import importlib.util
import logging
import socket
import sys

from sisug.errors import ConfigError, RunError

NOISY = ("sisug.synthesis", "sisug.labels", "sisug.conditions")
"""What these say about a drawing stands on the page; a line in the terminal for each stroke would bury the rest."""


def demo(
    host: str = "127.0.0.1",
    port: int = 7860,
    mapper: list[str] | None = None,
    generator: str | None = None,
    device: str = "auto",
) -> None:
    """A page to draw on, at the address that is printed; Ctrl-C ends it.

    Args:
        host: address to listen at; 127.0.0.1 is reached from this machine only, 0.0.0.0 from everywhere.
        port: number, 0 for any that is free.
        mapper: your own mappers beside those that ship: checkpoints of `make train-mapper`, or files of
            `sisug mapper export`.
        generator: file or preset in place of the one that your mappers name, where that has been moved.
        device: auto for a GPU where there is one, cpu, or cuda:N.

    Raises:
        SisugError: a mapper cannot be loaded, or the address cannot be used.
    """
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} cannot be imported",
            "the demo needs what only the extra installs",
            "run pip install 'sisug[demo]', or make demo",
        )
    listening = _listen(host, port)
    with listening:
        from sisug.synthesis.demo.models import Models, own_reader, shipped_readers
        from sisug.synthesis.demo.server import LOOPBACK, application
        from sisug.synthesis.demo.studio import Studio

        own = [own_reader(path, generator, device) for path in mapper or []]
        models = Models([*(reader for reader, _ in own), *shipped_readers()], device)
        for reader, synthesizer in own:
            models.keep(reader, synthesizer)
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)
        number = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        sys.stdout.write(f"sisug demo: open http://{shown}:{number} in a browser; Ctrl-C ends it\n")
        if host not in LOOPBACK:
            sys.stdout.write("Everybody who reaches this address can draw, and use this machine's processor.\n")
        sys.stdout.flush()
        import uvicorn

        config = uvicorn.Config(
            application(Studio(models), host),
            log_level="error",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            limit_concurrency=200,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
        )
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError(f"port {port}", "ports lie from 0 to 65535", "choose another, or leave it out")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"host {host!r}", "this machine has no such address", "leave it out, or give one") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise RunError(
            f"{host}:{port} cannot be used", reason, "choose another --port; 0 takes any free one"
        ) from error
    return listening
