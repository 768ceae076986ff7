# syntax=docker/dockerfile:1
# The service as an image: built from this checkout, run without root. Both base images are named by their exact version; to
# have the very same bytes again, put the digests in place of the tags (docker buildx imagetools inspect IMAGE).
#
#   docker build --tag cota --build-arg REVISION="$(git rev-parse HEAD)" .

ARG RUST=rust:1.95.0-bookworm
ARG DEBIAN=debian:bookworm-20260824-slim

FROM ${RUST} AS build
WORKDIR /src
# The checked queries are in .sqlx/: no database is needed to build. Debug information stays out of the program.
ENV SQLX_OFFLINE=true CARGO_INCREMENTAL=0 CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=debuginfo

# The dependencies first, as a layer of their own: it is good until Cargo.lock changes. What Cargo.toml names has to be
# there, so the crate is an empty one for now.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/service \
    && for main in src/main.rs benches/micro.rs benches/redis_cost.rs benches/service/main.rs; do echo 'fn main() {}' >"$main"; done \
    && touch src/lib.rs \
    && cargo build --release --locked --bin cota \
    && rm -rf src target/release/cota target/release/deps/*cota* target/release/.fingerprint/cota-*

COPY sqlx.toml ./
COPY .sqlx .sqlx
COPY lua lua
COPY migrations migrations
COPY src src
RUN cargo build --release --locked --bin cota

FROM ${DEBIAN}
# The authorities that sign the certificates of webhooks and identity providers.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/cota /usr/local/bin/cota
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
# In a container, the API and the metrics are for others.
ENV COTA_HTTP__LISTEN=0.0.0.0:8080 COTA_HTTP__METRICS_LISTEN=0.0.0.0:9464
EXPOSE 8080 9464
# 200 when the hot path can serve. The image has no curl; bash can ask.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
# SIGTERM drains: running calls are answered, the outbox is emptied.
STOPSIGNAL SIGTERM
ENTRYPOINT ["cota"]
CMD ["serve"]

ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Cota" \
      org.opencontainers.image.description="Per-user LLM-token quotas for high-traffic gateways" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
