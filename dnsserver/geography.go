package dnsserver

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/geo"
)

// geoCheck is how often it is looked whether databases have changed.
const geoCheck = 10 * time.Second

// geography is what is known of the databases that say where clients are.
type geography struct {
	files []string
	stamp string // of the files as tried last; "": never
	good  bool   // the table in use is of these files
	again chan struct{}
}

// stampOf tells versions of files apart.
func stampOf(files []string) string {
	var b strings.Builder
	for _, path := range files {
		if info, err := os.Stat(path); err != nil {
			fmt.Fprintf(&b, "%v;", err)
		} else {
			fmt.Fprintf(&b, "%d %d;", info.ModTime().UnixNano(), info.Size())
		}
	}
	return b.String()
}

// watchGeography reads the databases, again when they change, and when records ask for operators that were not kept. What
// can't be read leaves in force what was: a name that is steered by them goes on being answered.
func (s *steerer) watchGeography(ctx context.Context) {
	if len(s.geography.files) == 0 {
		return
	}
	tick := time.NewTicker(geoCheck)
	defer tick.Stop()
	for {
		s.readGeography()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.geography.again:
		}
	}
}

// readGeography reads the databases if they, or what is wanted of them, are other than before.
func (s *steerer) readGeography() {
	s.mu.Lock()
	g := &s.geography
	var wanted []uint32
	for _, src := range s.sources {
		for _, n := range src.names {
			wanted = append(wanted, n.record.ASNs()...)
		}
	}
	stamp := stampOf(g.files)
	same := stamp == g.stamp && (!g.good || s.geo.Covers(wanted))
	g.stamp = stamp
	s.mu.Unlock()
	if same {
		return
	}
	slices.Sort(wanted)
	table, err := geo.Load(g.files, slices.Compact(wanted))
	s.mu.Lock()
	defer s.mu.Unlock()
	g.good = err == nil
	if err != nil {
		s.opts.Log.Error(err, "where clients are can't be read; what was read before stays in force")
		return
	}
	s.geo = table
	s.opts.Log.Info("read where clients are", "databases", g.files)
	s.allDirty()
	s.poke()
}
