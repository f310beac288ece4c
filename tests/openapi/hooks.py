"""What schemathesis must know of requests that no schema can say.

A request that is meant to be right is made right in these points, so that the server has to take it; one that is meant to be
wrong stays as it is. See schemathesis.toml for what cannot be made right.
"""

import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request

import schemathesis

FIRST, LAST = "1970-01-01T00:00:00Z", "9999-12-31T00:00:00Z"
# Nobody listens there: nothing leaves this machine.
WEBHOOK = "http://127.0.0.1:9/webhook"
WRITTEN_WITHIN = 5.0
# A buyer may look at orders ten times a second.
BETWEEN_LOOKS = 0.1
REVISIONS = re.compile(r'(\*|"[0-9]{1,15}"(, ?"[0-9]{1,15}")*)')
IS_BUYER = os.environ.get("SECKILL_USERNAME") != "admin"


@schemathesis.hook
def before_call(context, case, kwargs):
    # What is refused for being too often is not tried. In the other phases nearly all orders are made up.
    is_step = case.meta is not None and case.meta.phase.name.value == "stateful"
    if IS_BUYER and is_step and case.path.startswith(("/orders", "/payments")):
        time.sleep(BETWEEN_LOOKS)
    is_right = case.meta is not None and case.meta.generation.mode.is_positive
    # Schemathesis has a grammar of its own for this header, of all tags that there can be, and does not look at our pattern.
    revisions = (case.headers or {}).get("If-Match")
    if is_right and revisions is not None and not REVISIONS.fullmatch(revisions):
        case.headers["If-Match"] = "*"
    body = case.body
    if not isinstance(body, dict):
        return
    # A schema counts characters, a password's bytes are counted: of these there are as many.
    for field in ("password", "current", "new"):
        if isinstance(body.get(field), str):
            body[field] = body[field].encode("ascii", "replace").decode()
    if isinstance(body.get("url"), str) and body["url"].startswith("http"):
        body["url"] = WEBHOOK
    if not is_right:
        return
    # JSON Schema takes 3.0 for an integer, the server does not.
    for field, value in body.items():
        if isinstance(value, float) and value.is_integer():
            body[field] = int(value)
    # A sale ends after it begins, which is now if nothing is said.
    begin, end = body.get("starts_at"), body.get("ends_at")
    if isinstance(begin, str) and begin < FIRST:
        body["starts_at"] = begin = FIRST
    if isinstance(end, str) and (not isinstance(begin, str) or end <= begin):
        body["ends_at"] = LAST


@schemathesis.hook
def after_call(context, case, response):
    """Waits until a purchase has become an order: what is done to it before that is answered 503, ask again."""
    if case.method != "POST" or not case.path.startswith("/seckill/") or response.status_code != 202:
        return
    sent = response.request
    order = urllib.parse.urljoin(sent.url, response.headers["location"][0])
    until = time.monotonic() + WRITTEN_WITHIN
    while time.monotonic() < until:
        ask = urllib.request.Request(order, headers={"authorization": sent.headers["authorization"]})
        time.sleep(BETWEEN_LOOKS)
        try:
            with urllib.request.urlopen(ask, timeout=10) as reply:
                if json.load(reply)["status"] != "queued":
                    return
        except urllib.error.HTTPError as refusal:
            if refusal.code != 429:
                raise
