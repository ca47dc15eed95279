package steering

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Country is where a network is, by ISO 3166-1 alpha-2 and by the continents that Geo has; either may
// be empty.
type Country struct{ Code, Continent string }

// GeoTable is where clients are by country and by network operator, out of databases. It is immutable
// and shared by all records; nil knows nothing.
//
// It is made whole from the databases' networks, so that a query costs the same as one for a
// datacenter's networks. A database of half a million networks takes some 6 MiB.
type GeoTable struct {
	countries *zone.Locator
	known     []Country // of each location; the first is unknown
	operators *zone.Locator
	asns      []uint32 // of each location; the first is none of those wanted
}

// NewGeoTable makes a table of the networks of databases; nil sequences have none. Of operators only
// those in wanted are kept: what the records name (Record.ASNs).
//
// Networks may come in any order, and longer ones within others; one that is none ends it with an
// error.
func NewGeoTable(countries iter.Seq2[netip.Prefix, Country], operators iter.Seq2[netip.Prefix, uint32], wanted []uint32) (*GeoTable, error) {
	t := &GeoTable{known: []Country{{}}, asns: []uint32{0}}
	var places []zone.Place
	location := map[Country]int{{}: 0}
	if countries != nil {
		for network, c := range countries {
			c = Country{strings.ToUpper(c.Code), strings.ToUpper(c.Continent)}
			i, seen := location[c]
			if !seen {
				i = len(t.known)
				location[c] = i
				t.known = append(t.known, c)
			}
			if i >= 1<<16 {
				return nil, fmt.Errorf("database of countries has more than %d", 1<<16)
			}
			places = append(places, zone.Place{Network: network, Location: uint16(i)})
		}
	}
	var err error
	if t.countries, err = zone.NewLocator(len(t.known), places, zone.Longest); err != nil {
		return nil, fmt.Errorf("database of countries: %w", err)
	}
	places = nil
	asns := map[uint32]int{}
	for _, asn := range wanted {
		if _, seen := asns[asn]; !seen && len(t.asns) < 1<<16 {
			asns[asn] = len(t.asns)
			t.asns = append(t.asns, asn)
		}
	}
	if operators != nil {
		for network, asn := range operators {
			// Those not wanted count too: they may be within others.
			places = append(places, zone.Place{Network: network, Location: uint16(asns[asn])})
		}
	}
	if t.operators, err = zone.NewLocator(len(t.asns), places, zone.Longest); err != nil {
		return nil, fmt.Errorf("database of operators: %w", err)
	}
	return t, nil
}

// Covers reports whether the table knows of all these operators.
func (t *GeoTable) Covers(asns []uint32) bool {
	for _, asn := range asns {
		if t == nil || !slices.Contains(t.asns, asn) {
			return false
		}
	}
	return true
}

// Locate returns what is known of a client: the country, and the operator if it is one of those wanted.
func (t *GeoTable) Locate(client netip.Addr) (c Country, asn uint32) {
	if t == nil {
		return Country{}, 0
	}
	return t.known[t.countries.Locate(client)], t.asns[t.operators.Locate(client)]
}

// noGeo knows nothing.
var noGeo = func() *GeoTable {
	t, err := NewGeoTable(nil, nil, nil)
	if err != nil {
		panic(err)
	}
	return t
}()

// ASNs returns the operators that the record's pools are for.
func (r *Record) ASNs() []uint32 {
	var all []uint32
	for i := range r.Pools {
		all = append(all, r.Pools[i].Geo.ASNs...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// geoPlaces bounds how many kinds of clients the pools tell apart by geo, whatever is in a database.
func (r *Record) geoPlaces() int {
	countries, continents, operators := map[string]pools{}, map[string]pools{}, map[uint32]pools{}
	for i := range r.Pools {
		g := &r.Pools[i].Geo
		for _, c := range g.Countries {
			countries[c] |= 1 << i
		}
		for _, c := range g.Continents {
			continents[c] |= 1 << i
		}
		for _, asn := range g.ASNs {
			operators[asn] |= 1 << i
		}
	}
	return distinct(countries) * distinct(continents) * distinct(operators)
}

// distinct counts the sets of pools, and the one of no pool.
func distinct[K comparable](of map[K]pools) int {
	all := map[pools]bool{0: true}
	for _, s := range of {
		all[s] = true
	}
	return len(all)
}

// geo chooses the pool that is for the client: by operator, then by country, then by continent, then
// one that is for those that no other is for, then any. Of several it is the first in the order
// written.
type geo struct {
	dimensions []zone.Dimension
	names      []string
	orders     [][]int // of each place: position of each pool, the lowest first
}

func newGeo(r *Record, t *GeoTable) *geo {
	if t == nil {
		t = noGeo
	}
	byCountry, countries := classify(len(t.known), func(i int) [2]pools {
		var m [2]pools
		for j := range r.Pools {
			g := &r.Pools[j].Geo
			if c := t.known[i]; c.Code != "" && slices.Contains(g.Countries, c.Code) {
				m[0] |= 1 << j
			}
			if c := t.known[i]; c.Continent != "" && slices.Contains(g.Continents, c.Continent) {
				m[1] |= 1 << j
			}
		}
		return m
	})
	byOperator, operators := classify(len(t.asns), func(i int) [2]pools {
		var m [2]pools
		for j := range r.Pools {
			if i > 0 && slices.Contains(r.Pools[j].Geo.ASNs, t.asns[i]) {
				m[0] |= 1 << j
			}
		}
		return m
	})
	g := &geo{dimensions: []zone.Dimension{
		{Where: t.countries, Classes: byCountry, Count: len(countries)},
		{Where: t.operators, Classes: byOperator, Count: len(operators)},
	}}
	var others pools // for those that no other pool is for
	for j := range r.Pools {
		if r.Pools[j].Geo.empty() {
			others |= 1 << j
		}
	}
	for _, c := range countries {
		for _, o := range operators {
			g.place(r, o[0], c[0], c[1], others)
		}
	}
	return g
}

// classify puts locations into classes by what is the same for all of a class.
func classify(locations int, of func(int) [2]pools) (classes []uint16, members [][2]pools) {
	classes = make([]uint16, locations)
	index := map[[2]pools]uint16{}
	for i := range classes {
		m := of(i)
		class, seen := index[m]
		if !seen {
			class = uint16(len(members))
			index[m] = class
			members = append(members, m)
		}
		classes[i] = class
	}
	return classes, members
}

// place adds a place whose clients the sets of pools are for, the best first.
func (g *geo) place(r *Record, sets ...pools) {
	order := make([]int, len(r.Pools))
	for i := range order {
		order[i] = len(r.Pools) * len(sets)
	}
	var names []string
	for rank, set := range sets {
		for i := range order {
			if at := rank * len(r.Pools); set.has(i) && order[i] > at {
				order[i] = at
				names = append(names, r.Pools[i].Name)
			}
		}
	}
	g.names = append(g.names, strings.Join(names, ","))
	g.orders = append(g.orders, order)
}

func (g *geo) choose(place int, of []option, _ *Remembered) choice {
	best := of[0]
	for _, o := range of[1:] {
		if g.orders[place][o.pool] < g.orders[place][best.pool] {
			best = o
		}
	}
	return first(best)
}
