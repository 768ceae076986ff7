"""What JSON Schema cannot say of this API: without it, schemathesis would take calls for valid that are not."""

import json

import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode

# Bounds that count bytes of UTF-8; the schema counts characters.
BYTES = {
    "model": 100,
    "request_id": 255,
    "external_id": 255,
    "reason": 1000,
    "payment_method": 100,
    "provider": 100,
    "provider_reference": 255,
}
SHARES = ("alert_threshold", "warning", "critical", "threshold")
METADATA_BYTES = 1024
MOST_TOKENS = 10**12

schemathesis.openapi.format("iana-time-zone", st.sampled_from(["UTC", "America/Sao_Paulo", "Asia/Kolkata"]))
schemathesis.openapi.format("email", st.uuids().map(lambda id: f"{id}@example.com"))


@schemathesis.hook
def before_call(context, case, kwargs) -> None:
    """Makes a call that fits its schema one that is valid; those that are meant to be refused stay as they are."""
    is_positive = case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE
    if not is_positive or not isinstance(case.body, dict):
        return
    body = case.body = whole(case.body)
    for part in body.get("operations", [body]):
        make_valid(part)
    headers = case.headers if case.headers is not None else {}
    if "id" in body:
        # Where the id stands twice it is the same.
        headers.pop("Idempotency-Key", None)
    elif case.operation.path.endswith("/debits") and "Idempotency-Key" not in headers:
        body["id"] = "an-id"


def make_valid(body: dict) -> None:
    """Of a call, or of an operation of a batch."""
    fit(body)
    for part in (body.get("estimate"), body.get("usage")):
        if isinstance(part, dict):
            fit(part)
            agree(body, part)
    # As it is sent: with escapes.
    if len(json.dumps(body.get("metadata", {}))) > METADATA_BYTES:
        body["metadata"] = {}
    for name in SHARES:
        # Four decimals, and no exponent.
        if name in body:
            body[name] = round(body[name], 4)
    if "warning" in body:
        body["warning"] = min(body["warning"], body["critical"])
    if body.get("direction") == "down":
        # No more than was granted.
        body["tokens"] = 1


def whole(value):
    """2.0 is an integer to JSON Schema; here whole numbers are written in digits alone."""
    if isinstance(value, dict):
        return {name: whole(member) for name, member in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fit(part: dict) -> None:
    """Cuts texts that are too long in bytes."""
    for name, most in BYTES.items():
        if isinstance(part.get(name), str):
            part[name] = part[name].encode()[:most].decode(errors="ignore")


def agree(body: dict, part: dict) -> None:
    """Members that depend on each other: one model, sums within bounds, no more cached than read."""
    if "model" in body:
        body["model"] = part.get("model", body["model"])
    output = "output_tokens" if "output_tokens" in part else "max_output_tokens"
    part[output] = min(part[output], MOST_TOKENS - part["input_tokens"])
    if "cached_input_tokens" in part:
        part["cached_input_tokens"] = min(part["cached_input_tokens"], part["input_tokens"])
