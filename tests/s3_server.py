"""A server that speaks S3, for tests: prints its address, ends with its standard input.

``python s3_server.py [HOST [PORT]]``
"""

import logging
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)


class Handler(WSGIRequestHandler):
    """Clients ask before they send a body, and wait a second for a server of HTTP/1.0."""

    protocol_version = "HTTP/1.1"


# One request at a time: moto looks and writes in two steps, and S3 does both in one.
application = DomainDispatcherApplication(create_backend_app)
host, port = (*sys.argv[1:], *("127.0.0.1", "0")[len(sys.argv) - 1 :])
server = make_server(host, int(port), application, request_handler=Handler)
print(f"http://{host}:{server.port}", flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
