# The images of Fingerpost, one target for each program: manager and dnsserver. It only copies what `make images` has
# built, and so needs no Go and no network:
#
#   make images
#   buildah build --platform linux/arm64 --target dnsserver -t fingerpost/dnsserver .
#
# `make images` makes the same as OCI archives without any builder. BASE is for those who must have another base.
ARG BASE=scratch

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
