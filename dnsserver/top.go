package dnsserver

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// topSize is how many names are counted at once. A name that has more than one in topSize of the
// queries is certainly among them.
const topSize = 1000

// topHalfLife is after how many seconds a query counts half.
const topHalfLife = 300

// topNames counts the names that are asked for most, in bounded memory: the space-saving sketch of
// Metwally, Agrawal and El Abbadi. It is a watcher of every n-th query. Counts fade, so that what it
// tells is about the last minutes.
type topNames struct {
	every  uint32
	missed atomic.Uint64 // queries that came while another was counted

	mu      sync.Mutex
	halved  int64          // Unix seconds
	total   uint64         // of all names
	entries []topEntry     // a heap: the one with the least count first
	places  map[uint64]int // of names in entries, by hash
}

type topEntry struct {
	hash  uint64
	count uint64
	error uint64 // as much of count may be of other names
	size  uint8
	name  [zone.MaxName]byte // wire form as it was asked, the first size octets
}

func newTopNames(every uint32) *topNames {
	return &topNames{every: every, entries: make([]topEntry, 0, topSize), places: make(map[uint64]int, topSize)}
}

// watch counts a query, unless another one is being counted: these are samples.
func (t *topNames) watch(x *seen) {
	hash := zone.HashQuestion(x.query)
	if hash == 0 {
		return
	}
	if !t.mu.TryLock() {
		t.missed.Add(1)
		return
	}
	defer t.mu.Unlock()
	if x.at-t.halved >= topHalfLife {
		t.fade(x.at)
	}
	t.total++
	at, known := t.places[hash]
	switch {
	case known:
		t.entries[at].count++
	case len(t.entries) < topSize:
		at = len(t.entries)
		t.entries = append(t.entries, topEntry{count: 1})
		t.name(at, hash, x.query)
		for at > 0 && t.entries[(at-1)/2].count > t.entries[at].count {
			t.swap(at, (at-1)/2)
			at = (at - 1) / 2
		}
		return
	default: // takes the place of the name that has least
		at = 0
		delete(t.places, t.entries[0].hash)
		t.entries[0].error = t.entries[0].count
		t.entries[0].count++
		t.name(0, hash, x.query)
	}
	t.down(at)
}

// name puts the name that a query asks for into an entry.
func (t *topNames) name(at int, hash uint64, query []byte) {
	e := &t.entries[at]
	e.hash = hash
	e.size = 0
	for end := header; ; end += 1 + int(query[end]) { // it has a hash: it is well-formed
		if query[end] == 0 {
			e.size = uint8(copy(e.name[:], query[header:end+1]))
			break
		}
	}
	t.places[hash] = at
}

// down moves an entry whose count has grown to its place in the heap.
func (t *topNames) down(at int) {
	for {
		least := at
		for child := 2*at + 1; child <= 2*at+2 && child < len(t.entries); child++ {
			if t.entries[child].count < t.entries[least].count {
				least = child
			}
		}
		if least == at {
			return
		}
		t.swap(at, least)
		at = least
	}
}

func (t *topNames) swap(i, j int) {
	t.entries[i], t.entries[j] = t.entries[j], t.entries[i]
	t.places[t.entries[i].hash], t.places[t.entries[j].hash] = i, j
}

// fade halves all counts. The order stays.
func (t *topNames) fade(now int64) {
	if t.halved == 0 {
		t.halved = now
		return
	}
	t.halved = now
	t.total /= 2
	for i := range t.entries {
		t.entries[i].count /= 2
		t.entries[i].error /= 2
	}
}

// topReport is what /top tells.
type topReport struct {
	Sampled uint64    `json:"sampled"` // queries in the counts
	Every   uint32    `json:"every"`   // one of so many queries is sampled
	Names   []topName `json:"names"`   // with most queries first
}

type topName struct {
	Name   string  `json:"name"`
	Count  uint64  `json:"count"`           // samples, at most
	Excess uint64  `json:"excess,omitzero"` // so many of them may be of other names
	Share  float64 `json:"share"`           // of all queries, 0 to 1
}

// report returns the first so many names.
func (t *topNames) report(most int) topReport {
	t.mu.Lock()
	entries, total := slices.Clone(t.entries), t.total
	t.mu.Unlock()
	slices.SortFunc(entries, func(a, b topEntry) int {
		return cmp.Or(cmp.Compare(b.count, a.count), slices.Compare(a.name[:a.size], b.name[:b.size]))
	})
	r := topReport{Sampled: total, Every: t.every, Names: []topName{}}
	for _, e := range entries[:min(most, len(entries))] {
		if e.count == 0 {
			break
		}
		r.Names = append(r.Names, topName{
			Name: zone.Name(e.name[:e.size]).String(), Count: e.count, Excess: e.error, Share: float64(e.count) / float64(max(total, 1)),
		})
	}
	return r
}

// ServeHTTP tells of the names that are asked for most, 20 or as many as the parameter n says.
func (t *topNames) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	most := 20
	if text := r.FormValue("n"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > topSize {
			http.Error(w, "n is to be 1 to "+strconv.Itoa(topSize), http.StatusBadRequest)
			return
		}
		most = n
	}
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(t.report(most)) // fails only if the client is gone
}
