package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// image is a bbolt file (format 2) as it is read without bbolt, from start to end and never
// trusting what it says: a page is taken only if it is one of those that belong to it, was
// not met before and keeps its elements inside and in order. What passes is safe to open
// with bbolt, once checkFree has passed too.
//
// The format: pages of pageSize octets, some with others behind them ("overflow"). Pages 0
// and 1 are meta pages, the valid one with the higher transaction counts. Buckets are
// B+trees of branch and leaf pages; a small bucket is one page inside the leaf element of
// its parent. Integers have the byte order of the machine.
type image struct {
	r        io.ReaderAt
	pageSize uint64
	size     uint64 // of the file in whole pages
	used     uint64 // pages from here on are not in use
	root     uint64 // page of the root bucket
	free     uint64 // first page of the list of free pages
	seen     []uint64
	flaw     error // one of the meta pages is damaged: what the other says may be older, or nil
}

const (
	imageMagic   = 0xED0CDAED
	imageVersion = 2

	headerSize  = 16 // of a page: id 8, kind 2, count 2, overflow 4
	elementSize = 16 // leaf: flags 4, pos 4, key size 4, value size 4; branch: pos 4, key size 4, page 8
	bucketSize  = 16 // root page 8, sequence 8
	metaSize    = 64
	metaSum     = 56 // where the checksum of a meta page is

	kindBranch = 0x01
	kindLeaf   = 0x02
	kindFree   = 0x10

	subBucket = 1 // flag of a leaf element

	maxDepth = 40 // of a B+tree: more than any file has
)

var order = binary.NativeEndian

// openImage reads the meta pages of a file of the given size.
func openImage(r io.ReaderAt, size int64) (*image, error) {
	var best *image
	var bestTx uint64
	var flaw error
	for i := range uint64(2) {
		im, tx, err := readMeta(r, size, i)
		switch {
		case err != nil:
			flaw = errors.Join(flaw, err)
		case best == nil || tx > bestTx:
			best, bestTx = im, tx
		}
	}
	if best == nil {
		return nil, flaw
	}
	best.flaw = flaw
	best.seen = make([]uint64, best.size/64+1)
	return best, nil
}

// readMeta reads meta page i. Where the second one is depends on the page size, which the
// first one may not tell any more: then all sizes that bbolt may have used are tried.
func readMeta(r io.ReaderAt, size int64, i uint64) (im *image, tx uint64, err error) {
	err = errors.New("file too short")
	for pageSize := uint64(512); pageSize <= 1<<16 && int64(pageSize) < size; pageSize *= 2 {
		var b [headerSize + metaSize]byte
		if _, err = r.ReadAt(b[:], int64(i*pageSize)); err != nil {
			return nil, 0, fmt.Errorf("meta page %d: %w", i, err)
		}
		meta := b[headerSize:]
		sum := fnv.New64a()
		sum.Write(meta[:metaSum])
		switch {
		case order.Uint32(meta) != imageMagic || order.Uint64(meta[metaSum:]) != sum.Sum64():
			err = fmt.Errorf("meta page %d is damaged", i)
			continue
		case order.Uint32(meta[4:]) != imageVersion:
			return nil, 0, fmt.Errorf("meta page %d is of format %d, wanted %d", i, order.Uint32(meta[4:]), imageVersion)
		case uint64(order.Uint32(meta[8:])) != pageSize:
			err = fmt.Errorf("meta page %d is damaged", i)
			continue
		}
		return &image{
			r: r, pageSize: pageSize, size: uint64(size) / pageSize,
			root: order.Uint64(meta[16:]), free: order.Uint64(meta[32:]), used: order.Uint64(meta[40:]),
		}, order.Uint64(meta[48:]), nil
	}
	return nil, 0, err
}

// claim notes that a page and those behind it belong to one owner, and to no other.
func (im *image) claim(id, overflow uint64) error {
	if id < 2 || id >= im.size || id >= im.used || overflow >= im.size-id || overflow >= im.used-id {
		return fmt.Errorf("page %d with %d behind it is outside the file", id, overflow)
	}
	for p := id; p <= id+overflow; p++ {
		if im.seen[p/64]>>(p%64)&1 == 1 {
			return fmt.Errorf("page %d belongs to two owners", p)
		}
		im.seen[p/64] |= 1 << (p % 64)
	}
	return nil
}

