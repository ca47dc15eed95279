// Package images packs programs into OCI images, without a builder and without a registry, and builds those of this
// project for amd64 and arm64: static binaries, for resolvers with an engine from Debian's packages, each image with a list of
// what it is made of (SPDX). The same sources and packages give the same bytes. The Dockerfile at the root of the
// repository makes images from the same files for those who want another base; a test holds those without an engine equal.
package images
