"""Serves a page to play with a run on this machine: `python -m mscgan.web --run RUN [--port P] [--estimator NAME]`.

It listens on 127.0.0.1 alone, and prints the address to open. From another machine: `ssh -L 8008:127.0.0.1:8008 HOST`,
then the same address there. Ctrl-C ends it.
"""

import contextlib
import errno
import socket
import sys

import torch

from mscgan import trained
from mscgan.arguments import Parser
from mscgan.errors import UserError, run
from mscgan.estimators import ESTIMATORS
from mscgan.paths import a_path, path_text
from mscgan.web.studio import open_studio, warm_up

PORT = 8008


def main() -> None:
    parser = Parser(prog="python -m mscgan.web", description="Serves a page to play with a run.")
    parser.add_argument("--run", type=a_path, required=True, help="the run's folder")
    parser.add_argument("--port", type=int, default=PORT, help="of 127.0.0.1; 0: one that is free")
    parser.add_argument(
        "--estimator",
        type=path_text,
        default=ESTIMATORS[0],
        help="what finds poses: movenet, paf, or a run or weights of paf",
    )
    options = parser.parse_args()
    try:
        from mscgan.web.app import server
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("starlette", "uvicorn"):
            raise
        raise UserError(f"the page is served by {missing}, which is not here; pip install 'mscgan[web]'") from error

    trained.read_config(options.run)
    with _listen(options.port) as listening, contextlib.suppress(KeyboardInterrupt):
        torch.backends.cudnn.deterministic = True  # the same picture and pose, the same answer
        studio = open_studio(options.run, trained.load(options.run), options.estimator)
        warm_up(studio)
        for why in filter(None, (studio.no_estimator, studio.no_shards)):
            print(why, file=sys.stderr)
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/ – open it in a browser; Ctrl-C ends it", flush=True)
        server(studio).run(sockets=[listening])
    print("ended")


def _listen(port: int) -> socket.socket:
    """A socket of 127.0.0.1 that listens: nobody else gets the port while the networks are read.

    Raises:
        UserError: the port is taken, or not this user's to take.
    """
    if not 0 <= port < 65536:
        raise UserError(f"--port {port}: a port is a number from 1 to 65535, or 0 for one that is free")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was served a moment ago is free
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise UserError(f"port {port} {why}; give another with --port, or --port 0 for one that is free") from error
    return listening


if __name__ == "__main__":
    run(main)
