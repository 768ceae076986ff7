"""What JSON Schema cannot say of this API: without it, schemathesis would take calls for valid that are not."""

import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode

# Bounds that count bytes of UTF-8; the schema counts characters.
BYTES = {"model": 100, "request_id": 255, "external_id": 255, "reason": 1000}
MOST_TOKENS = 10**12

schemathesis.openapi.format("iana-time-zone", st.sampled_from(["UTC", "America/Sao_Paulo", "Asia/Kolkata"]))
schemathesis.openapi.format("email", st.uuids().map(lambda id: f"{id}@example.com"))


def is_consistent(body: dict) -> bool:
    """Whether members agree with each other."""
    parts = [part for part in (body.get("estimate"), body.get("usage")) if isinstance(part, dict)]
    models = {part["model"] for part in [body, *parts] if "model" in part}
    if len(models) > 1:
        return False
    for part in parts:
        output = part.get("output_tokens", part.get("max_output_tokens", 0))
        if part["input_tokens"] + output > MOST_TOKENS:
            return False
        if part.get("cached_input_tokens", 0) > part["input_tokens"]:
            return False
    for part in [body, *parts]:
        if any(len(part[name].encode()) > most for name, most in BYTES.items() if name in part):
            return False
    return True


@schemathesis.hook
def before_call(context, case, kwargs) -> None:
    """An id that stands in body and header is the same in both."""
    if is_positive(case) and isinstance(case.body, dict) and "id" in case.body and case.headers:
        case.headers.pop("Idempotency-Key", None)


def is_positive(case) -> bool:
    return case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE


@schemathesis.hook
def filter_case(context, case) -> bool:
    if not is_positive(case) or not isinstance(case.body, dict):
        return True
    if case.operation.path.endswith("/debits") and "id" not in case.body:
        # The id may stand in the header instead, but has to stand somewhere.
        return "Idempotency-Key" in (case.headers or {})
    if case.operation.path.endswith("/extend") and not case.body:
        return False
    if len(str(case.body.get("metadata", "")).encode()) > 500:
        return False
    return is_consistent(case.body)
