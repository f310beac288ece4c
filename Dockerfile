# The server alone: docker build -t seckill . (compose.yaml does it, and starts what it needs.)
FROM rust:1.89-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Without the bench and the demo, and without what only they need.
RUN cargo build --release --locked --no-default-features

FROM debian:bookworm-slim
# Certificates are for webhooks, payment providers and directories that it calls by https; curl is for the health check.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data seckill && mkdir /data && chown seckill:seckill /data && chmod 700 /data
COPY --from=build /src/target/release/seckill /usr/local/bin/seckill
COPY --from=build /src/LICENSE /usr/share/doc/seckill/LICENSE
USER seckill
WORKDIR /data
# In a container 127.0.0.1 is the container. Publish the port only where it should be seen.
ENV SECKILL__SERVER__HOST=0.0.0.0 SECKILL__EMBEDDED__DATA_DIR=/data
# Orders of the embedded backend. Give it a volume with a name, or they are gone with the container.
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD curl -fsS http://127.0.0.1:8080/readyz
ENTRYPOINT ["seckill"]
CMD ["serve"]
