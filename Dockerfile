# Build: docker build -t cloud-connect .
# Run:   docker run -p 8080:8080 -v ./project:/project -v cc-state:/project/.cloud-connect cloud-connect
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates tzdata \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /project --no-create-home cloud-connect \
    && install -d -o cloud-connect -g cloud-connect /project /project/.cloud-connect
COPY --from=build /src/target/release/cloud-connect /usr/bin/cloud-connect
USER cloud-connect
WORKDIR /project
VOLUME /project/.cloud-connect
EXPOSE 8080
# a container is reached by others: put a proxy that ends TLS in front. With --tls-cert and --tls-key instead, change the
# health check below too: it asks over plain HTTP on port 8080
ENTRYPOINT ["cloud-connect"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--behind-proxy", "--log-format", "json"]
STOPSIGNAL SIGTERM
# `readyz` through the program itself: the image holds no curl
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["cloud-connect", "health"]
