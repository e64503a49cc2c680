# One static program on nothing: no shell, no package manager, no user but 10001.
#
#   docker build -t recharged .               builds the program in a container
#   scripts/image                             without a daemon, with the program of scripts/release
#
# Both end in the same last layers. What the image needs besides the program: the certificates of public authorities,
# and a /tmp that its user may write to (for `recharged demo` and `orders import`; mount one where the root is read-only).

FROM scratch AS base
LABEL org.opencontainers.image.title="recharged" \
      org.opencontainers.image.description="Keeps the three-minute promise of prepaid phone recharges" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
EXPOSE 9400 9401
ENTRYPOINT ["/recharged"]

# With a root folder that lies here already; the target of scripts/image.
FROM base AS local
ARG VERSION=unversioned
ARG REVISION=unknown
LABEL org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION
COPY --chown=10001:10001 rootfs/ /

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates perl make binutils git
WORKDIR /source
COPY . .
RUN scripts/release --out /release binary && scripts/image --rootfs /rootfs --program /release/recharged

FROM base AS image
ARG VERSION=unversioned
ARG REVISION=unknown
LABEL org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION
COPY --from=build --chown=10001:10001 /rootfs/ /
