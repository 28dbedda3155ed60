"""The page served on this machine, for this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Callable

from ..errors import ConfigError
from .style import CSS, theme

HOST = "127.0.0.1"
# Names that a browser on this machine may call us by: a web site elsewhere that points a name of
# its own here (DNS rebinding) is turned away.
_NAMES = [HOST, "localhost"]
# The browser itself refuses to fetch anything from elsewhere.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'; base-uri 'self'"
)
_MOST = "200mb"


class _Policy:
    """Adds :data:`POLICY` to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message.get("headers", ()), own]
            await send(message)

        await self.app(scope, receive, sending)


@contextmanager
def served(
    build: Callable[[], Any], port: int | None = None, open_browser: bool = False
) -> Iterator[str]:
    """While active, a page is served on the loopback interface; gives its address.

    Nothing else is contacted: no analytics, no fonts or scripts from elsewhere, no tunnels. Images
    and pictures are in a temporary folder, which is removed at the end.

    Args:
        build: makes the page as Gradio's Blocks.
        port: None = the first free one from 7860 on.
        open_browser: open the page in the browser.

    Raises:
        ConfigError: the port cannot be had.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=_NAMES), Middleware(_Policy)]
    with tempfile.TemporaryDirectory(prefix="srt-demo-") as folder, _environment(folder):
        page = build().queue(default_concurrency_limit=1)
        try:
            _, url, _ = page.launch(
                server_name=HOST,
                server_port=port,
                inbrowser=open_browser,
                share=False,
                ssr_mode=False,
                quiet=True,
                prevent_thread_lock=True,
                run_history=False,
                footer_links=[],
                enable_monitoring=False,
                max_file_size=_MOST,
                app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None},
                theme=theme(),
                css=CSS,
            )
        except OSError as error:
            asked = "a free port from 7860 on" if port is None else f"port {port} to be free"
            raise ConfigError(
                f"Expected {asked}, got {error}. Give another with --port."
            ) from error
        try:
            yield str(url)
        finally:
            page.close(verbose=False)


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """What Gradio reads from the environment."""
    local = ",".join(_NAMES)
    given = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": folder,
        # Gradio asks itself whether it is up; a proxy must not be asked to do that.
        **{k: ",".join(filter(None, (os.environ.get(k), local))) for k in ("no_proxy", "NO_PROXY")},
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
