# The server alone: docker build -t seckill . (compose.yaml does it). Not exercised in CI, which has no Docker.
FROM rust:1.89-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
# curl is for the health check.
RUN apt-get update && apt-get install -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data seckill && mkdir /data && chown seckill /data && chmod 700 /data
COPY --from=build /src/target/release/seckill /usr/local/bin/seckill
USER seckill
WORKDIR /data
# In a container 127.0.0.1 is the container. Publish the port only where it should be seen.
ENV SECKILL__SERVER__HOST=0.0.0.0 SECKILL__EMBEDDED__DATA_DIR=/data
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD curl -fsS http://127.0.0.1:8080/readyz
ENTRYPOINT ["seckill"]
CMD ["serve"]
