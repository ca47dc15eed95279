package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// The file has these buckets:
//
//	zones      of each zone a bucket, by apex in wire form, with one key "n" + Name.SortKey for
//	           each owner (value: zone.AppendNode) and the key "m" (value: header)
//	index      the apex of each zone once more, so that a zone can be missed
//	state      the key "fence", and "document/" + kind for each document, so that it can be missed
//	documents  documents by kind; made with the first of them
var (
	bucketZones     = []byte("zones")
	bucketIndex     = []byte("index")
	bucketState     = []byte("state")
	bucketDocuments = []byte("documents")
	keyHeader       = []byte("m")
	keyFence        = []byte("fence")
)

const (
	keyNode     = "n"
	keyDocument = "document/"
)

// format is the first octet of headers, fences and documents.
const format = 1

// header is what is kept of a zone besides its nodes.
type header struct {
	version zone.Version
	source  string
	cluster string
	epoch   uint64 // under which the zone was written: none lower may be accepted again
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeHeader is format, serial, digest, epoch, source and cluster (each with a length of 2
// octets) and a CRC-32C over these and the apex. Integers are big-endian.
func encodeHeader(apex zone.Name, h header) []byte {
	b := binary.BigEndian.AppendUint32([]byte{format}, h.version.Serial)
	b = append(b, h.version.Digest[:]...)
	b = binary.BigEndian.AppendUint64(b, h.epoch)
	return appendSum(appendText(appendText(b, h.source), h.cluster), string(apex))
}

var errHeader = errors.New("its header is damaged")

func decodeHeader(b []byte, apex zone.Name) (header, error) {
	const fixed = 1 + 4 + len(zone.Digest{}) + 8
	b, ok := cutSum(b, string(apex))
	if !ok || len(b) < fixed || b[0] != format {
		return header{}, errHeader
	}
	h := header{version: zone.Version{Serial: binary.BigEndian.Uint32(b[1:])}, epoch: binary.BigEndian.Uint64(b[fixed-8:])}
	copy(h.version.Digest[:], b[5:])
	rest := b[fixed:]
	if h.source, rest, ok = cutText(rest); !ok {
		return header{}, errHeader
	}
	if h.cluster, rest, ok = cutText(rest); !ok || len(rest) > 0 {
		return header{}, errHeader
	}
	return h, nil
}

// encodeFence is format, epoch, cluster and a CRC-32C.
func encodeFence(f Fence) []byte {
	b := binary.BigEndian.AppendUint64([]byte{format}, f.Epoch)
	return appendSum(appendText(b, f.Cluster), string(keyFence))
}

func decodeFence(b []byte) (Fence, error) {
	b, ok := cutSum(b, string(keyFence))
	if !ok || len(b) < 9 || b[0] != format {
		return Fence{}, errors.New("the highest epoch seen is damaged")
	}
	cluster, rest, ok := cutText(b[9:])
	if !ok || len(rest) > 0 {
		return Fence{}, errors.New("the highest epoch seen is damaged")
	}
	return Fence{binary.BigEndian.Uint64(b[1:]), cluster}, nil
}

// encodeDocument is format, a digest of kind and body, and the body.
func encodeDocument(d Document) []byte {
	sum := documentSum(d)
	return append(append([]byte{format}, sum[:]...), d.Body...)
}

func decodeDocument(kind string, b []byte) (Document, error) {
	const fixed = 1 + sha256.Size
	if len(b) < fixed || b[0] != format {
		return Document{}, errors.New("it is damaged")
	}
	d := Document{Kind: kind, Body: b[fixed:]}
	if documentSum(d) != [sha256.Size]byte(b[1:fixed]) {
		return Document{}, errors.New("it is damaged")
	}
	return d, nil
}

func documentSum(d Document) [sha256.Size]byte {
	h := sha256.New()
	h.Write(appendText(nil, d.Kind))
	h.Write(d.Body)
	return [sha256.Size]byte(h.Sum(nil))
}

// maxText is the longest text that appendText takes; maxKind the longest kind of a document.
const (
	maxText = 1<<16 - 1
	maxKind = 255
)

// appendText appends a text with its length.
func appendText(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

func cutText(b []byte) (s string, rest []byte, ok bool) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return "", nil, false
	}
	end := 2 + int(binary.BigEndian.Uint16(b))
	return string(b[2:end]), b[end:], true
}

// appendSum appends the CRC-32C of b and of the salt, which keeps values from being taken for
// those of another key.
func appendSum(b []byte, salt string) []byte {
	return binary.BigEndian.AppendUint32(b, checksum(b, salt))
}

func cutSum(b []byte, salt string) ([]byte, bool) {
	at := len(b) - 4
	if at < 0 || binary.BigEndian.Uint32(b[at:]) != checksum(b[:at], salt) {
		return nil, false
	}
	return b[:at], true
}

func checksum(b []byte, salt string) uint32 {
	return crc32.Update(crc32.Checksum([]byte(salt), castagnoli), castagnoli, b)
}

// rawZone is a zone's bucket as it was read.
type rawZone struct {
	apex   zone.Name
	header []byte
	nodes  []zone.Node
	err    error // the first defect
}

// add takes in one element.
func (z *rawZone) add(key, value []byte, bucket bool) {
	switch {
	case z.err != nil:
	case bucket:
		z.err = errors.New("it has a bucket inside")
	case bytes.Equal(key, keyHeader):
		z.header = value
	default:
		n, size, err := zone.DecodeNode(value)
		switch {
		case err != nil:
			z.err = err
		case size != len(value) || len(n.RRsets) == 0 || string(key) != keyNode+n.Owner.SortKey():
			z.err = fmt.Errorf("owner %s is damaged", n.Owner)
		default:
			z.nodes = append(z.nodes, n)
		}
	}
}

// zone builds the zone and verifies it.
func (z *rawZone) zone() (Zone, header, error) {
	if z.err != nil {
		return Zone{}, header{}, z.err
	}
	h, err := decodeHeader(z.header, z.apex)
	if err != nil {
		return Zone{}, header{}, err
	}
	c, err := zone.NewContent(z.apex, z.nodes)
	if err != nil {
		return Zone{}, header{}, err
	}
	if c.Digest() != h.version.Digest {
		return Zone{}, header{}, fmt.Errorf("its digest is %.12s, wanted %.12s", c.Digest(), h.version.Digest)
	}
	return Zone{Content: c, Version: h.version, Source: h.source, Cluster: h.cluster}, h, nil
}
