"""Takes webhooks and verifies them with the Standard Webhooks library.

Prints its port, then for each request a line of JSON: which of the secrets on the lines of standard input so far fit, and the document.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

secrets = []


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        fits = []
        for secret in list(secrets):
            try:
                document = Webhook(secret).verify(body, dict(self.headers.items()))
                assert document == json.loads(body)
                fits.append(secret)
            except WebhookVerificationError:
                pass
        line = {"fits": fits, "id": self.headers["webhook-id"], "document": json.loads(body)}
        print(json.dumps(line), flush=True)
        self.send_response(200 if fits else 400)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
for line in sys.stdin:
    secrets.append(line.strip())
