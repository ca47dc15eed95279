package zone

import "strings"

// sharing says how work is divided among threads.
type sharing struct {
	threads int
	chunk   int // octets of text that are worth to be read beside other text
	runs    int // owners that are worth to be sorted and checked beside others
}

func sharingFor(threads int) sharing { return sharing{threads, 1 << 17, 1 << 14} }

// count is into how many pieces work of the given size is cut.
func (s sharing) count(size, least int) int {
	if s.threads <= 1 {
		return 1
	}
	return max(min(4*s.threads, size/least), 1) // so many that all threads are busy to the end
}

// chunk is a part of a master file from which reading can start, if what is assumed about all
// text before it holds: that an entry starts there, and what the entries before hand on to it.
// Whether it holds shows when the part before has been read.
type chunk struct {
	start position
	carried
	end int
}

// divide cuts a master file into at most count chunks of about the same size.
func divide(text string, origin Name, count int) []chunk {
	first := newMasterReader(text, origin)
	chunks := []chunk{{start: first.position, carried: first.carried}}
	before := newMasterReader(text, origin)
	if first.at < len(text) && text[first.at] == '$' {
		before.directiveAt(first.at)
	}
	searched := first.at
	for i := 1; i < count; i++ {
		last := &chunks[len(chunks)-1]
		at := entryFrom(text, max(int(int64(len(text))*int64(i)/int64(count)), last.start.at))
		if at == len(text) {
			break
		}
		for {
			found := strings.Index(text[searched:at], "\n$")
			if found < 0 {
				break
			}
			searched += found + 1
			before.directiveAt(searched)
		}
		searched = at - 1
		last.end = at
		c := chunk{start: position{at: at, bol: at, line: last.start.line + strings.Count(text[last.start.at:at], "\n")}}
		c.origin = before.origin
		if before.directive {
			c.ttl, c.hasTTL, c.directive = before.ttl, true, true
		} else {
			c.ttlUnknown = true
		}
		chunks = append(chunks, c)
	}
	chunks[len(chunks)-1].end = len(text)
	return chunks
}

// directiveAt reads the directive that starts there, for what it hands on.
func (m *masterReader) directiveAt(at int) {
	m.position = position{at: at, bol: at, line: 1}
	if _, fault := m.entry(); fault == nil && len(m.tokens) > 0 {
		_, _ = m.readEntry(&Record{}, false) // a fault of it is reported when its chunk is read
	}
}

// entryFrom returns where the first line at or behind a place starts that looks like one of
// a record with an owner of its own, or the text's end.
func entryFrom(text string, at int) int {
	for {
		newline := strings.IndexByte(text[at:], '\n')
		if newline < 0 || at+newline+1 == len(text) {
			return len(text)
		}
		at += newline + 1
		if strings.IndexByte(" \t\r\n;()$\"", text[at]) < 0 {
			return at
		}
	}
}

// reader returns a reader at the start of the chunk.
func (c *chunk) reader(text string) *masterReader {
	return &masterReader{lexer: lexer{src: text, position: c.start}, carried: c.carried}
}

// follows reports whether what was assumed about the text before a chunk holds: before it,
// reading ended at end, with this handed on; guessed is that of the chunk's reader.
func (c *chunk) follows(end int, before carried, guessed bool) bool {
	switch {
	case end != c.start.at, before.originLost, before.origin != c.origin, before.directive != c.directive:
		return false
	case c.directive:
		return before.ttl == c.ttl
	default:
		return !guessed
	}
}

// readChunks reads a master file in chunks, several at once. For each part of the text
// it has one made by begin with an estimate of its lines: some parts are begun in vain. It returns those that count, in
// the order of the text; together they have found what one would have found in all of it.
func readChunks[T interface {
	found(*Record, *Fault)
}](text string, origin Name, s sharing, begin func(lines int) T) []T {
	chunks := divide(text, origin, s.count(len(text), s.chunk))
	readers, parts := make([]*masterReader, len(chunks)), make([]T, len(chunks))
	read := func(i int) {
		c := &chunks[i]
		readers[i], parts[i] = c.reader(text), begin(linesOf(text[c.start.at:c.end]))
		readers[i].read(c.end, func(r *Record, fault *Fault) bool {
			parts[i].found(r, fault)
			return true
		})
	}
	inParallel(s.threads, len(chunks), read)
	for i := 1; i < len(chunks); i++ {
		c, m, before := &chunks[i], readers[i], readers[i-1]
		if !c.follows(before.at, before.carried, m.guessed) {
			c.start, c.carried = before.position, before.carried
			c.end = max(c.end, before.at)
			read(i)
			continue
		}
		if m.ttlUnknown {
			m.ttl, m.hasTTL, m.ttlUnknown = before.ttl, before.hasTTL, false
		}
	}
	return parts
}

// linesOf estimates the number of lines from the first of them.
func linesOf(text string) int {
	const looked = 1 << 15
	if len(text) <= looked {
		return strings.Count(text, "\n") + 1
	}
	lines := strings.Count(text[:looked], "\n") + 1
	return lines * (len(text)/looked + 1)
}
