package steering

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// World is where datacenters and clients are, as all records need to know it. It is immutable. The
// zero World, or nil, has no datacenters.
type World struct {
	key         []byte
	voteTTL     time.Duration
	datacenters []Datacenter // by rank, then name
	index       map[string]int
	locator     *zone.Locator // location 0: in nobody's networks; n+1: nearest to datacenters[n]
	// near has for each location indexes of all datacenters, the nearest first, and distance the
	// inverse: how many are nearer.
	near, distance [][]int
	// dimension and by are where clients are, places the names of the locations.
	dimension []zone.Dimension
	by        *zone.Dimensions
	places    []string
	networks  uint64 // digest of what is whose
}

// Datacenter is one of the world. Names and networks are as they were given.
type Datacenter struct {
	Name     string
	Witness  bool
	Networks []netip.Prefix
}

// DefaultVoteTTL is how long a vote counts that was not renewed, unless the topology says otherwise.
const DefaultVoteTTL = 5 * time.Second

// DecodeWorld reads the document that tells of the topology.
func DecodeWorld(document []byte) (*World, error) {
	var m steeringpb.Topology
	if err := proto.Unmarshal(document, &m); err != nil {
		return nil, fmt.Errorf("topology does not decode: %w", err)
	}
	return NewWorld(&m)
}

// NewWorld reads a topology. Of two datacenters with the same network the one first in rank has it.
func NewWorld(m *steeringpb.Topology) (*World, error) {
	w := &World{key: m.GetKey(), voteTTL: DefaultVoteTTL, index: map[string]int{}}
	if ms := m.GetVoteTtl(); ms > 0 {
		w.voteTTL = time.Duration(min(ms, uint64(maxDuration/time.Millisecond))) * time.Millisecond
	}
	all := slices.Clone(m.GetDatacenters())
	slices.SortFunc(all, func(a, b *steeringpb.Datacenter) int {
		return cmp.Or(cmp.Compare(a.GetRank(), b.GetRank()), cmp.Compare(a.GetName(), b.GetName()))
	})
	if len(all) >= 1<<12 {
		return nil, fmt.Errorf("topology has %d datacenters", len(all))
	}
	var places []zone.Place
	for i, dc := range all {
		if _, known := w.index[dc.GetName()]; known || dc.GetName() == "" {
			return nil, fmt.Errorf("topology: datacenter %d has the name %q, which is empty or another's", i, dc.GetName())
		}
		w.index[dc.GetName()] = i
		d := Datacenter{Name: dc.GetName(), Witness: dc.GetWitness()}
		for _, text := range dc.GetNetworks() {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Errorf("topology: datacenter %s: %q is no network", dc.GetName(), text)
			}
			d.Networks = append(d.Networks, p)
			places = append(places, zone.Place{Network: p, Location: uint16(i + 1)})
		}
		w.datacenters = append(w.datacenters, d)
	}
	var err error
	if w.locator, err = zone.NewLocator(len(all)+1, places, zone.Longest); err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	w.order(all)
	w.dimension = []zone.Dimension{{Where: w.locator, Count: w.locator.Locations()}}
	if w.by, err = zone.NewDimensions(w.dimension...); err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	for i := range w.locator.Locations() {
		w.places = append(w.places, w.location(i))
	}
	w.networks = w.digestNetworks()
	return w, nil
}

// order works out who is near whom: the datacenter itself, then those it prefers, the rest by rank
// and name.
func (w *World) order(all []*steeringpb.Datacenter) {
	ranked := make([]int, len(all))
	for i := range ranked {
		ranked[i] = i
	}
	w.near = append(w.near, ranked)
	for i, dc := range all {
		near := []int{i}
		for _, name := range dc.GetPrefer() {
			if other, known := w.index[name]; known && !slices.Contains(near, other) {
				near = append(near, other)
			}
		}
		for _, other := range ranked {
			if !slices.Contains(near, other) {
				near = append(near, other)
			}
		}
		w.near = append(w.near, near)
	}
	for _, near := range w.near {
		distance := make([]int, len(near))
		for i, dc := range near {
			distance[dc] = i
		}
		w.distance = append(w.distance, distance)
	}
}

// nowhere is the world without datacenters.
var nowhere = func() *World {
	w, err := NewWorld(&steeringpb.Topology{})
	if err != nil {
		panic(err)
	}
	return w
}()

func (w *World) orNowhere() *World {
	if w == nil || w.locator == nil {
		return nowhere
	}
	return w
}

// Datacenters are all there are, by rank, then name.
func (w *World) Datacenters() []Datacenter { return w.orNowhere().datacenters }

// VoteTTL is how long a vote counts that was not renewed.
func (w *World) VoteTTL() time.Duration { return w.orNowhere().voteTTL }

// Near returns the names of all datacenters, the nearest to the one named first, which is itself. Of
// a datacenter that there is not, and of "", which is clients in nobody's networks, it is their rank.
func (w *World) Near(datacenter string) []string {
	w = w.orNowhere()
	location := 0
	if i, known := w.index[datacenter]; known {
		location = i + 1
	}
	names := make([]string, 0, len(w.datacenters))
	for _, i := range w.near[location] {
		names = append(names, w.datacenters[i].Name)
	}
	return names
}

// Locate returns the name of the datacenter that a client is near, "" for a client in nobody's
// networks.
func (w *World) Locate(client netip.Addr) string {
	w = w.orNowhere()
	return w.location(int(w.locator.Locate(client)))
}

func (w *World) location(i int) string {
	if i == 0 {
		return ""
	}
	return w.datacenters[i-1].Name
}

// distanceTo tells how near a location is to a datacenter: the lower the nearer. One that there is
// not is farther than all others.
func (w *World) distanceTo(location int, datacenter string) int {
	if i, known := w.index[datacenter]; known {
		return w.distance[location][i]
	}
	return len(w.datacenters)
}
