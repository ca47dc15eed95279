// Package images packs programs into OCI images, without a builder and without a registry, and builds those of this
// project: static binaries for amd64 and arm64, each with a list of what it is made of (SPDX). The same sources give the
// same bytes. The Dockerfile at the root of the repository makes the same images from the same files, for those who want
// another base; a test holds the two equal.
package images
