package zone

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/tools/txtar"
)

// archives returns the zones of testdata/answer, the first of each apex, and all questions.
func archives(t testing.TB) (zones []*Served, questions [][]byte) {
	t.Helper()
	paths, err := filepath.Glob("testdata/answer/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			switch apex := f.Name; {
			case strings.Contains(apex, " "):
				message, _ := question(t, f.Name)
				questions = append(questions, message)
			case !seen[apex]:
				seen[apex] = true
				zones = append(zones, served(t, apex, string(f.Data)))
			default: // the same names again, one level deeper
				zones = append(zones, served(t, string('a'+rune(i))+"."+apex, string(f.Data)))
			}
		}
	}
	return zones, questions
}

// FuzzAnswer holds replies to what the protocol says of every reply to any octets.
func FuzzAnswer(f *testing.F) {
	zones, questions := archives(f)
	v := viewOf(zones...)
	for _, q := range questions {
		f.Add(q, false)
	}
	www := string(rawQuestion(wireWWW, TypeA, classIN))
	f.Add(packet{0, [4]uint16{1, 0, 0, 2}, []byte(www + opt("\xff\x00\x00\x02ab") + signed(classANY, tsigRData))}.bytes(), false)
	f.Add(packet{0, [4]uint16{1, 0, 0, 1}, []byte(www + opt(ednsOption(optionCookie, "12345678")+ednsOption(optionNSID, "")+ednsOption(optionSubnet, "\x00\x01\x18\x00\xc0\x00\x02")))}.bytes(), false)
	f.Add(packet{0, [4]uint16{1, 0, 0, 1}, []byte(www + opt(ednsOption(optionCookie, "1234567812345678")+ednsOption(optionKeepAlive, "")))}.bytes(), true)
	f.Add(packet{0, [4]uint16{1, 0, 0, 1}, []byte(www + opt(ednsOption(OptionState, "")+ednsOption(optionCookie, "12345678")))}.bytes(), false)
	f.Add(packet{0, [4]uint16{1, 1, 1, 1}, []byte(www + rawRecord("\xc0\x0c", TypeA, classIN, 0, "abcd") + rawRecord("\x01x\xc0\x0c", TypeA, classIN, 0, "") + opt(""))}.bytes(), true)
	f.Add(packet{0, [4]uint16{0, 0, 0, 1}, []byte(opt(ednsOption(optionCookie, "12345678")))}.bytes(), false)
	for _, z := range zones {
		v.TrustSubnets(z.Apex(), NewNetworks([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}))
	}
	s, a := &Scratch{Config: &Config{NSID: "dc-a/auth-1", Cookies: [][16]byte{{1}, {2}}}, Now: 1559731985}, &Ahead{}
	f.Fuzz(func(t *testing.T, message []byte, tcp bool) {
		over, limit := UDP, MaxUDP
		if tcp {
			over, limit = TCP, MaxMessage
		}
		v.Ahead(a, [][]byte{questions[0], message})
		prepared := v.AnswerAhead(s, a, 1, make([]byte, 0, MaxMessage), message, client, over)
		reply := ask(v, s, message, over)
		if !bytes.Equal(reply, prepared) || (reply == nil) != (prepared == nil) {
			t.Errorf("prepared, the answer is %x, else %x", prepared, reply)
		}
		if made := ask(v, &Scratch{general: true, Config: s.Config, Now: s.Now}, message, over); !bytes.Equal(reply, made) {
			t.Errorf("the answer is %x, and if nothing is ready %x", reply, made)
		}
		if reply == nil {
			if len(message) >= 12 && message[2]&0x80 == 0 {
				t.Fatal("silence to a query")
			}
			return
		}
		if message[2]&0x80 != 0 {
			t.Fatal("a reply to a response")
		}
		if len(reply) > limit {
			t.Fatalf("%d octets", len(reply))
		}
		if reply[0] != message[0] || reply[1] != message[1] {
			t.Error("another ID")
		}
		opcodeAndRD := message[2] & 0x79
		if opcodeAndRD&^1 != 0 {
			opcodeAndRD &^= 1 // RD means something in QUERY alone
		}
		if reply[2]&0x80 == 0 || reply[2]&0x79 != opcodeAndRD {
			t.Errorf("QR, opcode or RD are %x after %x", reply[2], message[2])
		}
		if reply[3]&0xe0 != 0 {
			t.Errorf("RA, Z or AD are set: %x", reply[3])
		}
		var m dns.Msg
		if err := m.Unpack(reply); err != nil {
			t.Fatalf("our own reply does not parse: %v", err)
		}
		rcode := m.Rcode
		opts := 0
		for _, rr := range m.Extra {
			if o, ok := rr.(*dns.OPT); ok {
				opts++
				rcode |= o.ExtendedRcode() &^ 0xf
			}
		}
		if opts > 1 {
			t.Error("two OPT")
		}
		if rcode != int(s.Rcode()) {
			t.Errorf("rcode %d, reported as %d", rcode, s.Rcode())
		}
		if opts == 0 && !tcp && len(reply) > 512 && m.Rcode != dns.RcodeNotAuth {
			t.Errorf("%d octets to a client without EDNS", len(reply))
		}
		if len(m.Question) == 1 && !bytes.Equal(reply[12:12+4], message[12:12+4]) {
			t.Error("the question changed")
		}
		soas := 0
		for _, rr := range m.Ns {
			if rr.Header().Rrtype == dns.TypeSOA {
				soas++
			}
		}
		switch {
		case m.Truncated:
		case rcode == dns.RcodeNameError && soas != 1:
			t.Error("NXDOMAIN without SOA (RFC 2308 §2.1)")
		case rcode == dns.RcodeSuccess && len(m.Answer) == 0 && len(m.Ns) == 0 && len(m.Question) > 0:
			t.Error("NODATA without SOA (RFC 2308 §2.2)")
		case rcode == dns.RcodeSuccess && soas == 0 && len(m.Ns) > 0 && len(m.Answer) == 0 && m.Authoritative:
			t.Error("a referral with AA (RFC 1035 §4.1.1)")
		}
		type key struct {
			name string
			typ  uint16
		}
		sets := map[key]map[string]bool{}
		ttls := map[key]uint32{}
		for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
			for _, rr := range section {
				h := rr.Header()
				if h.Rrtype == dns.TypeOPT || h.Rrtype == dns.TypeTSIG {
					continue
				}
				k := key{strings.ToLower(h.Name), h.Rrtype}
				if sets[k] == nil {
					sets[k], ttls[k] = map[string]bool{}, h.Ttl
				}
				if ttls[k] != h.Ttl {
					t.Errorf("TTLs of %v differ (RFC 2181 §5.2)", k)
				}
				if text := rr.String(); sets[k][text] {
					t.Errorf("%s comes twice", text)
				} else {
					sets[k][text] = true
				}
			}
		}
		// What we say can be asked for: the answer to the reply's question is the reply.
		if len(m.Question) == 1 && opts == 0 && rcode != dns.RcodeFormatError && rcode != dns.RcodeNotAuth {
			end := 12
			for reply[end] != 0 {
				end += int(reply[end]) + 1
			}
			clean := append([]byte(nil), reply[:end+5]...)
			clean[2] &= 0x01
			clean[3] &= 0x10
			binary.BigEndian.PutUint16(clean[4:], 1)
			clear(clean[6:12])
			if again := ask(v, &Scratch{}, clean, over); !bytes.Equal(again, reply) {
				t.Errorf("the question alone is answered %x, wanted %x", again, reply)
			}
		}
	})
}