// page reads page id with those behind it. The kinds are those allowed.
func (im *image) page(id uint64, kinds uint16) ([]byte, error) {
	var head [headerSize]byte
	if id >= im.size {
		return nil, fmt.Errorf("page %d is outside the file", id)
	}
	if _, err := im.r.ReadAt(head[:], int64(id*im.pageSize)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	kind, overflow := order.Uint16(head[8:]), uint64(order.Uint32(head[12:]))
	if order.Uint64(head[:]) != id || kind&kinds == 0 || kind&(kind-1) != 0 {
		return nil, fmt.Errorf("page %d is not what it should be", id)
	}
	if err := im.claim(id, overflow); err != nil {
		return nil, err
	}
	b := make([]byte, (overflow+1)*im.pageSize)
	if _, err := im.r.ReadAt(b, int64(id*im.pageSize)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return b, nil
}

// walkRoot visits the elements of the root bucket as walk does.
func (im *image) walkRoot(visit func(key, value []byte, bucket bool)) error {
	return im.tree(im.root, nil, nil, 0, visit)
}

// walk visits the elements of the bucket that is the value of an element: its keys, in order,
// and values. Damaged pages are passed over; the error tells of the first of them.
// Keys and values may be kept and changed.
func (im *image) walk(bucket []byte, visit func(key, value []byte, bucket bool)) error {
	if len(bucket) < bucketSize {
		return errors.New("a bucket is cut short")
	}
	if root := order.Uint64(bucket); root != 0 {
		return im.tree(root, nil, nil, 0, visit)
	}
	inline := bucket[bucketSize:]
	if len(inline) < headerSize || order.Uint16(inline[8:]) != kindLeaf {
		return errors.New("a small bucket is damaged")
	}
	return im.leaf(inline, nil, nil, visit)
}

// tree visits the subtree of a page, the keys of which are from low on and below high; nil
// stands for no limit.
func (im *image) tree(id uint64, low, high []byte, depth int, visit func(key, value []byte, bucket bool)) error {
	b, err := im.page(id, kindBranch|kindLeaf)
	if err != nil {
		return err
	}
	count := int(order.Uint16(b[10:]))
	if order.Uint16(b[8:]) == kindLeaf {
		if err = im.leaf(b, low, high, visit); err == nil && count == 0 && depth > 0 {
			err = errors.New("it is empty")
		}
		if err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		return nil
	}
	if count == 0 || depth >= maxDepth {
		return fmt.Errorf("page %d: a branch with %d elements at depth %d", id, count, depth)
	}
	type child struct {
		key  []byte
		page uint64
	}
	children := make([]child, 0, count)
	for i := range count {
		at := headerSize + i*elementSize
		if at+elementSize > len(b) {
			return fmt.Errorf("page %d: its elements do not fit", id)
		}
		key, ok := cut(b, at, order.Uint32(b[at:]), order.Uint32(b[at+4:]))
		if !ok || !inOrder(key, low, high, i == 0) {
			return fmt.Errorf("page %d: key %d is out of place", id, i)
		}
		low = key
		children = append(children, child{key, order.Uint64(b[at+8:])})
	}
	var first error
	for i, c := range children {
		end := high
		if i+1 < len(children) {
			end = children[i+1].key
		}
		if err := im.tree(c.page, c.key, end, depth+1, visit); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// leaf visits the elements of one leaf page; of a damaged one none.
func (im *image) leaf(b []byte, low, high []byte, visit func(key, value []byte, bucket bool)) error {
	type element struct {
		key, value []byte
		bucket     bool
	}
	count := int(order.Uint16(b[10:]))
	elements := make([]element, 0, min(count, len(b)/elementSize))
	for i := range count {
		at := headerSize + i*elementSize
		if at+elementSize > len(b) {
			return errors.New("its elements do not fit")
		}
		flags, pos, keySize, valueSize := order.Uint32(b[at:]), order.Uint32(b[at+4:]), order.Uint32(b[at+8:]), order.Uint32(b[at+12:])
		key, ok := cut(b, at, pos, keySize)
		if !ok || !inOrder(key, low, high, i == 0) {
			return fmt.Errorf("key %d is out of place", i)
		}
		low = key
		value, ok := cut(b, at, pos+keySize, valueSize)
		if !ok || flags > subBucket || pos+keySize < pos {
			return fmt.Errorf("value %d is out of place", i)
		}
		elements = append(elements, element{key, value, flags == subBucket})
	}
	for _, e := range elements {
		visit(e.key, e.value, e.bucket)
	}
	return nil
}

// cut returns size octets at pos behind the start of the element at.
func cut(b []byte, at int, pos, size uint32) ([]byte, bool) {
	start, end := uint64(at)+uint64(pos), uint64(at)+uint64(pos)+uint64(size)
	if end > uint64(len(b)) {
		return nil, false
	}
	return b[start:end:end], true
}

// inOrder reports whether key is not empty, above low, or also low itself if that is no key
// of the page, and below high; nil stands for no limit.
func inOrder(key, low, high []byte, first bool) bool {
	above := bytes.Compare(key, low)
	return len(key) > 0 && (above > 0 || first && above == 0) && (high == nil || bytes.Compare(key, high) < 0)
}

// checkFree reports whether the pages that bbolt would write to next are free: no element
// was found in one of them, and none comes twice. To be called after all elements were visited.
func (im *image) checkFree() error {
	b, err := im.page(im.free, kindFree)
	if err != nil {
		return fmt.Errorf("list of free pages: %w", err)
	}
	count, at := uint64(order.Uint16(b[10:])), headerSize
	if count == 0xFFFF {
		count, at = order.Uint64(b[headerSize:]), headerSize+8
	}
	if count > uint64(len(b)-at)/8 {
		return errors.New("list of free pages: it is cut short")
	}
	last := uint64(0)
	for range count {
		id := order.Uint64(b[at:])
		at += 8
		if id <= last {
			return errors.New("list of free pages: it is not in order")
		}
		last = id
		if err := im.claim(id, 0); err != nil {
			return fmt.Errorf("list of free pages: %w", err)
		}
	}
	return nil
}
