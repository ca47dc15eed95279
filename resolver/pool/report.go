package pool

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// Report is what an agent tells about itself and its engine.
type Report struct {
	At            time.Time      `json:"at"`      // when it was made, by the agent's clock
	Started       time.Time      `json:"started"` // of the agent
	Engine        engine.Product `json:"engine"`
	EngineVersion string         `json:"engineVersion,omitempty"` // as the engine tells it; "": not known yet
	Version       string         `json:"version"`                 // of the agent

	Ready    bool   `json:"ready"`
	NotReady string `json:"notReady,omitempty"` // why not

	// Configuration is the Digest of the one that the engine goes by, Newest of the newest that was seen, and Refused why the
	// two differ, or why the engine does not go by what is in its files now: the complaint of the engine with file and line where it gives them, or what the configuration lacks.
	// Configuration is "" before the engine has run. While one is being applied they differ and Refused is empty.
	Configuration string               `json:"configuration,omitempty"`
	Newest        string               `json:"newest,omitempty"`
	Refused       string               `json:"refused,omitempty"`
	Pending       string               `json:"pending,omitempty"`     // what Newest waits for, as a predicate: "restarts at 12:00:00, ..."; "": nothing
	Unsupported   []engine.Unsupported `json:"unsupported,omitempty"` // of Configuration

	// Recursion is the last check of the hierarchy; nil: there is none to tell.
	Recursion *Recursion `json:"recursion,omitempty"`

	Listen []netip.AddrPort `json:"listen,omitempty"` // where clients ask over UDP and TCP
	Source []netip.Addr     `json:"source,omitempty"` // where questions to authorities come from; a family without one: the kernel chooses

	Flush Flush `json:"flush"`

	EngineDeaths uint64 `json:"engineDeaths,omitempty"` // since Started, that nobody asked for
	// Counters are what the engine counts since it started, by the words of metrics (queries, cache_hits, upstream_timeouts
	// and so on). They are some seconds old.
	Counters map[string]float64 `json:"counters,omitempty"`
}

// Recursion says whether the engine gets answers from the end of the hierarchy.
type Recursion struct {
	OK      bool    `json:"ok"`
	Why     string  `json:"why,omitempty"` // not
	Seconds float64 `json:"seconds"`       // that it took
}

// Flush says how names whose answers have changed are forgotten.
type Flush struct {
	// Notifiers are those of Pool.Notifiers that are connected, sorted. Without one, changes are not heard of.
	Notifiers []string `json:"notifiers,omitempty"`
	// NotFlushable are zones whose names the engine can't be made to forget, sorted.
	NotFlushable []engine.Name `json:"notFlushable,omitempty"`
	// Missed is when a server last told, up to an hour ago, that it does not know any more which names had changed before: zones that
	// the agent knew were forgotten, and other copies live for their TTL. Zero: none has.
	Missed time.Time `json:"missed,omitzero"`
	// Waiting is how many names have to be flushed again: authorities disagree, or some did not answer.
	Waiting int `json:"waiting,omitempty"`
	// Outcomes counts names since Report.Started, by what became of them.
	Outcomes map[string]uint64 `json:"outcomes,omitempty"`
}

// DecodeReport reads a Report. Fields of later agents are left out.
func DecodeReport(body []byte) (*Report, error) {
	r := &Report{}
	if err := json.Unmarshal(body, r); err != nil {
		return nil, err
	}
	return r, nil
}
