"""A server in this process, until it is told to stop."""

import socket
import sys
from collections.abc import Mapping

import uvicorn

from t3d.decoding.llm import LLM
from t3d.serving.app import make_app
from t3d.serving.connection import connections_of
from t3d.serving.settings import ServeConfig


def run_server(llms: Mapping[str, LLM], config: ServeConfig, front_page: str | None = None) -> None:
    """Serve models by name until SIGINT or SIGTERM, which this process then gets again.

    Open answers have a grace period. Raises OSError where the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((config.host, config.port))
        listening.listen(2048)  # who connects as soon as the address is told waits for uvicorn
        port = listening.getsockname()[1]
        host = f"[{config.host}]" if ":" in config.host else config.host
        print(f"serving {' and '.join(llms)} at http://{host}:{port}/v1", file=sys.stderr, flush=True)
        settings = uvicorn.Config(
            make_app(llms, config, front_page),
            http=connections_of(config.time_limit_s),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=max(1, round(config.grace_s)),
        )
        uvicorn.Server(settings).run(sockets=[listening])
