# The images of Fingerpost, one target for each: manager, dnsserver, resolver-unbound, resolver-knotresolver, resolver-recursor.
# It copies the programs that `make images` has built, and so needs no Go:
#
#   make images
#   buildah build --platform linux/arm64 --target dnsserver -t fingerpost/dnsserver .
#
# `make images` makes images as OCI archives without any builder. Those of manager and dnsserver are the same as from here, which
# needs no network for them. Those of resolvers hold Debian's engines and what these need; from here they hold all of DEBIAN.
# BASE and DEBIAN are for those who must have another base.
ARG BASE=scratch
ARG DEBIAN=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS manager
ARG TARGETARCH
ARG VERSION=dev
ARG REVISION=
COPY --chmod=0755 bin/images/linux-${TARGETARCH}/manager /manager
COPY --chmod=0644 bin/images/linux-${TARGETARCH}/manager.spdx.json /manager.spdx.json
LABEL org.opencontainers.image.title=fingerpost-manager \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.licenses=Apache-2.0
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/manager"]

FROM ${BASE} AS dnsserver
ARG TARGETARCH
ARG VERSION=dev
ARG REVISION=
COPY --chmod=0755 bin/images/linux-${TARGETARCH}/dnsserver /dnsserver
COPY --chmod=0644 bin/images/linux-${TARGETARCH}/dnsserver.spdx.json /dnsserver.spdx.json
LABEL org.opencontainers.image.title=fingerpost-dnsserver \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.licenses=Apache-2.0
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/dnsserver"]

FROM ${DEBIAN} AS resolver-unbound
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends unbound \
 && rm -rf /var/lib/apt/lists/*
ARG TARGETARCH
ARG VERSION=dev
ARG REVISION=
COPY --chmod=0755 bin/images/linux-${TARGETARCH}/resolver-agent /resolver-agent
LABEL org.opencontainers.image.title=fingerpost-resolver-unbound \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/resolver-agent"]

FROM ${DEBIAN} AS resolver-knotresolver
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends knot-resolver \
 && rm -rf /var/lib/apt/lists/*
ARG TARGETARCH
ARG VERSION=dev
ARG REVISION=
COPY --chmod=0755 bin/images/linux-${TARGETARCH}/resolver-agent /resolver-agent
LABEL org.opencontainers.image.title=fingerpost-resolver-knotresolver \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/resolver-agent"]

FROM ${DEBIAN} AS resolver-recursor
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends pdns-recursor \
 && rm -rf /var/lib/apt/lists/*
ARG TARGETARCH
ARG VERSION=dev
ARG REVISION=
COPY --chmod=0755 bin/images/linux-${TARGETARCH}/resolver-agent /resolver-agent
LABEL org.opencontainers.image.title=fingerpost-resolver-recursor \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/resolver-agent"]
