package zone

import "encoding/binary"

// nameTable finds names that stand in the message already, for compression (RFC 1035
// §4.1.4). It is an open-addressing hash table of message offsets; names compare without
// case (RFC 1035 §2.3.3). The zero value is empty.
type nameTable struct {
	slots [nameSlots]uint16 // offset of a name in the message; 0 is free: there is the header
	added [nameSlots / 2]uint16
	count int // of added, the filled slots in order
}

const (
	nameSlots  = 512 // a power of two
	maxPointer = 1<<14 - 1
)

func (t *nameTable) reset() {
	for _, s := range t.added[:t.count] {
		t.slots[s] = 0
	}
	t.count = 0
}

// truncate forgets the names added after the first count ones. Slots are freed in the
// reverse order, which keeps the chains of the others whole.
func (t *nameTable) truncate(count int) {
	for t.count > count {
		t.count--
		t.slots[t.added[t.count]] = 0
	}
}

func (t *nameTable) add(hash uint32, offset int) {
	if offset > maxPointer || t.count == len(t.added) {
		return
	}
	i := hash % nameSlots
	for t.slots[i] != 0 {
		i = (i + 1) % nameSlots
	}
	t.slots[i] = uint16(offset)
	t.added[t.count] = uint16(i)
	t.count++
}

// find returns the offset of name in message, or 0. Name is uncompressed.
func (t *nameTable) find(hash uint32, message, name []byte) int {
	for i := hash % nameSlots; t.slots[i] != 0; i = (i + 1) % nameSlots {
		if offset := int(t.slots[i]); sameName(message, offset, name) {
			return offset
		}
	}
	return 0
}

// sameName compares name with the one at message[at:], which this package wrote: pointers
// lead backward to names.
func sameName(message []byte, at int, name []byte) bool {
	for {
		l := message[at]
		if l > MaxLabel {
			at = int(binary.BigEndian.Uint16(message[at:]) & maxPointer)
			continue
		}
		if l != name[0] {
			return false
		}
		if l == 0 {
			return true
		}
		for i := 1; i <= int(l); i++ {
			if fold(message[at+i]) != fold(name[i]) {
				return false
			}
		}
		at += int(l) + 1
		name = name[l+1:]
	}
}

func fold(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// suffixes is the labels of a name with a hash of what begins at each.
type suffixes struct {
	start [maxLabels + 1]uint8
	hash  [maxLabels + 1]uint32
	count int // without the root's
}

// read takes apart an uncompressed name, which must be well-formed.
func (s *suffixes) read(name []byte) {
	s.count = 0
	at := 0
	for ; name[at] != 0; at += int(name[at]) + 1 {
		s.start[s.count] = uint8(at)
		s.count++
	}
	h := uint32(2166136261) // FNV-1a, 32 bits
	for i := s.count - 1; i >= 0; i-- {
		from := int(s.start[i])
		for _, c := range name[from : from+1+int(name[from])] {
			h = (h ^ uint32(fold(c))) * 16777619
		}
		s.hash[i] = h
	}
}

// wellFormedName returns the size of the uncompressed name at the start of s, 0 if there is none.
func wellFormedName(s string) int {
	for at := 0; at < len(s) && at < MaxName; {
		l := int(s[at])
		if l == 0 {
			return at + 1
		}
		if l > MaxLabel {
			return 0
		}
		at += l + 1
	}
	return 0
}

// compressible tells which parts of rdata are names that may be compressed: those of the
// types of RFC 1035 and no others (RFC 3597 §4). The names come one after another, with
// so many octets before them.
func compressible(typ uint16) (before, names int) {
	switch typ {
	case TypeNS, TypeCNAME, TypePTR, 3, 4, 7, 8, 9: // MD, MF, MB, MG, MR
		return 0, 1
	case TypeSOA, 14: // MINFO
		return 0, 2
	case TypeMX:
		return 2, 1
	}
	return 0, 0
}
