// Package geo reads where clients are by country and network operator from databases in the MaxMind
// format (MaxMind DB File Format Specification 2.0), which users mount.
package geo

import (
	"fmt"
	"iter"
	"net/netip"
	"os"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
)

// Load makes a table of databases: those of countries (such as GeoLite2-Country or -City), of operators
// (such as GeoLite2-ASN), or of both. Of operators it keeps those in wanted. Where several databases know
// a network equally exactly, the first counts. A file that can't be read, or is none, is an error.
//
// The files are read whole and not needed later. It takes about a second for a million networks.
func Load(files []string, wanted []uint32) (*steering.GeoTable, error) {
	all := make([]*database, 0, len(files))
	for _, path := range files {
		d, err := open(path)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	table, err := steering.NewGeoTable(
		each(all, func(r *record) (steering.Country, bool) {
			c := steering.Country{Code: r.Country.Code, Continent: r.Continent.Code}
			if c.Code == "" {
				c.Code = r.Registered.Code // of networks without a place, such as satellites'
			}
			return c, c != steering.Country{}
		}),
		each(all, func(r *record) (uint32, bool) { return r.ASN, r.ASN != 0 }),
		wanted)
	for _, d := range all {
		if d.fault != nil {
			return nil, d.fault
		}
	}
	return table, err
}

// database is one file.
type database struct {
	path   string
	reader *maxminddb.Reader
	fault  error // met on the way
}

// record is what is read of the data of a network.
type record struct {
	Country struct {
		Code string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
	Registered struct {
		Code string `maxminddb:"iso_code"`
	} `maxminddb:"registered_country"`
	Continent struct {
		Code string `maxminddb:"code"`
	} `maxminddb:"continent"`
	ASN uint32 `maxminddb:"autonomous_system_number"`
}

func open(path string) (*database, error) {
	octets, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the geo database: %w", err)
	}
	reader, err := maxminddb.OpenBytes(octets)
	if err != nil {
		return nil, fmt.Errorf("reading the geo database %s: %w", path, err)
	}
	return &database{path: path, reader: reader}, nil
}

// each yields the networks of databases for which pick finds something. A fault ends it and is kept in its
// database.
func each[V any](all []*database, pick func(*record) (V, bool)) iter.Seq2[netip.Prefix, V] {
	return func(yield func(netip.Prefix, V) bool) {
		for _, d := range all {
			if d.fault != nil || !networks(d, pick, yield) {
				return
			}
		}
	}
}

// networks yields those of one database. Most share their data with many others.
func networks[V any](d *database, pick func(*record) (V, bool), yield func(netip.Prefix, V) bool) bool {
	type found struct {
		value V
		ok    bool
	}
	known := map[uintptr]found{}
	for result := range d.reader.Networks() {
		f, seen := known[result.Offset()]
		if !seen {
			var r record
			if err := result.Decode(&r); err != nil {
				d.fault = fmt.Errorf("reading the geo database %s: %w", d.path, err)
				return false
			}
			f.value, f.ok = pick(&r)
			known[result.Offset()] = f
		}
		if f.ok && !yield(result.Prefix(), f.value) {
			return false
		}
	}
	return true
}
