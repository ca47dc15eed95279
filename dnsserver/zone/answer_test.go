package zone

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the golden files")

// served parses a master file with the trusted parser.
func served(t testing.TB, apex, text string) *Served {
	t.Helper()
	origin := mustName(t, apex)
	sets := map[Name]map[uint16][][]byte{}
	ttls := map[Name]map[uint16]uint32{}
	zp := dns.NewZoneParser(strings.NewReader(text), dns.Fqdn(apex), apex)
	zp.SetDefaultTTL(300)
	version := Version{}
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		if soa, ok := rr.(*dns.SOA); ok {
			version.Serial = soa.Serial
			soa.Serial = 0
		}
		wire := make([]byte, dns.Len(rr)+64)
		size, err := dns.PackRR(rr, wire, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		owner, at, err := NameFromWire(wire)
		if err != nil {
			t.Fatal(err)
		}
		if sets[owner] == nil {
			sets[owner] = map[uint16][][]byte{}
			ttls[owner] = map[uint16]uint32{}
		}
		typ := rr.Header().Rrtype
		sets[owner][typ] = append(sets[owner][typ], slices.Clone(wire[at+10:size]))
		ttls[owner][typ] = rr.Header().Ttl
	}
	if err := zp.Err(); err != nil {
		t.Fatal(err)
	}
	var nodes []Node
	for owner, types := range sets {
		var rrsets []RRset
		for typ, rdata := range types {
			rrsets = append(rrsets, NewRRset(typ, ttls[owner][typ], rdata...))
		}
		nodes = append(nodes, NewNode(owner, rrsets...))
	}
	content, err := NewContent(origin, nodes)
	if err != nil {
		t.Fatal(err)
	}
	version.Digest = content.Digest()
	z, err := NewServed(content, version)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func viewOf(zones ...*Served) *View {
	v := &View{}
	v.Update(zones, nil)
	return v
}

// question makes a query of a line like dig's: NAME TYPE, then any of +do +edns=SIZE +rd +cd
// +ad +tcp class=CLASS.
func question(t testing.TB, line string) (message []byte, over Transport) {
	t.Helper()
	words := strings.Fields(line)
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: 4711}}
	typ, ok := dns.StringToType[words[1]]
	if !ok {
		n, err := strconv.ParseUint(strings.TrimPrefix(words[1], "TYPE"), 10, 16)
		if err != nil {
			t.Fatalf("question %q: no such type", line)
		}
		typ = uint16(n)
	}
	m.Question = []dns.Question{{Name: words[0], Qtype: typ, Qclass: dns.ClassINET}}
	for _, option := range words[2:] {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "+do":
			m.SetEdns0(4096, true)
		case "+edns":
			size, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				t.Fatalf("question %q: %v", line, err)
			}
			m.SetEdns0(uint16(size), false)
		case "+rd":
			m.RecursionDesired = true
		case "+cd":
			m.CheckingDisabled = true
		case "+ad":
			m.AuthenticatedData = true
		case "+tcp":
			over = TCP
		case "class":
			m.Question[0].Qclass = dns.StringToClass[value]
		default:
			t.Fatalf("question %q: no such option %q", line, option)
		}
	}
	message, err := m.Pack()
	if err != nil {
		t.Fatalf("question %q: %v", line, err)
	}
	return message, over
}

// present writes a reply like dig: rcode and flags, then the records of each section.
func present(t testing.TB, reply []byte) string {
	t.Helper()
	if reply == nil {
		return "silence\n"
	}
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		t.Fatalf("reply does not parse: %v\n%x", err, reply)
	}
	var b strings.Builder
	rcode := m.Rcode
	opt := m.IsEdns0()
	if opt != nil {
		rcode = opt.ExtendedRcode()&^0xf | m.Rcode
	}
	if rcode == dns.RcodeBadVers {
		b.WriteString("BADVERS")
	} else {
		b.WriteString(dns.RcodeToString[rcode])
	}
	for _, flag := range []struct {
		name string
		set  bool
	}{
		{"aa", m.Authoritative}, {"tc", m.Truncated}, {"rd", m.RecursionDesired}, {"ra", m.RecursionAvailable},
		{"z", m.Zero}, {"ad", m.AuthenticatedData}, {"cd", m.CheckingDisabled},
	} {
		if flag.set {
			b.WriteString(" " + flag.name)
		}
	}
	if opt != nil {
		fmt.Fprintf(&b, " edns=%d", opt.UDPSize())
		if opt.Do() {
			b.WriteString(" do")
		}
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok {
				fmt.Fprintf(&b, " ede=%d", ede.InfoCode)
			} else {
				fmt.Fprintf(&b, " option=%d", o.Option())
			}
		}
	}
	b.WriteByte('\n')
	for _, section := range []struct {
		name string
		rrs  []dns.RR
	}{{"answer", m.Answer}, {"authority", m.Ns}, {"additional", m.Extra}} {
		title := section.name + "\n"
		for _, rr := range section.rrs {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			b.WriteString(title)
			title = ""
			fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(rr.String(), "\t", " "))
		}
	}
	return b.String()
}

var client = netip.MustParseAddr("192.0.2.1")

func ask(v *View, s *Scratch, message []byte, over Transport) []byte {
	return v.Answer(s, make([]byte, 0, MaxMessage), message, client, over)
}

// TestAnswers holds the archives of testdata/answer: a rule as the comment, zones as files
// named like their apex, questions as files named like dig's command line that hold what is
// answered.
func TestAnswers(t *testing.T) {
	paths, err := filepath.Glob("testdata/answer/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sentence, _, _ := strings.Cut(string(archive.Comment), "\n")
		t.Run(sentence, func(t *testing.T) {
			v, s := &View{}, &Scratch{}
			var zones []*Served
			for i := range archive.Files {
				f := &archive.Files[i]
				if !strings.Contains(f.Name, " ") {
					zones = append(zones, served(t, f.Name, string(f.Data)))
					v.Update(zones, nil)
					continue
				}
				message, over := question(t, f.Name)
				reply := ask(v, s, message, over)
				got := present(t, reply)
				if *update {
					f.Data = []byte(got)
					continue
				}
				if diff := cmp.Diff(string(f.Data), got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", f.Name, diff)
				}
				if over == UDP && len(reply) > MaxUDP {
					t.Errorf("%s: %d octets", f.Name, len(reply))
				}
				if !bytes.Equal(message[12:len(message)-11*int(message[11])], reply[12:len(message)-11*int(message[11])]) {
					t.Errorf("%s: the question is not as it was asked", f.Name)
				}
			}
			if *update {
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
