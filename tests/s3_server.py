"""A server that speaks S3, for tests: prints its address, ends with its standard input."""

import logging
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
# One request at a time: moto looks and writes in two steps, and S3 does both in one.
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app))
print(f"http://127.0.0.1:{server.port}", flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
