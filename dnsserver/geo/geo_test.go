package geo

import (
	"bytes"
	"encoding/binary"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
)

var update = flag.Bool("update", false, "write the golden files")

// writer makes a database: MaxMind DB File Format Specification 2.0.
type writer struct {
	nodes [][2]int // children: a node, -1 for none, or -2-n for data at n
	data  []byte
	at    map[string]int // where data is
}

func newWriter() *writer { return &writer{nodes: [][2]int{{-1, -1}}, at: map[string]int{}} }

// add says what is known of a network. Longer networks come after shorter ones.
func (w *writer) add(network string, value map[string]any) {
	octets := encode(value)
	offset, known := w.at[string(octets)]
	if !known {
		offset = len(w.data)
		w.at[string(octets)] = offset
		w.data = append(w.data, octets...)
	}
	p := netip.MustParsePrefix(network)
	address, bits := p.Addr().As16(), p.Bits()
	if p.Addr().Is4() {
		address = [16]byte{12: address[12], 13: address[13], 14: address[14], 15: address[15]} // below ::/96
		bits += 96
	}
	node := 0
	for i := range bits {
		side := int(address[i/8] >> (7 - i%8) & 1)
		if i == bits-1 {
			w.nodes[node][side] = -2 - offset
			return
		}
		next := w.nodes[node][side]
		if next < 0 {
			w.nodes = append(w.nodes, [2]int{next, next})
			next = len(w.nodes) - 1
			w.nodes[node][side] = next
		}
		node = next
	}
}

func (w *writer) bytes() []byte {
	var b []byte
	for _, n := range w.nodes {
		for _, child := range n {
			switch {
			case child == -1:
				child = len(w.nodes)
			case child < -1:
				child = len(w.nodes) + 16 + (-2 - child)
			}
			b = append(b, byte(child>>16), byte(child>>8), byte(child))
		}
	}
	b = append(b, make([]byte, 16)...)
	b = append(b, w.data...)
	b = append(b, "\xab\xcd\xefMaxMind.com"...)
	return append(b, encode(map[string]any{
		"node_count": uint32(len(w.nodes)), "record_size": uint16(24), "ip_version": uint16(6), "database_type": "Fingerpost-Test",
		"languages": []any{"en"}, "binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0),
		"build_epoch": uint64(1795000000), "description": map[string]any{"en": "made by the tests of Fingerpost"},
	})...)
}

func encode(v any) []byte {
	number := func(typ byte, n uint64) []byte {
		b := bytes.TrimLeft(binary.BigEndian.AppendUint64(nil, n), "\x00")
		if typ > 7 {
			return append([]byte{byte(len(b)), typ - 7}, b...)
		}
		return append([]byte{typ<<5 | byte(len(b))}, b...)
	}
	switch v := v.(type) {
	case string:
		if len(v) < 29 {
			return append([]byte{2<<5 | byte(len(v))}, v...)
		}
		return append([]byte{2<<5 | 29, byte(len(v) - 29)}, v...)
	case uint16:
		return number(5, uint64(v))
	case uint32:
		return number(6, uint64(v))
	case uint64:
		return number(9, v)
	case []any:
		b := []byte{byte(len(v)), 11 - 7}
		for _, e := range v {
			b = append(b, encode(e)...)
		}
		return b
	case map[string]any:
		b := []byte{7<<5 | byte(len(v))}
		var keys []string
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			b = append(append(b, encode(k)...), encode(v[k])...)
		}
		return b
	}
	panic("no such type")
}

func country(code, continent string) map[string]any {
	v := map[string]any{"continent": map[string]any{"code": continent}}
	if code != "" {
		v["country"] = map[string]any{"iso_code": code, "names": map[string]any{"en": "of no interest"}}
	}
	return v
}

func countries() []byte {
	w := newWriter()
	w.add("10.0.0.0/8", country("DE", "EU"))
	w.add("10.2.0.0/16", country("US", "NA"))
	w.add("10.3.0.0/16", country("", "AS"))
	w.add("10.4.0.0/16", map[string]any{"registered_country": map[string]any{"iso_code": "FR"}})
	w.add("2001:db8::/32", country("CH", "EU"))
	return w.bytes()
}

func operators() []byte {
	w := newWriter()
	w.add("10.1.0.0/16", map[string]any{"autonomous_system_number": uint32(64500), "autonomous_system_organization": "Example"})
	w.add("10.1.7.0/24", map[string]any{"autonomous_system_number": uint32(64501)})
	w.add("10.2.0.0/16", map[string]any{"autonomous_system_number": uint32(64502)})
	return w.bytes()
}

func TestLoad(t *testing.T) {
	for name, octets := range map[string][]byte{"countries.mmdb": countries(), "operators.mmdb": operators()} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, octets, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(kept, octets) {
			t.Fatalf("%s is not what the tests make: %v", path, err)
		}
	}
	table, err := Load([]string{"testdata/countries.mmdb", "testdata/operators.mmdb"}, []uint32{64500, 64502, 64599})
	if err != nil {
		t.Fatal(err)
	}
	for client, want := range map[string]struct {
		country steering.Country
		asn     uint32
	}{
		"10.1.0.1":    {steering.Country{Code: "DE", Continent: "EU"}, 64500},
		"10.1.7.1":    {steering.Country{Code: "DE", Continent: "EU"}, 0}, // of 64501, which nobody asks for
		"10.2.0.1":    {steering.Country{Code: "US", Continent: "NA"}, 64502},
		"10.3.0.1":    {steering.Country{Continent: "AS"}, 0},
		"10.4.0.1":    {steering.Country{Code: "FR"}, 0},
		"192.0.2.1":   {steering.Country{}, 0},
		"2001:db8::1": {steering.Country{Code: "CH", Continent: "EU"}, 0},
		"2001:db9::1": {steering.Country{}, 0},
	} {
		if c, asn := table.Locate(netip.MustParseAddr(client)); c != want.country || asn != want.asn {
			t.Errorf("%s is in %v of %d, wanted %v of %d", client, c, asn, want.country, want.asn)
		}
	}
	if table, err := Load(nil, nil); err != nil || table == nil {
		t.Errorf("no databases: %v", err)
	}
}

func TestLoadRefusesWhatIsNoDatabase(t *testing.T) {
	whole := countries()
	bad := map[string][]byte{"empty": nil, "text": []byte("no database"), "half": whole[len(whole)/2:]}
	// Data of a type that there is not.
	broken := bytes.Clone(whole)
	at := bytes.Index(broken, []byte("continent")) - 2
	broken[at] = 0
	broken[at+1] = 0xff
	bad["broken data"] = broken
	for sentence, octets := range bad {
		path := filepath.Join(t.TempDir(), "x.mmdb")
		if err := os.WriteFile(path, octets, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load([]string{path}, nil); err == nil {
			t.Errorf("%s: no error", sentence)
		}
	}
	if _, err := Load([]string{filepath.Join(t.TempDir(), "none.mmdb")}, nil); err == nil {
		t.Error("a file that there is not: no error")
	}
}
