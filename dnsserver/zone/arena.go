package zone

import "strings"

// An arena takes memory in blocks, each twice as large as the one before, in octets.
const arenaFirst, arenaMost = 1 << 9, 1 << 16

// arena keeps many short texts in a few blocks of memory. A block lives as long as any text
// in it: what is kept together should go together. The zero arena is empty.
type arena struct{ block strings.Builder }

// text keeps a copy of b.
func (a *arena) text(b []byte) string {
	start := a.room(len(b))
	a.block.Write(b)
	return a.block.String()[start:]
}

// record keeps rdata as an RRset has it, with its length before it.
func (a *arena) record(rdata []byte) string {
	start := a.room(2 + len(rdata))
	a.block.WriteByte(byte(len(rdata) >> 8))
	a.block.WriteByte(byte(len(rdata)))
	a.block.Write(rdata)
	return a.block.String()[start:]
}

// join keeps texts as one.
func (a *arena) join(texts []string) string {
	size := 0
	for _, t := range texts {
		size += len(t)
	}
	start := a.room(size)
	for _, t := range texts {
		a.block.WriteString(t)
	}
	return a.block.String()[start:]
}

// room makes room for one text of this size, and returns where it will start.
func (a *arena) room(size int) (start int) {
	if had := a.block.Cap(); had-a.block.Len() < size {
		a.block.Reset()
		a.block.Grow(max(size, min(max(arenaFirst, 2*had), arenaMost)))
	}
	return a.block.Len()
}
